"""Describes tools in the messages themselves, for templates that know no tools."""

import json
from collections.abc import Iterable, Sequence
from typing import Any, Final, cast

from reenact.runtime.engine.protocol import Message

_INTRODUCTION: Final = (
    "You may call one of these functions. To call one, answer only with a JSON object:"
    ' {"name": <the function\'s name>, "arguments": <an object that fits its parameters>}'
)


def without_tools(messages: Iterable[Message], tools: Sequence[dict[str, Any]]) -> list[Message]:
    """Return messages of which no template must know tools.

    The tools come first, in the system message; a call is the assistant's text; and a result is the user's.

    Args:
        messages: The messages.
        tools: The tools.
    """
    plain = [_plain(message) for message in messages]
    if not tools:
        return plain
    listed = "\n".join([_INTRODUCTION, *(json.dumps(tool["function"], ensure_ascii=False) for tool in tools)])
    if plain and plain[0].get("role") == "system":
        return [{"role": "system", "content": f"{plain[0]['content']}\n\n{listed}"}, *plain[1:]]
    return [{"role": "system", "content": listed}, *plain]


def _plain(message: Message) -> Message:
    """Return a message as a role and a content; one that lacks either is left for the template to refuse."""
    if message.get("role") == "tool":
        name = message.get("name")
        of = f" of {name}" if name else ""
        return {"role": "user", "content": f"The result{of}: {message['content']}"}
    if not message.get("tool_calls"):
        plain: Any = {name: message.get(name) for name in ("role", "content") if name in message}
        return cast("Message", plain)
    calls = [json.dumps(_called(call), ensure_ascii=False) for call in message.get("tool_calls", ())]
    return {"role": message["role"], "content": "\n".join([*filter(None, [message["content"]]), *calls])}


def _called(call: dict[str, Any]) -> dict[str, Any]:
    return {"name": call["function"]["name"], "arguments": call["function"]["arguments"]}
