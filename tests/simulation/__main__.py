"""Sessions of the whole runtime in virtual time, each from one seed: ``make simulate``.

Each seed is run in two processes in which ``hash`` differs: the logs must be equal byte for byte. The first one is held
against all that must hold (`tests.simulation.judge`). For a seed that fails the seed, the commit and the command that
repeats it are printed, and its logs are kept.
"""

import argparse
import os
import shutil
import subprocess
import sys
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from random import SystemRandom
from tempfile import mkdtemp
from time import perf_counter
from traceback import format_exception
from typing import Final

from reenact.replay.render.progress import progress
from tests.helpers.arguments import positive
from tests.helpers.paths import ROOT
from tests.simulation.judge import complaints, read
from tests.simulation.world import Ran, run

STEPS: Final = 300
"""Of the engine, in a session."""
MAX_SHOWN: Final = 10
"""Complaints of a session that are told; most follow from the first."""
_SHOWN_KINDS: Final = {
    "SequencePreempted": "preemptions",
    "ContextShifted": "context shifts",
    "SequencePaused": "paused for a reader",
    "AbortRequested": "batches asked to end early",
    "DeadlineExpired": "deadlines that came",
}


def say(line: str) -> None:
    """Print a line."""
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


def commit() -> str:
    """Return the commit that is run; "-dirty" behind it where files have been changed since."""
    parsed = subprocess.run(
        ["git", "describe", "--always", "--dirty"], check=False, capture_output=True, text=True, cwd=ROOT
    )
    return parsed.stdout.strip() or "unknown"


def log_of(folder: Path, seed: int) -> Path:
    """Return where a seed's log lies."""
    return folder / f"seed-{seed}.jsonl"


def failure(seed: int, n_steps: int, log: Path, what: Iterable[str]) -> str:
    """Return what is printed of a seed that fails.

    Args:
        seed: The seed.
        n_steps: As asked.
        log: What it left.
        what: The complaints.
    """
    told = list(what)
    lines = told[:MAX_SHOWN] + ([f"and {len(told) - MAX_SHOWN:,} more"] if len(told) > MAX_SHOWN else [])
    return "\n".join(
        [
            f"FAILED: seed {seed}, {n_steps} steps, commit {commit()}",
            *(f"  {line}" for line in "\n".join(lines).splitlines()),
            f"  again: .venv/bin/python -m tests.simulation --seed {seed} --steps {n_steps}",
            f"  its log: replay show {log}",
        ]
    )


def simulated(seed: int, n_steps: int, log: Path) -> tuple[Ran | None, list[str], float]:
    """Run a seed's session and hold it against all that must hold.

    Returns:
        The session, None for one that raised; what does not hold; and the seconds of real time that it ran.
    """
    started = perf_counter()
    try:
        ran = run(seed, n_steps, log)
        seconds = perf_counter() - started
        return ran, list(complaints(ran)), seconds
    except Exception as error:  # noqa: BLE001  # whatever it is, it is a failure of this seed
        return None, ["".join(format_exception(error))], perf_counter() - started


def in_process(seeds: range, n_steps: int, folder: Path, *, hashes: int) -> int:
    """Run seeds in a process of its own, and return its exit code; nothing is judged there.

    Args:
        seeds: The seeds.
        n_steps: Of each.
        folder: For the logs; it must not exist.
        hashes: What ``PYTHONHASHSEED`` is there.
    """
    numbers = ("--seed", str(seeds.start), "--seeds", str(len(seeds)), "--steps", str(n_steps))
    command = (sys.executable, "-m", "tests.simulation", "--only-run", *numbers, "--out", str(folder.absolute()))
    environment = {**os.environ, "PYTHONHASHSEED": str(hashes)}
    return subprocess.run(command, check=False, cwd=ROOT, env=environment).returncode


class Figures:
    """What sessions amount to."""

    def __init__(self) -> None:
        self._n_sessions = self._n_steps = self._n_requests = 0
        self._virtual = self._jumped = self._real = 0.0
        self._faults: Counter[str] = Counter()
        self._ends: Counter[str] = Counter()
        self._endings: Counter[str] = Counter()
        self._kinds: Counter[str] = Counter()

    def add(self, ran: Ran, seconds: float) -> None:
        """Count a session.

        Args:
            ran: The session.
            seconds: Of real time that it ran.
        """
        self._n_sessions += 1
        self._n_steps += ran.done
        self._n_requests += len(ran.ends)
        self._virtual += ran.seconds - ran.jumped
        self._jumped += ran.jumped
        self._real += seconds
        self._faults += ran.faults
        self._ends += Counter(end.how for ends in ran.ends.values() for end in ends)
        self._endings[ran.sky.ending] += 1
        self._kinds += read(ran.log).kinds

    def lines(self) -> list[str]:
        """Return them as lines for people."""
        real = max(self._real, 1e-9)
        figures = {
            "sessions": f"{self._n_sessions:,} ({_counted(self._endings)})",
            "steps": f"{self._n_steps:,}, {self._n_steps / real:,.0f} a second",
            "requests": f"{self._n_requests:,} ({_counted(self._ends)})",
            "faults": _counted(self._faults),
            **{what: f"{self._kinds[kind]:,}" for kind, what in _SHOWN_KINDS.items()},
            "records": f"{self._kinds.total():,}",
            "simulated": f"{self._virtual:,.0f} s in {real:,.1f} s, {self._virtual / real:,.0f} hours an hour;"
            f" {self._jumped:,.0f} s were jumped over",
        }
        wide = max(map(len, figures))
        return [f"  {name:<{wide}}  {value}" for name, value in figures.items()]


def _counted(counts: Counter[str]) -> str:
    return ", ".join(f"{number:,} {what}" for what, number in counts.most_common()) or "none"


def _only_run(seeds: range, n_steps: int, folder: Path) -> int:
    """Leave the logs of seeds, for another process to compare."""
    for seed in seeds:
        try:
            run(seed, n_steps, log_of(folder, seed))
        except Exception:  # noqa: BLE001  # the other process tells of it
            log_of(folder, seed).touch()
    return 0


def _compared(seeds: range, n_steps: int, folder: Path) -> int:
    """Run seeds here and in another process, print what came of them, and return how many failed."""
    figures, failed = Figures(), set[int]()

    def tell(seed: int, what: list[str]) -> None:
        if what:
            failed.add(seed)
            say(failure(seed, n_steps, log_of(folder, seed), what))

    with progress("simulating") as show:
        for i, seed in enumerate(seeds):
            show("simulating", i / len(seeds))
            ran, what, seconds = simulated(seed, n_steps, log_of(folder, seed))
            tell(seed, what)
            if ran is not None:
                figures.add(ran, seconds)
        show("once more, in another process", 0)
        again = folder / "again"
        # Whatever our hash is, that of one of the two numbers is another.
        code = in_process(seeds, n_steps, again, hashes=1 if os.environ.get("PYTHONHASHSEED") != "1" else 2)
    for seed in seeds:
        ours, theirs = log_of(folder, seed), log_of(again, seed)
        if seed not in failed and (code or ours.read_bytes() != theirs.read_bytes()):
            tell(seed, [f"another process recorded another session: replay diff {ours} {theirs}"])
    say("\n".join(figures.lines()))
    say(f"{len(failed):,} of {len(seeds):,} failed")
    return len(failed)


def main() -> int:
    """Simulate, compare, judge, and print."""
    parser = argparse.ArgumentParser(prog="python -m tests.simulation", description=__doc__)
    parser.add_argument("--seed", type=int, help="the first seed (default: a fresh one)")
    parser.add_argument("--seeds", type=positive, default=1, help="how many, from there on (default: %(default)s)")
    parser.add_argument("--steps", type=positive, default=STEPS, help="of the engine, in each (default: %(default)s)")
    parser.add_argument("--out", type=Path, metavar="FOLDER", help="keep all logs in this new folder")
    parser.add_argument("--only-run", action="store_true", help=argparse.SUPPRESS)
    asked = parser.parse_args()
    first = SystemRandom().randrange(2**32) if asked.seed is None else asked.seed
    seeds = range(first, first + asked.seeds)
    if asked.out is None:
        folder = Path(mkdtemp(prefix="simulation-"))
    else:
        folder = asked.out
        try:
            folder.mkdir(parents=True)
        except FileExistsError:
            parser.error(f"{folder} exists already")
    if asked.only_run:
        return _only_run(seeds, asked.steps, folder)
    say(f"{len(seeds):,} from seed {first} on, {asked.steps:,} steps each, commit {commit()}; logs in {folder}")
    n_failed = _compared(seeds, asked.steps, folder)
    if asked.out is None and not n_failed:
        shutil.rmtree(folder)
    return int(bool(n_failed))


if __name__ == "__main__":
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        sys.exit(130)
