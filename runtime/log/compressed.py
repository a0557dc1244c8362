"""Compresses the text of a log whose name ends in ``.zst``, and reads it, also while it grows.

The file is what ``zstd`` writes and ``zstdcat`` reads: frames one after the other. `FRAME_TEXT` of text or more make a
frame, and a seal follows it: a skippable frame, which other programs ignore, with the CRC-32 of all bytes of the file
before it.

The rules that hold here:

* Each fact ends a block. So a process that dies loses no more than it would lose of plain text.
* A block is read once it is whole. Bytes of one that is not are a torn tail, unless a seal shows that more was written.
* Damage is never read over: a block that zstd refuses, one larger than a block may be, or a seal with other bytes
  before it is corrupt. In a frame without its seal, so in the last one of a session that did not close, a bit may be
  flipped that means nothing to zstd; the lines have their own checksums.
* A reader holds a block and a line in memory, whatever the file claims.
"""

import struct
from pathlib import Path
from typing import BinaryIO, Final
from zlib import crc32

import zstandard

ENDING: Final = ".zst"
LEVEL: Final = 1
"""14 microseconds and 46 to 59 bytes a token at 8 sequences; level 3 takes 23 and no less space in blocks of one fact,
level 9 takes 60 to 140 for 8% less, and 11 MB of memory."""
FRAME_TEXT: Final = 2**20
"""The bytes of text after which a frame ends: damage behind a seal is always found, and a frame costs some 200 bytes
until it repeats itself."""

_MAGIC: Final = zstandard.FRAME_HEADER
_SEAL_HEAD: Final = struct.pack("<II4s", 0x184D2A5E, 8, b"REEN")
_FIRST: Final = 8
"""The bytes of a frame's beginning that show what it is; no frame is shorter."""
_BLOCK_HEAD: Final = 3
_REPEATED, _RESERVED = 1, 3
"""Types of blocks: one byte that is repeated; and none."""
_CHECKSUM: Final = 4
"""The bytes of a seal's checksum, and of the one that other programs write at the end of a frame."""
_NO_MORE: Final = (1).to_bytes(_BLOCK_HEAD, "little")
"""An empty block that is the last of its frame."""
_MOST_BLOCK: Final = 2**17
"""The most bytes of a block."""
_MOST_WINDOW: Final = 2**27
"""The largest window that ``zstdcat`` reads without being asked to."""
_CHUNK: Final = 2**14


class DamagedFile(ValueError):
    """A compressed file contains other bytes than were written.

    Attributes:
        byte: The offset in the file of the frame, block or seal that is damaged.
    """

    def __init__(self, byte: int, reason: str) -> None:
        super().__init__(f"byte {byte:,} of the compressed file: {reason}")
        self.byte = byte


def is_compressed(path: Path, file: BinaryIO) -> bool:
    """Return whether a log is compressed: by its name, or by how it begins if it was renamed."""
    begins = file.read(len(_MAGIC))
    file.seek(0)
    return path.name.endswith(ENDING) or begins == _MAGIC


def split_name(log: Path) -> tuple[str, str]:
    """Return the name of a log without its ending, and the ending of logs made of it."""
    name = log.name.removesuffix(ENDING)
    return Path(name).stem, ".jsonl" + (ENDING if name != log.name else "")


def _seal(crc: int) -> bytes:
    """Return the seal of the bytes with this checksum."""
    return _SEAL_HEAD + struct.pack("<I", crc)


class Compressor:
    """Turns the text of a log into the bytes of its file."""

    def __init__(self) -> None:
        self._frame: zstandard.ZstdCompressionObj | None = None
        self._n_text = 0
        self._crc = 0

    def block(self, text: bytes, *, last: bool) -> bytes:
        """Return the bytes of a fact's lines, which can be read once they are written.

        Args:
            text: The lines.
            last: Whether no more will follow; then the file is sealed.
        """
        if self._frame is None:
            self._frame, self._n_text = zstandard.ZstdCompressor(level=LEVEL).compressobj(), 0
        self._n_text += len(text)
        data = self._frame.compress(text)
        if not last and self._n_text < FRAME_TEXT:
            data += self._frame.flush(zstandard.COMPRESSOBJ_FLUSH_BLOCK)
            self._crc = crc32(data, self._crc)
            return data
        data += self._frame.flush(zstandard.COMPRESSOBJ_FLUSH_FINISH)
        data += _seal(crc32(data, self._crc))
        self._frame, self._crc = None, crc32(data, self._crc)
        return data

    def go_on(self, file: BinaryIO) -> bytes:
        """Go on after the blocks of a file, and return the bytes that end its last frame.

        Raises:
            DamagedFile: Another program began that frame, and has not ended it.
        """
        text = CompressedText(file)
        ending = text.ending()
        seal = _seal(crc32(ending, text.crc))
        self._frame, self._crc = None, crc32(ending + seal, text.crc)
        return ending + seal


class CompressedText:
    """The text of a compressed file, line by line.

    Args:
        file: The file, which may grow.
    """

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self.rewind()

    def rewind(self) -> None:
        """Go to the beginning."""
        self._file.seek(0)
        self._raw, self._offset, self._crc = b"", 0, 0
        self._text, self._start = bytearray(), 0
        self._frame: zstandard.ZstdDecompressionObj | None = None
        self._checksum = False
        self._last = False

    @property
    def at_boundary(self) -> bool:
        """Whether the text of all blocks so far was read."""
        return self._start == len(self._text)

    @property
    def between_frames(self) -> bool:
        """Whether all text up to the end of a frame was read, and no more."""
        return self._frame is None and self.at_boundary

    def go_to(self, offset: int, crc: int) -> bool:
        """Go to the seal of a frame that ends at an offset in the file; return whether it is there.

        Args:
            offset: The offset.
            crc: The CRC-32 of the bytes before it.
        """
        seal = _seal(crc)
        self._file.seek(offset)
        if self._file.read(len(seal)) != seal:
            return False
        self.rewind()
        self._file.seek(offset)
        self._offset, self._crc = offset, crc
        return True

    @property
    def crc(self) -> int:
        """The CRC-32 of the bytes that were read."""
        return self._crc

    def ending(self) -> bytes:
        """Read all blocks, and return the block that ends the frame if they do not end it.

        Raises:
            DamagedFile: The file cannot be decompressed, or another program has not ended the frame.
        """
        while self._read_block():
            del self._text[:]
        if self._frame is None:
            return b""
        if self._checksum:
            raise DamagedFile(self._offset, "another program began this frame, and has not ended it")
        return _NO_MORE

    @property
    def n_bytes(self) -> int:
        """The bytes of the file that were read, up to the torn tail."""
        return self._offset

    @property
    def n_torn(self) -> int:
        """The bytes after them, as far as the file was read."""
        return len(self._raw)

    def readline(self, limit: int) -> bytes:
        """Return the next line; or so many bytes of it; or at the end of the file what there is, which stays unread.

        Raises:
            DamagedFile: It cannot be decompressed.
        """
        searched = self._start
        while (end := self._text.find(b"\n", searched)) < 0 and len(self._text) - self._start < limit:
            searched = len(self._text)
            if not self._read_block():
                return bytes(self._text[self._start :])
        stop = min(end + 1, self._start + limit) if end >= 0 else self._start + limit
        line = bytes(self._text[self._start : stop])
        self._start = stop
        if self._start > _CHUNK:
            del self._text[: self._start]
            self._start = 0
        return line

    def _read_block(self) -> bool:
        """Read one more block, or what is between two frames; return whether there was one."""
        while (size := self._next_size()) is None or size > len(self._raw):
            more = self._file.read(_CHUNK)
            if not more:
                if self._raw.find(_SEAL_HEAD) > 0:
                    raise DamagedFile(self._offset, "it ends before what was written behind it")
                return False
            self._raw += more
        data, self._raw = self._raw[:size], self._raw[size:]
        self._take(data)
        self._offset += size
        self._crc = crc32(data, self._crc)
        return True

    def _next_size(self) -> int | None:
        """Return the length of what comes next; None if that is not known yet."""
        if self._frame is None:
            return self._size_between_frames()
        if self._last:
            return _CHECKSUM
        if len(self._raw) < _BLOCK_HEAD:
            return None
        head = int.from_bytes(self._raw[:_BLOCK_HEAD], "little")
        kind, size = head >> 1 & 3, head >> 3
        if kind == _RESERVED or size > _MOST_BLOCK:
            raise DamagedFile(self._offset, "no block is like that")
        return _BLOCK_HEAD + (1 if kind == _REPEATED else size)

    def _size_between_frames(self) -> int | None:
        if len(self._raw) < _FIRST:
            return None
        if self._raw.startswith(_MAGIC):
            try:
                size: int = zstandard.frame_header_size(self._raw)
            except zstandard.ZstdError as error:
                raise DamagedFile(self._offset, str(error)) from None
            return size
        if not self._raw.startswith(_SEAL_HEAD[:_FIRST]):
            raise DamagedFile(self._offset, "neither a frame nor a seal begins like that")
        return len(_SEAL_HEAD) + _CHECKSUM

    def _take(self, data: bytes) -> None:
        """Decompress a block, or begin or end a frame, or check a seal."""
        if self._frame is None and not data.startswith(_MAGIC):
            if data != _seal(self._crc):
                raise DamagedFile(self._offset, "its seal is not that of the bytes before it")
            return
        try:
            if self._frame is None:
                parameters = zstandard.get_frame_parameters(data)
                self._checksum, self._last = parameters.has_checksum, False
                self._frame = zstandard.ZstdDecompressor(max_window_size=_MOST_WINDOW).decompressobj()
                self._frame.decompress(data)
                return
            self._text += self._frame.decompress(data)
        except zstandard.ZstdError as error:
            raise DamagedFile(self._offset, str(error)) from None
        ended = self._last or (data[0] & 1 and not self._checksum)
        self._last = not ended and bool(data[0] & 1)
        if ended:
            self._frame = None
