"""Sessions without trio: a kernel and an engine driven step by step, brought where a log was, and written down.

The rules that hold here:

* Two calls make a step, and whoever drives stands between them: `Driver.step` has the engine do what is planned and
  returns that as a fact, `Driver.give` hands a fact to the kernel. So records can be written before the engine works,
  and an outcome can be changed before it is given.
* How to draw for a batch is settled when it is planned, as in a session.
* An engine that raises, or says what no log may hold, has failed, and that is a fact like any other.
* Nothing is aborted: a batch comes to its end, also where its sequences have ended meanwhile.
* What a log's facts lead to must be what the log holds, or nothing is built on it.
* A fact and all that follows from it are written at once. Ctrl-C waits meanwhile, where `interrupts` notes it.
"""

import signal
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from itertools import pairwise, zip_longest
from threading import Event, current_thread, main_thread
from time import monotonic_ns

from attrs import frozen

from reenact.actors import events as e
from reenact.actors import sequence as s
from reenact.actors.errors import InternalError, LogNotComparable, description
from reenact.actors.kernel import Kernel
from reenact.runtime.engine.drawings import Drawings
from reenact.runtime.engine.protocol import Drawing, Engine
from reenact.runtime.log.codec import recordable
from reenact.runtime.log.reader import Entry
from reenact.runtime.log.writer import Journal


class Driver:
    """Drives a kernel without trio.

    Args:
        engine: Loaded, with empty cells.
    """

    def __init__(self, engine: Engine) -> None:
        self.kernel = Kernel()
        self.planned: e.BatchPlanned | None = None
        """The batch in flight: the last one planned, if nothing was given yet of what became of it."""
        self._engine = engine
        self._drawings = Drawings()
        self._planned_drawings: dict[int, Drawing] = {}

    def give(self, given: e.GivenEvent) -> list[e.Record]:
        """Hand a fact to the kernel and return it with all that follows from it.

        Raises:
            InternalError: It cannot be; see `Kernel.handle`.
        """
        records = self.kernel.handle(given)
        if isinstance(given, e.BatchDecoded | e.EngineFailed | e.CellsLost):
            self.planned = None
        for record in records:
            self._drawings.add(record.event)
            if isinstance(record.event, e.BatchPlanned):
                self.planned, self._planned_drawings = record.event, self._drawings.of(record.event)
        return records

    def step(self) -> e.BatchDecoded | e.EngineFailed:
        """Have the engine do what is planned, and return what became of it; it is yet to be given.

        Raises:
            InternalError: No batch is in flight.
        """
        if self.planned is None:
            raise InternalError("there is no batch in flight that an engine could execute")
        try:
            return recordable(self._engine.step(self.planned, self._planned_drawings))
        except Exception as error:  # noqa: BLE001  # an engine may raise anything; all is told
            return e.EngineFailed(error=description(error))


def live(kernel: Kernel) -> list[s.Sequence]:
    """Return the sequences that have not ended, in the order of their numbers."""
    return [one for one in kernel.state.sequences if one.finish_reason is None]


@frozen
class Fact:
    """A given record, and all that follows from it."""

    records: list[e.Record]
    t: int
    """Nanoseconds since the session opened."""


def restored(
    give: Callable[[e.GivenEvent], list[e.Record]], header: e.SessionOpened, before: Sequence[Entry]
) -> list[Fact]:
    """Give a log's facts again, and return all that is so then.

    Args:
        give: Takes a fact.
        header: What stands in place of the log's.
        before: The log's records up to where the state is wanted. What a write that did not finish lacks of the last
            fact is decided now.

    Raises:
        LogNotComparable: Something else follows than what the log holds.
    """
    facts: list[Fact] = []
    begins = [entry.record.n for entry in before if entry.record.cause is None]
    for begin, end in pairwise([*begins, len(before)]):
        given, t = before[begin].record.event if begin else header, before[begin].t
        try:
            records = give(given)  # type: ignore[arg-type]  # it has no cause, so it is given
        except Exception as error:
            raise _otherwise(begin, header) from error
        for entry, record in zip_longest(before[begin + 1 : end], records[1:]):
            if entry is None and end == len(before):
                break
            if entry is None or (entry.record, entry.t) != (record, t):
                raise _otherwise(end if entry is None else entry.record.n, header)
        facts.append(Fact(records, t))
    return facts


def _otherwise(n: int, header: e.SessionOpened) -> LogNotComparable:
    reason = f"record {n} is not what today's actors decide, so no session can go on from behind it"
    return LogNotComparable(f"{reason}: use the reenact that wrote it ({header.reenact})")


class Recorder:
    """Writes the log of what a driver is given; times go on from what was written last with those that really pass.

    Args:
        driver: The driver.
        journal: The log, empty.
    """

    def __init__(self, driver: Driver, journal: Journal) -> None:
        self._driver = driver
        self._journal = journal
        self._n_records = 0
        self._t, self._written = 0, monotonic_ns()

    def write(self, records: Sequence[e.Record], t: int) -> None:
        """Write a fact, that was given already, and what followed from it.

        Args:
            records: The records.
            t: When it happened, in nanoseconds since the session opened.

        Raises:
            LogBroken: The file cannot be written.
        """
        self._journal.append(records, t)
        self._n_records += len(records)
        self._t, self._written = t, monotonic_ns()

    def give(self, given: e.GivenEvent) -> None:
        """Hand a fact to the kernel and write it with what follows.

        Raises:
            InternalError: It cannot be. It is the log's last record then, so that a replay leads to it.
            LogBroken: The file cannot be written.
        """
        t = self._t + monotonic_ns() - self._written
        try:
            records = self._driver.give(given)
        except Exception as error:
            self.write([e.Record(self._n_records, given, None)], t)
            self._journal.close()
            raise InternalError(f"{type(given).__name__} cannot be worked off: {description(error)}") from error
        self.write(records, t)

    def run(self, interrupted: Event) -> None:
        """Have the engine work until every sequence has ended, or is cancelled, and close the log.

        Args:
            interrupted: Set when nobody is to be waited for any more.
        """
        kernel = self._driver.kernel
        while live(kernel) and not interrupted.is_set():
            self.give(self._driver.step())
        for one in live(kernel):
            self.give(e.CancelRequested(sequence=one.sequence))
        self.give(e.SessionClosed(digest=kernel.digest()))
        self._journal.close()


@contextmanager
def interrupts() -> Iterator[Event]:
    """Note Ctrl-C for the length of a block, and raise `KeyboardInterrupt` only behind it.

    Elsewhere than in the main thread it is never raised, and where the process ignores it, it stays ignored.
    """
    pressed = Event()
    before = signal.getsignal(signal.SIGINT)
    if current_thread() is not main_thread() or not callable(before):
        yield pressed
        return
    signal.signal(signal.SIGINT, lambda _number, _frame: pressed.set())
    try:
        yield pressed
    finally:
        signal.signal(signal.SIGINT, before)
    if pressed.is_set():
        raise KeyboardInterrupt
