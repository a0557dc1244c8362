"""Files of models with damage: the head of a small one, changed in the ways in which heads go wrong.

The rules that hold here: a file is a function of its seed, so that one that shows something can be had again; and a
long list, such as the tokens, is damaged no more often than a few other fields.
"""

import random
import struct
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Final, TypeVar

import gguf
from attrs import frozen

from tests.helpers.models.tiny import tiny

T = TypeVar("T")

_NUMBERS: Final = (0, 1, 2, 7, 8, 31, 255, 2**16, 2**31 - 1, 2**31, 2**32 - 1, 2**40, 2**63 - 1, 2**63, 2**64 - 1)

_FEW: Final = 16
"""Places of a list that may be damaged."""

_LENGTHS: Final = frozenset({4, 8})
"""Bytes of a number."""


@frozen(kw_only=True)
class Head:
    """A file of a small model, and where things are in its head: each has a start and a length in bytes."""

    raw: bytes
    end: int
    """Where the tensors' data begins."""
    values: tuple[tuple[int, int], ...]
    """Numbers of the model: its sizes, its tokens' kinds."""
    tensors: tuple[tuple[int, int], ...]
    """Dimensions, types and offsets of tensors."""
    others: tuple[tuple[int, int], ...]
    """Counts, lengths, and the types of values."""
    names: tuple[tuple[int, int], ...]
    """Keys, texts and names of tensors."""


def head_of(path: Path) -> Head:
    """Return a small model, which is written to ``path``."""
    reader = gguf.GGUFReader(tiny(path, n_positions=64))
    base = reader.data.__array_interface__["data"][0]

    def span(part: Any) -> tuple[int, int]:
        return part.__array_interface__["data"][0] - base, part.nbytes

    fields = [field for field in reader.fields.values() if not field.name.startswith("GGUF.")]
    values = [
        span(field.parts[i])
        for field in fields
        for i in _few(field.data)
        if field.types[-1] != gguf.GGUFValueType.STRING
    ]
    parts = [part for field in fields for part in _few(field.parts)]
    tensors = [part for tensor in reader.tensors for part in tensor.field.parts]
    everything = [span(part) for part in (*parts, *tensors)]
    names = [(start, length) for start, length in everything if length not in _LENGTHS]
    lengths = [part.dtype.itemsize for part in tensors]
    numbers = {
        (span(part)[0] + length * i, length)
        for part, length in zip(tensors, lengths, strict=True)
        if length in _LENGTHS
        for i in range(part.size)
    }
    others = set(everything) - set(values) - set(names) - numbers
    return Head(
        raw=path.read_bytes(),
        end=reader.data_offset,
        values=tuple(values),
        tensors=tuple(sorted(numbers)),
        others=tuple(sorted(others)),
        names=tuple(names),
    )


def _few(parts: Sequence[T]) -> Sequence[T]:
    """Return some of the places of a list, the first ones of a short one."""
    return parts[:: max(1, len(parts) // _FEW)]


def damaged(head: Head, seed: int) -> bytes:
    """Return the file with something wrong in it."""
    choice = random.Random(seed)  # noqa: S311  # nothing secret
    raw = bytearray(head.raw)
    for _ in range(choice.choice((1, 1, 1, 2, 4))):
        kind = choice.choice(("values", "values", "tensors", "tensors", "names", "others", "any"))
        start, length = choice.choice(getattr(head, kind, ((choice.randrange(4, head.end), 1),)))
        if kind in {"names", "any"} or choice.randrange(4) == 0:
            raw[start + choice.randrange(length)] ^= 1 << choice.randrange(8)
        else:
            number = choice.choice((*_NUMBERS, choice.randrange(50), choice.randrange(50)))
            raw[start : start + length] = struct.pack("<Q", number)[:length].ljust(length, b"\0")
    if choice.randrange(20) == 0:
        del raw[choice.randrange(4, len(raw)) :]
    return bytes(raw)


def files(folder: Path, seeds: range) -> Iterator[tuple[int, Path]]:
    """Write one file after the other, each with its seed; the one before is gone then."""
    head = head_of(folder / "whole.gguf")
    for seed in seeds:
        path = folder / f"damaged-{seed}.gguf"
        path.write_bytes(damaged(head, seed))
        yield seed, path
        path.unlink()
