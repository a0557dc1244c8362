"""How soon a cancel stops a prefill, on SmolLM2: ``make measure-cancel``."""

import sys
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory

import trio

from reenact.runtime import open_runtime
from reenact.runtime.cli.default_model import installed_model
from tests.helpers.sessions import read_fields
from tests.model.scenarios import RULES, WatchedEngine, of

N_TRIES = 20
N_BATCH = 512
GOAL_MS = 50


async def one_try(log: Path, *, cancel: bool) -> float:
    """Return how long after the cancel the engine had stopped, or how long the whole batch took, in milliseconds."""
    engine = WatchedEngine(installed_model())
    async with open_runtime(engine, log=log, n_ctx=768, n_slots=2, n_batch=N_BATCH) as runtime:
        with trio.CancelScope() as scope:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(_ask, runtime.complete, RULES * 8)
                await engine.begun(0)
                if cancel:
                    await trio.sleep(0.1)  # The decode is well under way, and far from its end.
                    scope.cancel()
    lines = read_fields(log)
    (start,) = of(lines, "CancelRequested") if cancel else of(lines, "BatchPlanned")[:1]
    took: int = of(lines, "BatchDecoded")[0]["t"] - start["t"]
    return took / 1e6


async def _ask(complete: object, prompt: str) -> None:
    await complete(prompt, seed=1, num_predict=1)  # type: ignore[operator]


def main() -> int:
    """Print the times from a cancel to the end of its batch."""
    with TemporaryDirectory() as folder:
        path = Path(folder)
        whole = trio.run(lambda: one_try(path / "whole.jsonl", cancel=False))
        tries = [trio.run(lambda i=i: one_try(path / f"{i}.jsonl", cancel=True)) for i in range(N_TRIES)]  # type: ignore[misc]
    late = sum(took > GOAL_MS for took in tries)
    print(f"a batch of {N_BATCH} rows: {whole:.0f} ms; from a cancel in it to its end, {N_TRIES} times:")
    print(f"median {median(tries):.1f} ms, longest {max(tries):.1f} ms; {late} later than {GOAL_MS} ms")
    return int(late > 0)


if __name__ == "__main__":
    sys.exit(main())
