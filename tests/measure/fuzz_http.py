"""Requests that nobody sends, given to the server: ``make fuzz-http``.

Most go to the application in this process, one in twenty over a socket to a whole server. What is looked for: a status
of 5xx other than 503 (and 501 where models would be changed), a traceback, a stream that fails, an answer that takes
more than 5 seconds, a log that does not replay.
"""

import argparse
import os
import signal
import sys
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import suppress
from functools import partial
from multiprocessing import Pool
from pathlib import Path
from tempfile import TemporaryDirectory
from time import perf_counter
from typing import Final

import trio
from attrs import frozen

from tests.helpers.serving import embedding_engine, scripted, served_model, serving
from tests.runtime.http.judged import Answer, ask_by_socket, faults, judged, still_serves
from tests.runtime.http.mutated import Asked, asked

_CHUNK: Final = 500
_BY_SOCKET: Final = 20
"""One chunk of so many goes over a socket."""


@frozen
class Report:
    """The results of a chunk of requests."""

    statuses: Counter[int | None]
    slowest: tuple[float, int]
    """Seconds and seed."""
    faults: tuple[tuple[int, str], ...]


def examined(first: int, folder: Path, last: int) -> Report:
    """Give a chunk of requests to one application or server.

    Args:
        first: The seed of the first one.
        folder: Where logs may lie.
        last: The seed behind that of the last request of all.
    """
    return trio.run(_examined, range(first, min(first + _CHUNK, last)), folder)


async def _examined(seeds: range, folder: Path) -> Report:
    statuses: Counter[int | None] = Counter()
    slowest, found = (0.0, 0), []
    with TemporaryDirectory(dir=folder) as own:
        by_socket = seeds.start // _CHUNK % _BY_SOCKET == _BY_SOCKET - 1
        async for request, answer, wrong in (_by_socket if by_socket else judged)(map(asked, seeds), Path(own)):
            statuses[answer.status] += bool(answer.seconds)
            slowest = max(slowest, (answer.seconds, request.seed))
            found += [(request.seed, fault) for fault in wrong]
    return Report(statuses, slowest, tuple(found))


async def _by_socket(seeded: "map[Asked]", folder: Path) -> AsyncIterator[tuple[Asked, Answer, list[str]]]:
    """Send requests to one server; it must serve as before afterwards."""
    last: Asked | None = None
    async with serving(
        scripted("m", folder, draws_from="history"), served_model("v", None, embedding_engine)
    ) as server:
        for last in seeded:
            answer = await ask_by_socket(server.port, last)
            yield last, answer, list(faults(last, answer, folder))
        if last is not None:
            yield last, Answer(200, b"", 0.0), [*server.warnings, *await still_serves(server.url)]


def _quiet() -> None:
    """Leave Ctrl-C to the parent, which prints what came so far."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)


def main() -> int:
    """Give them all, or as many as come until Ctrl-C, and print what came of it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--requests", type=int, default=100_000)
    parser.add_argument("--processes", type=int, default=os.cpu_count())
    args = parser.parse_args()
    signal.signal(signal.SIGINT, signal.default_int_handler)  # A shell may have started it without.
    statuses: Counter[int | None] = Counter()
    kinds: Counter[str] = Counter()
    slowest = (0.0, 0)
    started, last = perf_counter(), args.seed + args.requests
    with TemporaryDirectory() as folder, Pool(args.processes, _quiet) as pool:
        firsts = range(args.seed, last, _CHUNK)
        with suppress(KeyboardInterrupt):
            for report in pool.imap_unordered(partial(examined, folder=Path(folder), last=last), firsts):
                statuses += report.statuses
                slowest = max(slowest, report.slowest)
                for seed, fault in report.faults:
                    kind = fault.strip().splitlines()[-1][:100]
                    kinds[kind] += 1
                    if kinds[kind] <= 2:
                        print(f"seed {seed}: {fault}", flush=True)
                if sys.stderr.isatty():
                    print(f"\r{statuses.total():,} requests, {kinds.total()} faults", end="", file=sys.stderr)
        signal.signal(signal.SIGINT, signal.SIG_IGN)
    for kind, n in kinds.most_common():
        print(f"  {n:5} {kind}")
    for status, n in sorted(statuses.items(), key=lambda one: one[0] or 0):
        print(f"  {status or 'hung up':7} {n:7,}")
    print(f"{statuses.total():,} requests in {perf_counter() - started:.0f} s, {kinds.total()} faults;", end=" ")
    print(f"slowest {slowest[0]:.2f} s (seed {slowest[1]})")
    return 1 if kinds else 0


if __name__ == "__main__":
    sys.exit(main())
