"""Shortens chats that are longer than the context: decides which messages are left out.

The rules that hold here (docs/runner-semantics.md section 2, "Chats"):

* Whole messages are left out, oldest first, each together with its answers, so that the rest is a chat that a template
  accepts.
* System messages and the last message stay. Only if these alone do not fit, the last one loses its beginning.
* There is room for the answer. If messages must be left out, more than necessary may be, until another quarter of the
  context is free: then later turns begin with the same messages and find their cells.
* The messages and the options alone decide what is left out, and not earlier requests.
"""

from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from typing import Any, Final

from attrs import frozen

from reenact.actors.errors import InvalidRequest
from reenact.actors.limits import BEYOND_CONTEXT, MAX_INTEGER, MAX_PROMPT_BYTES
from reenact.actors.options import Options
from reenact.runtime.chats import ANSWERS, Chat, Chats
from reenact.runtime.engine.protocol import Message, Rendered
from reenact.runtime.engine.row_numbers import GivenRows
from reenact.runtime.pieces import Piece
from reenact.runtime.session import Session

_Render = Callable[[list[Message]], Awaitable[Rendered]]

_STAYING: Final = frozenset({"system", "developer"})
_ASKS: Final = "user"

_REFUSED: Final = MAX_INTEGER
"""The count of inputs for a prompt that is too long for any session."""

_ADDED: Final = 2
"""The most tokens that a text has beyond its bytes: BOS and a space."""


@frozen(kw_only=True)
class Fitted:
    """A chat in the form that is requested."""

    rendered: Rendered
    continues: Chat | None
    """The chat that it continues."""
    n_steps: int
    """The count of steps by which it was shortened."""
    n_left_out: int
    """The count of messages that were left out, including the last one if it lost its beginning."""
    n_leading: int | None
    """The count of inputs before the first message that may be left out, without BOS; None if not asked for, or if the
    template does not show it."""

    @property
    def pieces(self) -> list[Piece]:
        """The pieces of its prompt."""
        return _pieces(self.rendered, self.continues)


async def fit(
    session: Session,
    chats: Chats,
    messages: list[Message],
    options: Options,
    *,
    keep_leading: bool,
    tools: Sequence[dict[str, Any]] = (),
    think: bool | None = None,
) -> Fitted:
    """Return a chat in the form to request: whole if it fits, and else without its oldest messages.

    Args:
        session: The session.
        chats: The chats that it may continue.
        messages: The chat.
        options: The options of its request.
        keep_leading: Count the inputs before the first message that may be left out, which takes another rendering.
        tools: The tools that the assistant may call; they stay as the system messages do.
        think: Whether the model is to think first; None for the template's default.

    Raises:
        InvalidRequest: The template refuses the chat; or it does not fit and ``truncate`` is false.
    """
    n_ctx = session.header.context.n_ctx
    render: _Render = partial(session.render, tools=tools, think=think)
    fitting = _Fitting(session, messages, render, await render(messages))
    limit = _limit(n_ctx, options)
    n_steps = await fitting.n_steps(limit, limit - n_ctx // 4) if options.truncate else 0
    rendered = await fitting.shortened(n_steps)
    if rendered is None:
        n_steps, rendered = 0, fitting.whole
    if not options.truncate and n_ctx < (n_inputs := await fitting.n_inputs(0, n_ctx)) < _REFUSED:
        reason = f"there are {n_inputs} tokens, and {BEYOND_CONTEXT} {n_ctx}"
        raise InvalidRequest("messages", f"{reason}: leave some out")
    chat = chats.continued(messages, rendered.text, n_steps)
    if chat is not None and await _count(session, _pieces(rendered, chat), n_ctx) > n_ctx:
        chat = None  # The tokens that were sampled can be more than those of their text.
    n_leading = await _n_leading(session, fitting.left(n_steps), render, rendered) if keep_leading else None
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


async def _n_leading(session: Session, messages: list[Message], render: _Render, rendered: Rendered) -> int | None:
    """Return the number of inputs before the first message that may be left out.

    A template may move system messages, and add text of its own. So the chat is rendered again with another text in
    that message, and the common beginning of both is the part before it.
    """
    first = next((i for i, message in enumerate(messages) if message["role"] not in _STAYING), None)
    if first is None:
        return None
    otherwise = "b" if messages[first]["content"].lstrip().startswith("a") else "a"
    try:
        shown = await render([*messages[:first], {"role": messages[first]["role"], "content": otherwise}])
    except InvalidRequest:
        return None
    pairs = enumerate(zip(rendered.text, shown.text, strict=False))
    alike = next((i for i, (one, other) in pairs if one != other), min(len(rendered.text), len(shown.text)))
    return await session.count([rendered.before(alike)], beside_bos=True)


class _Fitting:
    """One chat, shortened in steps.

    Each step removes one more of its units, and after all units one more character from the last message's beginning.
    """

    def __init__(self, session: Session, messages: list[Message], render: _Render, whole: Rendered) -> None:
        self.whole = whole
        self._render = render
        self._session = session
        self._messages = messages
        self._units = units(messages)
        self._rendered: dict[int, Rendered | None] = {0: whole}

    async def n_steps(self, limit: int, roomy: int) -> int:
        """Return the count of steps by which the chat is shortened.

        Args:
            limit: The most inputs that it may have.
            roomy: The count of inputs at which no more units are removed to make their number a round one.
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
        """Return the fewest steps from ``low`` on that leave at most ``limit`` inputs, or ``high`` if none do.

        It tries short forms first, so that only a few times the context is tokenized of a long chat.
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
        """Return the number of inputs after these steps; if it is at most ``limit``, any number up to that."""
        rendered = await self.shortened(n_steps)
        return 0 if rendered is None else await _count(self._session, [rendered], limit)

    async def shortened(self, n_steps: int) -> Rendered | None:
        """Return the chat after so many steps, or None if the template refuses it."""
        if n_steps not in self._rendered:
            try:
                self._rendered[n_steps] = await self._render(self.left(n_steps))
            except InvalidRequest:
                self._rendered[n_steps] = None
        return self._rendered[n_steps]

    def left(self, n_steps: int) -> list[Message]:
        """Return the remaining messages after so many steps."""
        gone = self._gone(n_steps)
        *before, last = (message for i, message in enumerate(self._messages) if i not in gone)
        n_cut = max(n_steps - len(self._units), 0)
        return [*before, {**last, "content": last["content"][n_cut:]}]

    def n_left_out(self, n_steps: int) -> int:
        """Return the count of messages that are left out, including the last one if it lost its beginning."""
        return len(self._gone(n_steps)) + (n_steps > len(self._units))

    def _gone(self, n_steps: int) -> set[int]:
        return {place for unit in self._units[:n_steps] for place in unit}


async def _count(session: Session, pieces: list[Piece], limit: int) -> int:
    """Return the number of inputs of a prompt; if it is at most ``limit``, any number up to that."""
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
    """Return the number from ``low`` to ``high``, both at least 1, that most powers of two divide.

    While both grow by the distance between them, it changes at most twice.
    """
    while high & (high - 1) >= low:
        high &= high - 1
    return high


def units(messages: Sequence[Message]) -> list[list[int]]:
    """Return the places of the messages that may be left out, oldest first, in groups that are left out together.

    A question forms a group with all messages up to the next question. After the last question, each answer forms a
    group with the tool results that follow it; the last group stays.
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
