"""What a copy of cells costs beside a row of a prefill, on SmolLM2: ``make measure-copy``.

`reenact.actors.limits.COPIED_CELLS_PER_ROW` and `PICKED_CELL` rest on it.
"""

import sys
from statistics import median
from time import perf_counter

from reenact.actors.batch import Copy, Trim
from reenact.actors.limits import COPIED_CELLS_PER_ROW
from reenact.actors.slots import copied
from reenact.runtime import LlamaEngine
from reenact.runtime.cli.default_model import installed_model
from reenact.runtime.engine.protocol import ContextSettings
from tests.helpers.engine_steps import emptied, part, step

N_CTX, N_BATCH, N_TRIES = 2048, 256, 15
LENGTHS = (32, 256, 768, 1280, 2000)


def main() -> int:
    """Print what a row costs and what copies cost, and whether the core takes them for cheaper than they are."""
    engine = LlamaEngine(installed_model())
    loaded = engine.load(ContextSettings(n_slots=8, n_ctx=N_CTX, n_batch=N_BATCH, n_threads=2))
    prompt = engine.tokenize("One word after the other. " * N_CTX).tokens[:N_CTX]
    started = perf_counter()
    step(engine, part(prompt[:N_BATCH], draw=0), trims=emptied(0))
    row = (perf_counter() - started) / N_BATCH
    print(f"a row of a prefill: {row * 1e3:.2f} ms; slots have {loaded.context.n_ctx_seq:,} cells")
    n_cells, too_cheap = N_BATCH, False
    for length in LENGTHS:
        step(engine, trims=(Trim(slot=0, length=min(length, n_cells)),))
        while n_cells < length:
            more = prompt[n_cells : min(n_cells + N_BATCH, length)]
            step(engine, part(more, position=n_cells))
            n_cells += len(more)
        n_cells = length
        plain: list[float] = []
        copies: list[float] = []
        for _ in range(N_TRIES):
            for times, to_copy in ((plain, ()), (copies, (Copy(source=0, slot=1),))):
                started = perf_counter()
                step(engine, part(prompt[:1], slot=7), trims=emptied(7), copies=to_copy)
                times.append(perf_counter() - started)
        cost = (median(copies) - median(plain)) / row
        limit = copied(length, loaded.context.n_ctx_seq) / COPIED_CELLS_PER_ROW
        too_cheap |= cost > limit + 1
        print(f"a copy of {length:5,} cells: {cost * row * 1e3:5.2f} ms, {cost:4.1f} rows; taken for {limit:4.1f}")
    engine.close()
    return int(too_cheap)


if __name__ == "__main__":
    sys.exit(main())
