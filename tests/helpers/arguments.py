"""What the tests' own programs take on the command line."""

from argparse import ArgumentTypeError


def positive(written: str) -> int:
    """Return a number from the command line, of which there must be one at least."""
    if not (written.isascii() and written.isdecimal() and int(written)):
        raise ArgumentTypeError(f"expected a number from 1 on, got {written!r}")
    return int(written)
