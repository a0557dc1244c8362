"""The fold tier: from lines to records, and from records to the state of every actor.

The rules that hold here:

* Nothing is decided. A record only changes the state of its owner, as it did when it was written (`Kernel.fold`).
* A line in an impossible place is corrupt, whatever its checksum: an unknown event, a number out of turn, a record that
  no state of the session allows.
* Beside the state, a fold keeps its origins: the last record of each kind, for each live sequence.
"""

from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from typing import Final

from attrs import frozen

from reenact.actors import events as e
from reenact.actors.errors import LogCorrupt, ReenactError, description
from reenact.actors.kernel import Kernel, State
from reenact.actors.routing import sequences_of
from reenact.replay.snapshots import Mark, Snapshot, Snapshots
from reenact.runtime.log.reader import EmptyLog, Entry, EntryReader, LogFile, LogPlace, header_in

_PROGRESS_EVERY: Final = 4096
"""The records between two reports of progress."""


class NotInLog(ReenactError):
    """The log does not contain what was asked for."""

    exit_code = 2


def wall_clock(session: e.SessionOpened, t: int) -> datetime:
    """Return the time of an event, in UTC.

    Args:
        session: The log's header, which contains the time at which the session opened.
        t: The nanoseconds since then.

    Raises:
        LogCorrupt: The header's time is malformed.
    """
    try:
        opened_at = datetime.fromisoformat(session.opened_at)
        if opened_at.tzinfo is None:
            opened_at = opened_at.replace(tzinfo=UTC)
        return opened_at.astimezone(UTC) + timedelta(microseconds=t // 1000)
    except (ValueError, OverflowError):
        raise LogCorrupt(1, 0, f"SessionOpened: opened_at is not a time: {session.opened_at!r}") from None


@frozen(kw_only=True)
class Moment:
    """The state of every actor at a record, and the records that led to it."""

    at: Entry
    """The last record folded."""
    following: Entry | None = None
    """The record after it; None at the end of the log."""
    state: State
    marks: dict[int, dict[type[e.Event], Entry]]
    """The last record of each kind that names a live sequence; under 0 the last of each kind."""
    torn: int = 0
    """The number of bytes after the last line, if the log was read to its end."""

    @property
    def settled(self) -> bool:
        """Whether no actor has anything left to decide: nothing more follows from the last given record."""
        return self.following is None or self.following.record.cause is None

    def mark(self, sequence: int, *kinds: type[e.Event]) -> Entry | None:
        """Return the last record of one of ``kinds`` that names ``sequence``, or any sequence if that is 0."""
        found = [self.marks[sequence][kind] for kind in kinds if kind in self.marks.get(sequence, {})]
        return max(found, key=lambda entry: entry.record.n, default=None)


class Fold:
    """A state that grows record by record."""

    def __init__(self) -> None:
        self._kernel = Kernel()
        self._last: Entry | None = None
        self._marks: dict[int, dict[type[e.Event], Entry]] = {0: {}}
        self._ended: list[int] = []

    @classmethod
    def restored(cls, snapshot: Snapshot) -> "Fold":
        """Return a fold that goes on from a snapshot."""
        fold = cls()
        fold._kernel = Kernel.restored(snapshot.state, snapshot.at.record.n + 1)
        fold._last = snapshot.at
        for mark in snapshot.marks:
            fold._marks.setdefault(mark.sequence, {})[type(mark.entry.record.event)] = mark.entry
        fold._ended = [one.sequence for one in snapshot.state.sequences if one.finish_reason is not None]
        return fold

    def snapshot(self, place: LogPlace, reader: EntryReader) -> Snapshot:
        """Return a snapshot of the state now.

        Args:
            place: The place behind the last record.
            reader: The reader of the records.

        Raises:
            EmptyLog: No record was added.
        """
        if self._last is None:
            raise EmptyLog
        marks = (Mark(k, entry) for k, kinds in self._marks.items() for entry in kinds.values())
        return Snapshot(place=place, reader=reader, state=self._kernel.state, at=self._last, marks=tuple(marks))

    def add(self, entry: Entry) -> None:
        """Let a record change the state of its owner.

        Raises:
            LogCorrupt: The record cannot follow the ones before it.
        """
        event = entry.record.event
        try:
            self._kernel.fold(entry.record)
        except Exception as error:  # whatever the actors raise, the fault is in the log
            raise entry.line.corrupt(f"it cannot follow the records before it: {description(error)}") from error
        if entry.record.cause is None:
            for sequence in self._ended:
                self._marks.pop(sequence, None)
            self._ended.clear()
        for sequence in (0, *sequences_of(event)):
            self._marks.setdefault(sequence, {})[type(event)] = entry
        if isinstance(event, e.SequenceFinished):
            self._ended.append(event.sequence)
        self._last = entry

    @property
    def n(self) -> int:
        """The number of the last record; -1 before the first."""
        return -1 if self._last is None else self._last.record.n

    def moment(self, *, following: Entry | None = None, torn: int = 0) -> Moment:
        """Return the state of every actor now.

        Raises:
            LogNotComparable: No record was added.
        """
        if self._last is None:
            raise EmptyLog
        return Moment(at=self._last, following=following, state=self._kernel.state, marks=self._marks, torn=torn)


def moment_at(
    log: LogFile, n: int | None, on_progress: Callable[[float], None] = lambda _: None
) -> tuple[Moment, LogCorrupt | None]:
    """Fold a log up to record ``n``, or to its end if that is None; from a snapshot if there is one.

    Args:
        log: The log.
        n: The record.
        on_progress: A function that gets the part of the log that was read.

    Returns:
        The state of every actor then; and, if the log should be read to its end and could not, the error.

    Raises:
        NotInLog: The log ends before record ``n``.
        LogCorrupt: A line up to record ``n`` is corrupt; or the first line is.
        LogNotComparable: The log has no record, or its schema is too new.
    """
    snapshots = Snapshots(header_in(log))
    snapshot = snapshots.nearest(log, n)
    if snapshot is None:
        fold, reader = Fold(), EntryReader()
        reading = reader.entries(log)
    else:
        fold, reader = Fold.restored(snapshot), snapshot.reader
        reading = reader.entries(log.more())
        if fold.n == n:
            return fold.moment(following=_next(reading), torn=log.torn), None
    try:
        for entry in reading:
            fold.add(entry)
            if entry.record.n % _PROGRESS_EVERY == 0:
                on_progress(entry.record.n / n if n else log.n_bytes / log.path.stat().st_size)
            if snapshots.is_due(entry) and (place := log.place) is not None:
                snapshots.keep(fold.snapshot(place, reader))
            if entry.record.n == n:
                return fold.moment(following=_next(reading), torn=log.torn), None
    except LogCorrupt as error:
        if n is not None or fold.n < 0:
            raise
        return fold.moment(), error
    moment = fold.moment(torn=log.torn)
    if n is not None:
        raise NotInLog(f"there is no record {n}: the last one is record {fold.n}")
    return moment, None


def _next(reading: Iterator[Entry]) -> Entry | None:
    """Return the next record; a fault in it does not concern the record before."""
    try:
        return next(reading, None)
    except LogCorrupt:
        return None
