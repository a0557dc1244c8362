"""Reads the tools of a request, and finds the call in an answer.

The rules that hold here:

* A request with tools has a grammar (`reenact.runtime.grammar.tool_calls`), so that every complete call names one of
  the tools and its arguments fit the tool's schema.
* An answer is either a text or one call. A call that a limit cuts is not complete, and its finish reason says so.
* What could cut a call, or does not go together with one, is refused by name: ``stop``, a format, ``logprobs``.
"""

import json
import re
from collections.abc import Callable, Mapping
from typing import Any, Final

from attrs import frozen

from reenact.actors.errors import InvalidRequest
from reenact.actors.limits import MAX_GRAMMAR_BYTES
from reenact.runtime.grammar.json_schema import SchemaError
from reenact.runtime.grammar.tool_calls import CLOSE, OPEN, call_grammar
from reenact.runtime.http.fields import EMPTY, Check, Table, each, mapping, nested, one_of, takes, text

_MAX_TOOLS: Final = 128
_NAME: Final = re.compile(r"[A-Za-z0-9_.:-]{1,64}")
_HEAD: Final = re.compile(r'\{ ?"name" ?: ?"([^"\\]*)" ?, ?"arguments" ?: ?')
"""The beginning of a call as the grammar writes it."""
_END: Final = "} \n"
"""The characters that may belong to a call's end and not to its arguments."""


@frozen(kw_only=True)
class Tools:
    """The tools that an answer may call."""

    shown: tuple[dict[str, Any], ...]
    """The tools as a template shows them."""
    grammar: str


@takes(
    anyOf=[
        {"enum": ["auto", "none", "required"]},
        {
            "type": "object",
            "properties": {
                "type": {"enum": ["function"]},
                "function": {"type": "object", "properties": {"name": {"type": "string"}}, "required": ["name"]},
            },
            "required": ["type", "function"],
        },
    ]
)
def tool_choice(name: str, value: Any) -> str | tuple[str]:
    """Return a choice in words, or a function's name in a tuple."""
    if isinstance(value, str) and value in {"auto", "none", "required"}:
        return value
    if isinstance(value, dict) and value.get("type") == "function":
        function = mapping(f"{name}.function", value.get("function"))
        return (text(f"{name}.function.name", function.get("name")),)
    raise InvalidRequest(name, 'expected "auto", "none", "required" or an object with a function')


@takes(type="string", pattern=f"^{_NAME.pattern}$")
def _tool_name(name: str, value: object) -> str:
    if not _NAME.fullmatch(written := text(name, value)):
        raise InvalidRequest(name, "expected up to 64 letters, digits and the characters _ . : -")
    return written


@takes(type="object", properties={"type": {"enum": ["object"]}})
def _parameters(name: str, value: object) -> dict[str, Any]:
    parameters = {"type": "object", "properties": {}} | mapping(name, value)
    if parameters["type"] != "object":
        raise InvalidRequest(name, "expected a schema of the type object")
    return parameters


@takes(anyOf=[{"type": "object"}, {"type": "string", "contentMediaType": "application/json"}])
def _arguments(name: str, value: object) -> dict[str, Any]:
    if isinstance(value, str):
        try:
            value = json.loads(value)
        except (ValueError, RecursionError):
            raise InvalidRequest(name, "it is not JSON") from None
    return mapping(name, value)


_TOOL: Final = Table(
    done={
        "type": one_of("function"),
        "function": nested(
            Table(
                done={"name": _tool_name, "description": text, "parameters": _parameters},
                required=("name",),
                absent=EMPTY,
            )
        ),
    },
    required=("function",),
)
TOOLS: Final = each(nested(_TOOL))
"""The check of the tools, as both APIs write them."""

_CALL: Final = Table(
    done={
        "function": nested(Table(done={"name": text, "arguments": _arguments}, required=("name",), absent=EMPTY)),
        "id": text,
    },
    required=("function",),
    absent=EMPTY,
)
IN_MESSAGE: Final[dict[str, Check[Any]]] = {
    "tool_calls": each(nested(_CALL)),
    "tool_call_id": text,
    "tool_name": text,
    "name": text,
}
"""The checks of a message's fields that are about tools."""


def tools_of(fields: Mapping[str, Any], others: Mapping[str, object]) -> Tools | None:
    """Return the tools of a request, or None if no call is possible.

    Args:
        fields: The request's fields; of these ``tools`` and ``tool_choice`` are read.
        others: The fields that are refused beside tools, by their names.

    Raises:
        InvalidRequest: A field is wrong, or cannot be supported together with tools; the error names it.
    """
    tools, chosen = fields.get("tools"), fields.get("tool_choice", "auto")
    if not tools:
        if chosen not in {"auto", "none"}:
            raise InvalidRequest("tool_choice", "there are no tools to choose from")
        return None
    if len(tools) > _MAX_TOOLS:
        raise InvalidRequest("tools", f"there are more than {_MAX_TOOLS}")
    shown = [_shown(tool["function"]) for tool in tools]
    schemas = {tool["function"]["name"]: tool["function"]["parameters"] for tool in shown}
    if len(schemas) < len(shown):
        raise InvalidRequest("tools", "two tools have the same name")
    if chosen == "none":
        return None
    for name, value in others.items():
        if value:
            raise InvalidRequest(name, "it is not supported together with tools")
    if isinstance(chosen, tuple):
        if chosen[0] not in schemas:
            raise InvalidRequest("tool_choice", f"there is no tool {chosen[0]!r}")
        schemas = {chosen[0]: schemas[chosen[0]]}
    try:
        grammar = call_grammar(schemas, required=chosen != "auto")
        if len(grammar.encode("utf-8", "replace")) > MAX_GRAMMAR_BYTES:
            raise InvalidRequest("tools", f"the grammar of their schemas has more than {MAX_GRAMMAR_BYTES:,} bytes")
        return Tools(shown=tuple(shown), grammar=grammar)
    except SchemaError as error:
        raise InvalidRequest("tools", str(error).encode("utf-8", "backslashreplace").decode()) from None
    except RecursionError:
        raise InvalidRequest("tools", "a schema is nested too deeply") from None


def _shown(function: Mapping[str, Any]) -> dict[str, Any]:
    """Return a tool as a template shows it."""
    parameters = function.get("parameters", {"type": "object", "properties": {}})
    shown = {"name": function["name"], "description": function.get("description", ""), "parameters": parameters}
    return {"type": "function", "function": shown}


def call_fields(where: str, message: Mapping[str, Any], role: str) -> dict[str, Any]:
    """Return the fields of a message that are about tools, as templates take them.

    Args:
        where: The message's place, for errors.
        message: The message's fields, checked.
        role: Its role.

    Raises:
        InvalidRequest: The role has no such field; the error names it.
    """
    found: dict[str, Any] = {}
    if message.get("tool_calls"):
        if role != "assistant":
            raise InvalidRequest(f"{where}.tool_calls", "only an assistant calls tools")
        found["tool_calls"] = [_call(call) for call in message["tool_calls"]]
    if role == "tool":
        if message.get("tool_call_id"):
            found["tool_call_id"] = message["tool_call_id"]
        if name := message.get("tool_name") or message.get("name"):
            found["name"] = name
    return found


def with_names(messages: list[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """Return messages in which each result of a tool has its name, if the call with its id is among them."""
    names: dict[str, str] = {}
    found = []
    for message in messages:
        names |= {call["id"]: call["function"]["name"] for call in message.get("tool_calls", ()) if "id" in call}
        name = names.get(message.get("tool_call_id", ""))
        found.append(message if name is None or "name" in message else {**message, "name": name})
    return found


def _call(call: Mapping[str, Any]) -> dict[str, Any]:
    function = {"name": call["function"]["name"], "arguments": call["function"].get("arguments", {})}
    return {"type": "function", "function": function} | ({"id": call["id"]} if "id" in call else {})


@frozen(kw_only=True)
class Call:
    """The call of a tool in an answer."""

    identity: str
    name: str
    arguments: str
    """The arguments as JSON; in a stream a part of it, and incomplete if a limit cut the call."""


@frozen(kw_only=True)
class AnswerPart:
    """The part of an answer that became known: text, or a part of a call."""

    text: str = ""
    name: str | None = None
    """The name of the tool, in the first part of a call."""
    arguments: str = ""


class AnswerReader:
    """Divides an answer, as it grows, into text and a call.

    Args:
        identity: The id of a call.
    """

    def __init__(self, identity: str) -> None:
        self.identity = identity
        self.name: str | None = None
        self._raw = ""
        self._sent = 0
        """The count of characters that went out, or do not go out."""
        self._take: Callable[[], AnswerPart] = self._first
        self._begins = 0

    def take(self, more: str) -> AnswerPart:
        """Add text, and return the part that can go out."""
        self._raw += more
        return self._take()

    def rest(self) -> AnswerPart:
        """Return the remaining part once the answer has ended."""
        if self.name is None:
            return self._flushed()
        return AnswerPart(arguments=self._arguments()[self._sent - self._begins :])

    def unsent(self) -> AnswerPart:
        """Return an incomplete call as the text that it is, for an API that has only complete ones."""
        return AnswerPart(text=self._raw if self.name is not None else self._flushed().text)

    def call(self) -> Call | None:
        """Return the call once the answer has ended; None if there is none, or if its name is not complete."""
        if self.name is None:
            return None
        return Call(identity=self.identity, name=self.name, arguments=self._arguments())

    def complete(self) -> bool:
        """Return whether there is a call, and it is complete."""
        return self.name is not None and self._whole_arguments() is not None

    def _first(self) -> AnswerPart:
        if self._raw.startswith(("{", OPEN)):
            self._take = self._head
        elif OPEN.startswith(self._raw):
            return AnswerPart()
        else:
            self._take = self._flushed
        return self._take()

    def _head(self) -> AnswerPart:
        begin = self._raw.find("{")
        found = None if begin < 0 else _HEAD.match(self._raw, begin)
        # The arguments are an object, so they have begun once there is a character of theirs.
        if found is None or found.end() == len(self._raw):
            return AnswerPart()
        self.name = found[1]
        self._begins = self._sent = found.end()
        self._take = self._more
        return AnswerPart(name=self.name, arguments=self._more().arguments)

    def _more(self) -> AnswerPart:
        unsent = self._raw[self._sent :]
        closing = unsent.rfind("<")
        if closing >= 0 and CLOSE.startswith(unsent[closing:]):
            unsent = unsent[:closing]
        part = unsent.rstrip(_END)
        self._sent += len(part)
        return AnswerPart(arguments=part)

    def _flushed(self) -> AnswerPart:
        part, self._sent = self._raw[self._sent :], len(self._raw)
        return AnswerPart(text=part)

    def _arguments(self) -> str:
        """Return the arguments, as far as they go if the call is not complete."""
        whole = self._whole_arguments()
        return self._raw[self._begins :] if whole is None else whole

    def _whole_arguments(self) -> str | None:
        """Return the arguments without what follows them; None if the call is not complete."""
        call = self._raw[self._begins :].removesuffix(CLOSE).rstrip()
        arguments = call.removesuffix("}").rstrip()
        return arguments if call.endswith("}") and _is_object(arguments) else None


def _is_object(written: str) -> bool:
    try:
        return isinstance(json.loads(written), dict)
    except (ValueError, RecursionError):
        return False
