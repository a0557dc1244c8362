"""What HTTP costs, on SmolLM2: tokens a second and the time to the first token, beside the same runtime in process.

``make measure-http``. The clients are in the server's process, so what they read counts as HTTP's price too. Rates and
times are worth something on an idle machine only; the CPU's time of the loop's thread is the same on a busy one.
"""

import sys
from collections.abc import Awaitable, Callable
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from time import thread_time

import trio

from reenact.runtime import Runtime
from reenact.runtime.http import app
from reenact.runtime.http.server import answer, listening
from tests.helpers.serving import post
from tests.model.scenarios import smollm2

N_CLIENTS = 8
N_TOKENS = 64
N_ROUNDS = 8
N_FIRSTS = 30
N_COSTS = 2
LEAST_SHARE, MOST_LATER = 0.97, 5.0
"""What HTTP may cost: a share of the rate, and milliseconds to the first token."""

Pair = tuple[float, float]
Ask = Callable[[int, int], Awaitable[float]]
"""Asks with a seed for so many tokens, and returns when the first one came, on trio's clock."""


def _prompt(seed: int) -> str:
    return f"This is story number {seed}. Once upon a time"


def in_process(runtime: Runtime) -> Ask:
    """Return what asks the runtime itself."""

    async def ask(seed: int, n_tokens: int) -> float:
        first = 0.0
        async with runtime.stream(_prompt(seed), seed=seed, num_predict=n_tokens) as stream:
            async for _ in stream:
                first = first or trio.current_time()
        return first

    return ask


def over_http(port: int) -> Ask:
    """Return what asks the server on a port."""

    async def ask(seed: int, n_tokens: int) -> float:
        body = {"model": "m", "raw": True, "prompt": _prompt(seed), "options": {"seed": seed, "num_predict": n_tokens}}
        stream = await post(port, "/api/generate", body)
        first, last = 0.0, b""
        while not last.endswith(b"0\r\n\r\n"):
            part = await stream.receive_some()
            first = first or trio.current_time()
            last = (last + part)[-8:]
        await stream.aclose()
        return first

    return ask


async def rate(ask: Ask, start: int) -> float:
    """Return tokens a second of clients beside one another."""
    begun = trio.current_time()
    async with trio.open_nursery() as nursery:
        for seed in range(start, start + N_CLIENTS):
            nursery.start_soon(ask, seed, N_TOKENS)
    return N_CLIENTS * N_TOKENS / (trio.current_time() - begun)


async def cost(ask: Ask, start: int) -> float:
    """Return the microseconds that the loop's thread is busy for a token of clients beside one another."""
    begun = thread_time()
    await rate(ask, start)
    return (thread_time() - begun) * 1e6 / (N_CLIENTS * N_TOKENS)


async def first(ask: Ask, seed: int) -> float:
    """Return milliseconds from a request to its first token."""
    begun = trio.current_time()
    return (await ask(seed, 1) - begun) * 1000


async def measure(log: Path) -> tuple[list[Pair], list[Pair], list[Pair]]:
    """Return rates, times to the first token and costs: of each pair the first in process, the second over HTTP."""
    listener = listening("127.0.0.1", 0)
    port = listener.getsockname()[1]
    ending = trio.Event()
    async with smollm2(log, n_slots=N_CLIENTS) as runtime, trio.open_nursery() as nursery:

        async def serve(*, task_status: trio.TaskStatus[None]) -> None:
            await answer(app({"m": runtime}), listener, ending, warn=print, task_status=task_status)

        await nursery.start(serve)
        ways = (in_process(runtime), over_http(port))
        # Each time other prompts, so that neither way finds the other's in the cells; and each way is first in turn.
        rates = [await _pair(ways, number, lambda ask, i: rate(ask, 1000 + 100 * i)) for number in range(N_ROUNDS)]
        firsts = [await _pair(ways, number, lambda ask, i: first(ask, 9000 + i)) for number in range(N_FIRSTS)]
        costs = [await _pair(ways, number, lambda ask, i: cost(ask, 20000 + 100 * i)) for number in range(N_COSTS)]
        ending.set()
    return rates, firsts, costs


async def _pair(ways: tuple[Ask, Ask], number: int, measured: Callable[[Ask, int], Awaitable[float]]) -> Pair:
    """Return the measurements of both ways, one after the other."""
    found = [0.0, 0.0]
    for way in (0, 1) if number % 2 else (1, 0):
        found[way] = await measured(ways[way], 2 * number + way)
    return found[0], found[1]


def main() -> int:
    """Print both ways, HTTP's share of the rate, and by how much the first token comes later."""
    with TemporaryDirectory() as folder:
        rates, firsts, costs = trio.run(measure, Path(folder) / "http.jsonl")
    for way, name in enumerate(("in process", "over HTTP")):
        speed, wait = median(pair[way] for pair in rates), median(pair[way] for pair in firsts)
        print(f"{name:<10}  {speed:6.1f} tokens/s at {N_CLIENTS} clients, first token in {wait:6.1f} ms")
    share = median(over / within for within, over in rates)
    later, longer = median(over - within for within, over in firsts), median(over / within for within, over in firsts)
    print(f"over HTTP {share:.3f} of the rate (wanted: {LEAST_SHARE})")
    print(f"          {later:+.1f} ms to the first token (wanted: at most {MOST_LATER:g}), {longer:.3f} of the time")
    within, over = (median(pair[way] for pair in costs) for way in (0, 1))
    print(f"a token keeps the loop's thread busy for {within:.0f} us in process, and {over:.0f} us over HTTP")
    return 0


if __name__ == "__main__":
    sys.exit(main())
