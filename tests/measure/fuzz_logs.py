"""Damaged logs, each given to every command of ``replay``: ``make measure-fuzz_logs``.

What is looked for: an error that is not typed, a traceback, more than 2 seconds, more than 300 MB.
"""

import argparse
import os
import resource
import sys
import traceback
from collections import Counter
from collections.abc import Iterator
from functools import partial
from multiprocessing import Pool
from pathlib import Path
from tempfile import TemporaryDirectory
from time import perf_counter
from typing import Final

from attrs import frozen

from reenact.replay.cli import main as cli
from tests.replay.damaged import TYPED, Outcome, damaged, outcomes

_SECONDS, _MEGABYTES = 2.0, 300
_CHUNK: Final = 20


@frozen
class Report:
    """What came of a log."""

    seed: int
    outcomes: tuple[Outcome, ...]
    megabytes: int
    """The most that the process has held until then."""
    crash: str


def examined(seed: int, folder: Path) -> Report:
    """Run every command on a log."""
    mine = folder / f"{os.getpid()}"
    mine.mkdir(exist_ok=True)
    found: list[Outcome] = []
    crash = ""
    try:
        found += outcomes(damaged(seed, mine))
    except BaseException:  # noqa: BLE001  # whatever it is, it is a fault of this log
        crash = traceback.format_exc()
    return Report(seed, tuple(found), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024, crash)


def faults(report: Report) -> Iterator[str]:
    """Yield what is wrong with what came of a log."""
    if report.crash:
        yield report.crash
    for one in report.outcomes:
        if one.code not in TYPED:
            yield f"{one.command}: exit {one.code}: {one.printed}"
        if one.seconds > _SECONDS:
            yield f"{one.command}: {one.seconds:.2f} s"


def _with_tracebacks() -> None:
    """Print the traceback of an error that is not a typed one."""
    told = cli._failed

    def failed(path: str, error: Exception) -> int:
        code = told(path, error)
        if code not in TYPED:
            traceback.print_exception(error, limit=-4)
        return code

    cli._failed = failed


def main() -> int:
    """Give them all to all, and print what came of it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--logs", type=int, default=20_000)
    parser.add_argument("--processes", type=int, default=os.cpu_count())
    args = parser.parse_args()
    verdicts: Counter[tuple[str, int]] = Counter()
    kinds: Counter[str] = Counter()
    slowest, largest, n_faults = (0.0, 0, ""), (0, 0), 0
    started = perf_counter()
    with TemporaryDirectory() as folder, Pool(args.processes, _with_tracebacks) as pool:
        seeds = range(args.seed, args.seed + args.logs)
        for done, report in enumerate(pool.imap_unordered(partial(examined, folder=Path(folder)), seeds, _CHUNK), 1):
            for fault in faults(report):
                n_faults += 1
                kind = fault.strip().splitlines()[-1][:100]
                kinds[kind] += 1
                if kinds[kind] < 3:
                    print(f"seed {report.seed}: {fault}", flush=True)
            for one in report.outcomes:
                verdicts[one.command.split()[0], one.code] += 1
                slowest = max(slowest, (one.seconds, report.seed, one.command))
            largest = max(largest, (report.megabytes, report.seed))
            if sys.stderr.isatty() and done % 100 == 0:
                print(f"\r{done:,} logs, {n_faults} faults", end="", file=sys.stderr)
    for kind, n in kinds.most_common():
        print(f"  {n:5} {kind}")
    for (command, code), n in sorted(verdicts.items()):
        print(f"  {command:8} {TYPED.get(code, f'exit {code}'):22} {n:7,}")
    seconds, seed, command = slowest
    print(f"{args.logs:,} logs in {perf_counter() - started:.0f} s; slowest {seconds:.2f} s ({command}, seed {seed});")
    print(f"largest {largest[0]} MB (seed {largest[1]}); {n_faults} faults")
    return 1 if n_faults or largest[0] > _MEGABYTES else 0


if __name__ == "__main__":
    sys.exit(main())
