"""Keeps the tokens of answered chats, so that later messages can continue them.

Tokenizing a text again can give other tokens than those that were sampled. So a chat that continues keeps its tokens,
and only its new part is tokenized: its cells can be reused, and the model sees its own tokens.
"""

import json
from collections.abc import Iterable, Mapping
from itertools import islice
from typing import Any, Final

from attrs import frozen

from reenact.actors.errors import InvalidRequest, reading
from reenact.actors.inputs import Input
from reenact.actors.limits import MAX_CHAT_INPUTS, MAX_TEXTS
from reenact.actors.options import check_text, utf8
from reenact.runtime.engine.protocol import Message
from reenact.runtime.request import Request
from reenact.runtime.results import Completion

ANSWERS: Final = "assistant"
"""The role of the model's messages, as chat templates name it."""

_FIELD: Final = "messages"
_TOOLS: Final = "tools"

_Key = tuple[tuple[str, str], ...]
"""The roles and contents of messages; calls of tools show in the text, which must be alike too."""

_MORE: Final = frozenset({"tool_calls", "tool_call_id", "name"})
"""The keys that a message may have besides role and content."""

_MAX_DEPTH: Final = 64
"""The deepest nesting of a tool or a call, because templates are recursive."""


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
        # Only lengths that there are, because each prefix takes as long as it has messages.
        lengths = sorted({len(known) for known in self._chats if len(known) < len(key)}, reverse=True)
        before = (self._chats.get(key[:length]) for length in lengths)
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
    if not isinstance(message, Mapping) or set(message) - _MORE != {"role", "content"}:
        raise InvalidRequest(_FIELD, f"message {i} is not a mapping with role and content, and nothing else")
    role, content = message["role"], message["content"]
    for name, text in (("role", role), ("content", content)):
        if type(text) is not str:
            raise InvalidRequest(_FIELD, f"the {name} of message {i} is not a string")
        utf8(_FIELD, text)
    found: Message = {"role": role, "content": content}
    for name in ("tool_call_id", "name"):
        if name in message:
            found[name] = check_text(_FIELD, message[name])  # type: ignore[literal-required]  # it is one of them
    if "tool_calls" in message:
        calls = plain_json(_FIELD, message["tool_calls"])
        if not isinstance(calls, list) or not all(map(_is_call, calls)):
            reason = f"the tool_calls of message {i} are not a list of calls, each with a function's name and arguments"
            raise InvalidRequest(_FIELD, reason)
        found["tool_calls"] = calls
    return found


def _is_call(call: object) -> bool:
    function = call.get("function") if isinstance(call, dict) else None
    return isinstance(function, dict) and type(function.get("name")) is str and "arguments" in function


def checked_tools(tools: object) -> list[dict[str, Any]]:
    """Return tools in the proper form.

    Raises:
        InvalidRequest: They are malformed; the error names the tool.
    """
    with reading(_TOOLS):
        found = plain_json(_TOOLS, tools)
        if not isinstance(found, list):
            raise InvalidRequest(_TOOLS, f"expected a list of tools, got {type(tools).__name__}")
    for i, tool in enumerate(found):
        function = tool.get("function") if isinstance(tool, dict) else None
        if not isinstance(function, dict) or type(function.get("name")) is not str:
            raise InvalidRequest(_TOOLS, f"tool {i} is not a mapping with a function that has a name")
    return found


def plain_json(field: str, value: object) -> Any:  # noqa: ANN401  # any JSON
    """Return a copy of a value that is JSON.

    Raises:
        InvalidRequest: It is not JSON, contains half a surrogate pair, or is nested too deeply.
    """
    try:
        text = json.dumps(value, ensure_ascii=False, allow_nan=False)
        utf8(field, text)
        copied = json.loads(text)
        _check_depth(copied, _MAX_DEPTH)
    except (TypeError, ValueError, RecursionError) as error:
        if isinstance(error, InvalidRequest):
            raise
        raise InvalidRequest.because(field, f"it is not JSON of up to {_MAX_DEPTH} levels", error) from None
    return copied


def _check_depth(value: object, left: int) -> None:
    if not left:
        raise ValueError("it is nested more deeply")
    if isinstance(value, dict | list):
        for inner in value.values() if isinstance(value, dict) else value:
            _check_depth(inner, left - 1)


def _key(messages: list[Message]) -> _Key:
    return tuple((message["role"], message["content"]) for message in messages)
