"""A long random load on SmolLM2, executed again row by row: ``make soak``.

It records sessions of several shapes until there are enough rows and enough of all that may go wrong, executes each
log again and compares every row. A log in which anything differs is kept, and its path printed.
"""

import argparse
import shutil
import sys
from collections.abc import Iterator
from functools import partial
from itertools import count
from pathlib import Path
from tempfile import mkdtemp
from time import monotonic
from typing import Any, Final

import trio
from attrs import frozen

from reenact.actors.metrics import Statistics
from reenact.replay.compute.alone import all_alone
from reenact.replay.compute.tier import ComputeOptions, compute_log, header_of
from reenact.replay.verdict import Verdict
from reenact.runtime.log.reader import LogFile
from tests.helpers.models.here import add_type_v, machine_with
from tests.helpers.models.load import DEEP, Shown, record, shown
from tests.helpers.models.quantizations import INSTALLED, NAMES, file_of

N_ROWS: Final = 100_000
SECONDS: Final = 1500.0
"""In which recording must be done: much more than it takes on 2 idle cores."""
WANTED: Final = {"forks": 200, "shifts": 100, "left_in_prefill": 200, "preemptions": 100, "deep_lone_rows": 1_000}
"""How much of what may go wrong there is to be in `N_ROWS` rows."""
ROWS_OF_ONE: Final = 12_500
"""Of one session."""

SHAPES: Final[tuple[dict[str, Any], ...]] = (
    {"n_slots": 8, "n_ctx": 768, "n_batch": 64},
    {"n_slots": 8, "n_ctx": 704, "n_batch": 96},
    {"n_slots": 8, "n_ctx": 256, "n_batch": 64},
    {"n_slots": 6, "n_ctx": 768, "n_batch": 128},
)
"""Settings of sessions, in turn."""


@frozen(kw_only=True)
class Session:
    """A session, as it was recorded and as it was executed again."""

    log: Path
    recorded: Shown
    verdict: Verdict

    @property
    def equal(self) -> bool:
        """Whether all that was recorded was compared, and nothing differs."""
        computed = self.verdict.computed
        compared = None if computed is None else (computed.n_rows, computed.n_tokens)
        return self.verdict.verdict == "same" and compared == (self.recorded.rows, self.recorded.tokens)

    @property
    def executed_seconds(self) -> float:
        """What the execution took in the engine."""
        return 0.0 if self.verdict.computed is None else self.verdict.computed.seconds


def say(line: str) -> None:
    """Say how it goes."""
    print(line, file=sys.stderr, flush=True)


def lacking(found: Shown, n_rows: int) -> list[str]:
    """Return what there is too little of, for so many rows."""
    wanted = {"rows": n_rows, **{name: -(-number * n_rows // N_ROWS) for name, number in WANTED.items()}}
    there = {name: getattr(found, name) for name in wanted}
    return [f"{there[name]:,} of {number:,} {name}" for name, number in wanted.items() if there[name] < number]


def recordings(folder: Path, model: Path, n_rows: int, seconds: float) -> Iterator[tuple[Path, Shown]]:
    """Record sessions until there is enough of all, or the time is over."""
    started, total = monotonic(), Shown()
    n_rows_of_one = min(ROWS_OF_ONE, -(-n_rows // len(SHAPES)))

    def enough(so_far: Statistics) -> bool:
        return so_far.n_sampled >= n_rows_of_one or monotonic() - started > seconds

    for number in count():
        log = folder / f"session-{number}.jsonl"
        trio.run(partial(record, log, model, number, enough, **SHAPES[number % len(SHAPES)]))
        found = shown(log)
        total += found
        missing = lacking(total, n_rows)
        say(f"{monotonic() - started:5.0f} s: recorded {log.name}; there are {', '.join(missing) or 'enough of all'}")
        yield log, found
        if not missing or monotonic() - started > seconds:
            return


def executed(log: Path, recorded: Shown, model: Path, *, alone: bool) -> Session:
    """Execute a session again, whole or each sequence of it alone."""
    verdict = (all_alone if alone else compute_log)(log, ComputeOptions(model=model))
    session = Session(log=log, recorded=recorded, verdict=verdict)
    say(f"executed {log.name} again: {session.verdict.verdict}")
    if not session.equal:
        say("\n".join(session.verdict.lines()))
    return session


# ---------------------------------------------------------------- what is printed


def tell(sessions: list[Session]) -> None:
    """Print all figures."""
    total = Shown()
    for session in sessions:
        of, taken = session.recorded, session.executed_seconds
        total += of
        times = (
            f"{of.seconds:.1f} s, executed again in {taken:.1f} s ({of.seconds / max(taken, 1e-9):.2f} times as fast)"
        )
        print(f"{session.log.name}: {of.rows:,} rows in {times}: {'equal' if session.equal else 'NOT EQUAL'}")
    executed_seconds = sum(session.executed_seconds for session in sessions)
    figures = {
        "rows of logits": f"{total.rows:,}",
        "tokens": f"{total.tokens:,}",
        "rows evaluated": f"{total.evaluated:,}",
        "batches": f"{total.batches:,}, of {total.parts / max(total.batches, 1):.2f} sequences",
        "sequences": f"{total.sequences:,}",
        "forks": f"{total.forks:,}",
        "beginnings found in a slot": f"{total.reuses:,}",
        "context shifts": f"{total.shifts:,}",
        "cancels in a prefill": f"{total.left_in_prefill:,}, of which {total.aborts:,} ended a batch early",
        "preemptions": f"{total.preemptions:,}",
        "paused for a reader": f"{total.pauses:,}",
        f"lone rows at {DEEP} cells or more": f"{total.deep_lone_rows:,}",
        "recorded in": f"{total.seconds:,.1f} s, without idle time",
        "executed again in": f"{executed_seconds:,.1f} s",
        "recorded / executed": f"{total.seconds / max(executed_seconds, 1e-9):.2f}",
    }
    wide = max(map(len, figures))
    with LogFile(sessions[0].log) as file:
        figures = {
            "numerics": f"V in {header_of(file).context.numerics.type_v}, by {header_of(file).determinism.policy}",
            **figures,
        }
    print(*(f"  {name:<{wide}}  {value}" for name, value in figures.items()), sep="\n")


def main() -> int:
    """Soak as asked."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=N_ROWS, help="rows of logits (default: %(default)s)")
    parser.add_argument("--seconds", type=float, default=SECONDS, help="for recording (default: %(default)s)")
    parser.add_argument(
        "--model", choices=(INSTALLED, *NAMES), default="Q4_0", help="which weights (default: %(default)s)"
    )
    parser.add_argument("--alone", action="store_true", help="execute each sequence alone, not the whole logs")
    add_type_v(parser)
    args = parser.parse_args()
    with machine_with(args.type_v):
        return soak(file_of(args.model), args.rows, args.seconds, alone=args.alone)


def soak(model: Path, n_rows: int, seconds: float, *, alone: bool) -> int:
    """Record, execute again, compare, and print; return the exit code."""
    started = monotonic()
    folder = Path(mkdtemp(prefix="soak-"))
    recorded = list(recordings(folder, model, n_rows, seconds))
    sessions = [executed(log, found, model, alone=alone) for log, found in recorded]
    tell(sessions)
    missing = lacking(sum((session.recorded for session in sessions), Shown()), n_rows)
    if all(session.equal for session in sessions):
        shutil.rmtree(folder)
    else:
        print(f"the logs are kept in {folder}")
    print(f"{monotonic() - started:,.0f} s in all; too little: {', '.join(missing) or 'nothing'}")
    return int(folder.exists() or bool(missing))


if __name__ == "__main__":
    sys.exit(main())
