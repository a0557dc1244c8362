"""The log file: the one module that reads and writes it.

The rules that hold here:

* One record a line, each ending in a newline. Nothing is ever overwritten: a journal makes its own file.
* A line ends with ``,"crc":"xxxxxxxx"}``: the CRC-32 of its bytes before that, continued from the line before. So a
  flip, a loss, a splice and a reordering show. A line counts when it ends in a newline and its very bytes bear the CRC.
* A journal is the only writer of its file. What another process did to it (deleted, moved, replaced, shortened or
  lengthened it) shows at the next write, and nothing is written any more: it would be lost, or corrupt.
* An empty file is no log: it is taken over, unless a session that is still opening holds it.
* What follows the last newline is a torn tail: a write that did not finish. It is not a line.
* No line is longer than `MAX_LINE_BYTES`: none is written, and none is read, so that reading takes no more memory.
* `Journal.append` writes all it is given with one ``write``. It returns when the system has it: what happens to the
  process after that cannot take it back. (What happens to the machine can: there is no ``fsync``.)
"""

import errno
import fcntl
import os
import stat
from collections.abc import Iterable, Iterator
from pathlib import Path
from types import TracebackType
from typing import Final, Self
from zlib import crc32

from attrs import frozen

from reenact.actors.errors import LogBroken, LogCorrupt, LogNotComparable
from reenact.actors.events import Record
from reenact.actors.limits import MAX_LINE_BYTES
from reenact.runtime.log.codec import FORMAT, OLDEST, SCHEMA, UnreadableRecord, UnwritableRecord, dumps, encode, loads
from reenact.runtime.regular import opened

_CRC_KEY: Final = b',"crc":"'
_TAIL: Final = len(_CRC_KEY) + 8 + len(b'"}\n')


def sealed(body: bytes, crc: int) -> tuple[bytes, int]:
    """Return a line with its checksum and newline, and the checksum.

    Args:
        body: The JSON object.
        crc: The checksum of the line before, 0 for the first.
    """
    crc = crc32(body[:-1], crc)
    return body[:-1] + _tail(crc), crc


def _tail(crc: int) -> bytes:
    return b'%b%08x"}\n' % (_CRC_KEY, crc)


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
        """Return what became of the file beside what was written to it, None for nothing."""
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


@frozen
class Line:
    """A line of a log whose bytes bear its checksum."""

    number: int
    """From 1."""
    offset: int
    """Of its first byte in the file."""
    body: bytes
    """The JSON object without the checksum."""

    @property
    def size(self) -> int:
        """Bytes of the line in the file."""
        return len(self.body) - 1 + _TAIL

    def corrupt(self, reason: str) -> LogCorrupt:
        """Return the error that says what is wrong with this line."""
        return LogCorrupt(self.number, self.offset, reason)


class LogFile:
    """A log being read: an iterable of its lines.

    After an iteration ``torn`` is the number of bytes behind the last newline.

    Raises:
        OSError: The file cannot be opened, or it is none: a pipe cannot be read twice, and a device may have no end.
        LogCorrupt: While iterating: a line that does not bear its checksum, or is too long.
        LogNotComparable: While iterating: the log's format or schema is newer than this program's.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(path)
        self._file = opened(self.path, "a log is read twice, which only a file can be: save it to one")
        self.torn = 0
        self._number, self._offset, self._crc = 0, 0, 0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._file.close()

    def __iter__(self) -> Iterator[Line]:
        self._number, self._offset, self._crc = 0, 0, 0
        return self.more()

    def more(self) -> Iterator[Line]:
        """Iterate over the lines that have come since the last iteration ended: the file may grow."""
        self._file.seek(self._offset)
        self.torn = 0
        while raw := self._file.readline(MAX_LINE_BYTES + 1):
            if len(raw) > MAX_LINE_BYTES:
                raise LogCorrupt(self._number + 1, self._offset, f"it has more than {MAX_LINE_BYTES:,} bytes")
            if not raw.endswith(b"\n"):
                self.torn = len(raw)
                return
            if self._offset == 0:
                _check_versions(raw)
            crc = crc32(memoryview(raw)[:-_TAIL], self._crc)
            line = Line(self._number + 1, self._offset, raw[:-_TAIL] + b"}")
            tail = _tail(crc)
            if not raw.endswith(tail):
                raise line.corrupt(_difference(raw[-_TAIL:], tail))
            self._number, self._offset, self._crc = line.number, self._offset + len(raw), crc
            yield line


def _check_versions(raw: bytes) -> None:
    """Refuse a log of another kind before its checksums, which may be of another kind too."""
    try:
        header = loads(raw)
    except UnreadableRecord:
        return
    if header.get("type") == "SessionOpened":
        for name, ours in (("format", FORMAT), ("schema", SCHEMA)):
            theirs = header.get(name)
            if type(theirs) is int and theirs > ours:
                cure = "use the reenact that wrote it, or a newer one"
                raise LogNotComparable(f"the log's {name} is {theirs} and this program reads up to {ours}: {cure}")
            if type(theirs) is int and theirs < OLDEST[name]:
                cure = "use the reenact that wrote it"
                raise LogNotComparable(
                    f"the log's {name} is {theirs} and this program reads from {OLDEST[name]}: {cure}"
                )


def _difference(tail: bytes, due: bytes) -> str:
    if not tail.startswith(_CRC_KEY):
        return "it does not end with a checksum"
    borne, expected = (one[len(_CRC_KEY) :][:8].decode("ascii", "replace") for one in (tail, due))
    if borne == expected:
        return "it does not end as a line does"
    return f"it bears the checksum {borne}, and its bytes after the lines before it give {expected}"
