"""A session that goes on from a log: brought to where the log was, driven without trio, and written down.

The rules that hold here:

* What a log's facts lead to must be what the log holds, or nothing is built on it.
* A fact and all that follows from it are written at once.
* Nothing is aborted: a batch comes to its end, also where its sequences have ended meanwhile.
"""

from collections.abc import Sequence
from itertools import pairwise, zip_longest
from threading import Event
from time import monotonic_ns

from attrs import frozen

from reenact.actors import events as e
from reenact.actors.errors import InternalError, LogNotComparable
from reenact.runtime.engine.driver import Driver, execute
from reenact.runtime.engine.protocol import Engine
from reenact.runtime.engine.row_numbers import Numbers, numbers_of
from reenact.runtime.log.reader import Entry
from reenact.runtime.log.writer import Journal


@frozen
class Fact:
    """A given record, and all that follows from it."""

    records: list[e.Record]
    t: int
    """Nanoseconds since the session opened."""


def restored(driver: Driver, header: e.SessionOpened, before: Sequence[Entry]) -> list[Fact]:
    """Give a log's facts again, and return all that is so then.

    Args:
        driver: New.
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
        worked = driver.give(given)  # type: ignore[arg-type]  # it has no cause, so it is given
        if worked.error is not None:
            raise _otherwise(begin, header) from worked.error
        for entry, record in zip_longest(before[begin + 1 : end], worked.records[1:]):
            if entry is None and end == len(before):
                break
            if entry is None or (entry.record, entry.t) != (record, t):
                raise _otherwise(end if entry is None else entry.record.n, header)
        facts.append(Fact(worked.records, t))
    return facts


def _otherwise(n: int, header: e.SessionOpened) -> LogNotComparable:
    reason = f"record {n} is not what today's actors decide, so no session can go on from behind it"
    return LogNotComparable(f"{reason}: use the reenact that wrote it ({header.reenact})")


class Recorder:
    """Writes the log of what a driver is given; times go on from what was written last with those that really pass.

    Args:
        driver: The driver.
        journal: The log, empty.
        numbers: Those of the rows that prompts have.
    """

    def __init__(self, driver: Driver, journal: Journal, numbers: Numbers) -> None:
        self._driver = driver
        self._numbers = numbers
        self._journal = journal
        self._t, self._written = 0, monotonic_ns()

    def write(self, records: Sequence[e.Record], t: int) -> None:
        """Write a fact, that was given already, and what followed from it.

        Args:
            records: The records.
            t: When it happened, in nanoseconds since the session opened.

        Raises:
            LogBroken: The file cannot be written.
        """
        self._journal.append(records, t, self._numbers)
        self._t, self._written = t, monotonic_ns()

    def give(self, given: e.GivenEvent) -> None:
        """Hand a fact to the kernel and write it with what follows.

        Raises:
            InternalError: It cannot be. It is the log's last record then, so that a replay leads to it.
            LogBroken: The file cannot be written.
        """
        t = self._t + monotonic_ns() - self._written
        worked = self._driver.give(given)
        self.write(worked.records, t)
        if worked.error is not None:
            self._journal.close()
        worked.checked()

    def run(self, engine: Engine, interrupted: Event) -> None:
        """Have an engine work until every sequence has ended, or is cancelled, and close the log.

        Args:
            engine: Loaded, with the cells of what was given.
            interrupted: Set when nobody is to be waited for any more.
        """
        kernel = self._driver.kernel
        while kernel.live and not interrupted.is_set():
            crossing = self._driver.crossing
            if crossing is None:
                raise InternalError("sequences are live, and no batch is in flight that an engine could execute")
            self.give(execute(engine, crossing, numbers_of(crossing.planned, self._numbers)))
        for one in kernel.live:
            self.give(e.CancelRequested(sequence=one.sequence))
        self.give(e.SessionClosed(digest=kernel.digest()))
        self._journal.close()
