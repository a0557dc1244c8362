"""Checks prompts as callers give them: one text, or texts and rows of numbers in turn."""

import math
from collections.abc import Iterable, Iterator, Sequence

from reenact.actors.errors import InvalidRequest, reading
from reenact.actors.header import ContextFacts
from reenact.actors.limits import MAX_PROMPT_BYTES, MAX_PROMPT_NUMBERS, MAX_PROMPT_ROWS, MAX_TEXTS
from reenact.actors.options import check_text, too_long
from reenact.runtime.engine.protocol import Rendered
from reenact.runtime.engine.row_numbers import GivenRows, given_rows, packed
from reenact.runtime.pieces import ROW_IN_TEXT, Piece

Prompt = str | Iterable[str | Sequence[float]]
"""A text; or texts and rows, each row as a sequence of numbers."""


def pieces_of(prompt: Prompt, context: ContextFacts) -> list[Piece]:
    """Return the pieces of a prompt; consecutive texts are joined into one piece, and so are consecutive rows.

    Args:
        prompt: The prompt as the caller gave it.
        context: Has the count of numbers in a row, 0 if the model takes no rows.

    Raises:
        InvalidRequest: It is not a prompt; a row has the wrong length or contains something other than a finite number;
            or the prompt is too long.
    """
    with reading("prompt"):
        # Its characters, even if the caller's subclass of str overrides methods.
        return [str.__str__(prompt)] if isinstance(prompt, str) else _joined(prompt, context)


def _joined(prompt: object, context: ContextFacts) -> list[Piece]:
    found: list[list[str] | list[bytes]] = []
    n_characters = n_rows = 0
    for piece in _listed("prompt", prompt, "a string, or a list of strings and rows", MAX_PROMPT_BYTES):
        one = str.__str__(piece) if isinstance(piece, str) else _row(piece, context)
        if not found or type(found[-1][0]) is not type(one):
            found.append([])
        found[-1].append(one)  # type: ignore[arg-type]  # it has the type of the others
        if isinstance(one, str):
            n_characters += len(one)
        else:
            n_rows += 1
            _check_rows(n_rows, context)
        if n_characters > MAX_PROMPT_BYTES:
            raise too_long("prompt")
    return [_piece(same) for same in found]


def _piece(same: list[str] | list[bytes]) -> Piece:
    """Return texts or rows as one piece."""
    texts = [one for one in same if isinstance(one, str)]
    return "".join(texts) if texts else given_rows(one for one in same if isinstance(one, bytes))


def _check_rows(n_rows: int, context: ContextFacts) -> None:
    """Refuse more rows than a prompt may have."""
    most = min(MAX_PROMPT_NUMBERS // context.n_embd, MAX_PROMPT_ROWS)
    if n_rows > most:
        raise InvalidRequest("prompt", f"it has more than {most:,} rows of {context.n_embd:,} numbers")


def _row(row: object, context: ContextFacts) -> bytes:
    """Return a row's numbers as an engine takes them."""
    if not context.n_embd:
        raise InvalidRequest("prompt", "this model takes no rows")
    values = tuple(_listed("prompt", row, "strings and rows of numbers in the list", context.n_embd))
    if len(values) != context.n_embd:
        length = f"a row has {context.n_embd} numbers for this model"
        raise InvalidRequest("prompt", f"{length}, and one has {len(values)}")
    return packed(map(_number, values))


def _number(value: object) -> float:
    """Return a number, which may be numpy's, as a float."""
    try:
        number = math.nan if isinstance(value, str | bool) else float(value)  # type: ignore[arg-type]  # it may be any
    except (TypeError, ValueError, OverflowError):
        number = math.nan
    if not math.isfinite(number):
        raise InvalidRequest("prompt", "a row contains something other than a finite number")
    return number


def texts_of(texts: object) -> list[str]:
    """Return the texts of a list.

    Raises:
        InvalidRequest: It is not a list, or contains something other than texts.
    """
    with reading("texts"):
        if isinstance(texts, str):
            raise InvalidRequest("texts", "expected a list of strings, got one string")
        return [check_text("texts", text) for text in _listed("texts", texts, "a list of strings", MAX_TEXTS)]


def _listed(field: str, value: object, expected: str, most: int) -> Iterator[object]:
    """Yield the items of a caller's list, which may be endless.

    Raises:
        InvalidRequest: It is not a list, or has more items than ``most``.
    """
    if isinstance(value, bytes) or not isinstance(value, Iterable):
        raise InvalidRequest(field, f"expected {expected}, got {type(value).__name__}")
    for number, one in enumerate(value):
        if number == most:
            raise InvalidRequest(field, f"expected {expected}, {most:,} at most")
        yield one


def text_of(pieces: list[Piece]) -> str:
    """Return a prompt as text."""
    return "".join(_text(piece) for piece in pieces)


def _text(piece: Piece) -> str:
    match piece:
        case str():
            return piece
        case Rendered():
            return piece.text
        case GivenRows():
            return ROW_IN_TEXT * len(piece.rows)
        case _:
            return ROW_IN_TEXT * len(piece)
