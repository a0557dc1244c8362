"""The fold tier: from lines to records, and from records to the state of every actor.

The rules that hold here:

* Nothing is decided. A record only changes the state of its owner, as it did when it was written (`Kernel.fold`).
* A line in an impossible place is corrupt, whatever its checksum: an unknown event, a number out of turn, a record that
  no state of the session allows.
* Beside the state, a fold keeps its origins: the last record of each kind, for each live sequence.
"""

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

from attrs import frozen

from reenact.actors import events as e
from reenact.actors.errors import LogCorrupt, ReenactError, description
from reenact.actors.kernel import Kernel, State
from reenact.actors.routing import sequences_of
from reenact.runtime.log.reader import EmptyLog, Entry, LogFile, entries


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


def moment_at(log: LogFile, n: int | None) -> tuple[Moment, LogCorrupt | None]:
    """Fold a log up to record ``n``, or to its end if that is None.

    Returns:
        The state of every actor then; and, if the log should be read to its end and could not, the error.

    Raises:
        NotInLog: The log ends before record ``n``.
        LogCorrupt: A line up to record ``n`` is corrupt; or the first line is.
        LogNotComparable: The log has no record, or its schema is too new.
    """
    fold = Fold()
    reading = entries(log)
    try:
        for entry in reading:
            fold.add(entry)
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
