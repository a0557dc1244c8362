"""Writes a new log that is made of another one: whole, or not at all."""

import os
from collections.abc import Iterator
from contextlib import contextmanager

from reenact.runtime.log.rows import rows_path
from reenact.runtime.log.writer import Journal


@contextmanager
def new_log(out: str | os.PathLike[str]) -> Iterator[Journal]:
    """Open the journal of a new log for a block; if the block fails, the file and its rows are removed.

    Args:
        out: The path of the log, which must not exist.

    Raises:
        OSError: The file cannot be made; FileExistsError if it exists.
    """
    journal = Journal(out)
    try:
        yield journal
    except BaseException:
        journal.close()
        for path in (rows_path(journal.path), journal.path):
            path.unlink(missing_ok=True)
        raise
    journal.close()
