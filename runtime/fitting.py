"""Chats that are longer than the context: which messages are left out.

The rules that hold here (docs/runner-semantics.md section 2, "Chats"):

* Whole messages go, oldest first, and with each all that answers it: what is left is a chat that a template takes.
* System messages and the last message stay.
* There is room for the answer. Once messages must go, as many go as leave a quarter of the context free beside it, so
  that the turns that follow begin alike and find their cells.
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
    n_inputs: int
    """Of its prompt, or more where it fits anyway."""

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
    quarter = n_ctx // 4
    limit = n_ctx - (quarter if options.num_predict < 0 else min(options.num_predict, quarter))
    fitting = _Fitting(session, chats, messages, limit - quarter)
    if not options.truncate:
        whole = await fitting.without(0)
        if n_ctx < whole.n_inputs < _REFUSED:
            reason = f"they have {whole.n_inputs} tokens, and the context of a sequence (n_ctx) holds {n_ctx}"
            raise InvalidRequest("messages", f"{reason}: leave some out, or let truncate=True do so")
        return whole
    as_before = await fitting.without(fitting.n_before)
    if as_before.n_inputs <= limit:
        return as_before
    with_room = await fitting.least(limit - quarter)
    if with_room.n_inputs <= limit - quarter:
        return with_room
    shortest = await fitting.least(limit)
    return shortest if shortest.n_inputs < _REFUSED else await fitting.without(0)


class _Fitting:
    """One chat, without more and more of its messages."""

    def __init__(self, session: Session, chats: Chats, messages: list[Message], least: int) -> None:
        self._session = session
        self._chats = chats
        self._messages = messages
        self._least = least
        """Inputs that fit in any case, so that nobody need count fewer."""
        self._units = units(messages)
        self._tried: dict[int, Fitted] = {}
        self.n_before = min(chats.units_left_out(messages), len(self._units))
        """How many units were left out when this chat was asked last."""

    async def least(self, target: int) -> Fitted:
        """Return the chat without as few more units as it takes; without all that may go where nothing is enough."""
        low, high = self.n_before, len(self._units)
        while low < high:
            middle = (low + high) // 2
            if (await self.without(middle)).n_inputs <= target:
                high = middle
            else:
                low = middle + 1
        return await self.without(low)

    async def without(self, n_units: int) -> Fitted:
        """Return the chat without its first units."""
        if n_units not in self._tried:
            self._tried[n_units] = await self._without(n_units)
        return self._tried[n_units]

    async def _without(self, n_units: int) -> Fitted:
        left_out = {place for unit in self._units[:n_units] for place in unit}
        try:
            rendered = await self._session.render([one for i, one in enumerate(self._messages) if i not in left_out])
        except InvalidRequest:
            if not left_out:
                raise
            return Fitted(Rendered(text=""), None, n_units, len(left_out), _REFUSED)
        chat = self._chats.continued(self._messages, rendered.text, n_units)
        pieces = _pieces(rendered, chat)
        return Fitted(rendered, chat, n_units, len(left_out), await self._n_inputs(rendered.text, pieces))

    async def _n_inputs(self, text: str, pieces: list[Piece]) -> int:
        """Return how many inputs a prompt has, or more where it fits anyway."""
        if len(text.encode()) > MAX_PROMPT_BYTES:
            return _REFUSED
        at_most = _ADDED + sum(
            len(piece.text.encode()) if isinstance(piece, Rendered) else len(piece) for piece in pieces
        )
        return at_most if at_most <= self._least else await self._session.count(pieces)


def _pieces(rendered: Rendered, chat: Chat | None) -> list[Piece]:
    return [rendered] if chat is None else [chat.inputs, rendered.rest(len(chat.text))]


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
