"""Writes the log and the rows that it names; no other module does.

The rules that hold here:

* Each line has one record and ends in a newline. The text is compressed if the file's name ends in ``.zst``, and what
  one ``write`` has written can be read at once all the same.
* `Journal.append` writes all its lines with one ``write``, and returns once the system has them
  (`reenact.runtime.log.own_file`). Only a log whose durability is "relaxed" is written in pieces of `RELAXED_TEXT`.
* `Journal.syncing` syncs rows before the log that names them.
* Rows are written to the file beside the log before the record that names them. If the process dies in between, some
  rows are never named, but every row that is named exists.
* Each row is written once, in the order in which the log first names them.
"""

import errno
import os
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Final

from reenact.actors.errors import LogBroken
from reenact.actors.events import PromptTokenized, Record, SessionClosed
from reenact.actors.header import Durability
from reenact.actors.inputs import Input, Row, rows_of
from reenact.actors.limits import MAX_LINE_BYTES
from reenact.runtime.engine.row_numbers import Numbers
from reenact.runtime.log.codec import UnwritableRecord, dumps, loads
from reenact.runtime.log.compressed import ENDING, Compressor, is_compressed
from reenact.runtime.log.line import sealed
from reenact.runtime.log.own_file import OwnFile
from reenact.runtime.log.reader import End, Entry
from reenact.runtime.log.rows import RowsFile, cell_of, head_of, rows_path
from reenact.runtime.log.shorthand import Shorthand
from reenact.runtime.regular import opened

RELAXED_TEXT: Final = 2**16
"""The bytes of text that a log whose durability is "relaxed" collects before it writes them."""


class Journal:
    """A log being written.

    Args:
        path: The file.
        durability: The durability of the log; only "relaxed" changes how it is written.
        existing: Whether to write on in a log that exists; then `go_on` must be called first.

    Raises:
        FileExistsError: The file exists and is not empty, or belongs to another session that has yet to write to it, or
            has rows beside it; a log is never overwritten. Or another session writes the log that exists.
        OSError: The file cannot be made, or not be opened.
    """

    def __init__(
        self, path: str | os.PathLike[str], *, durability: Durability = "process", existing: bool = False
    ) -> None:
        self.path = Path(path)
        self.durability = durability
        self._collected = b""
        self._crc = 0
        self._shorthand = Shorthand()
        self._compressor = Compressor() if _is_compressed(self.path) else None
        self._rows_path = rows_path(self.path)
        self._rows: OwnFile | None = None
        """Made with the first row, because most logs have none."""
        self._known: set[Row] = set()
        if not existing and os.path.lexists(self._rows_path):
            raise FileExistsError(errno.EEXIST, "there are rows of another log", os.fspath(self._rows_path))
        self._file = OwnFile(self.path, "the log", existing=existing)
        self._whole_rows_path = self._rows_path.absolute()  # The process may go to another folder.

    def go_on(self, end: End, before: Iterable[Entry], rows: RowsFile) -> int:
        """Write on after the last line of a log, and keep the bytes behind it in a file beside it.

        Args:
            end: The end of that line.
            before: The log's records.
            rows: The rows that the log names.

        Returns:
            The count of the bytes that were behind, from a write that did not finish.

        Raises:
            OSError: The bytes cannot be kept.
            LogBroken: A file cannot be shortened.
        """
        behind = self._file.n_bytes - end.length
        if behind:
            torn = self.path.with_name(f"{self.path.name}.torn")
            with open(torn, "ab", opener=lambda name, flags: os.open(name, flags, 0o600)) as file:
                file.write(self._file.tail(end.length))
                os.fsync(file.fileno())
            self._file.cut(end.length)
        if self._compressor is not None:
            with self.path.open("rb") as written:
                ending = self._compressor.go_on(written)
            self._file.write(ending)
        self._crc = end.crc
        for entry in before:
            if entry.line.number == 1:
                self._shorthand.whole(loads(entry.line.body))  # It has the defaults that requests leave out.
            self._shorthand.note(entry.record, entry.t)
        self._known = set(rows)
        if rows.exists:
            self._rows = OwnFile(self._whole_rows_path, "the file of rows", existing=True)
            # Rows that no record names come from a prompt that was never recorded.
            self._rows.cut(rows.size if self._known else 0)
            if not self._known:
                self._rows.discard()
                self._rows = None
        return behind

    @property
    def n_bytes(self) -> int:
        """The count of the log's bytes, without rows."""
        return self._file.n_bytes

    def _made(self) -> OwnFile:
        """Return a new file for rows."""
        try:
            return OwnFile(self._whole_rows_path, "the file of rows")
        except OSError as error:
            raise LogBroken(f"{self._rows_path}: the file of rows cannot be made: {error.strerror}") from error

    def append(self, records: Sequence[Record], t: int, numbers: Numbers | None = None) -> None:
        """Write records that happened at ``t``, in nanoseconds since the session opened.

        Args:
            records: The records.
            t: When they happened.
            numbers: The numbers of their rows, and maybe of others; None if they are not available, and the log is to
                be without them.

        Raises:
            LogBroken: The file cannot be written. The journal is closed, because its last line may be torn and nothing
                may follow.
            UnwritableRecord: A record contains something that no log may contain; none of the records was written.
        """
        try:
            self._file.check()
            if self._rows is not None:
                self._rows.check()
            text = self._lines(records, t)
            if numbers is not None:
                self._keep(records, numbers)
            last = isinstance(records[-1].event, SessionClosed)
            if self.durability == "relaxed":
                self._collected += text
                if len(self._collected) < RELAXED_TEXT and not last:
                    return
                text, self._collected = self._collected, b""
            self._write(text, last=last)
        except LogBroken:
            self._collected = b""
            self.close()
            raise

    def _write(self, text: bytes, *, last: bool) -> None:
        self._file.write(text if self._compressor is None else self._compressor.block(text, last=last))

    def syncing(self) -> Callable[[], None]:
        """Return the call that syncs everything that was written so far, which another thread may make.

        Raises:
            LogBroken: The journal is closed, or another process changed a file; or when the call is made: a file cannot
                be synced.
        """
        calls = [] if self._rows is None else [self._rows.syncing()]
        calls.append(self._file.syncing())

        def sync() -> None:
            for call in calls:
                call()

        return sync

    def _lines(self, records: Sequence[Record], t: int) -> bytes:
        lines, crc = [], self._crc
        for record in records:
            line, crc = sealed(dumps(self._shorthand.short(record, t)), crc)
            if len(line) > MAX_LINE_BYTES:
                raise UnwritableRecord(f"{type(record.event).__name__}: a line of {len(line):,} bytes")
            self._shorthand.note(record, t)
            lines.append(line)
        self._crc = crc
        return b"".join(lines)

    def copy(self, text: bytes, *, last: bool) -> None:
        """Write lines of another log as they are, instead of records.

        Args:
            text: The lines.
            last: Whether no more will follow.

        Raises:
            LogBroken: The file cannot be written.
        """
        self._file.check()
        self._write(text, last=last)

    def _keep(self, records: Sequence[Record], numbers: Numbers) -> None:
        """Write the rows that these records name for the first time."""
        for record in records:
            if isinstance(record.event, PromptTokenized):
                self.keep_rows(record.event.inputs, numbers)

    def keep_rows(self, inputs: Iterable[Input], numbers: Numbers) -> None:
        """Write the rows of a prompt that were not written before.

        Args:
            inputs: The prompt.
            numbers: The numbers of its rows.

        Raises:
            LogBroken: The file cannot be written.
        """
        named = dict.fromkeys(rows_of(inputs))
        new = [row for row in named if row not in self._known]
        if not new:
            return
        cells = b"".join(cell_of(row, numbers[row]) for row in new)
        if self._rows is None:
            self._rows = self._made()
            cells = head_of(len(numbers[new[0]])) + cells
        self._rows.write(cells)
        self._known.update(new)

    def close(self) -> None:
        """Close the files. Closing twice is the same as closing once."""
        if self._collected:
            text, self._collected = self._collected, b""
            with suppress(LogBroken):  # Of a session that is broken already: any other ended with `SessionClosed`.
                self._file.check()
                self._write(text, last=False)
        self._file.close()
        if self._rows is not None:
            self._rows.close()

    def discard(self) -> None:
        """Close the journal and, if nothing was ever written to it, remove its file."""
        self._file.discard()
        self.close()


def _is_compressed(path: Path) -> bool:
    """Return whether a log is or will be compressed."""
    try:
        with opened(path, "a log is a file") as file:
            return is_compressed(path, file)
    except OSError:
        return path.name.endswith(ENDING)
