"""How fast each choice of numerics is on this machine, on SmolLM2 in three types of weights: ``make measure-numerics``.

The rules that hold here:

* A process multiplies by tiles or does not, as its first model decides (`runtime.numerics`): each choice has processes
  of its own, in turn, and medians are compared.
* "V in f16" was the only choice without a schedule before 27 November 2026; "chosen" marks the one of this machine.
"""

import argparse
import json
import subprocess
import sys
from statistics import median
from time import perf_counter
from typing import Final

from reenact.actors.batch import Trim
from reenact.actors.header import Numerics, Policy
from reenact.runtime import LlamaEngine
from reenact.runtime.engine.protocol import ContextSettings
from reenact.runtime.llama.build import engine_facts
from reenact.runtime.llama.determinism.numerics import Hardware, fastest, schedule_independent
from reenact.runtime.llama.model_metadata import read_model_file
from tests.helpers.engine_steps import emptied, part, step, tokens_of
from tests.helpers.models.here import numerics_here
from tests.helpers.models.quantizations import file_of

NAMES: Final = ("Q4_0", "Q4_1", "Q4_K_M")
CHOICES: Final = ("V in f16", "V in q8_0", "fastest")
N_SLOTS, N_BATCH, N_PREFILL, N_CELLS, N_STEPS, N_TRIES = 8, 64, 1024, 300, 12, 3


def numerics_of(name: str, choice: str) -> Numerics:
    """Return what a choice means for a type of weights."""
    types = read_model_file(file_of(name), lambda _doing, _fraction: None).matrix_types
    if choice == "fastest":
        return fastest(types, Hardware())
    return schedule_independent(types, Hardware(type_v=choice.removeprefix("V in ")))


def measured(name: str, choice: str) -> dict[str, float]:
    """Return milliseconds: of a prompt, and of a step of one and of eight sequences."""
    numerics = numerics_of(name, choice)
    policy: Policy = "recorded-schedule" if choice == "fastest" else "schedule-independent"
    engine = LlamaEngine(file_of(name))
    settings = ContextSettings(
        n_slots=N_SLOTS, n_ctx=1280, n_batch=N_BATCH, n_threads=2, determinism=policy, numerics=numerics
    )
    assert engine.load(settings).context.numerics == numerics
    text = tokens_of(engine, "One word after the other, and so on to the end of the page. " * 90)

    def fill(slot: int, start: int, end: int) -> None:
        for at in range(start, end, N_BATCH):
            step(engine, part(text[at : min(at + N_BATCH, end)], sequence=slot + 1, slot=slot, position=at))

    def steps(n: int) -> float:
        step(engine, trims=tuple(Trim(slot=slot, length=N_CELLS) for slot in range(n)))
        started = perf_counter()
        for at in range(N_CELLS, N_CELLS + N_STEPS):
            inputs = text[at : at + 1]
            step(engine, *(part(inputs, sequence=i + 1, slot=i, position=at, draw=at) for i in range(n)))
        return (perf_counter() - started) / N_STEPS * 1000

    fill(0, 0, N_BATCH)
    step(engine, trims=emptied(*range(N_SLOTS)))
    started = perf_counter()
    fill(0, 0, N_PREFILL)
    prefill = (perf_counter() - started) * 1000
    for slot in range(1, N_SLOTS):
        fill(slot, 0, N_CELLS)
    found = {f"prefill of {N_PREFILL:,}": prefill, "step of 1": steps(1), "step of 8": steps(N_SLOTS)}
    engine.close()
    return found


def main() -> int:
    """Print a table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--one", nargs=2, metavar=("NAME", "CHOICE"), help="measure one, and print it as JSON")
    args = parser.parse_args()
    if args.one:
        sys.stdout.write(json.dumps(measured(*args.one)))
        return 0
    print(f"{engine_facts().cpu}: {engine_facts().system_info}")
    for name in NAMES:
        tries: dict[str, list[dict[str, float]]] = {choice: [] for choice in CHOICES}
        for _ in range(N_TRIES):
            for choice, taken in tries.items():
                command = (sys.executable, "-m", "tests.measure.numerics", "--one", name, choice)
                taken.append(json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE).stdout))
        for choice, taken in tries.items():
            found = {what: median(one[what] for one in taken) for what in taken[0]}
            told = ", ".join(f"{what} {milliseconds:7.1f} ms" for what, milliseconds in found.items())
            chosen = " (chosen)" if numerics_of(name, choice) == numerics_here(file_of(name)) else ""
            print(f"{name:7} {choice:10} {told}{chosen}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
