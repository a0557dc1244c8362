"""From lines to records, and from records to what every actor knew: the fold tier.

The rules that hold here:

* Nothing is decided. A record only changes the state of its owner, as it did when it was written (`Kernel.fold`).
* A line that stands where it cannot stand is corrupt, whatever its checksum says: an unknown event, a number out of
  turn, a record that no state of the session allows.
* Beside the state, a fold keeps where it comes from: the last record of each kind, for each live sequence.
"""

from collections.abc import Iterable, Iterator
from datetime import UTC, datetime, timedelta

from attrs import frozen

from reenact.actors import events as e
from reenact.actors.errors import InvalidRequest, LogCorrupt, LogNotComparable, ReenactError, description
from reenact.actors.header import beyond
from reenact.actors.inputs import n_numbers
from reenact.actors.kernel import Kernel, State
from reenact.actors.limits import MAX_PROMPT_NUMBERS
from reenact.actors.options import check_text
from reenact.actors.routing import ROUTES, Origin, sequences_of
from reenact.runtime.log.codec import Fields, UnreadableRecord, decode, loads
from reenact.runtime.log.journal import Line, LogFile


class NotInLog(ReenactError):
    """What was asked for is not in this log."""


@frozen
class Entry:
    """A record as it stands in a log."""

    record: e.Record
    t: int
    """Nanoseconds since the session opened."""
    line: Line


def entries(lines: Iterable[Line]) -> Iterator[Entry]:
    """Return the records of a log's lines.

    Raises:
        LogCorrupt: While iterating: a line that holds no record, or not the one that is due.
        LogNotComparable: While iterating: a log too new.
        OSError: While iterating: the file cannot be read.
    """
    t = 0
    for line in lines:
        try:
            entry = entry_of(line, loads(line.body), t)
        except UnreadableRecord as error:
            raise line.corrupt(str(error)) from None
        t = entry.t
        yield entry


def entry_of(line: Line, fields: Fields, t: int) -> Entry:
    """Return the record that a line holds.

    Args:
        line: The line.
        fields: Its plain values.
        t: When the record before it happened.

    Raises:
        UnreadableRecord: It holds no record.
        LogCorrupt: It holds one that cannot stand there.
    """
    due = line.number - 1
    record = decode(fields)
    if record.n != due:
        raise line.corrupt(f"it is record {record.n} where {due} comes next")
    if (due == 0) != isinstance(record.event, e.SessionOpened):
        raise line.corrupt("a log begins with SessionOpened, and only there")
    if (reason := _beyond(record.event)) is not None:
        raise line.corrupt(f"{type(record.event).__name__}.{reason}")
    if (ROUTES[type(record.event)].origin is Origin.GIVEN) != (record.cause is None):
        raise line.corrupt("a derived record has a cause, and a given one has none")
    if fields["t"] < t:
        raise line.corrupt("it happened before the record before it")
    return Entry(record, fields["t"], line)


def _beyond(event: e.Event) -> str | None:
    """Return which field holds more than a session takes, and how much that is; None where none does."""
    match event:
        case e.SessionOpened():
            return beyond(event.context, event.limits)
        case e.RequestReceived():
            try:
                check_text("prompt", event.prompt)
                check_text("request_id", event.request_id or "")
            except InvalidRequest as error:
                return str(error)
        case e.PromptTokenized() if n_numbers(event.inputs) > MAX_PROMPT_NUMBERS:
            return f"inputs: it has more than {MAX_PROMPT_NUMBERS:,} tokens and numbers of rows"
        case _:
            pass
    return None


def wall_clock(session: e.SessionOpened, t: int) -> datetime:
    """Return when something happened, in UTC.

    Args:
        session: Record 0, which says when the session opened.
        t: Nanoseconds since then.

    Raises:
        LogCorrupt: The session's time is not a time.
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
    """What every actor knew at a record, and since when."""

    at: Entry
    """The last record folded."""
    following: Entry | None = None
    """The record after it; None at the end of the log."""
    state: State
    marks: dict[int, dict[type[e.Event], Entry]]
    """The last record of each kind that names a live sequence; under 0 of each kind whatever it names."""
    torn: int = 0
    """Bytes behind the last line, where the log was read to its end."""

    @property
    def settled(self) -> bool:
        """Whether everybody has had his say: nothing more follows from the last given record."""
        return self.following is None or self.following.record.cause is None

    def mark(self, sequence: int, *kinds: type[e.Event]) -> Entry | None:
        """Return the last record of one of ``kinds`` that names ``sequence``, or any where that is 0."""
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
        except Exception as error:  # whatever the actors raise, it is the log that is strange
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
        """The number of the last record, -1 before the first."""
        return -1 if self._last is None else self._last.record.n

    def moment(self, *, following: Entry | None = None, torn: int = 0) -> Moment:
        """Return what every actor knows now.

        Raises:
            LogNotComparable: There was no record.
        """
        if self._last is None:
            raise LogNotComparable("there is no record in it")
        return Moment(at=self._last, following=following, state=self._kernel.state, marks=self._marks, torn=torn)


def moment_at(log: LogFile, n: int | None) -> tuple[Moment, LogCorrupt | None]:
    """Fold a log up to record ``n``, or to its end where that is None.

    Returns:
        What every actor knew then; and, where the log was to be read to its end and could not, why.

    Raises:
        NotInLog: The log ends before record ``n``.
        LogCorrupt: A line up to record ``n`` is; or the first one.
        LogNotComparable: There is no record, or the log is too new.
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
    """Return the record that comes next; what is wrong with it does not concern the one before."""
    try:
        return next(reading, None)
    except LogCorrupt:
        return None
