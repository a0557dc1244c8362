"""What the core takes for a step, by the length of the contexts: ``make measure-core``."""

import sys
from time import perf_counter

from reenact.actors import events as e
from tests.helpers.driver import Driver

N_SLOTS, N_STEPS = 8, 300
SLOWER = 2
"""Times as long as with short contexts a step with long ones may take, on a noisy machine."""


def seconds_a_step(n_prompt: int) -> float:
    """Return what the kernel takes for one outcome of a batch in which every slot generates."""
    driver = Driver(n_slots=N_SLOTS, n_ctx=n_prompt + 2 * N_STEPS, n_batch=N_SLOTS * n_prompt)
    driver.kernel.watching = False
    numbers = [driver.receive(script=[b"a"] * 2 * N_STEPS, prompt=n_prompt) for _ in range(N_SLOTS)]
    for number in reversed(numbers):
        driver.tokenize(number)
    driver.step()
    taken = 0.0
    for _ in range(N_STEPS):
        outcome = driver.decoded()
        started = perf_counter()
        records = driver.kernel.handle(outcome)
        taken += perf_counter() - started
        (driver.planned,) = (record.event for record in records if isinstance(record.event, e.BatchPlanned))
    return taken / N_STEPS


def main() -> int:
    """Print the cost for short and long contexts."""
    costs = {n_prompt: seconds_a_step(n_prompt) for n_prompt in (10, 1_000, 8_000, 32_000)}
    for n_prompt, cost in costs.items():
        print(f"{N_SLOTS} sequences of {n_prompt:6,} inputs: {cost * 1e6:.0f} us a step")
    return int(max(costs.values()) > SLOWER * costs[10])


if __name__ == "__main__":
    sys.exit(main())
