"""Shows records to people: selects them, prints one line each, and follows a log that still grows.

The rules that hold here:

* One record is one line: its number, seconds since the session opened, actor, event, and for a derived record ``<- n``,
  the record from which it follows. Only a single record that was asked for is shown with all its fields.
* Lines that were shown stay: a line that turns out to be corrupt ends the output after the records before it.
"""

import re
from collections.abc import Callable, Iterator
from datetime import datetime, timedelta
from typing import Final

from attrs import field, frozen

from reenact.actors import events as e
from reenact.actors.routing import BATCHER, ROUTES, Origin, actor_of, sequence_name, sequences_of
from reenact.replay.fold import NotInLog, wall_clock
from reenact.replay.naming import is_named
from reenact.replay.render.endings import end_notes
from reenact.replay.render.events import fields_of, phrase
from reenact.replay.snapshots import Snapshots
from reenact.runtime.log.codec import plain
from reenact.runtime.log.reader import EmptyLog, Entry, EntryReader, LogFile, header_in
from reenact.runtime.terminal import Show, Spans

_ACTOR_STYLES: Final = ("cyan", "magenta", "green", "blue", "bright_cyan", "bright_magenta", "bright_blue")
"""Colours that differ between neighbouring sequences; red and yellow have other meanings."""


@frozen
class At:
    """A minute or a second of any day, UTC."""

    hour: int
    minute: int
    second: int | None = None

    @classmethod
    def parse(cls, written: str) -> "At":
        """Return the time written as ``HH:MM`` or ``HH:MM:SS``.

        Raises:
            ValueError: The text is neither.
        """
        match = re.fullmatch(r"([01]?\d|2[0-3]):([0-5]\d)(?::([0-5]\d))?", written, re.ASCII)
        if match is None:
            raise ValueError(f"expected HH:MM or HH:MM:SS, got {written!r}")
        hour, minute, second = match.groups()
        return cls(int(hour), int(minute), None if second is None else int(second))

    def __str__(self) -> str:
        return f"{self.hour:02}:{self.minute:02}" + ("" if self.second is None else f":{self.second:02}")

    def holds(self, clock: datetime) -> bool:
        """Return whether ``clock`` is within this minute or second."""
        return (clock.hour, clock.minute) == (self.hour, self.minute) and self.second in (None, clock.second)

    def between(self, before: datetime, after: datetime) -> bool:
        """Return whether it passed after ``before`` and before ``after``."""
        start = before.replace(hour=self.hour, minute=self.minute, second=self.second or 0, microsecond=0)
        if start <= before:
            start += timedelta(days=1)
        return start < after


@frozen(kw_only=True)
class Selection:
    """The records that are asked for."""

    first: int = 0
    last: int | None = None
    only: str | None = None
    """A sequence's number, or its caller's name for it."""
    at: At | None = None

    @property
    def is_one(self) -> bool:
        """Whether a single record is asked for by its number."""
        return self.first == self.last


@frozen
class Concern:
    """The sequences that are asked for by number or name, and the events that concern them; it learns as it reads."""

    name: str
    sequences: set[int] = field(factory=set)
    """Those that were received."""
    _live: set[int] = field(factory=set)
    _in_batch: set[int] = field(factory=set)

    def of(self, event: e.Event) -> set[int]:
        """Return those of the sequences that an event concerns."""
        match event:
            case e.RequestReceived():
                if is_named(self.name, event.sequence, event.request_id):
                    self.sequences.add(event.sequence)
                    self._live.add(event.sequence)
            case e.BatchPlanned():
                self._in_batch.clear()
                self._in_batch.update(self.sequences.intersection(sequences_of(event)))
            case e.BatchDecoded():
                return set(self._in_batch)
            case e.AbortRequested():
                return self._in_batch | self.sequences.intersection({event.sequence})
            case e.SequencePreempted() | e.RequestDisplaced():
                return self.sequences.intersection({event.sequence, event.by})
            case e.EngineFailed():
                return set(self._live)
            case e.ActorFailed():
                return {k for k in self._live if event.failed in (BATCHER, sequence_name(k))}
            case e.SequenceFinished():
                self._live.discard(event.sequence)
            case _:
                pass
        return self.sequences.intersection(sequences_of(event))


def show_records(
    log: LogFile,
    selection: Selection,
    show: Show,
    *,
    pause: Callable[[], None] | None = None,
) -> list[str]:
    """Show the records that are asked for.

    Args:
        log: The log.
        selection: The records to show.
        show: The function that shows a line.
        pause: If given, go on when the log has ended: read again after each ``pause()``, until the session closes.

    Returns:
        Notes on the end of the log.

    Raises:
        NotInLog: There is no such record, or no such sequence.
        LogCorrupt: A line is corrupt; the records before it were shown.
        LogNotComparable: The log has no record, or its schema is too new.
        OSError: The file cannot be read.
    """
    showing, reader, snapshot = _Showing(selection, show), EntryReader(), None
    if selection.first > 0 and selection.only is None and selection.at is None:
        snapshot = Snapshots(header_in(log)).nearest(log, selection.first - 1)
    if snapshot is not None:
        showing.skip(snapshot.at)
        reader = snapshot.reader
    for entry in reader.entries(log if snapshot is None else log.more()):
        if showing.take(entry):
            return []
    while pause is not None and not showing.closed:
        pause()
        for entry in reader.entries(log.more()):
            showing.take(entry)
    return showing.end(log.torn)


class _Showing:
    """One pass over a log."""

    def __init__(self, selection: Selection, show: Show) -> None:
        self._selection = selection
        self._show = show
        self._concern = None if selection.only is None else Concern(selection.only)
        self._session: e.SessionOpened | None = None
        self._first: Entry | None = None
        self._previous: Entry | None = None
        self._gap: tuple[Entry, Entry] | None = None
        """The records around the time that was asked for, if it passed without a record."""
        self._n_at_time = 0
        self.closed = False

    def skip(self, entry: Entry) -> None:
        """Begin behind a record, where none up to it is asked for."""
        self._previous = entry
        self.closed = isinstance(entry.record.event, e.SessionClosed)

    def take(self, entry: Entry) -> bool:
        """Show a record if it is asked for; return whether it was the last one."""
        event, selection = entry.record.event, self._selection
        if isinstance(event, e.SessionOpened):
            self._session, self._first = event, entry
        self.closed = isinstance(event, e.SessionClosed)
        wanted = entry.record.n >= selection.first and (selection.at is None or self._is_at(selection.at, entry))
        concerned = set() if self._concern is None else self._concern.of(event)
        self._previous = entry
        if wanted and (self._concern is None or concerned):
            self._show(line_of(entry, concerned))
            if selection.is_one:
                for line in _whole(entry):
                    self._show(line)
        return selection.last is not None and entry.record.n >= selection.last

    def end(self, n_torn: int) -> list[str]:
        """Return the notes on the end of the log.

        Args:
            n_torn: The number of bytes after the last line.
        """
        if self._previous is None:
            raise EmptyLog
        n = self._previous.record.n
        if self._selection.first > n:
            raise NotInLog(f"there is no record {self._selection.first}: the last one is record {n}")
        if self._concern is not None and not self._concern.sequences:
            raise NotInLog(f"no request has the number or the request_id {self._concern.name!r}")
        notes = end_notes(n + 1, closed=self.closed, n_torn=n_torn)
        if self._selection.at is not None and self._n_at_time == 0:
            notes.append(self._nothing_at(self._selection.at))
        return notes

    def _is_at(self, at: At, entry: Entry) -> bool:
        clock = self._clock(entry)
        if at.holds(clock):
            self._n_at_time += 1
            return True
        if self._gap is None and self._previous is not None and at.between(self._clock(self._previous), clock):
            self._gap = (self._previous, entry)
        return False

    def _nothing_at(self, at: At) -> str:
        if self._gap is not None:
            before, after = self._gap
            around = f"{self._named(before)} is the one before, {self._named(after)} the one after"
        elif self._first is not None and self._previous is not None:
            around = f"the log goes from {self._named(self._first)} to {self._named(self._previous)}"
        else:
            around = "the log is empty"
        return f"nothing happened at {at} UTC: {around}"

    def _named(self, entry: Entry) -> str:
        return f"record {entry.record.n} at {self._clock(entry):%Y-%m-%d %H:%M:%S}"

    def _clock(self, entry: Entry) -> datetime:
        if self._session is None:
            raise EmptyLog
        return wall_clock(self._session, entry.t)


def line_of(entry: Entry, only: set[int] | None = None) -> Spans:
    """Return a record as a line for people; for a batch only the parts of the sequences ``only``, if there are any."""
    record, actor = entry.record, actor_of(entry.record.event)
    cause = "" if record.cause is None else f"  <- {record.cause}"
    return [
        (f"{record.n:>6}", "dim"),
        (f"  {entry.t / 1e9:>9.3f} s  ", "dim"),
        (f"{actor:<12}", _actor_style(actor)),
        (f"  {phrase(record.event, only or ())}", _style(record.event)),
        (cause, "dim"),
    ]


def _whole(entry: Entry) -> Iterator[Spans]:
    for path, value in fields_of(plain(entry.record, entry.t)):
        yield [(f"{'':<8}{path}", "dim"), (f"  {value}", "")]


def _actor_style(actor: str) -> str:
    if not actor.startswith("sequence-"):
        return "bold"
    return _ACTOR_STYLES[int(actor.removeprefix("sequence-")) % len(_ACTOR_STYLES)]


def _style(event: e.Event) -> str:
    """Return red for failures, yellow for delays and early ends, bold for other facts from outside."""
    match event:
        case (
            e.ActorFailed()
            | e.EngineFailed()
            | e.BatchFailed()
            | e.RequestRefused()
            | e.RequestRejected()
            | e.RequestDisplaced()
            | e.TokenizeFailed()
        ):
            return "red"
        case e.SequenceFinished():
            return "green" if event.error is None else "red"
        case (
            e.CancelRequested()
            | e.DeadlineExpired()
            | e.ReaderPaused()
            | e.SequencePaused()
            | e.SequencePreempted()
            | e.PauseExpired()
            | e.SlotYielded()
            | e.AbortRequested()
            | e.PromptTruncated()
            | e.ContextShifted()
        ):
            return "yellow"
        case e.BatchDecoded():
            return {e.DONE: "bold", e.ABORTED: "yellow"}.get(event.code, "red")
        case _:
            return "bold" if ROUTES[type(event)].origin is Origin.GIVEN else ""
