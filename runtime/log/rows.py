"""Reads the rows that a log names, from the file beside it (`rows_path`) that contains the numbers of each row once.

The file begins with a head of 16 bytes: `MAGIC`, the version of the format and the count of numbers in a row, both as
unsigned 32 bits. Then come cells of one size: the SHA-256 of a row's numbers (32 bytes), and the numbers as float32.
All of it is little-endian. This reads it with numpy::

    width = int(np.fromfile(path, "<u4", 1, offset=12)[0])
    cells = np.fromfile(path, [("sha256", "V32"), ("numbers", "<f4", width)], offset=16)
    rows = {cell["sha256"].tobytes().hex(): cell["numbers"] for cell in cells}

The rules that hold here:

* The order of rows is that in which the log first names them (`PromptTokenized`), so the log gives the place of each
  row. Opening the file needs no search, and only the rows that the log names are read, whatever the file contains.
* A row is valid if its numbers have the digest that the log names. Each is verified when it is read.
* Bytes after the rows that the log names are ignored: a part of a cell comes from a write that did not finish, and
  whole cells from a prompt that the session never recorded.
"""

import os
import struct
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Final

from reenact.actors.errors import LogCorrupt, LogNotComparable
from reenact.actors.events import PromptTokenized, SessionOpened
from reenact.actors.inputs import Input, Row, rows_of
from reenact.runtime.engine.row_numbers import NUMBER_SIZE, row_with
from reenact.runtime.log.codec import SCHEMA
from reenact.runtime.log.reader import EntryReader, LogFile
from reenact.runtime.regular import opened

MAGIC: Final = b"REENROWS"
VERSION: Final = 1

_HEAD: Final = struct.Struct("<8sII")
ROWS_CURE: Final = "copy it beside the log, from where the log was written"

_DIGEST: Final = 32
"""Bytes of a SHA-256."""
_BEGINNING: Final = 200
"""The first bytes of a line, which contain its type if this program wrote it."""


class RowsMissing(LogNotComparable):
    """The numbers of a row are missing beside the log."""


class RowsCorrupt(LogCorrupt):
    """The file beside the log does not contain the rows that were written.

    Attributes:
        line: 0, because the error is not in a line of the log.
        byte: The offset in the file of rows where the error begins.
        reason: The file and the error.
    """

    def __init__(self, path: Path, byte: int, reason: str) -> None:
        super().__init__(0, byte, f"{path}: byte {byte:,}: {reason}")

    def __str__(self) -> str:
        return self.reason


def rows_path(log: Path) -> Path:
    """Return the path of a log's file of rows: the log's with ``.rows`` appended."""
    return log.with_name(f"{log.name}.rows")


def head_of(n_bytes: int) -> bytes:
    """Return the head of a file whose rows take ``n_bytes`` each."""
    return _HEAD.pack(MAGIC, VERSION, n_bytes // NUMBER_SIZE)


def cell_of(row: Row, numbers: bytes) -> bytes:
    """Return the cell of a row in the file."""
    return bytes.fromhex(row.digest) + numbers


class RowsFile(Mapping[Row, bytes]):
    """The rows of a log, each by its digest; reading a row verifies it.

    `meet` must be called with each prompt, in the order of the log, to make its rows known.

    Args:
        log: The log.
        width: The count of numbers in a row, from the log's header.
    """

    def __init__(self, log: str | os.PathLike[str], width: int) -> None:
        self.path = rows_path(Path(log))
        self._width = width
        self._places: dict[Row, int] = {}

    @property
    def exists(self) -> bool:
        """Whether there is such a file, whatever it contains."""
        return os.path.lexists(self.path)

    @property
    def size(self) -> int:
        """The count of bytes that the file has if it contains these rows and no others."""
        return _HEAD.size + len(self._places) * (_DIGEST + NUMBER_SIZE * self._width)

    def meet(self, inputs: Iterable[Input]) -> list[Row]:
        """Add the rows of the log's next prompt, and return those that no prompt before it had."""
        new = [row for row in dict.fromkeys(rows_of(inputs)) if row not in self._places]
        for row in new:
            self._places[row] = len(self._places)
        return new

    def __len__(self) -> int:
        return len(self._places)

    def __iter__(self) -> Iterator[Row]:
        return iter(self._places)

    def __getitem__(self, row: Row) -> bytes:
        """Return the numbers of a row.

        Raises:
            KeyError: No prompt has it.
            RowsMissing: There is no file, or it ends before the row.
            RowsCorrupt: The file does not belong to this log, or the row differs from what was written.
        """
        place = self._places[row]
        size = _DIGEST + NUMBER_SIZE * self._width
        offset = _HEAD.size + place * size
        cell = self._read(offset, size)
        if len(cell) < size:
            raise RowsMissing(f"{self.path}: it ends before row {place:,}, which the log names")
        if cell[:_DIGEST].hex() != row.digest or row_with(cell[_DIGEST:]) != row:
            raise RowsCorrupt(self.path, offset, f"row {place:,} is not the one that the log names")
        return cell[_DIGEST:]

    def check(self) -> None:
        """Read every row.

        Raises:
            RowsMissing, RowsCorrupt: A row is missing or differs from what was written.
        """
        for row in self:
            _ = self[row]

    def _read(self, offset: int, size: int) -> bytes:
        """Return bytes of the file, after checking its head."""
        try:
            with opened(self.path, "rows are read one by one, which only a file can be") as file:
                head = os.pread(file.fileno(), _HEAD.size, 0)
                if not _HEAD.pack(MAGIC, VERSION, self._width).startswith(head):
                    raise RowsCorrupt(self.path, 0, self._wrong(head))
                return os.pread(file.fileno(), size, offset)
        except OSError as error:
            raise RowsMissing(f"{self.path}: {error.strerror}") from error

    def _wrong(self, head: bytes) -> str:
        """Return the error in a wrong head."""
        if len(head) < _HEAD.size or not head.startswith(MAGIC):
            return "it does not begin as a file of rows does"
        _, version, width = _HEAD.unpack(head)
        if version != VERSION:
            return f"its format is {version}, and this program reads {VERSION}"
        return f"its rows have {width:,} numbers, and those of the log {self._width:,}"


def rows_in(log: LogFile) -> RowsFile:
    """Return the rows of all prompts of a log.

    Raises:
        LogCorrupt: A line is corrupt; the whole log is read.
        LogNotComparable: The log is too new.
    """
    rows, reader = RowsFile(log.path, 0), EntryReader()
    for line in log:
        if line.number == 1 and isinstance(header := reader.record(line).event, SessionOpened):
            rows = RowsFile(log.path, header.context.n_embd)
        elif reader.schema != SCHEMA or b'"PromptTokenized"' in line.body[:_BEGINNING]:
            event = reader.record(line).event
            rows.meet(event.inputs if isinstance(event, PromptTokenized) else ())
    return rows
