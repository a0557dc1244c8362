"""Restores the state of a session from its log: today's actors take its facts again, and must decide its records.

A fork and a session that is resumed are built on it. The rule that holds here: if the facts of a log lead to other
records than the log's own, nothing is built on it.
"""

from collections.abc import Sequence
from itertools import pairwise, zip_longest

from attrs import frozen

from reenact.actors import events as e
from reenact.actors.errors import LogNotComparable
from reenact.runtime.engine.driver import Driver
from reenact.runtime.log.reader import Entry


@frozen
class Fact:
    """A given record, and all that follows from it."""

    records: list[e.Record]
    t: int
    """Its time, in nanoseconds since the session opened."""


def restored(driver: Driver, header: e.SessionOpened, before: Sequence[Entry]) -> list[Fact]:
    """Apply a log's facts again, and return them with the records that follow from them.

    Args:
        driver: A new driver.
        header: The header to use in place of the log's.
        before: The log's records up to the wanted state. If a write did not finish, the missing records of the last
            fact are decided now.

    Raises:
        LogNotComparable: Other records follow than those in the log.
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
    reason = f"record {n} is not what today's actors decide, so no session can go on from after it"
    return LogNotComparable(f"{reason}: use the reenact that wrote it ({header.reenact})")
