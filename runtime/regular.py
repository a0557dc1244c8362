"""Opens regular files for reading, refuses all others, and shows file names as text.

The rule that holds here: logs and models are opened here and nowhere else. A pipe, a device or a socket is refused
before it is opened, because opening it may block for ever, and reading it may never end.
"""

import errno
import os
import stat
from pathlib import Path
from typing import BinaryIO


def opened(path: Path, why: str) -> BinaryIO:
    """Return a file that can be read twice.

    Args:
        path: The file; for a folder, the system raises its own error.
        why: The reason why it must be a regular file, and what to do.

    Raises:
        OSError: It cannot be opened, or is not a regular file.
    """
    kind = path.stat().st_mode
    if not (stat.S_ISREG(kind) or stat.S_ISDIR(kind)):
        raise OSError(errno.EINVAL, why, os.fspath(path))
    # Does not block, even if it has become a pipe meanwhile.
    return open(path, "rb", opener=lambda name, flags: os.open(name, flags | os.O_NONBLOCK))


def text_of_name(name: str | os.PathLike[str]) -> str:
    """Return the name of a file as text; bytes that are not UTF-8 are escaped."""
    return os.fsencode(name).decode(errors="backslashreplace")
