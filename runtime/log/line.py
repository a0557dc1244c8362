"""A line of a log: one record, and the checksum that continues the line before.

A line ends with ``,"crc":"xxxxxxxx"}`` and a newline: the CRC-32 of its bytes before that, continued from the line
before. So a flip, a loss, a splice and a reordering show. A line counts when it ends in a newline and its very bytes
bear the CRC.
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
        return len(self.body) - 1 + TAIL

    def corrupt(self, reason: str) -> LogCorrupt:
        """Return the error that says what is wrong with this line."""
        return LogCorrupt(self.number, self.offset, reason)
