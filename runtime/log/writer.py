"""The log being written, with the rows that it names: the one module that writes it.

The rules that hold here:

* One record a line, each ending in a newline.
* `Journal.append` writes all lines it is given with one ``write``, and returns when the system has them
  (`reenact.runtime.log.own_file`).
* Rows go to the file beside the log before the record that names them: where a process dies in between, rows stand
  there that nobody names, and no row is named that is not there.
* Rows stand there in the order in which the log names them first, each once.
"""

import errno
import os
from collections.abc import Sequence
from pathlib import Path

from reenact.actors.errors import LogBroken
from reenact.actors.events import PromptTokenized, Record
from reenact.actors.inputs import Row, rows_of
from reenact.actors.limits import MAX_LINE_BYTES
from reenact.runtime.engine.row_numbers import Numbers
from reenact.runtime.log.codec import UnwritableRecord, dumps, encode
from reenact.runtime.log.line import sealed
from reenact.runtime.log.own_file import OwnFile
from reenact.runtime.log.rows import cell_of, head_of, rows_path


class Journal:
    """A log being written.

    Raises:
        FileExistsError: There is such a file already, with something in it or of another session that has yet to write
            to it, or there are rows beside it; a log is never overwritten.
        OSError: The file cannot be made.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(path)
        self._crc = 0
        self._rows_path = rows_path(self.path)
        self._rows: OwnFile | None = None
        """Made with the first row: most logs have none."""
        self._known: set[Row] = set()
        if os.path.lexists(self._rows_path):
            raise FileExistsError(errno.EEXIST, "there are rows of another log", os.fspath(self._rows_path))
        self._file = OwnFile(self.path, "the log")
        self._whole_rows_path = self._rows_path.absolute()  # The process may go to another folder.

    @property
    def n_bytes(self) -> int:
        """Bytes of the log, apart from rows."""
        return self._file.n_bytes

    def _made(self) -> OwnFile:
        """Return the file for rows, which is nobody's."""
        try:
            return OwnFile(self._whole_rows_path, "the file of rows")
        except OSError as error:
            raise LogBroken(f"{self._rows_path}: the file of rows cannot be made: {error.strerror}") from error

    def append(self, records: Sequence[Record], t: int, numbers: Numbers | None = None) -> None:
        """Write records that happened at ``t``, in nanoseconds since the session opened.

        Args:
            records: The records.
            t: When they happened.
            numbers: Those of the rows in them, and of others; None where they are not to be had, and the log is to be
                without them.

        Raises:
            LogBroken: The file cannot be written. The journal is closed: its last line may be torn, and
                nothing may follow that.
            UnwritableRecord: A record holds what no log may hold; none of them was written.
        """
        try:
            self._file.check()
            if self._rows is not None:
                self._rows.check()
            lines = self._lines(records, t)
            if numbers is not None:
                self._keep(records, numbers)
            self._file.write(lines)
        except LogBroken:
            self.close()
            raise

    def _lines(self, records: Sequence[Record], t: int) -> bytes:
        lines, crc = [], self._crc
        for record in records:
            line, crc = sealed(dumps(encode(record, t)), crc)
            if len(line) > MAX_LINE_BYTES:
                raise UnwritableRecord(f"{type(record.event).__name__}: a line of {len(line):,} bytes")
            lines.append(line)
        self._crc = crc
        return b"".join(lines)

    def _keep(self, records: Sequence[Record], numbers: Numbers) -> None:
        """Write the rows that these records are the first to name."""
        prompts = (record.event for record in records if isinstance(record.event, PromptTokenized))
        named = dict.fromkeys(row for prompt in prompts for row in rows_of(prompt.inputs))
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
        self._file.close()
        if self._rows is not None:
            self._rows.close()

    def discard(self) -> None:
        """Close the journal and, if nothing was ever written to it, remove its file."""
        self._file.discard()
        self.close()
