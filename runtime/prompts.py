"""Prompts as callers give them: one text, or texts and rows of numbers in turns."""

import math
from collections.abc import Iterable, Sequence
from typing import Final

from reenact.actors.errors import InvalidRequest, reading
from reenact.actors.inputs import Row
from reenact.actors.limits import MAX_PROMPT_BYTES
from reenact.actors.options import utf8
from reenact.runtime.engine import Rendered
from reenact.runtime.session import Piece

Prompt = str | Iterable[str | Sequence[float]]
"""A text; or texts and rows, each row as a sequence of numbers."""

ROW_IN_TEXT: Final = "\N{OBJECT REPLACEMENT CHARACTER}"
"""What stands for a row where a prompt is told as text."""


def pieces_of(prompt: Prompt, n_embd: int) -> list[Piece]:
    """Return the pieces of a prompt; texts that follow one another are one, and so are rows.

    Args:
        prompt: What a caller gave.
        n_embd: How many numbers a row has; 0 where the model takes none.

    Raises:
        InvalidRequest: It is none, or a row is of the wrong length or holds what is no finite number.
    """
    with reading("prompt"):
        # Its characters, whatever the methods of a class of the caller's make of them.
        return [str.__str__(prompt)] if isinstance(prompt, str) else _joined(prompt, n_embd)


def _joined(prompt: object, n_embd: int) -> list[Piece]:
    pieces: list[str | list[Row]] = []
    for piece in _listed("prompt", prompt, "a string, or a list of strings and rows"):
        if isinstance(piece, str):
            before = pieces.pop() if pieces and isinstance(pieces[-1], str) else ""
            pieces.append(f"{before}{str.__str__(piece)}")
        elif pieces and isinstance(pieces[-1], list):
            pieces[-1].append(_row(piece, n_embd))
        else:
            pieces.append([_row(piece, n_embd)])
    return list(pieces)


def _row(row: object, n_embd: int) -> Row:
    values = tuple(_listed("prompt", row, "strings and rows of numbers in the list"))
    if not n_embd:
        raise InvalidRequest("prompt", "this model takes no rows")
    if len(values) != n_embd:
        raise InvalidRequest("prompt", f"a row has {n_embd} numbers for this model, and one has {len(values)}")
    return tuple(map(_number, values))


def _number(value: object) -> float:
    """Return a number as a float; numpy's are numbers too."""
    try:
        number = math.nan if isinstance(value, str | bool) else float(value)  # type: ignore[arg-type]  # it may be any
    except (TypeError, ValueError, OverflowError):
        number = math.nan
    if not math.isfinite(number):
        raise InvalidRequest("prompt", "a row holds something that is no finite number")
    return number


def texts_of(texts: object) -> list[str]:
    """Return the texts of a list.

    Raises:
        InvalidRequest: It is none, or one of them is no text.
    """
    with reading("texts"):
        if isinstance(texts, str):
            raise InvalidRequest("texts", "expected a list of strings, got one string")
        return [check_text("texts", text) for text in _listed("texts", texts, "a list of strings")]


def _listed(field: str, value: object, expected: str) -> Iterable[object]:
    if isinstance(value, bytes) or not isinstance(value, Iterable):
        raise InvalidRequest(field, f"expected {expected}, got {type(value).__name__}")
    return value


def text_of(pieces: list[Piece]) -> str:
    """Return a prompt as text."""
    return "".join(_text(piece) for piece in pieces)


def _text(piece: Piece) -> str:
    match piece:
        case str():
            return piece
        case Rendered():
            return piece.text
        case _:
            return ROW_IN_TEXT * len(piece)


def check_text(field: str, text: object) -> str:
    """Return what is a text, and not too much of it.

    Raises:
        InvalidRequest: It names the field.
    """
    if type(text) is not str:
        raise InvalidRequest(field, f"expected a string, got {type(text).__name__}")
    if len(utf8(field, text)) > MAX_PROMPT_BYTES:
        raise InvalidRequest(field, f"it has more than {MAX_PROMPT_BYTES:,} bytes")
    return text
