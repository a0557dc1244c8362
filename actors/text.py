"""From pieces to text: character boundaries, stop strings, hold-back.

Owns one question: given the bytes held back and the next piece, what may go out now? The rules
(docs/runner-semantics.md section 2, "Text"):

* Text goes out only at a character boundary. Bytes that can never become valid UTF-8 become U+FFFD.
* What may still grow into a stop string is held.
* Matching is byte by byte: the stop string whose last byte comes first wins, then the one that starts earlier. So it
  does not matter how the text was cut into pieces.
* A complete stop string cuts the text before it; nothing from there on goes out.
"""

import re
from codecs import utf_8_decode
from itertools import accumulate, takewhile

from attrs import frozen

_SURROGATE = re.compile(rb"\xed[\xa0-\xbf]")


@frozen
class Assembled:
    """What a piece led to."""

    text: str
    """Goes out now."""
    held: bytes
    """Is held back; empty after a stop."""
    held_by: tuple[int, ...]
    """How many bytes of it each of the last tokens brought, oldest first."""
    stop: str | None
    """The stop string that is complete now."""
    n_hidden: int
    """Earlier tokens of which some bytes never go out, because the stop string cut the text before them."""


def assemble(held: bytes, held_by: tuple[int, ...], piece: bytes, stops: tuple[str, ...]) -> Assembled:
    """Add ``piece`` to what is ``held`` back and release what the rules allow.

    Args:
        held: What an earlier call held back; it holds no complete stop string.
        held_by: How many of these bytes each token brought.
        piece: Bytes of one token.
        stops: Stop strings, none of them empty.
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
    """Return how many tokens are not wholly visible if the text is cut ``start`` bytes behind what went out."""
    ends = accumulate(held_by)
    return len(held_by) - sum(1 for _ in takewhile(lambda end: end <= start, ends))


def still_held(held_by: tuple[int, ...], used: int) -> tuple[int, ...]:
    """Return how many bytes each token still holds after the first ``used`` went out."""
    rest = list(held_by)
    while rest and used >= rest[0]:
        used -= rest.pop(0)
    if rest:
        rest[0] -= used
    return tuple(rest)


def first_stop(pending: bytes, stops: tuple[str, ...]) -> tuple[int, str] | None:
    """Return the start of the stop string that wins in ``pending``, and that string; None where there is none."""
    best: tuple[int, int, str] | None = None
    for stop in stops:
        encoded = stop.encode()
        start = pending.find(encoded)
        if start >= 0:
            found = (start + len(encoded), start, stop)
            best = found if best is None else min(best, found)
    return None if best is None else (best[1], best[2])


def release(held: bytes) -> str:
    """Return ``held`` as the text that goes out when nothing can follow any more."""
    return held.decode("utf-8", "replace")


def _beginning_of_stop(pending: bytes, stops: tuple[str, ...]) -> int:
    """Return how many of the last bytes of ``pending`` may be the beginning of a stop string."""
    longest = 0
    for stop in stops:
        encoded = stop.encode()
        for length in range(min(len(encoded) - 1, len(pending)), longest, -1):
            if pending.endswith(encoded[:length]):
                longest = length
                break
    return longest
