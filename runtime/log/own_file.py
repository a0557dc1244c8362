"""Writes a file that has one writer and only grows: the log, and the rows beside it.

The rules that hold here:

* Nothing is ever overwritten: a writer makes its own file. It takes over an empty file, unless another session that is
  still opening holds it; or, when a session is resumed, a file that no other writer holds, from a given length on.
* A file has one writer. A change by another process (it deleted, moved, replaced, shortened or lengthened the file) is
  found at the next write, and ends writing, because later data would be lost or corrupt.
* `OwnFile.write` returns once the system has the data: it survives the end of the process. It survives a crash of the
  machine once the call of `OwnFile.syncing` has returned too, which another thread may make meanwhile.
* What a sync that failed has lost is not known, so no other one is tried.
"""

import errno
import fcntl
import os
import stat
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Final

from reenact.actors.errors import LogBroken

OTHER_WRITER: Final = "another session is writing it"


class OwnFile:
    """A file that is being written.

    Args:
        path: The file.
        what: Its name in errors.
        existing: Whether to write on in a file that exists; see `cut`.

    Raises:
        FileExistsError: The file exists and is not empty, or another session writes it.
        OSError: The file cannot be made, or not be opened.
    """

    def __init__(self, path: Path, what: str, *, existing: bool = False) -> None:
        self._path = path
        self._what = what
        self._in_folder = existing
        """Whether the folder's own entry of the file is known to be on the disk."""
        self._file: int | None = _reopened(path) if existing else _made(path)
        self._whole_path = path.absolute()  # The process may go to another folder.
        made = os.fstat(self._file)
        self._identity = made.st_dev, made.st_ino
        self.n_bytes = made.st_size

    def check(self) -> None:
        """Refuse to go on if the file is closed, or was changed by another process, and close it.

        Raises:
            LogBroken: The file is closed or was changed.
        """
        if self._file is None:
            raise LogBroken(f"{self._path}: {self._what} is closed")
        if (touched := self._touched()) is not None:
            self.close()
            cure = "keep other programs, such as log rotators, from it until the session closes; and open a new session"
            raise LogBroken(f"{self._path}: while it was written {self._what} was {touched}: {cure}")

    def write(self, data: bytes) -> None:
        """Append data; call `check` first.

        Raises:
            LogBroken: The file cannot be written. It is closed, because its end may be torn and nothing may follow.
        """
        if self._file is None:
            raise LogBroken(f"{self._path}: {self._what} is closed")
        try:
            written = os.write(self._file, data)
            while written < len(data):
                written += os.write(self._file, data[written:])
        except OSError as error:
            self.close()
            raise LogBroken(f"{self._path}: {self._what} cannot be written: {error.strerror}") from error
        self.n_bytes += written

    def syncing(self) -> Callable[[], None]:
        """Return the call that syncs everything that was written so far; the file may be closed meanwhile.

        Raises:
            LogBroken: The file is closed or was changed; or when the call is made: it cannot be synced.
        """
        self.check()
        assert self._file is not None  # noqa: S101  # it was checked
        return partial(self._sync, os.dup(self._file))

    def _sync(self, file: int) -> None:
        try:
            os.fdatasync(file)
            if not self._in_folder:
                _sync_folder(self._whole_path.parent)
                self._in_folder = True
        except OSError as error:
            raise LogBroken(f"{self._path}: {self._what} cannot be synced: {error.strerror}") from error
        finally:
            os.close(file)

    def tail(self, start: int) -> bytes:
        """Return the bytes of an existing file from ``start`` on."""
        return b"" if self._file is None else os.pread(self._file, max(self.n_bytes - start, 0), start)

    def cut(self, length: int) -> None:
        """Shorten an existing file to ``length`` bytes.

        Raises:
            LogBroken: The file is closed or cannot be changed.
        """
        if self._file is None:
            raise LogBroken(f"{self._path}: {self._what} is closed")
        try:
            os.ftruncate(self._file, length)
        except OSError as error:
            self.close()
            raise LogBroken(f"{self._path}: {self._what} cannot be shortened: {error.strerror}") from error
        self.n_bytes = length

    def _touched(self) -> str | None:
        """Return the change that another process made to the file; None if there is none."""
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
        """Close the file and, if nothing was ever written to it, remove it."""
        if self.n_bytes == 0 and self._touched() is None:
            self._whole_path.unlink(missing_ok=True)
        self.close()


def _sync_folder(folder: Path) -> None:
    """Sync the entries of a folder, so that a file in it can be found after a crash of the machine."""
    file = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(file)
    finally:
        os.close(file)


def _made(path: Path) -> int:
    """Return a new file, or an empty one that no other session holds."""
    flags = os.O_WRONLY | os.O_APPEND
    try:
        # A log contains prompts, so only its owner may read it.
        file = os.open(path, flags | os.O_CREAT | os.O_EXCL, 0o600)
    except FileExistsError:
        status = path.lstat()
        if not stat.S_ISREG(status.st_mode) or status.st_size:
            raise
        file = os.open(path, flags | os.O_NOFOLLOW)
    if not held(file) or os.fstat(file).st_size:
        os.close(file)
        raise FileExistsError(errno.EEXIST, OTHER_WRITER, os.fspath(path))
    os.fchmod(file, 0o600)
    return file


def _reopened(path: Path) -> int:
    """Return an existing file that no other session writes."""
    file = os.open(path, os.O_RDWR | os.O_APPEND | os.O_NOFOLLOW)
    if not held(file):
        os.close(file)
        raise FileExistsError(errno.EEXIST, OTHER_WRITER, os.fspath(path))
    return file


def held(file: int) -> bool:
    """Lock a file while it is open; return whether no session held it."""
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:
        pass  # A file system without locks.
    return True
