"""Replaces the bytes of pieces, such that stop strings are found, and characters end, where they did.

The rules that hold here:

* A byte keeps its class: ASCII, or its place in a character of several bytes. So text is cut at the same bytes, and
  bytes that are no character are none afterwards.
* Bytes at which a beginning of a stop string ends are mapped one to one, and so are the stop strings. All other bytes
  become letters that follow from the token, and are in no stop string. So exactly those bytes are held back and matched
  that were before, and of all others only the length and the class stay.
"""

from collections.abc import Iterable
from hashlib import shake_256
from typing import Final

from reenact.replay.redact.hashes import Key

_TEXT: Final = frozenset((*range(0x20, 0x7F), 0x09, 0x0A, 0x0D))
"""The bytes of ASCII that text has; the others are control characters."""

_FIRST: Final = (
    frozenset(range(0x80)) & _TEXT,
    frozenset(range(0x80)) - _TEXT,
    # Bytes inside a character. The first of them has narrower bounds behind E0, ED, F0 and F4.
    frozenset(range(0x80, 0x90)),
    frozenset(range(0x90, 0xA0)),
    frozenset(range(0xA0, 0xC0)),
    # Bytes that begin a character of two, three or four bytes.
    frozenset(range(0xC2, 0xE0)),
    frozenset(range(0xE1, 0xF0)) - {0xED},
    frozenset(range(0xF1, 0xF4)),
    # Bytes that are in no character.
    frozenset((0xC0, 0xC1, *range(0xF5, 0x100))),
    *(frozenset({one}) for one in (0xE0, 0xED, 0xF0, 0xF4)),
)
"""The bytes that may take each other's place anywhere."""

_SECOND: Final = {
    0xE0: (range(0x80, 0xA0), range(0xA0, 0xC0)),
    0xED: (range(0x80, 0xA0), range(0xA0, 0xC0)),
    0xF0: (range(0x80, 0x90), range(0x90, 0xC0)),
    0xF4: (range(0x80, 0x90), range(0x90, 0xC0)),
}
"""Behind these bytes, the bytes that end a character there, or do not."""

_INSIDE: Final = range(0x80, 0xC0)
_LETTERS: Final = frozenset(range(ord("a"), ord("z") + 1))


class Pools:
    """The bytes that may take the place of others and are in no stop string.

    Args:
        free: The bytes that are in no stop string.
    """

    def __init__(self, free: frozenset[int]) -> None:
        self._free = free
        self._found: dict[tuple[int, int], list[int]] = {}

    def of(self, one: int, previous: int) -> list[int]:
        """Return the bytes for one that follows ``previous``: letters where there are any."""
        found = self._found.get((one, previous))
        if found is None:
            found = self._found[one, previous] = sorted(self._group(one, previous))
        return found

    def _group(self, one: int, previous: int) -> frozenset[int]:
        if one < 0x80:  # noqa: PLR2004  # ASCII
            free = frozenset(range(0x80)) & self._free
            return free & _LETTERS or free & _TEXT or free
        if one not in _INSIDE:
            return next(group for group in _FIRST if one in group) & self._free
        groups = _SECOND.get(previous, (_INSIDE,))
        return frozenset(next(group for group in groups if one in group)) & self._free


class Alphabet:
    """A mapping of bytes one to one, within their classes.

    Args:
        key: The key, on which the mapping depends.
    """

    def __init__(self, key: Key) -> None:
        self._map = bytearray(256)
        for group in _FIRST:
            shuffled = sorted(group, key=lambda one: key.hash("byte", bytes([one])))
            for one, other in zip(sorted(group), shuffled, strict=True):
                self._map[one] = other
        self._pools: dict[frozenset[int], Pools] = {}

    def put(self, data: bytes) -> bytes:
        """Return bytes mapped one by one."""
        return data.translate(self._map)

    def text(self, text: str) -> str:
        """Return a text mapped byte by byte; it is a text again, of the same length."""
        return self.put(text.encode()).decode()

    def pools(self, stops: Iterable[bytes]) -> Pools:
        """Return the bytes in no stop string that may take a byte's place, by the byte and the one before it."""
        free = frozenset(range(256)) - frozenset(self.put(b"".join(stops)))
        return self._pools.setdefault(free, Pools(free))


class Letters:
    """The text of one sequence, piece by piece.

    Args:
        alphabet: The mapping of stop strings.
        stops: The stop strings of its request.
    """

    def __init__(self, alphabet: Alphabet, stops: Iterable[str]) -> None:
        self._alphabet = alphabet
        self._stops: list[bytes] = []
        self._begun: set[tuple[int, int]] = set()
        """The stop strings that may have begun, each by its index and the count of its bytes so far."""
        self._previous = 0
        self._pools = alphabet.pools(())
        self.also(stops)

    def also(self, stops: Iterable[str]) -> None:
        """Add stop strings, because the session was forked."""
        self._stops += [stop.encode() for stop in stops]
        self._pools = self._alphabet.pools(self._stops)

    def put(self, piece: bytes, label: bytes) -> bytes:
        """Return the bytes that take the place of the next piece.

        Args:
            piece: The piece.
            label: The label of its token, on which the letters depend.
        """
        drawn = shake_256(label).digest(len(piece))
        return bytes(map(self._put, piece, drawn))

    def _put(self, one: int, drawn: int) -> int:
        if self._is_of_stop(one):
            put = self._alphabet.put(bytes([one]))[0]
        else:
            allowed = self._pools.of(one, self._previous)
            put = allowed[drawn % len(allowed)] if allowed else self._alphabet.put(bytes([one]))[0]
        self._previous = one
        return put

    def _is_of_stop(self, one: int) -> bool:
        """Return whether a beginning of a stop string ends with the next byte."""
        begun = {(i, n + 1) for i, n in self._begun if self._stops[i][n] == one}
        begun |= {(i, 1) for i, stop in enumerate(self._stops) if stop[0] == one}
        self._begun = {(i, n) for i, n in begun if n < len(self._stops[i])}
        return bool(begun)
