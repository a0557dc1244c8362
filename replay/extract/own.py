"""Collects from a log what happened to single requests, and what was decided about them.

The rules that hold here:

* A log is read once, and only what belongs to the chosen requests is kept, so that a long log takes little memory.
* The outcome of a batch is taken apart: nothing of the other sequences' tokens is kept.
* Facts about the whole session (it was resumed, cells were lost, the engine failed) belong to each chosen request that
  is live then. Where none is live, they belong to the next one that arrives.
"""

from collections.abc import Callable
from typing import Final

from attrs import Factory, define, frozen

from reenact.actors import events as e
from reenact.actors.errors import Failure
from reenact.replay.fold import NotInLog
from reenact.replay.naming import is_named
from reenact.runtime.log.reader import EmptyLog, Entry, LogFile, entries
from reenact.runtime.log.rows import RowsFile

_EVERY: Final = 2_000
"""The records between two reports of progress."""


@frozen
class Planned:
    """A batch was planned with rows of the sequence."""

    end: int
    """The position behind its last row."""
    draws: bool
    """Whether an outcome is wanted of its last row."""


@frozen
class Spoilt:
    """A batch with rows of the sequence failed."""

    code: int
    refused: bool
    """Whether the engine refused the batch, and did no part of it."""


@frozen
class Befell:
    """Something that happened to a request."""

    t: int
    """Nanoseconds since the session opened."""
    what: e.GivenEvent | e.Outcome | Planned | Spoilt


@define(kw_only=True)
class RequestHistory:
    """The history of one request; it grows while the log is read."""

    number: int
    """The number of its sequence in the log."""
    request: e.RequestReceived
    befell: list[Befell] = Factory(list)
    decided: list[tuple[int, e.SequenceEvent]] = Factory(list)
    """The decisions of its sequence, each with the number of its record."""
    turned_away: Failure | None = None
    """The failure with which it was turned away for the sake of others."""

    @property
    def end(self) -> e.SequenceFinished | None:
        """Its end; None if the log ends before."""
        last = self.decided[-1][1] if self.decided else None
        return last if isinstance(last, e.SequenceFinished) else None

    def add(self, entry: Entry, rows: "_Flight") -> None:
        """Add a record that may be about it."""
        event, t = entry.record.event, entry.t
        match event:
            case e.BatchPlanned():
                parts = [part for part in event.parts if part.sequence == self.number]
                ends = [Planned(part.position + len(part.inputs), part.wants is not None) for part in parts]
                self.befell += [Befell(t, end) for end in ends]
            case e.BatchDecoded():
                self.befell += [Befell(t, one) for one in event.outcomes if one.sequence == self.number]
            case e.BatchFailed() if self.number in event.sequences and rows.outcome is not None:
                self.befell.append(Befell(t, Spoilt(rows.outcome.code, not rows.outcome.positions)))
            case e.RequestRejected() | e.RequestDisplaced() if event.sequence == self.number:
                self.turned_away = event.failure if event.failure.kind == "overloaded" else None
            case _ if getattr(event, "sequence", None) != self.number:
                pass
            case _ if isinstance(event, e.SequenceEvent):
                self.decided.append((entry.record.n, event))
            case _ if entry.record.cause is None:
                self.befell.append(Befell(t, event))  # type: ignore[arg-type]  # it has no cause, so it is given
            case _:
                pass


@define
class _Flight:
    """The last outcome of a batch."""

    outcome: e.BatchDecoded | None = None


@frozen(kw_only=True)
class Chosen:
    """The chosen requests of a log."""

    header: e.SessionOpened
    rows: RowsFile
    """All rows that the log names."""
    histories: tuple[RequestHistory, ...]
    n: int
    """The number of the record after the last one about them."""


def chosen_of(log: LogFile, only: str, on_progress: Callable[[float], None]) -> Chosen:
    """Return the history of each request of a log that ``only`` names, in the order of their numbers.

    Args:
        log: The log.
        only: A sequence's number, or its caller's name for it.
        on_progress: A callback for the count of bytes that were read.

    Raises:
        NotInLog: The log has no such sequence.
        LogCorrupt: A line is corrupt.
        LogNotComparable: The log has no record, or its schema is too new.
    """
    reading = entries(log)
    first = next(reading, None)
    if first is None or not isinstance(header := first.record.event, e.SessionOpened):
        raise EmptyLog
    rows, histories, flight = RowsFile(log.path, header.context.n_embd), list[RequestHistory](), _Flight()
    of_session: list[Befell] = []
    n = 0
    for entry in reading:
        event = entry.record.event
        if entry.record.n % _EVERY == 0:
            on_progress(log.n_bytes)
        match event:
            case e.RequestReceived() if is_named(only, event.sequence, event.request_id):
                histories.append(RequestHistory(number=event.sequence, request=event, befell=of_session))
                of_session = []
            case e.SessionResumed() | e.CellsLost() | e.EngineFailed():
                live = [one.befell for one in histories if one.end is None] or [of_session]
                for befell in live:
                    befell.append(Befell(entry.t, event))
            case e.PromptTokenized():
                rows.meet(event.inputs)
            case e.BatchDecoded():
                flight.outcome = event
            case _:
                pass
        for one in histories:
            n_before = len(one.befell) + len(one.decided)
            one.add(entry, flight)
            if len(one.befell) + len(one.decided) > n_before:
                n = entry.record.n + 1
    if not histories:
        raise NotInLog(f"there is no sequence {only}")
    return Chosen(header=header, rows=rows, histories=tuple(histories), n=n)
