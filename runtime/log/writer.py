"""The log file being written: the one module that writes it.

The rules that hold here:

* One record a line, each ending in a newline. Nothing is ever overwritten: a journal makes its own file.
* A journal is the only writer of its file. What another process did to it (deleted, moved, replaced, shortened or
  lengthened it) shows at the next write, and nothing is written any more: it would be lost, or corrupt.
* An empty file is no log: it is taken over, unless a session that is still opening holds it.
* `Journal.append` writes all it is given with one ``write``. It returns when the system has it: what happens to the
  process after that cannot take it back. (What happens to the machine can: there is no ``fsync``.)
"""

import errno
import fcntl
import os
import stat
from collections.abc import Iterable
from pathlib import Path

from reenact.actors.errors import LogBroken
from reenact.actors.events import Record
from reenact.actors.limits import MAX_LINE_BYTES
from reenact.runtime.log.codec import UnwritableRecord, dumps, encode
from reenact.runtime.log.line import sealed


class Journal:
    """A log being written.

    Raises:
        FileExistsError: There is such a file already, with something in it or of another session that has yet to write
            to it; a log is never overwritten.
        OSError: The file cannot be made.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(path)
        self.n_bytes = 0
        self._crc = 0
        self._file: int | None = _made(self.path)
        self._whole_path = self.path.absolute()  # The process may go to another folder.
        made = os.fstat(self._file)
        self._identity = made.st_dev, made.st_ino

    def append(self, records: Iterable[Record], t: int) -> None:
        """Write records that happened at ``t``, in nanoseconds since the session opened.

        Raises:
            LogBroken: The file cannot be written. The journal is closed: its last line may be torn, and
                nothing may follow that.
            UnwritableRecord: A record holds what no log may hold; none of them was written.
        """
        if self._file is None:
            raise LogBroken(f"{self.path}: the log is closed")
        if (touched := self._touched()) is not None:
            self.close()
            cure = "keep other programs, such as log rotators, from it until the session closes; and open a new session"
            raise LogBroken(f"{self.path}: while it was written the log was {touched}: {cure}")
        lines, crc = [], self._crc
        for record in records:
            line, crc = sealed(dumps(encode(record, t)), crc)
            if len(line) > MAX_LINE_BYTES:
                raise UnwritableRecord(f"{type(record.event).__name__}: a line of {len(line):,} bytes")
            lines.append(line)
        data = b"".join(lines)
        self._crc = crc
        try:
            written = os.write(self._file, data)
            while written < len(data):
                written += os.write(self._file, data[written:])
        except OSError as error:
            self.close()
            raise LogBroken(f"{self.path}: the log cannot be written: {error.strerror}") from error
        self.n_bytes += written

    def _touched(self) -> str | None:
        """Return the change that another process made to the file; None where there is none."""
        try:
            found = self._whole_path.stat()
        except FileNotFoundError:
            return "deleted or moved"
        except OSError as error:
            return f"put out of reach ({error.strerror})"
        if (found.st_dev, found.st_ino) != self._identity:
            return "replaced by another file"
        if found.st_size == self.n_bytes:
            return None
        how = "shortened" if found.st_size < self.n_bytes else "lengthened"
        return f"{how} from {self.n_bytes:,} bytes to {found.st_size:,}"

    def close(self) -> None:
        """Close the file. Closing twice is the same as closing once."""
        if self._file is not None:
            os.close(self._file)
            self._file = None

    def discard(self) -> None:
        """Close the journal and, if nothing was ever written to it, remove its file."""
        if self.n_bytes == 0 and self._touched() is None:
            self._whole_path.unlink(missing_ok=True)
        self.close()


def _made(path: Path) -> int:
    """Return a new file, or one that is empty and nobody's."""
    flags = os.O_WRONLY | os.O_APPEND
    try:
        # A log holds prompts: it is its owner's.
        file = os.open(path, flags | os.O_CREAT | os.O_EXCL, 0o600)
    except FileExistsError:
        status = path.lstat()
        if not stat.S_ISREG(status.st_mode) or status.st_size:
            raise
        file = os.open(path, flags | os.O_NOFOLLOW)
    if not _held(file) or os.fstat(file).st_size:
        os.close(file)
        raise FileExistsError(errno.EEXIST, "another session is writing it", os.fspath(path))
    os.fchmod(file, 0o600)
    return file


def _held(file: int) -> bool:
    """Mark a file as this session's for as long as it is open; return whether it was nobody's."""
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:
        pass  # A file system without locks.
    return True
