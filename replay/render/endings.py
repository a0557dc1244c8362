"""How a log ends, in words: the one place for what is said where it does not end as it should."""

from typing import Final

NOT_CLOSED: Final = "the session did not close: it still runs, or it crashed here"
"""A log whose last record is not `SessionClosed`."""


def torn(n_bytes: int) -> list[str]:
    """Return what is to be said of bytes behind the last line; nothing where there are none."""
    return [f"the last {n_bytes:,} bytes are a write that did not finish"] if n_bytes else []


def not_closed(n: int) -> str:
    """Return what is to be said of a log that ends with record ``n``."""
    return f"record {n:,} is the last one, and {NOT_CLOSED}"
