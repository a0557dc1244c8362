"""The wording of remarks on how a log ends, if it does not end as it should."""

from typing import Final

NOT_CLOSED: Final = "the session did not close: it still runs, or it crashed here"
"""The remark on a log whose last record is not `SessionClosed`."""


def torn(n_bytes: int) -> list[str]:
    """Return the remark on bytes after the last line; none if there are none."""
    return [f"the last {n_bytes:,} bytes are a write that did not finish"] if n_bytes else []


def not_closed(n: int) -> str:
    """Return the remark on a log that ends with record ``n``."""
    return f"record {n:,} is the last one, and {NOT_CLOSED}"
