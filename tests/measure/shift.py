"""What a context shift costs a generation, by the policy, on SmolLM2: ``make measure-shift``.

Under "schedule-independent" the inputs behind the kept ones are evaluated again, under "recorded-schedule" llama.cpp
moves their cells.
"""

import sys
from itertools import pairwise
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from typing import Any, Final

import trio
from attrs import astuple, fields, frozen

from reenact.runtime import open_runtime
from reenact.runtime.cli.default_model import installed_model
from tests.helpers.sessions import read_fields
from tests.model.scenarios import STORY, of

CONTEXTS: Final = (256, 1024)
POLICIES: Final = ("schedule-independent", "recorded-schedule")
N_SHIFTS: Final = 2
N_TRIES: Final = 3


@frozen(kw_only=True)
class Cost:
    """What one generation took, or what several did: the medians."""

    tokens_per_second: float
    """From the first token to the last."""
    between: float
    """Seconds between two tokens where nothing is shifted."""
    shifting: float
    """Seconds that a shift takes beyond that."""
    discarded: float
    """Inputs that a shift drops: for so many tokens it makes room."""

    @property
    def on_top(self) -> float:
        """What shifts add to the time of a token, in the long run: 0.1 is a tenth."""
        return self.shifting / (self.discarded * self.between)


async def generate(log: Path, policy: Any, n_ctx: int) -> None:
    """Record a generation that goes through its context again and again."""
    async with open_runtime(installed_model(), log=log, n_slots=1, n_ctx=n_ctx, determinism=policy) as runtime:
        # Each shift makes room for half of a context. The likeliest tokens repeat themselves, and so do not end.
        num_predict = n_ctx + (N_SHIFTS - 1) * n_ctx // 2
        await runtime.complete(STORY, seed=1, num_predict=num_predict, temperature=0)


def cost(log: Path) -> Cost:
    """Return what the generation of a log took."""
    lines = read_fields(log)
    drawn = [one["t"] / 1e9 for one in of(lines, "BatchDecoded") if one.get("samples", ())]
    shifted = {one["t"] / 1e9: one["discard"] for one in of(lines, "ContextShifted")}
    steps = [(after - before, before in shifted) for before, after in pairwise(drawn)]
    between = median(taken for taken, shifts in steps if not shifts)
    return Cost(
        tokens_per_second=(len(drawn) - 1) / (drawn[-1] - drawn[0]),
        between=between,
        shifting=median(taken - between for taken, shifts in steps if shifts),
        discarded=median(shifted.values()),
    )


def typical(costs: list[Cost]) -> Cost:
    """Return the median of each."""
    columns = zip(*map(astuple, costs), strict=True)
    return Cost(**{each.name: median(column) for each, column in zip(fields(Cost), columns, strict=True)})


def measured(folder: Path, n_ctx: int) -> dict[str, Cost]:
    """Measure both policies in turn, several times."""
    found: dict[str, list[Cost]] = {policy: [] for policy in POLICIES}
    for number in range(N_TRIES):
        for policy, costs in found.items():
            log = folder / f"{policy}-{n_ctx}-{number}.jsonl"
            trio.run(generate, log, policy, n_ctx)
            costs.append(cost(log))
    return {policy: typical(costs) for policy, costs in found.items()}


def main() -> int:
    """Print what a shift costs under both policies."""
    with TemporaryDirectory() as folder:
        for n_ctx in CONTEXTS:
            found = measured(Path(folder), n_ctx)
            for policy, of_one in found.items():
                print(
                    f"n_ctx {n_ctx:5,}, {policy:20}: {of_one.tokens_per_second:6.1f} tokens/s;"
                    f" {of_one.between * 1e3:5.2f} ms a token, and {of_one.shifting * 1e3:7.1f} ms a shift,"
                    f" which makes room for {of_one.discarded:.0f}: {of_one.on_top:.0%} on top"
                )
            evaluated, moved = (found[policy].tokens_per_second for policy in POLICIES)
            print(f"n_ctx {n_ctx:5,}: evaluating again has {evaluated / moved:.2f} times the speed of moving")
    return 0


if __name__ == "__main__":
    sys.exit(main())
