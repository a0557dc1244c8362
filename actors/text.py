"""Turns pieces of bytes into text: character boundaries, stop strings, hold-back.

The module owns one question: given the bytes that are held back and the next piece, which text may go out now? The
rules (docs/runner-semantics.md section 2, "Text"):

* Text goes out only at a character boundary. Bytes that can never become valid UTF-8 become U+FFFD.
* Bytes that may still grow into a stop string are held back.
* Matching is byte by byte: the stop string whose last byte comes first wins, then the one that starts earlier. So the
  result does not depend on how the text was cut into pieces.
* A complete stop string cuts the text before it; nothing goes out from there on.
"""

import re
from codecs import utf_8_decode
from itertools import accumulate, takewhile

from attrs import frozen

_SURROGATE = re.compile(rb"\xed[\xa0-\xbf]")


@frozen
class Assembled:
    """The text after one more piece."""

    text: str
    """The text that goes out now."""
    held: bytes
    """The bytes that are held back; empty after a stop."""
    held_by: tuple[int, ...]
    """The count of held bytes that each of the last tokens brought, oldest first."""
    stop: str | None
    """The stop string that is complete now, if any."""
    n_hidden: int
    """The count of earlier tokens with bytes that never go out, because the stop string cut the text before them."""


def assemble(held: bytes, held_by: tuple[int, ...], piece: bytes, stops: tuple[str, ...]) -> Assembled:
    """Add ``piece`` to the ``held`` bytes and release the text that the rules allow.

    Args:
        held: The bytes that an earlier call held back; they contain no complete stop string.
        held_by: The count of these bytes that each token brought.
        piece: The bytes of one token.
        stops: The stop strings, none of them empty.
    """
    pending = held + piece
    match = first_stop(pending, stops)
    if match is not None:
        start, stop = match
        return Assembled(release(pending[:start]), b"", (), stop, hidden(held_by, start))
    free = len(pending) - _beginning_of_stop(pending, stops)
    # A stop string begins with the first byte of a character, so an incomplete character before it is final.
    text, used = utf_8_decode(pending[:free], "replace", free < len(pending))
    if _SURROGATE.match(pending, used):
        # The decoder waits for a third byte, but a surrogate never becomes valid.
        text, used = text + release(pending[used:free]), free
    return Assembled(text, pending[used:], still_held((*held_by, len(piece)), used), None, 0)


def hidden(held_by: tuple[int, ...], start: int) -> int:
    """Return the count of tokens that are not wholly visible if the text is cut after ``start`` held bytes."""
    ends = accumulate(held_by)
    return len(held_by) - sum(1 for _ in takewhile(lambda end: end <= start, ends))


def still_held(held_by: tuple[int, ...], used: int) -> tuple[int, ...]:
    """Return the count of bytes of each token that are still held after the first ``used`` went out."""
    rest = list(held_by)
    while rest and used >= rest[0]:
        used -= rest.pop(0)
    if rest:
        rest[0] -= used
    return tuple(rest)


def first_stop(pending: bytes, stops: tuple[str, ...]) -> tuple[int, str] | None:
    """Return the start of the stop string that wins in ``pending``, and that string; None if there is none."""
    best: tuple[int, int, str] | None = None
    for stop in stops:
        encoded = stop.encode()
        start = pending.find(encoded)
        if start >= 0:
            found = (start + len(encoded), start, stop)
            best = found if best is None else min(best, found)
    return None if best is None else (best[1], best[2])


def release(held: bytes) -> str:
    """Return ``held`` as the text that goes out when nothing can follow."""
    return held.decode(errors="replace")


def _beginning_of_stop(pending: bytes, stops: tuple[str, ...]) -> int:
    """Return the count of last bytes in ``pending`` that may be the beginning of a stop string."""
    longest = 0
    for stop in stops:
        encoded = stop.encode()
        for length in range(min(len(encoded) - 1, len(pending)), longest, -1):
            if pending.endswith(encoded[:length]):
                longest = length
                break
    return longest
