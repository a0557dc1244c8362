"""Regular files, opened for reading, and their names as text: nothing that is no such file is waited for, or touched.

The rule that holds here: logs and models are opened here and nowhere else. A pipe, a device or a socket is refused by
its kind before it is opened, because opening it can wait for ever, and reading it has no end.
"""

import errno
import os
import stat
from pathlib import Path
from typing import BinaryIO


def opened(path: Path, why: str) -> BinaryIO:
    """Return a file that can be read twice.

    Args:
        path: The file; a folder is refused by the system's own error.
        why: Why it must be one, and what to do.

    Raises:
        OSError: It cannot be opened, or it is none.
    """
    kind = path.stat().st_mode
    if not (stat.S_ISREG(kind) or stat.S_ISDIR(kind)):
        raise OSError(errno.EINVAL, why, os.fspath(path))
    # Without waiting, should it have become a pipe meanwhile.
    return open(path, "rb", opener=lambda name, flags: os.open(name, flags | os.O_NONBLOCK))


def text_of_name(name: str | os.PathLike[str]) -> str:
    """Return the name of a file as text: bytes in it that are no UTF-8 are escaped."""
    return os.fsencode(name).decode(errors="backslashreplace")
