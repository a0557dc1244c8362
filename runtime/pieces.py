"""Defines the pieces of a prompt: texts to tokenize, and inputs that stay as they are."""

from collections.abc import Sequence
from typing import Final

from reenact.actors.errors import InvalidRequest
from reenact.actors.events import RequestReceived
from reenact.actors.header import ContextFacts
from reenact.actors.inputs import Input
from reenact.runtime.engine.protocol import Rendered
from reenact.runtime.engine.row_numbers import GivenRows

Piece = str | Rendered | GivenRows | Sequence[Input]
"""A piece of a prompt: a text to tokenize, rows, or inputs that were tokenized before."""

ROW_IN_TEXT: Final = "\N{OBJECT REPLACEMENT CHARACTER}"
"""The character in place of a row when a prompt is shown as text."""


def pieces_again(request: RequestReceived, context: ContextFacts) -> list[Piece]:
    """Return the pieces of a prompt that was recorded but not tokenized.

    A chat that continued another one is tokenized as a whole.

    Raises:
        InvalidRequest: It had rows, whose numbers are recorded with the inputs only.
    """
    if context.n_embd and ROW_IN_TEXT in request.prompt:
        raise InvalidRequest("prompt", "the process ended before the rows of this prompt were recorded: ask again")
    return [request.prompt if request.said is None else Rendered(text=request.prompt, said=request.said)]
