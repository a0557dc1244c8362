"""Seals the lines of a log: each has one record, and a checksum that continues the one of the line before.

A line ends with ``,"crc":"xxxxxxxx"}`` and a newline: the CRC-32 of its bytes before that, continued from the line
before. So flipped, lost, inserted and reordered bytes are found. A line is valid if it ends in a newline and its CRC
matches its bytes. The first line has this checksum in logs of every format, which distinguishes damage from another
version.
"""

from typing import Final
from zlib import crc32

from attrs import frozen

from reenact.actors.errors import LogCorrupt

CRC_KEY: Final = b',"crc":"'
TAIL: Final = len(CRC_KEY) + 8 + len(b'"}\n')


def sealed(body: bytes, crc: int) -> tuple[bytes, int]:
    """Return a line with its checksum and newline, and the checksum.

    Args:
        body: The JSON object.
        crc: The checksum of the line before, 0 for the first.
    """
    crc = crc32(body[:-1], crc)
    return body[:-1] + tail_of(crc), crc


def tail_of(crc: int) -> bytes:
    """Return the end of a line: its checksum and the newline."""
    return b'%b%08x"}\n' % (CRC_KEY, crc)


@frozen
class Line:
    """A line of a log whose checksum matches."""

    number: int
    """Its number, from 1."""
    offset: int
    """The offset of its first byte in the file."""
    body: bytes
    """The JSON object without the checksum."""

    @property
    def size(self) -> int:
        """The count of the line's bytes in the file."""
        return len(self.body) - 1 + TAIL

    def corrupt(self, reason: str) -> LogCorrupt:
        """Return the error for this line."""
        return LogCorrupt(self.number, self.offset, reason)
