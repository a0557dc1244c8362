"""Keeps the tokens of answered chats, so that later messages can continue them.

Tokenizing a text again can give other tokens than those that were sampled. So a chat that continues keeps its tokens,
and only its new part is tokenized: its cells can be reused, and the model sees its own tokens.
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
"""The role of the model's messages, as chat templates name it."""

_FIELD: Final = "messages"

_Key = tuple[tuple[str, str], ...]


@frozen
class Chat:
    """A chat that was answered."""

    sequence: int
    """The sequence of its last answer."""
    text: str
    """The text of the inputs, as the template rendered it."""
    inputs: tuple[Input, ...]
    bos_added: bool
    n_steps: int
    """The count of steps by which `reenact.runtime.fitting` shortened the messages."""


class Chats:
    """The latest answered chats of one session, as many as there is room for."""

    def __init__(self) -> None:
        self._chats: dict[_Key, Chat] = {}
        self._n_inputs = 0

    def continued(self, messages: list[Message], text: str, n_steps: int) -> Chat | None:
        """Return the longest chat that ``messages`` continue.

        Args:
            messages: The messages.
            text: The messages as the template renders them. The text must begin with that of the chat, because a
                template may render old messages differently from new ones.
            n_steps: The count of steps by which they are shortened, which must be the same as the chat's.
        """
        key = _key(messages)
        before = (self._chats.get(key[:length]) for length in range(len(key) - 1, 0, -1))
        found = (chat for chat in before if chat is not None)
        return next((chat for chat in found if chat.n_steps == n_steps and text.startswith(chat.text)), None)

    def remember(self, messages: list[Message], text: str, live: Request, n_steps: int) -> None:
        """Keep the answer to a request for ``messages``.

        Args:
            messages: The messages.
            text: The messages as the template rendered them.
            live: The request, which has ended.
            n_steps: The count of steps by which they were shortened.
        """
        if not isinstance(live.result, Completion) or live.result.finish_reason == "error" or not live.inputs:
            return  # Without inputs it ended before it was tokenized, so there are no tokens for the messages.
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
    """Return the count of an answer's leading tokens whose bytes are in its text unchanged, and their text.

    Tokens from the first one on whose bytes became U+FFFD do not count, nor does a token that ends within a character.
    """
    raw = text.encode()
    n_kept, end, position = 0, 0, 0
    for n_pieces, piece in enumerate(pieces, 1):
        if not raw.startswith(piece, position):
            break
        position += len(piece)
        if position == len(raw) or raw[position] & 0xC0 != 0x80:  # noqa: PLR2004  # a byte that continues a character
            n_kept, end = n_pieces, position
    return n_kept, raw[:end].decode()


def checked(messages: object) -> list[Message]:
    """Return messages in the proper form.

    Raises:
        InvalidRequest: They are malformed; the error names the message.
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
