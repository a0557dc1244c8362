"""Records for people: which of them, one line each, and going on while the log grows.

The rules that hold here:

* One record is one line: number, seconds since the session opened, actor, what happened, and for a derived record
  ``<- n``, the record that it follows from. Only a record asked for alone stands with all its fields below.
* What is shown stays shown: a line that turns out corrupt ends the output behind the records before it.
"""

import re
from collections.abc import Callable, Iterator
from datetime import datetime, timedelta
from typing import Final

from attrs import field, frozen

from reenact.actors import events as e
from reenact.actors.errors import LogNotComparable
from reenact.actors.routing import BATCHER, ROUTES, Origin, actor_of, sequence_name, sequences_of
from reenact.replay.fold import NotInLog, wall_clock
from reenact.replay.render.endings import not_closed, torn
from reenact.replay.render.events import fields_of, phrase
from reenact.runtime.log.codec import loads
from reenact.runtime.log.reader import Entry, LogFile, entries
from reenact.runtime.terminal import Show, Spans

_ACTOR_STYLES: Final = ("cyan", "magenta", "green", "blue", "bright_cyan", "bright_magenta", "bright_blue")
"""Neighbours among the sequences differ; red and yellow say something else."""


@frozen
class At:
    """A minute or a second of any day, UTC."""

    hour: int
    minute: int
    second: int | None = None

    @classmethod
    def parse(cls, written: str) -> "At":
        """Return what ``HH:MM`` or ``HH:MM:SS`` stands for.

        Raises:
            ValueError: It is neither.
        """
        match = re.fullmatch(r"([01]?\d|2[0-3]):([0-5]\d)(?::([0-5]\d))?", written, re.ASCII)
        if match is None:
            raise ValueError(f"expected HH:MM or HH:MM:SS, got {written!r}")
        hour, minute, second = match.groups()
        return cls(int(hour), int(minute), None if second is None else int(second))

    def __str__(self) -> str:
        return f"{self.hour:02}:{self.minute:02}" + ("" if self.second is None else f":{self.second:02}")

    def holds(self, clock: datetime) -> bool:
        """Return whether ``clock`` is within it."""
        return (clock.hour, clock.minute) == (self.hour, self.minute) and self.second in (None, clock.second)

    def between(self, before: datetime, after: datetime) -> bool:
        """Return whether it came and went after ``before`` and before ``after``."""
        start = before.replace(hour=self.hour, minute=self.minute, second=self.second or 0, microsecond=0)
        if start <= before:
            start += timedelta(days=1)
        return start < after


@frozen(kw_only=True)
class Selection:
    """Which records are asked for."""

    first: int = 0
    last: int | None = None
    only: str | None = None
    """A sequence's number or what its caller calls it."""
    at: At | None = None

    @property
    def is_one(self) -> bool:
        """Whether one record is asked for by its number."""
        return self.first == self.last


@frozen
class Concern:
    """The sequences that somebody asks for by number or name, and what concerns them. It learns as it reads."""

    name: str
    sequences: set[int] = field(factory=set)
    """Those that came."""
    _live: set[int] = field(factory=set)
    _in_batch: set[int] = field(factory=set)

    def of(self, event: e.Event) -> set[int]:
        """Return which of the sequences an event concerns."""
        match event:
            case e.RequestReceived():
                if self.name in (event.request_id, str(event.sequence)):
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
    """Show the records asked for.

    Args:
        log: The log.
        selection: Which records.
        show: Shows a line.
        pause: With it, go on when the log has ended, asking again after each ``pause()``, until the session closes.

    Returns:
        What else there is to say.

    Raises:
        NotInLog: There is no such record, or no such sequence.
        LogCorrupt: A line is; what came before it was shown.
        LogNotComparable: The log is too new, or there is no record in it.
        OSError: The file cannot be read.
    """
    showing = _Showing(selection, show)
    for entry in entries(log):
        if showing.take(entry):
            return []
    while pause is not None and not showing.closed:
        pause()
        for entry in entries(log.more()):
            showing.take(entry)
    return showing.end(log.torn)


class _Showing:
    """One going through a log."""

    def __init__(self, selection: Selection, show: Show) -> None:
        self._selection = selection
        self._show = show
        self._concern = None if selection.only is None else Concern(selection.only)
        self._session: e.SessionOpened | None = None
        self._first: Entry | None = None
        self._previous: Entry | None = None
        self._gap: tuple[Entry, Entry] | None = None
        """The records around the time asked for, where it passed without one."""
        self._n_at_time = 0
        self.closed = False

    def take(self, entry: Entry) -> bool:
        """Show a record if it was asked for; return whether it was the last that is."""
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
        """Return what is to be said at the end of the log.

        Args:
            n_torn: Bytes behind the last line.
        """
        if self._previous is None:
            raise LogNotComparable("there is no record in it")
        n = self._previous.record.n
        if self._selection.first > n:
            raise NotInLog(f"there is no record {self._selection.first}: the last one is record {n}")
        if self._concern is not None and not self._concern.sequences:
            raise NotInLog(f"no request has the number or the request_id {self._concern.name!r}")
        notes = ([] if self.closed else [not_closed(n)]) + torn(n_torn)
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
            raise LogNotComparable("there is no record in it")
        return wall_clock(self._session, entry.t)


def line_of(entry: Entry, only: set[int] | None = None) -> Spans:
    """Return a record as a line for people; of a batch what concerns the sequences ``only``, where there are any."""
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
    for path, value in fields_of(loads(entry.line.body)):
        yield [(f"{'':<8}{path}", "dim"), (f"  {value}", "")]


def _actor_style(actor: str) -> str:
    if not actor.startswith("sequence-"):
        return "bold"
    return _ACTOR_STYLES[int(actor.removeprefix("sequence-")) % len(_ACTOR_STYLES)]


def _style(event: e.Event) -> str:
    """Return red for what went wrong, yellow for what holds up or cuts short, bold for other facts from outside."""
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
