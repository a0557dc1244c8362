"""Reads a log file: its lines, and their records.

The rules that hold here:

* The bytes after the last newline are a torn tail, from a write that did not finish. They are not a line.
* The text of a compressed log is read as that of any other; numbers of lines and bytes are those of the text.
* A line that is impossible at its place is corrupt, even if its checksum matches: an unknown event, a number out of
  order.
"""

import os
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from types import TracebackType
from typing import Self
from zlib import crc32

from attrs import Factory, define, frozen

from reenact.actors import events as e
from reenact.actors.errors import InvalidRequest, LogCorrupt, LogNotComparable
from reenact.actors.header import beyond
from reenact.actors.inputs import rows_of
from reenact.actors.limits import MAX_LINE_BYTES, MAX_PROMPT_NUMBERS, MAX_PROMPT_ROWS
from reenact.actors.options import check_text, check_traceparent
from reenact.actors.routing import ROUTES, Origin
from reenact.runtime.log.codec import FORMAT, OLDEST_FORMAT, SCHEMA, Fields, UnreadableRecord, decode, loads
from reenact.runtime.log.compressed import CompressedText, DamagedFile, is_compressed
from reenact.runtime.log.line import CRC_KEY, TAIL, Line, tail_of
from reenact.runtime.log.shorthand import Shorthand
from reenact.runtime.log.upcasters import oldest_schema, upcast
from reenact.runtime.regular import opened


@frozen
class End:
    """The end of a log's last line that can be followed by another one; in a compressed file, that of a block."""

    length: int = 0
    """The count of the file's bytes up to there."""
    crc: int = 0
    """The checksum of the line."""
    n_lines: int = 0


@frozen(kw_only=True)
class LogPlace:
    """The place behind a line of a log, from which it can be read on."""

    n_lines: int
    offset: int
    """The offset in the text."""
    crc: int
    """The checksum of the line."""
    n_bytes: int
    """The offset in the file."""
    file_crc: int = 0
    """The CRC-32 of the bytes before it, in a compressed file."""


class LogFile:
    """A log being read: an iterable of its lines.

    After an iteration ``torn`` is the number of bytes after the last newline; in a compressed file, after the last
    block.

    Raises:
        OSError: The file cannot be opened, or is not a regular file: a pipe cannot be read twice, and a device may have
            no end.
        LogCorrupt: While iterating: a line's checksum does not match, it is too long, or it cannot be decompressed.
        LogNotComparable: While iterating: the log's format or schema is newer than this program's.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(path)
        self._file = opened(self.path, "a log is read twice, which only a file can be: save it to one")
        self._packed = CompressedText(self._file) if is_compressed(self.path, self._file) else None
        self.torn = 0
        self._number, self._offset, self._crc = 0, 0, 0
        self._end = End()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._file.close()

    def __iter__(self) -> Iterator[Line]:
        self._number, self._offset, self._crc = 0, 0, 0
        self._end = End()
        if self._packed is not None:
            self._packed.rewind()
        return self.more()

    @property
    def end(self) -> "End":
        """The place up to which the file was read, and from which it can be written on."""
        return End(self._offset, self._crc, self._number) if self._packed is None else self._end

    @property
    def n_bytes(self) -> int:
        """The count of the file's bytes that were read, without the torn tail."""
        return self._offset if self._packed is None else self._packed.n_bytes

    @property
    def place(self) -> LogPlace | None:
        """The place behind the last line, if the log can be read on from there: not within a compressed frame."""
        packed, crc = self._packed, 0
        if packed is not None:
            if not packed.between_frames:
                return None
            crc = packed.crc
        return LogPlace(n_lines=self._number, offset=self._offset, crc=self._crc, n_bytes=self.n_bytes, file_crc=crc)

    def go_to(self, place: LogPlace) -> bool:
        """Read on from a place, with `more`; return whether the log has such a place."""
        if self._packed is not None:
            found = self._packed.go_to(place.n_bytes, place.file_crc)
        else:
            self._file.seek(max(0, place.offset - TAIL))
            found = self._file.read(TAIL) == tail_of(place.crc)
        if found:
            self._number, self._offset, self._crc = place.n_lines, place.offset, place.crc
        return found

    def more(self) -> Iterator[Line]:
        """Iterate over the lines that were added since the last iteration, because the file may grow."""
        self.torn = 0
        if self._packed is None:
            self._file.seek(self._offset)
        try:
            yield from self._lines(self._file.readline if self._packed is None else self._packed.readline)
        except DamagedFile as error:
            raise LogCorrupt(self._number + 1, self._offset, str(error)) from None

    def _lines(self, readline: Callable[[int], bytes]) -> Iterator[Line]:
        while raw := readline(MAX_LINE_BYTES + 1):
            if len(raw) > MAX_LINE_BYTES:
                raise LogCorrupt(self._number + 1, self._offset, f"it has more than {MAX_LINE_BYTES:,} bytes")
            if not raw.endswith(b"\n"):
                break
            crc = crc32(memoryview(raw)[:-TAIL], self._crc)
            line = Line(self._number + 1, self._offset, raw[:-TAIL] + b"}")
            tail = tail_of(crc)
            whole = raw.endswith(tail)
            if self._offset == 0 and (whole or not raw[-TAIL:].startswith(CRC_KEY)):
                _check_versions(raw)
            if not whole:
                raise line.corrupt(_difference(raw[-TAIL:], tail))
            self._number, self._offset, self._crc = line.number, self._offset + len(raw), crc
            if self._packed is not None and self._packed.at_boundary:
                self._end = End(self._packed.n_bytes, crc, line.number)
            yield line
        self.torn = (0 if self._packed is None else self._packed.n_torn) or len(raw)


def _check_versions(raw: bytes) -> None:
    """Refuse a log of another version, whose lines may be of another kind; see `reenact.runtime.log.line`."""
    try:
        header = loads(raw)
    except UnreadableRecord:
        return
    if header.get("type") == "SessionOpened":
        versions = {"format": (OLDEST_FORMAT, FORMAT), "schema": (oldest_schema(), SCHEMA)}
        for name, (oldest, ours) in versions.items():
            theirs = header.get(name)
            if type(theirs) is int and theirs > ours:
                cure = "use the reenact that wrote it, or a newer one"
                raise LogNotComparable(f"the log's {name} is {theirs} and this program reads up to {ours}: {cure}")
            if type(theirs) is int and theirs < oldest:
                cure = "use the reenact that wrote it"
                raise LogNotComparable(f"the log's {name} is {theirs} and this program reads from {oldest}: {cure}")


def _difference(tail: bytes, due: bytes) -> str:
    if not tail.startswith(CRC_KEY):
        return "it does not end with a checksum"
    borne, expected = (one[len(CRC_KEY) :][:8].decode("ascii", "replace") for one in (tail, due))
    if borne == expected:
        return "it does not end as a line does"
    return f"its checksum is {borne}, and its bytes after the lines before it give {expected}"


@frozen
class Entry:
    """A record of a log, with its time and line."""

    record: e.Record
    t: int
    """Nanoseconds since the session opened."""
    line: Line


class EmptyLog(LogNotComparable):
    """There is no record in a log."""

    def __init__(self) -> None:
        super().__init__("there is no record in it")


@define
class EntryReader:
    """Reads the records of a log's lines, one line after the other."""

    shorthand: Shorthand = Factory(Shorthand)
    schema: int = SCHEMA
    """The log's schema, once its first line was read."""
    _t: int = 0

    def entries(self, lines: Iterable[Line]) -> Iterator[Entry]:
        """Return the records of the next lines.

        Raises:
            LogCorrupt: While iterating: a line contains no record, or not the next one.
            LogNotComparable: While iterating: the log is too new.
            OSError: While iterating: the file cannot be read.
        """
        for line in lines:
            try:
                fields = self._today(line)
                record = self.shorthand.usual(fields)
                if record is not None and record.n == line.number - 1 and self._t == self.shorthand.t:
                    self.shorthand.note(record, self._t)
                    entry = Entry(record, self._t, line)
                else:
                    entry = self.entry(line, self.shorthand.whole(fields))
            except UnreadableRecord as error:
                raise line.corrupt(str(error)) from None
            yield entry

    def fields(self, line: Line) -> Fields:
        """Return the plain values of the next line, with all that it leaves out.

        Raises:
            UnreadableRecord: It is not JSON, or nothing gives what it leaves out.
        """
        return self.shorthand.whole(self._today(line))

    def _today(self, line: Line) -> Fields:
        """Return the plain values of a line, in today's schema."""
        fields = loads(line.body)
        if line.number == 1 and fields.get("type") == "SessionOpened" and type(fields.get("schema")) is int:
            self.schema = fields["schema"]
        return fields if self.schema == SCHEMA else upcast(fields, self.schema)

    def record(self, line: Line) -> e.Record:
        """Return the record of a line, if those that were skipped before it are of no matter to it.

        Raises:
            UnreadableRecord: It contains no record.
        """
        fields = self.fields(line)
        record = decode(fields)
        self.shorthand.note(record, fields["t"])
        return record

    def entry(self, line: Line, fields: Fields) -> Entry:
        """Return the record of the next line.

        Args:
            line: The line.
            fields: Its plain values, as `fields` returns them.

        Raises:
            UnreadableRecord: It contains no record.
            LogCorrupt: Its record is impossible there.
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
        if fields["t"] < self._t:
            raise line.corrupt("it happened before the record before it")
        self.note(record, fields["t"])
        return Entry(record, self._t, line)

    def note(self, record: e.Record, t: int) -> None:
        """Go on after a record that was not read, because its line is known."""
        self._t = t
        self.shorthand.note(record, t)


def header_in(log: Iterable[Line]) -> e.SessionOpened:
    """Return the header of a log.

    Raises:
        EmptyLog: There is no record in it.
        LogCorrupt, LogNotComparable: The first line has no readable header.
    """
    first = next(entries(log), None)
    if first is None or not isinstance(header := first.record.event, e.SessionOpened):
        raise EmptyLog
    return header


def entries(lines: Iterable[Line]) -> Iterator[Entry]:
    """Return the records of a log's lines, from the first on; see `EntryReader.entries`."""
    return EntryReader().entries(lines)


def _beyond(event: e.Event) -> str | None:
    """Return the field that is larger than a session allows, and the bound; None if there is none."""
    match event:
        case e.SessionOpened():
            return beyond(event.context)
        case e.RequestReceived():
            try:
                check_text("prompt", event.prompt)
                check_text("request_id", event.request_id or "")
                if event.traceparent is not None:
                    check_traceparent(event.traceparent)
            except InvalidRequest as error:
                return str(error)
        case e.PromptTokenized() if len(event.inputs) > MAX_PROMPT_NUMBERS:
            return f"inputs: it has more than {MAX_PROMPT_NUMBERS:,}"
        case e.PromptTokenized() if len(rows_of(event.inputs)) > MAX_PROMPT_ROWS:
            return f"inputs: it has more than {MAX_PROMPT_ROWS:,} rows"
        case _:
            pass
    return None
