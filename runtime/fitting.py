"""Chats that are longer than the context: which messages are left out.

The rules that hold here (docs/runner-semantics.md section 2, "Chats"):

* Whole messages go, oldest first, and with each all that answers it: what is left is a chat that a template takes.
* System messages and the last message stay.
* There is room for the answer. Once messages must go, more may go, as long as no more than another quarter of the
  context is free, so that the turns that follow begin alike and find their cells.
* What goes follows from the messages and the options alone, and not from what was asked before.
"""

from collections.abc import Sequence
from typing import Final

from attrs import frozen

from reenact.actors.errors import InvalidRequest
from reenact.actors.limits import MAX_INTEGER, MAX_PROMPT_BYTES
from reenact.actors.options import Options
from reenact.runtime.chats import ANSWERS, Chat, Chats
from reenact.runtime.engine import Message, Rendered
from reenact.runtime.session import Piece, Session

_STAYING: Final = frozenset({"system", "developer"})
_ASKS: Final = "user"

_REFUSED: Final = MAX_INTEGER
"""What counts as the inputs of a prompt that nobody takes."""

_ADDED: Final = 2
"""Tokens that a text has beyond its bytes, at most: BOS and a space."""


@frozen
class Fitted:
    """A chat as it is asked."""

    rendered: Rendered
    continues: Chat | None
    """The chat that it goes on from."""
    n_units: int
    """How many of `units` were left out."""
    n_left_out: int
    """Messages that were left out."""

    @property
    def pieces(self) -> list[Piece]:
        """What the prompt is made of."""
        return _pieces(self.rendered, self.continues)


async def fit(session: Session, chats: Chats, messages: list[Message], options: Options) -> Fitted:
    """Return a chat as it is asked: whole where it fits, and else without its oldest messages.

    Raises:
        InvalidRequest: The template refuses it; or it does not fit and ``truncate`` is false.
    """
    n_ctx = session.header.context.n_ctx
    fitting = _Fitting(session, messages, await session.render(messages))
    n_units = await fitting.n_units(n_ctx, options) if options.truncate else 0
    rendered = await fitting.without(n_units)
    if rendered is None:
        n_units, rendered = 0, fitting.whole
    if not options.truncate and n_ctx < (n_inputs := await fitting.n_inputs(0, n_ctx)) < _REFUSED:
        reason = f"they have {n_inputs} tokens, and the context of a sequence (n_ctx) holds {n_ctx}"
        raise InvalidRequest("messages", f"{reason}: leave some out, or let truncate=True do so")
    chat = chats.continued(messages, rendered.text, n_units)
    if chat is not None and await _count(session, _pieces(rendered, chat), n_ctx) > n_ctx:
        chat = None  # The tokens that were sampled can be more than those of their text.
    return Fitted(rendered, chat, n_units, len(fitting.left_out(n_units)))


class _Fitting:
    """One chat, without more and more of its messages."""

    def __init__(self, session: Session, messages: list[Message], whole: Rendered) -> None:
        self.whole = whole
        self._session = session
        self._messages = messages
        self._units = units(messages)
        self._rendered: dict[int, Rendered | None] = {0: whole}

    async def n_units(self, n_ctx: int, options: Options) -> int:
        """Return how many units go: as many as must, and as many more as may to make their number a round one."""
        quarter = n_ctx // 4
        limit = n_ctx - (quarter if options.num_predict < 0 else min(options.num_predict, quarter))
        if _at_most([self.whole]) <= limit:
            return 0
        least = await self._least(0, limit)
        return roundest(least, await self._least(least, limit - quarter)) if least else 0

    async def _least(self, low: int, limit: int) -> int:
        """Return how many units go at least, from ``low`` on, so that the rest fits; all where nothing is enough.

        It tries what is short first: of a long chat no more is tokenised than a few times what fits.
        """
        high, step = len(self._units), 1
        while low < high:
            place = max(high - step, (low + high) // 2)
            if await self.n_inputs(place, limit) > limit:
                low = place + 1
            else:
                high, step = place, 2 * step
        return low

    async def n_inputs(self, n_units: int, limit: int) -> int:
        """Return how many inputs there are without these units, or more where no more than ``limit`` are."""
        rendered = await self.without(n_units)
        return 0 if rendered is None else await _count(self._session, [rendered], limit)

    async def without(self, n_units: int) -> Rendered | None:
        """Return the chat without its first units, if the template takes what is left."""
        if n_units not in self._rendered:
            left_out = self.left_out(n_units)
            left = [message for i, message in enumerate(self._messages) if i not in left_out]
            try:
                self._rendered[n_units] = await self._session.render(left)
            except InvalidRequest:
                self._rendered[n_units] = None
        return self._rendered[n_units]

    def left_out(self, n_units: int) -> set[int]:
        """Return the places of the messages in the first units."""
        return {place for unit in self._units[:n_units] for place in unit}


async def _count(session: Session, pieces: list[Piece], limit: int) -> int:
    """Return how many inputs a prompt has, or any number up to ``limit`` where they are no more than that."""
    at_most = _at_most(pieces)
    if at_most <= limit:
        return at_most
    if any(isinstance(piece, Rendered) and len(piece.text.encode()) > MAX_PROMPT_BYTES for piece in pieces):
        return _REFUSED
    return await session.count(pieces)


def _at_most(pieces: list[Piece]) -> int:
    """Return how many inputs a prompt has at most."""
    return _ADDED + sum(len(piece.text.encode()) if isinstance(piece, Rendered) else len(piece) for piece in pieces)


def _pieces(rendered: Rendered, chat: Chat | None) -> list[Piece]:
    return [rendered] if chat is None else [chat.inputs, rendered.rest(len(chat.text))]


def roundest(low: int, high: int) -> int:
    """Return the number between two from 1 on that most powers of two divide.

    While both grow by the distance between them, it changes twice at most.
    """
    while high & (high - 1) >= low:
        high &= high - 1
    return high


def units(messages: Sequence[Message]) -> list[list[int]]:
    """Return the places of the messages that may go, oldest first, in groups that go together.

    A question goes with all that follows until the next one. Of what follows the last question each answer goes with
    what follows it, a tool's results; the last one stays.
    """
    may_go = [i for i, message in enumerate(messages) if message["role"] not in _STAYING]
    asked = any(messages[i]["role"] == _ASKS for i in may_go)
    turns = _groups(messages, may_go, _ASKS if asked else None)
    return turns[:-1] + [unit for turn in turns[-1:] for unit in _groups(messages, turn[1:], ANSWERS)[:-1]]


def _groups(messages: Sequence[Message], places: list[int], role: str | None) -> list[list[int]]:
    """Return places in groups that begin at each message of a role, or at each message."""
    groups: list[list[int]] = []
    for place in places:
        if not groups or role is None or messages[place]["role"] == role:
            groups.append([])
        groups[-1].append(place)
    return groups
