"""Chats that are longer than the context: which messages are left out.

The rules that hold here (docs/runner-semantics.md section 2, "Chats"):

* Whole messages go, oldest first, and with each all that answers it: what is left is a chat that a template takes.
* System messages and the last message stay. Only where these alone do not fit, the last one loses its beginning.
* There is room for the answer. Once messages must go, more may go, up to as many as leave a quarter of the context free
  beside it, so that the turns that follow begin alike and find their cells.
* What goes follows from the messages and the options alone, and not from what was asked before.
"""

from collections.abc import Sequence
from typing import Final

from attrs import frozen

from reenact.actors.errors import InvalidRequest
from reenact.actors.limits import MAX_INTEGER, MAX_PROMPT_BYTES
from reenact.actors.options import Options
from reenact.runtime.chats import ANSWERS, Chat, Chats
from reenact.runtime.engine.protocol import Message, Rendered
from reenact.runtime.engine.row_numbers import GivenRows
from reenact.runtime.session import Piece, Session

_STAYING: Final = frozenset({"system", "developer"})
_ASKS: Final = "user"

_REFUSED: Final = MAX_INTEGER
"""What counts as the inputs of a prompt that nobody takes."""

_ADDED: Final = 2
"""Tokens that a text has beyond its bytes, at most: BOS and a space."""


@frozen(kw_only=True)
class Fitted:
    """A chat as it is asked."""

    rendered: Rendered
    continues: Chat | None
    """The chat that it goes on from."""
    n_steps: int
    """How far it was shortened."""
    n_left_out: int
    """Messages that were left out, the last one counted where its beginning was."""
    n_leading: int | None
    """Inputs before its first message that may go, BOS apart; None unless asked for and shown by the template."""

    @property
    def pieces(self) -> list[Piece]:
        """What the prompt is made of."""
        return _pieces(self.rendered, self.continues)


async def fit(
    session: Session, chats: Chats, messages: list[Message], options: Options, *, keep_leading: bool
) -> Fitted:
    """Return a chat as it is asked: whole where it fits, and else without its oldest messages.

    Args:
        session: The session.
        chats: Those that it may go on from.
        messages: The chat.
        options: Of its request.
        keep_leading: Find out what comes before the first message that may go, which takes another rendering.

    Raises:
        InvalidRequest: The template refuses it; or it does not fit and ``truncate`` is false.
    """
    n_ctx = session.header.context.n_ctx
    fitting = _Fitting(session, messages, await session.render(messages))
    limit = _limit(n_ctx, options)
    n_steps = await fitting.n_steps(limit, limit - n_ctx // 4) if options.truncate else 0
    rendered = await fitting.shortened(n_steps)
    if rendered is None:
        n_steps, rendered = 0, fitting.whole
    if not options.truncate and n_ctx < (n_inputs := await fitting.n_inputs(0, n_ctx)) < _REFUSED:
        reason = f"they have {n_inputs} tokens, and the context of a sequence (n_ctx) holds {n_ctx}"
        raise InvalidRequest("messages", f"{reason}: leave some out, or let truncate=True do so")
    chat = chats.continued(messages, rendered.text, n_steps)
    if chat is not None and await _count(session, _pieces(rendered, chat), n_ctx) > n_ctx:
        chat = None  # The tokens that were sampled can be more than those of their text.
    n_leading = await _n_leading(session, fitting.left(n_steps), rendered) if keep_leading else None
    return Fitted(
        rendered=rendered,
        continues=chat,
        n_steps=n_steps,
        n_left_out=fitting.n_left_out(n_steps),
        n_leading=None if n_leading is None else min(n_leading, limit - n_ctx // 4),
    )


def _limit(n_ctx: int, options: Options) -> int:
    """Return the number of inputs that a chat may have, so that there is room for its answer."""
    quarter = n_ctx // 4
    return n_ctx - (quarter if options.num_predict < 0 else min(options.num_predict, quarter))


async def _n_leading(session: Session, messages: list[Message], rendered: Rendered) -> int | None:
    """Return the number of inputs before the first message that may go.

    A template may put system messages anywhere, and write some of its own. So it is asked for another first message,
    and what begins alike is what stands before it.
    """
    first = next((i for i, message in enumerate(messages) if message["role"] not in _STAYING), None)
    if first is None:
        return None
    otherwise = "b" if messages[first]["content"].lstrip().startswith("a") else "a"
    try:
        shown = await session.render([*messages[:first], {"role": messages[first]["role"], "content": otherwise}])
    except InvalidRequest:
        return None
    pairs = enumerate(zip(rendered.text, shown.text, strict=False))
    alike = next((i for i, (one, other) in pairs if one != other), min(len(rendered.text), len(shown.text)))
    return await session.count([rendered.before(alike)], beside_bos=True)


class _Fitting:
    """One chat, shortened in steps.

    By each it loses one more of its units, and then one more character of the last message, from its beginning.
    """

    def __init__(self, session: Session, messages: list[Message], whole: Rendered) -> None:
        self.whole = whole
        self._session = session
        self._messages = messages
        self._units = units(messages)
        self._rendered: dict[int, Rendered | None] = {0: whole}

    async def n_steps(self, limit: int, roomy: int) -> int:
        """Return by how many steps the chat is shortened.

        Args:
            limit: Inputs that it may have.
            roomy: So few that no more units need go, where more go than must to make their number a round one.
        """
        if _at_most([self.whole]) <= limit:
            return 0
        n_units = len(self._units)
        least = await self._least(0, n_units, limit)
        if least < n_units or await self.n_inputs(n_units, limit) <= limit:
            return roundest(least, await self._least(least, n_units, roomy)) if least else 0
        last = self._messages[-1]
        n_characters = 0 if last["role"] in _STAYING else len(last["content"])
        cut = await self._least(n_units, n_units + n_characters, limit)
        return cut if 0 < await self.n_inputs(cut, limit) <= limit else n_units

    async def _least(self, low: int, high: int, limit: int) -> int:
        """Return the fewest steps from ``low`` on that leave no more than ``limit``, or ``high`` where none do.

        It tries what is short first: of a long chat no more is tokenised than a few times what fits.
        """
        stride = 1
        while low < high:
            place = max(high - stride, (low + high) // 2)
            if await self.n_inputs(place, limit) > limit:
                low = place + 1
            else:
                high, stride = place, 2 * stride
        return low

    async def n_inputs(self, n_steps: int, limit: int) -> int:
        """Return the number of inputs after these steps, or any number up to ``limit`` where there are no more."""
        rendered = await self.shortened(n_steps)
        return 0 if rendered is None else await _count(self._session, [rendered], limit)

    async def shortened(self, n_steps: int) -> Rendered | None:
        """Return the chat after so many steps, if the template takes what is left."""
        if n_steps not in self._rendered:
            try:
                self._rendered[n_steps] = await self._session.render(self.left(n_steps))
            except InvalidRequest:
                self._rendered[n_steps] = None
        return self._rendered[n_steps]

    def left(self, n_steps: int) -> list[Message]:
        """Return the messages that are left after so many steps."""
        gone = self._gone(n_steps)
        *before, last = (message for i, message in enumerate(self._messages) if i not in gone)
        n_cut = max(n_steps - len(self._units), 0)
        return [*before, {"role": last["role"], "content": last["content"][n_cut:]}]

    def n_left_out(self, n_steps: int) -> int:
        """Return the number of messages that are left out, the last one counted where its beginning is."""
        return len(self._gone(n_steps)) + (n_steps > len(self._units))

    def _gone(self, n_steps: int) -> set[int]:
        return {place for unit in self._units[:n_steps] for place in unit}


async def _count(session: Session, pieces: list[Piece], limit: int) -> int:
    """Return the number of inputs of a prompt, or any number up to ``limit`` where there are no more."""
    at_most = _at_most(pieces)
    if at_most <= limit:
        return at_most
    if any(isinstance(piece, Rendered) and len(piece.text.encode()) > MAX_PROMPT_BYTES for piece in pieces):
        return _REFUSED
    return await session.count(pieces)


def _at_most(pieces: list[Piece]) -> int:
    """Return the greatest number of inputs that a prompt can have."""
    return _ADDED + sum(map(_most_inputs, pieces))


def _most_inputs(piece: Piece) -> int:
    match piece:
        case Rendered():
            return len(piece.text.encode())
        case GivenRows():
            return len(piece.rows)
        case _:
            return len(piece)


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
