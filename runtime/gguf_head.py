"""Reads the head of a GGUF file without llama.cpp, for lists of models that are not open.

The rule that holds here: a file may contain anything. Reading ends at the first error in the format, and the values
before it count; no more than the longest possible head is read.
"""

import mmap
import struct
from contextlib import suppress
from pathlib import Path
from typing import Final

_MAX_BYTES: Final = 2**27
"""The most bytes of a head: a vocabulary of 256,000 tokens with its merges takes some 10 million."""
_MAX_KEYS: Final = 2**12
_MAX_TEXT: Final = 2**20
"""The first bytes of a text that are kept."""
_VERSIONS: Final = {2, 3}

_FORMATS: Final = {0: "<B", 1: "<b", 2: "<H", 3: "<h", 4: "<I", 5: "<i", 6: "<f", 7: "<?", 10: "<Q", 11: "<q", 12: "<d"}
_STRING, _ARRAY = 8, 9
"""gguf_type"""

HeadValue = int | float | bool | str


class _Bytes:
    """Reads bytes from the front."""

    def __init__(self, raw: memoryview) -> None:
        self._raw = raw
        self._at = 0

    def number(self, form: str) -> int | float | bool:
        size = struct.calcsize(form)
        (value,) = struct.unpack(form, self.take(size))
        found: int | float | bool = value
        return found

    def length(self) -> int:
        return int(self.number("<Q"))

    def text(self) -> str:
        length = self.length()
        raw = self.take(length)
        return bytes(raw[:_MAX_TEXT]).decode(errors="replace")

    def take(self, length: int) -> memoryview:
        end = self._at + length
        if length < 0 or end > len(self._raw):
            raise ValueError("it ends before")
        part = self._raw[self._at : end]
        self._at = end
        return part


def gguf_head(path: Path) -> dict[str, HeadValue]:
    """Return the numbers, flags and texts in a file's head by their keys; none if it is not a GGUF file.

    Raises:
        OSError: The file cannot be read.
    """
    found: dict[str, HeadValue] = {}
    with path.open("rb") as file, suppress(ValueError):  # An empty file cannot be mapped.
        mapped = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        with mapped, memoryview(mapped) as raw, raw[:_MAX_BYTES] as head:
            _read(head, found)
    return found


def _read(head: memoryview, found: dict[str, HeadValue]) -> None:
    reading = _Bytes(head)
    try:
        if bytes(reading.take(4)) != b"GGUF" or reading.number("<I") not in _VERSIONS:
            return
        reading.length()  # The count of tensors.
        for _ in range(min(reading.length(), _MAX_KEYS)):
            key, kind = reading.text(), int(reading.number("<I"))
            value = _value(reading, kind)
            if value is not None:
                found[key] = value
    except (ValueError, struct.error):
        return


def _value(reading: _Bytes, kind: int) -> HeadValue | None:
    """Return a value, or None for a list, which is skipped."""
    if kind == _STRING:
        return reading.text()
    if kind != _ARRAY:
        return reading.number(_form(kind))
    of, length = int(reading.number("<I")), reading.length()
    if of == _STRING:
        for _ in range(length):
            reading.take(reading.length())
    else:
        reading.take(length * struct.calcsize(_form(of)))
    return None


def _form(kind: int) -> str:
    if kind not in _FORMATS:
        raise ValueError("there is no such type")
    return _FORMATS[kind]
