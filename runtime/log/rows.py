"""The rows that a log names: a file beside it, `rows_path`, that holds the numbers of each row once.

It begins with a head of 16 bytes: `MAGIC`, the version of the format and the count of numbers in a row, both as
unsigned 32 bits. Then come cells of one size: the SHA-256 of a row's numbers (32 bytes), and the numbers as float32.
All is little-endian. Numpy reads it so::

    width = int(np.fromfile(path, "<u4", 1, offset=12)[0])
    cells = np.fromfile(path, [("sha256", "V32"), ("numbers", "<f4", width)], offset=16)
    rows = {cell["sha256"].tobytes().hex(): cell["numbers"] for cell in cells}

The rules that hold here:

* Rows stand in the order in which the log names them first (`PromptTokenized`), so the log says where each is: nothing
  need be looked through to open the file, and what is read is as much as the log names, whatever the file claims.
* A row counts if its numbers have the digest that the log names. Each is verified when it is read.
* What is behind the rows that the log names is nobody's: a part of a cell is a write that did not finish, and whole
  ones are of a prompt that the session did not come to record.
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
from reenact.runtime.log.codec import decode, loads
from reenact.runtime.log.reader import LogFile
from reenact.runtime.regular import opened

MAGIC: Final = b"REENROWS"
VERSION: Final = 1

_HEAD: Final = struct.Struct("<8sII")
ROWS_CURE: Final = "copy it beside the log, from where the log was written"

_DIGEST: Final = 32
"""Bytes of a SHA-256."""
_BEGINNING: Final = 200
"""Bytes of a line in which its type stands, where this program wrote it."""


class RowsMissing(LogNotComparable):
    """The numbers of a row are not beside the log."""


class RowsCorrupt(LogCorrupt):
    """What is beside the log are not the rows that were written.

    Attributes:
        line: 0: it is no line of the log.
        byte: The offset in the file of rows at which that begins which is wrong.
        reason: The file and what is wrong with it.
    """

    def __init__(self, path: Path, byte: int, reason: str) -> None:
        super().__init__(0, byte, f"{path}: byte {byte:,}: {reason}")

    def __str__(self) -> str:
        return self.reason


def rows_path(log: Path) -> Path:
    """Return the file that holds the rows of a log: its name with ``.rows`` behind it."""
    return log.with_name(f"{log.name}.rows")


def head_of(n_bytes: int) -> bytes:
    """Return the beginning of a file whose rows take so many bytes each."""
    return _HEAD.pack(MAGIC, VERSION, n_bytes // NUMBER_SIZE)


def cell_of(row: Row, numbers: bytes) -> bytes:
    """Return what stands in the file for a row."""
    return bytes.fromhex(row.digest) + numbers


class RowsFile(Mapping[Row, bytes]):
    """The rows of a log, being read: each by its digest, verified.

    Which rows there are is told by `meet`, prompt by prompt in the order of the log.

    Args:
        log: The log.
        width: The count of numbers in a row, as the log's header has it.
    """

    def __init__(self, log: str | os.PathLike[str], width: int) -> None:
        self.path = rows_path(Path(log))
        self._width = width
        self._places: dict[Row, int] = {}

    @property
    def exists(self) -> bool:
        """Whether there is such a file, whatever is in it."""
        return os.path.lexists(self.path)

    def meet(self, inputs: Iterable[Input]) -> list[Row]:
        """Take the rows of the next prompt of the log, and return those that none before it had."""
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
            RowsCorrupt: The file is none of this log's rows, or the row is not what was written.
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
            RowsMissing, RowsCorrupt: One is not there as it was written.
        """
        for row in self:
            _ = self[row]

    def _read(self, offset: int, size: int) -> bytes:
        """Return what the file has there, once its head is the one that it must have."""
        try:
            with opened(self.path, "rows are read one by one, which only a file can be") as file:
                head = os.pread(file.fileno(), _HEAD.size, 0)
                if not _HEAD.pack(MAGIC, VERSION, self._width).startswith(head):
                    raise RowsCorrupt(self.path, 0, self._wrong(head))
                return os.pread(file.fileno(), size, offset)
        except OSError as error:
            raise RowsMissing(f"{self.path}: {error.strerror}") from error

    def _wrong(self, head: bytes) -> str:
        """Return what is wrong with a head that is not the right one."""
        if len(head) < _HEAD.size or not head.startswith(MAGIC):
            return "it does not begin as a file of rows does"
        _, version, width = _HEAD.unpack(head)
        if version != VERSION:
            return f"its format is {version}, and this program reads {VERSION}"
        return f"its rows have {width:,} numbers, and those of the log {self._width:,}"


def rows_in(log: LogFile) -> RowsFile:
    """Return the rows of all prompts of a log.

    Raises:
        LogCorrupt: A line is, up to the end of the log.
        LogNotComparable: The log is too new.
    """
    rows = RowsFile(log.path, 0)
    for line in log:
        if line.number == 1 and isinstance(header := decode(loads(line.body)).event, SessionOpened):
            rows = RowsFile(log.path, header.context.n_embd)
        elif b'"PromptTokenized"' in line.body[:_BEGINNING]:
            event = decode(loads(line.body)).event
            rows.meet(event.inputs if isinstance(event, PromptTokenized) else ())
    return rows
