"""What a copy of a slot costs beside a row of a prefill, on SmolLM2: ``make measure-copy``.

`reenact.actors.limits.COPIED_CELLS_PER_ROW` rests on it.
"""

import sys
from statistics import median
from time import perf_counter

from reenact.actors.events import Copy, Trim
from reenact.actors.limits import COPIED_CELLS_PER_ROW
from reenact.runtime import LlamaEngine
from reenact.runtime.engine import ContextSettings
from reenact.runtime.models import installed_model
from tests.steps import emptied, part, step

N_CTX, N_ROWS, N_TRIES = 2048, 256, 15


def main() -> int:
    """Print both costs, and how many rows a copy is worth."""
    engine = LlamaEngine(installed_model())
    engine.load(ContextSettings(n_slots=8, n_ctx=N_CTX, n_batch=N_ROWS, n_threads=2))
    prompt = engine.tokenize("One word after the other. " * N_ROWS, special=True).tokens[:N_ROWS]
    prefill: list[float] = []
    plain: list[float] = []
    copied: list[float] = []
    for _ in range(N_TRIES):
        started = perf_counter()
        step(engine, part(prompt, draw=0), trims=emptied(0))
        prefill.append(perf_counter() - started)
        for times, copies in ((plain, ()), (copied, (Copy(source=0, slot=1),))):
            started = perf_counter()
            step(engine, part(prompt[:1], position=N_ROWS, draw=0), copies=copies)
            times.append(perf_counter() - started)
            step(engine, trims=(Trim(slot=0, length=N_ROWS),))
    engine.close()
    row, copy = median(prefill) / N_ROWS, median(copied) - median(plain)
    print(f"a row of a prefill: {row * 1e3:.2f} ms")
    print(f"a copy of {N_CTX:,} cells: {copy * 1e3:.2f} ms, or {copy / row:.1f} rows")
    limit = N_CTX / COPIED_CELLS_PER_ROW
    print(f"a fork must save more than {limit:.0f} rows, {limit * row / copy:.0f} times what the copy costs")
    return int(copy > limit * row)


if __name__ == "__main__":
    sys.exit(main())
