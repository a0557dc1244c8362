"""Reads the bodies of ollama's API into arguments for a runtime.

The rule that holds here: null and empty mean "not given", for every field; obsolete options of old clients are ignored.
"""

import math
import re
from collections.abc import Mapping
from typing import Any, Final

from attrs import frozen

from reenact.actors.errors import InvalidRequest
from reenact.actors.limits import MAX_INTEGER, MAX_TOP_LOGPROBS
from reenact.actors.options import options_of
from reenact.runtime.http.fields import (
    EMPTY,
    Check,
    Refusal,
    Table,
    below_zero,
    each,
    flag,
    mapping,
    nested,
    option,
    stops,
    takes,
    text,
    texts,
    within,
)
from reenact.runtime.http.tools import IN_MESSAGE, TOOLS, Tools, call_fields, tool_choice, tools_of, with_names

_UNITS: Final = {"ns": 1e-9, "us": 1e-6, "µs": 1e-6, "ms": 1e-3, "s": 1.0, "m": 60.0, "h": 3600.0}
"""Go's units of a duration, in seconds."""
_AMOUNT: Final = rf"([0-9]+(?:\.[0-9]*)?|\.[0-9]+)({'|'.join(_UNITS)})"
_DURATION: Final = rf"[-+]?(?:0|(?:{_AMOUNT})+)"

_OPTIONS: Final = Table(
    done={
        "seed": below_zero(option("seed"), None),
        "num_predict": below_zero(option("num_predict"), -1),
        "num_keep": below_zero(option("num_keep"), -1),
        "stop": stops,
        "temperature": option("temperature"),
        "top_k": below_zero(option("top_k"), 0),
        "top_p": option("top_p"),
        "min_p": option("min_p"),
        "typical_p": option("typical_p"),
        "repeat_last_n": below_zero(option("repeat_last_n"), -1),
        "repeat_penalty": option("repeat_penalty"),
        "presence_penalty": option("presence_penalty"),
        "frequency_penalty": option("frequency_penalty"),
        "grammar": text,
    },
    absent=EMPTY,
)


@frozen(kw_only=True)
class Generation:
    """A client's request to generate."""

    model: str
    prompt: str | None
    """The prompt, unless the request is a chat."""
    messages: list[Mapping[str, Any]] | None
    tools: Tools | None = None
    think: bool | None = None
    """Whether the model is to think first; None for its template's default."""
    stream: bool
    keep_alive: float | None
    options: dict[str, Any]

    @property
    def asks(self) -> bool:
        """Whether there is anything to generate; if not, the model is only loaded or unloaded."""
        return bool(self.prompt or self.messages)


@takes(anyOf=[{"type": "number"}, {"type": "string", "pattern": f"^(?:{_DURATION})$"}])
def keep_alive(name: str, value: object) -> float:
    """Return seconds from a number or a duration in Go's notation, and infinity for any below 0."""
    if isinstance(value, str) and re.fullmatch(_DURATION, value):
        seconds = sum(float(amount) * _UNITS[unit] for amount, unit in re.findall(_AMOUNT, value))
        return math.inf if value.startswith("-") and seconds else seconds
    if type(value) not in {int, float}:
        raise InvalidRequest(name, 'expected seconds, or a duration such as "5m" or "1h30m"')
    seconds = float(value)  # type: ignore[arg-type]  # it is one of them
    return math.inf if seconds < 0 else seconds


@takes(type="boolean")
def _think(name: str, value: object) -> bool:
    """Return true or false."""
    if isinstance(value, str):
        raise InvalidRequest(name, "expected true or false: there are no levels of thinking")
    return flag(name, value)


@takes(anyOf=[{"enum": ["json"]}, {"type": "object", "minProperties": 1}])
def _format(name: str, value: object) -> object:
    if value == "json" or (value and isinstance(value, dict)):
        return value
    raise InvalidRequest(name, 'expected "json" or a JSON Schema as an object')


@takes(**_OPTIONS.schema)
def _options(name: str, value: object) -> dict[str, Any]:
    return _OPTIONS.read(mapping(name, value))


_COMMON: Final[dict[str, Check[Any]]] = {
    "model": text,
    "stream": flag,
    "keep_alive": keep_alive,
    "options": _options,
    "format": _format,
    "truncate": flag,
    "shift": flag,
    "logprobs": flag,
    "top_logprobs": within(0, MAX_TOP_LOGPROBS),
    "think": _think,
}
_MODEL: Final = ("model",)

GENERATE: Final = Table(
    done={**_COMMON, "prompt": text, "system": text, "raw": flag},
    refused={
        "suffix": Refusal(reason="this model does not support insert"),
        "images": Refusal(reason="this model does not support images"),
        "template": Refusal(reason="the model's own template is used; raw takes a finished text"),
        "context": Refusal(reason="it is not supported: send the whole conversation to /api/chat"),
    },
    required=_MODEL,
    absent=EMPTY,
)
_MESSAGE: Final = Table(
    done={"role": text, "content": text, **IN_MESSAGE},
    refused={"images": Refusal(reason="this model does not support images")},
    required=("role",),
    absent=EMPTY,
)
# ollama's API has no tool_choice; some clients send OpenAI's field here, and it is done likewise.
CHAT: Final = Table(
    done={**_COMMON, "messages": each(nested(_MESSAGE)), "tools": TOOLS, "tool_choice": tool_choice},
    required=_MODEL,
    absent=EMPTY,
)
EMBED: Final = Table(
    done={
        "model": text,
        "input": texts,
        "truncate": flag,
        "dimensions": within(1, MAX_INTEGER),
        "keep_alive": keep_alive,
        "options": mapping,
    },
    required=_MODEL,
    absent=EMPTY,
)
OLD_EMBED: Final = Table(done={"model": text, "prompt": text, "keep_alive": keep_alive}, required=_MODEL, absent=EMPTY)
SHOW: Final = Table(done={"model": text}, required=_MODEL, absent=EMPTY)


def generate_asked(body: dict[str, Any]) -> Generation:
    """Return the request of ``/api/generate``.

    Raises:
        InvalidRequest: A field is wrong; the error names it.
    """
    fields = GENERATE.read(body)
    prompt, system = fields.get("prompt", ""), fields.get("system")
    if not fields.get("raw"):
        said: list[Mapping[str, Any]] = [] if system is None else [{"role": "system", "content": system}]
        messages: list[Mapping[str, Any]] | None = [*said, {"role": "user", "content": prompt}] if prompt else []
        return _generation(fields, None, messages)
    if system is not None:
        raise InvalidRequest("system", "raw is given too, so the prompt is used unchanged")
    if fields.get("think"):
        raise InvalidRequest("think", "raw is given too, so the prompt is used unchanged")
    return _generation(fields, prompt, None)


def chat_asked(body: dict[str, Any]) -> Generation:
    """Return the request of ``/api/chat``.

    Raises:
        InvalidRequest: A field is wrong; the error names it.
    """
    fields = CHAT.read(body)
    messages: list[Mapping[str, Any]] = [_message(i, one) for i, one in enumerate(fields.get("messages", []))]
    options = fields.get("options", {})
    others = {name: fields.get(name) for name in ("format", "logprobs", "top_logprobs")}
    others |= {name: options.get(name) for name in ("stop", "grammar")}
    return _generation(fields, None, with_names(messages), tools_of(fields, others))


def embed_asked(body: dict[str, Any]) -> dict[str, Any]:
    """Return the fields of ``/api/embed``."""
    return {"input": [], **EMBED.read(body)}


def old_embed_asked(body: dict[str, Any]) -> dict[str, Any]:
    """Return the fields of ``/api/embeddings``."""
    return {"prompt": "", **OLD_EMBED.read(body)}


def show_asked(body: dict[str, Any]) -> str:
    """Return the name of the model in a request of ``/api/show``; old clients call the field ``name``."""
    name: str = SHOW.read({**body, "model": body.get("model") or body.get("name")})["model"]
    return name


def _generation(
    fields: dict[str, Any],
    prompt: str | None,
    messages: list[Mapping[str, Any]] | None,
    tools: Tools | None = None,
) -> Generation:
    forced = {} if tools is None else {"grammar": tools.grammar}
    direct = ("format", "truncate", "shift", "logprobs", "top_logprobs")
    options = fields.get("options", {}) | {name: fields[name] for name in direct if name in fields} | forced
    if not (prompt or messages):
        options_of(options, seed=int)  # No runtime checks them if the model is only loaded.
    return Generation(
        model=fields["model"],
        prompt=prompt,
        messages=messages,
        tools=tools,
        think=None if messages is None else fields.get("think"),
        stream=fields.get("stream", True),
        keep_alive=fields.get("keep_alive"),
        options=options,
    )


def _message(i: int, fields: dict[str, Any]) -> dict[str, Any]:
    """Return a message with its role in lower case, its text and its calls."""
    role = fields["role"].lower()
    return {"role": role, "content": fields.get("content", "")} | call_fields(f"messages[{i}]", fields, role)
