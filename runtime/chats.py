"""Chats that may go on: which tokens stand for the messages so far.

Text that is tokenised again can come out as other tokens than those that were sampled. So a chat that goes on keeps the
tokens it has, and only what is new is tokenised; its cells can be reused, and the model sees what it said.
"""

from collections.abc import Iterable, Mapping
from itertools import islice
from typing import Final

from attrs import frozen

from reenact.actors.errors import InvalidRequest, reading
from reenact.actors.inputs import Input
from reenact.actors.limits import MAX_CHAT_INPUTS, MAX_TEXTS
from reenact.actors.options import utf8
from reenact.runtime.engine.protocol import Message
from reenact.runtime.request import Request
from reenact.runtime.results import Completion

ANSWERS: Final = "assistant"
"""The role of what the model says, by the name that chat templates use."""

_FIELD: Final = "messages"

_Key = tuple[tuple[str, str], ...]


@frozen
class Chat:
    """What there is of a chat that was answered."""

    sequence: int
    """Of its last answer."""
    text: str
    """What the inputs stand for, as the template put it."""
    inputs: tuple[Input, ...]
    bos_added: bool
    n_steps: int
    """How far the messages were shortened, as `reenact.runtime.fitting` counts it."""


class Chats:
    """The chats of one session; those that were answered latest, as far as there is room."""

    def __init__(self) -> None:
        self._chats: dict[_Key, Chat] = {}
        self._n_inputs = 0

    def continued(self, messages: list[Message], text: str, n_steps: int) -> Chat | None:
        """Return the longest chat that ``messages`` go on from.

        Args:
            messages: The messages.
            text: What the template makes of them. It must begin as that of the chat did: a template may show old
                messages otherwise than new ones.
            n_steps: How far they are shortened; it must be as far as the chat was.
        """
        key = _key(messages)
        before = (self._chats.get(key[:length]) for length in range(len(key) - 1, 0, -1))
        found = (chat for chat in before if chat is not None)
        return next((chat for chat in found if chat.n_steps == n_steps and text.startswith(chat.text)), None)

    def remember(self, messages: list[Message], text: str, live: Request, n_steps: int) -> None:
        """Keep what a request for ``messages`` was answered.

        Args:
            messages: The messages.
            text: What the template made of them.
            live: The request; it has ended.
            n_steps: How far they were shortened.
        """
        if not isinstance(live.result, Completion) or live.result.finish_reason == "error" or not live.inputs:
            return  # Without inputs it ended before it was tokenised: nothing stands for the messages.
        pieces = [sample.piece for sample in live.samples[: len(live.result.tokens)]]
        n_kept, answer = kept(pieces, live.result.text)
        tokens = (sample.token for sample in live.samples[:n_kept])
        key = (*_key(messages), (ANSWERS, live.result.text))
        self._forget(key)
        self._chats[key] = Chat(live.sequence, text + answer, (*live.inputs, *tokens), live.bos_added, n_steps)
        self._n_inputs += len(self._chats[key].inputs)
        while self._n_inputs > MAX_CHAT_INPUTS and len(self._chats) > 1:
            self._forget(next(iter(self._chats)))

    def _forget(self, key: _Key) -> None:
        chat = self._chats.pop(key, None)
        self._n_inputs -= 0 if chat is None else len(chat.inputs)


def kept(pieces: list[bytes], text: str) -> tuple[int, str]:
    """Return how many of an answer's tokens are text as it went out, and that text.

    A token whose bytes went out as U+FFFD does not come back as what it was, and neither do those behind it; nor one
    that ends in the middle of a character.
    """
    raw = text.encode()
    n_kept, end, position = 0, 0, 0
    for n_pieces, piece in enumerate(pieces, 1):
        if not raw.startswith(piece, position):
            break
        position += len(piece)
        if position == len(raw) or raw[position] & 0xC0 != 0x80:  # noqa: PLR2004  # a byte that goes on with a character
            n_kept, end = n_pieces, position
    return n_kept, raw[:end].decode()


def checked(messages: object) -> list[Message]:
    """Return messages as they should be.

    Raises:
        InvalidRequest: They are not; it says which one.
    """
    with reading(_FIELD):
        if isinstance(messages, str | bytes | Mapping) or not isinstance(messages, Iterable):
            raise InvalidRequest(_FIELD, f"expected a list of messages, got {type(messages).__name__}")
        found = [_message(i, message) for i, message in enumerate(islice(messages, MAX_TEXTS + 1))]
    if not found:
        raise InvalidRequest(_FIELD, "there are none")
    if len(found) > MAX_TEXTS:
        raise InvalidRequest(_FIELD, f"there are more than {MAX_TEXTS:,}")
    return found


def _message(i: int, message: object) -> Message:
    if not isinstance(message, Mapping) or set(message) != {"role", "content"}:
        raise InvalidRequest(_FIELD, f"message {i} is not a mapping with role and content, and nothing else")
    role, content = message["role"], message["content"]
    for name, text in (("role", role), ("content", content)):
        if type(text) is not str:
            raise InvalidRequest(_FIELD, f"the {name} of message {i} is not a string")
        utf8(_FIELD, text)
    return {"role": role, "content": content}


def _key(messages: list[Message]) -> _Key:
    return tuple((message["role"], message["content"]) for message in messages)
