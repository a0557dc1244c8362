"""Ten million steps of the core at random, held against every rule: ``make soak-core``.

A step is a plan and its outcome. Sessions run from the seeds 0, 1, 2 and so on, on every core. What is done is kept in
a file, and the next run goes on from there. A session in which a rule does not hold, an actor raises, or somebody does
not end, is told with its seed, and its log is kept.
"""

import argparse
import gc
import os
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import count
from multiprocessing import get_context
from multiprocessing.connection import Connection, wait
from pathlib import Path
from tempfile import mkdtemp
from threading import Event
from time import monotonic, process_time
from typing import Final

from attrs import evolve as changed
from attrs import frozen

from reenact.actors import events as e
from reenact.actors.errors import description
from reenact.actors.kernel import Kernel
from reenact.replay.check.report import check_log
from reenact.replay.testing.kernel import FACT_TIME
from reenact.runtime.log.writer import Journal
from tests.helpers.arguments import positive
from tests.helpers.paths import ROOT
from tests.measure.soak_figures import Counting, Figures, median
from tests.measure.soak_session import Play, TimedKernel
from tests.measure.soak_state import OtherCode, State

N_STEPS: Final = 10_000_000
ACTIVE: Final = 4
"""Sequences with rows in a batch, in the median."""
MINUTES: Final = 240.0
"""Much more than it takes on 2 idle cores."""
STEPS_OF_ONE: Final = 4_000
"""Of one session."""
BARE: Final = 16
"""One session of so many is given to a kernel without rules, too."""
SECONDS_OF_ONE: Final = 60.0
"""Of a core, that a session may take: some ten times as long as one does. A kernel can go round in circles."""
PATIENCE: Final = 0.5
"""Seconds within which an interrupt is noticed."""
SECONDS_A_LINE: Final = 60.0
"""Between two lines that say how it goes, where they do not replace each other."""


@frozen(kw_only=True)
class Found:
    """A session that is not as it should be."""

    seed: int
    complaint: str
    log: Path

    def lines(self) -> list[str]:
        """Return what is told of it."""
        # What the last fact owes is no violation of a log that may have been cut short there.
        command = "check" if check_log(self.log).violations else "show"
        return [
            f"seed {self.seed}:",
            *self.complaint.splitlines(),
            f"its log is {self.log}: replay {command} {self.log}",
            f"once more: python -m tests.measure.soak_core --seed {self.seed}",
        ]


# ---------------------------------------------------------------- one session


def run_session(seed: int, n_steps: int) -> Figures | Found:
    """Play a session, and return what it comes to, or what is wrong."""
    started = process_time()
    play = Play(seed)
    try:
        with bounded():
            play.run(n_steps)
    except AssertionError as error:
        return Found(seed=seed, complaint=str(error), log=log_of(play.session, seed))
    except Exception as error:  # noqa: BLE001  # whatever is raised, it is told
        return Found(seed=seed, complaint=f"raised {description(error)}", log=log_of(play.session, seed))
    seconds, records = process_time() - started, play.session.records
    counting = Counting()
    for record in records:
        counting.add(record)
    figures = counting.figures(seconds=seconds, checked_seconds=play.session.seconds)
    if seed % BARE:
        return figures
    started, again = process_time(), repeated(records)
    bare_seconds = process_time() - started
    if again != records:
        return Found(seed=seed, complaint="decided otherwise a second time", log=log_of(play.session, seed))
    return changed(figures, bare_steps=figures.steps, bare_seconds=bare_seconds)


@contextmanager
def bounded() -> Iterator[None]:
    """Raise an error in the block when it has taken too long."""

    def over(*_: object) -> None:
        raise AssertionError(f"the session has not ended after {SECONDS_OF_ONE:.0f} seconds of a core")

    before = signal.signal(signal.SIGVTALRM, over)
    signal.setitimer(signal.ITIMER_VIRTUAL, SECONDS_OF_ONE)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_VIRTUAL, 0)
        signal.signal(signal.SIGVTALRM, before)


def repeated(records: list[e.Record]) -> list[e.Record]:
    """Return what follows from the facts among these records."""
    kernel = Kernel()
    return [one for record in records if record.cause is None for one in kernel.handle(record.event)]  # type: ignore[arg-type]  # it has no cause, so it is given


def log_of(session: TimedKernel, seed: int) -> Path:
    """Write down a session, and the fact that the kernel could not take, if there is one."""
    path = Path(mkdtemp(prefix="soak-core-")) / f"seed-{seed}.jsonl"
    records = list(session.records)
    facts = [at for at, record in enumerate(records) if record.cause is None]
    if session.last is not None and records[facts[-1]].event is not session.last:
        facts.append(len(records))
        records.append(e.Record(len(records), session.last, None))
    journal = Journal(path)
    for number, (begin, end) in enumerate(zip(facts, [*facts[1:], len(records)], strict=True)):
        journal.append(records[begin:end], number * FACT_TIME)
    journal.close()
    return path


# ---------------------------------------------------------------- all of them


def work(tasks: Connection) -> None:
    """Play the sessions that are asked for, until nobody asks."""
    # Whoever interrupts the others waits for this one.
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)
    os.nice(10)
    # Nothing here refers to itself, and looking for that takes longer with every record.
    gc.disable()
    while True:
        try:
            seed, n_steps = tasks.recv()
        except EOFError:
            return
        tasks.send(run_session(seed, n_steps))
        gc.collect()


class Soak:
    """Hands sessions out to processes, and keeps what they come to.

    Args:
        state: What is done.
        n_steps: So many in all.
        seconds: In which no more sessions are begun.
        n_processes: How many play at a time.
        steps_of_one: Of one session.
    """

    def __init__(
        self, state: State, *, n_steps: int, seconds: float, n_processes: int, steps_of_one: int = STEPS_OF_ONE
    ) -> None:
        self.state = state
        self.found: Found | None = None
        self._n_steps, self._steps_of_one = n_steps, steps_of_one
        self._seconds, self._n_processes = seconds, n_processes
        self._began, self._told = monotonic(), monotonic()
        self._seeds = (seed for seed in count() if seed not in state.seeds)
        self._playing: dict[Connection, int] = {}
        """The seed of each process that plays."""

    def run(self) -> None:
        """Play until there are enough steps, the time is over, something is wrong, or somebody interrupts."""
        context = get_context("spawn")
        processes = []
        with stopping() as stop:
            for _ in range(self._n_processes):
                ours, theirs = context.Pipe()
                processes.append(context.Process(target=work, args=(theirs,), daemon=True))
                processes[-1].start()
                theirs.close()
                self._hand_out(ours, stop)
            while self._playing and self.found is None:
                for one in wait([*self._playing], PATIENCE):
                    assert isinstance(one, Connection)
                    self._take(one)
                    self._hand_out(one, stop)
                self._tell()
        if self.found is not None:
            for process in processes:
                process.kill()
        if sys.stderr.isatty():
            print(file=sys.stderr)

    def _hand_out(self, process: Connection, stop: Event) -> None:
        enough = self.state.figures.steps >= self._n_steps or monotonic() - self._began > self._seconds
        if enough or stop.is_set() or self.found is not None:
            process.close()
            return
        self._playing[process] = next(self._seeds)
        process.send((self._playing[process], self._steps_of_one))

    def _take(self, process: Connection) -> None:
        seed = self._playing.pop(process)
        try:
            came: Figures | Found = process.recv()
        except EOFError:
            raise SystemExit(f"the process that played seed {seed} died") from None
        if isinstance(came, Found):
            self.found = self.found or came
        else:
            self.state.add(seed, came)

    def _tell(self) -> None:
        """Say how it goes: on a terminal in place, else now and then."""
        now, terminal = monotonic(), sys.stderr.isatty()
        if now - self._told < (PATIENCE if terminal else SECONDS_A_LINE):
            return
        self._told = now
        of = self.state.figures
        line = f"{now - self._began:,.0f} s: {of.steps:,} of {self._n_steps:,} steps, {speed(of.steps, of.seconds)}"
        print(f"\r{line} " if terminal else line, end="" if terminal else "\n", file=sys.stderr, flush=True)


@contextmanager
def stopping() -> Iterator[Event]:
    """Note for the length of a block that somebody wants it to end; sessions that are played are waited for."""
    stop = Event()
    numbers = signal.SIGINT, signal.SIGTERM
    before = [signal.signal(number, lambda *_: stop.set()) for number in numbers]
    try:
        yield stop
    finally:
        for number, handler in zip(numbers, before, strict=True):
            signal.signal(number, handler)


# ---------------------------------------------------------------- what is printed


def speed(n_steps: int, seconds: float) -> str:
    """Return how many steps a core takes in a second."""
    return f"{n_steps / seconds:,.0f} a second and core" if seconds else "-"


def summary(of: Figures) -> list[str]:
    """Return all figures."""
    figures = {
        "steps": f"{of.steps:,}",
        "records": f"{of.records:,}",
        "sessions": f"{of.sessions:,}",
        "steps with rules, all in all": speed(of.steps, of.seconds),
        "steps with rules, without who asks and answers": speed(of.steps, of.checked_seconds),
        "steps without rules": f"{speed(of.bare_steps, of.bare_seconds)} (of {of.bare_steps:,})",
        "sequences with rows in a batch": f"{median(of.active)} median, {max(of.active, default=0)} max",
        "sequences with a slot": f"{median(of.holding)} median, {max(of.holding, default=0)} max",
    }
    lines = [f"{name:<46}  {value}" for name, value in figures.items()]
    for name, counts in (("events", of.events), ("faults, and what else is not in each step", of.faults)):
        lines += [f"{name}:", *(f"  {one:<44}  {number:,}" for one, number in sorted(counts.items()) if number)]
    return [*lines, f"never met: {', '.join(of.missing) or 'nothing'}"]


def alone(seed: int) -> int:
    """Play one session here, and print what it comes to."""
    came = run_session(seed, STEPS_OF_ONE)
    print(*(came.lines() if isinstance(came, Found) else summary(came)), sep="\n")
    return int(isinstance(came, Found))


def main(arguments: list[str] | None = None) -> int:
    """Soak, and print the figures."""
    parser = argparse.ArgumentParser(prog="python -m tests.measure.soak_core", description=__doc__)
    parser.add_argument(
        "--steps", type=positive, default=N_STEPS, help="in all, those done before too (default: %(default)s)"
    )
    parser.add_argument("--minutes", type=float, default=MINUTES, help="of this run (default: %(default)s)")
    parser.add_argument("--state", type=Path, default=ROOT / "soak-core.state", help="where what is done is kept")
    parser.add_argument("--anew", action="store_true", help="forget what is done")
    parser.add_argument("--seed", type=int, help="play the session of this seed, and nothing else")
    args = parser.parse_args(arguments)
    if args.seed is not None:
        return alone(args.seed)
    try:
        state = State(args.state, anew=args.anew)
    except OtherCode as error:
        parser.error(str(error))
    except OSError as error:
        parser.error(f"{args.state}: {error.strerror}")
    n_processes = len(os.sched_getaffinity(0))
    soak = Soak(state, n_steps=args.steps, seconds=args.minutes * 60, n_processes=n_processes)
    soak.run()
    print(*summary(state.figures), sep="\n")
    if soak.found is not None:
        print("VIOLATED", *soak.found.lines(), sep="\n")
        return 1
    if state.figures.steps < args.steps:
        print(f"no violation until here; the same command goes on from {state.path}")
        return 0
    lacking = [*state.figures.missing]
    if median(state.figures.active) < ACTIVE:
        lacking.append(f"{ACTIVE} sequences in a batch, in the median")
    told = f"; but there is no {', no '.join(lacking)}" if lacking else ""
    print(f"{state.figures.steps:,} steps without a violation{told}")
    return int(bool(lacking))


if __name__ == "__main__":
    sys.exit(main())
