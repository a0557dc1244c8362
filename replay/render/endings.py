"""The wording of remarks on how a log ends, if it does not end as it should."""

from typing import Final

from reenact.runtime.log.reader import EmptyLog

NOT_CLOSED: Final = "the session did not close: it still runs, or it crashed here"
"""The remark on a log whose last record is not `SessionClosed`."""


def end_notes(n_records: int, *, closed: bool, n_torn: int) -> list[str]:
    """Return the notes on the end of a log; none where it ends as it should.

    Args:
        n_records: The count of its records.
        closed: Whether the last one is `SessionClosed`.
        n_torn: The bytes behind the last line.

    Raises:
        EmptyLog: There is no record.
    """
    if not n_records:
        raise EmptyLog
    return [*([] if closed else [f"record {n_records - 1:,} is the last one, and {NOT_CLOSED}"]), *torn(n_torn)]


def torn(n_bytes: int) -> list[str]:
    """Return the remark on bytes after the last line; none if there are none."""
    return [f"the last {n_bytes:,} bytes are a write that did not finish"] if n_bytes else []
