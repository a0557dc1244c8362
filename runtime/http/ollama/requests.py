"""Reads the bodies of ollama's API into arguments for a runtime.

The rule that holds here: null and empty mean "not given", for every field; obsolete options of old clients are ignored.
"""

import math
import re
from collections.abc import Callable, Mapping
from typing import Any, Final

from attrs import frozen

from reenact.actors.errors import InvalidRequest
from reenact.actors.limits import MAX_TOP_LOGPROBS
from reenact.runtime.http.fields import Check, Refusal, Table, flag, listed, mapping, number, text, texts, whole
from reenact.runtime.http.tools import Tools, call_fields, tools_of, with_names

_DURATION: Final = re.compile(r"([0-9]+(?:\.[0-9]*)?|\.[0-9]+)(ns|us|µs|ms|s|m|h)")
_SECONDS: Final = {"ns": 1e-9, "us": 1e-6, "µs": 1e-6, "ms": 1e-3, "s": 1.0, "m": 60.0, "h": 3600.0}

_OPTIONS: Final[dict[str, Check]] = {
    "seed": whole,
    "num_predict": whole,
    "num_keep": whole,
    "stop": texts,
    "temperature": number,
    "top_k": whole,
    "top_p": number,
    "min_p": number,
    "typical_p": number,
    "repeat_last_n": whole,
    "repeat_penalty": number,
    "presence_penalty": number,
    "frequency_penalty": number,
}
_ANY_BELOW_ZERO: Final = {"num_predict": -1, "num_keep": -1, "repeat_last_n": -1, "top_k": 0}
"""The meaning of a number below 0; a seed below 0 means no seed."""


@frozen(kw_only=True)
class Generation:
    """A client's request to generate."""

    model: str
    prompt: str | None
    """The prompt, unless the request is a chat."""
    messages: list[Mapping[str, Any]] | None
    tools: Tools | None = None
    stream: bool
    keep_alive: float | None
    options: dict[str, Any]

    @property
    def asks(self) -> bool:
        """Whether there is anything to generate; if not, the model is only loaded or unloaded."""
        return bool(self.prompt or self.messages)


def keep_alive(name: str, value: object) -> float:
    """Return seconds from a number or a duration in Go's notation, and infinity for any below 0."""
    if isinstance(value, str) and (sign := value.removeprefix("-")):
        parts = _DURATION.findall(sign)
        if parts and "".join(map("".join, parts)) == sign:
            seconds = sum(float(amount) * _SECONDS[unit] for amount, unit in parts)
            return math.inf if value.startswith("-") and seconds else seconds
    if type(value) not in {int, float}:
        raise InvalidRequest(name, 'expected seconds, or a duration such as "5m" or "1h30m"')
    seconds = float(value)  # type: ignore[arg-type]  # it is one of them
    return math.inf if seconds < 0 else seconds


def _format(name: str, value: object) -> object:
    if value == "json" or isinstance(value, dict):
        return value
    raise InvalidRequest(name, 'expected "json" or a JSON Schema as an object')


def _top_logprobs(name: str, value: object) -> int:
    number_of = whole(name, value)
    if not 0 <= number_of <= MAX_TOP_LOGPROBS:
        raise InvalidRequest(name, f"expected 0 to {MAX_TOP_LOGPROBS}")
    return number_of


_COMMON: Final[dict[str, Check]] = {
    "model": text,
    "stream": flag,
    "keep_alive": keep_alive,
    "options": mapping,
    "format": _format,
    "truncate": flag,
    "shift": flag,
    "logprobs": flag,
    "top_logprobs": _top_logprobs,
}
_THINK: Final = {"think": Refusal(reason="this model does not support thinking")}

_GENERATE: Final = Table(
    done={**_COMMON, "prompt": text, "system": text, "raw": flag},
    refused={
        **_THINK,
        "suffix": Refusal(reason="this model does not support insert"),
        "images": Refusal(reason="this model does not support images"),
        "template": Refusal(reason="the model's own template is used; raw takes a finished text"),
        "context": Refusal(reason="it is not supported: send the whole conversation to /api/chat"),
    },
)
_CHAT: Final = Table(
    done={**_COMMON, "messages": listed, "tools": listed},
    refused=_THINK,
)
_EMBED: Final = Table(
    done={
        "model": text,
        "input": texts,
        "truncate": flag,
        "dimensions": whole,
        "keep_alive": keep_alive,
        "options": mapping,
    },
    refused={},
)
_OLD_EMBED: Final = Table(done={"model": text, "prompt": text, "keep_alive": keep_alive}, refused={})
_SHOW: Final = Table(done={"model": text, "name": text}, refused={})

_MESSAGE: Final[dict[str, Check]] = {"role": text, "content": text}
_REFUSED_IN_MESSAGE: Final = {
    "images": Refusal(reason="this model does not support images"),
}


def generate_asked(body: dict[str, Any]) -> Generation:
    """Return the request of ``/api/generate``.

    Raises:
        InvalidRequest: A field is wrong; the error names it.
    """
    fields = _GENERATE.read(_given(body))
    prompt, system = fields.get("prompt", ""), fields.get("system")
    if not fields.get("raw"):
        said: list[Mapping[str, Any]] = [] if system is None else [{"role": "system", "content": system}]
        messages: list[Mapping[str, Any]] | None = [*said, {"role": "user", "content": prompt}] if prompt else []
        return _generation(fields, None, messages)
    if system is not None:
        raise InvalidRequest("system", "raw is given too, so the prompt is used unchanged")
    return _generation(fields, prompt, None)


def chat_asked(body: dict[str, Any]) -> Generation:
    """Return the request of ``/api/chat``.

    Raises:
        InvalidRequest: A field is wrong; the error names it.
    """
    given = _given(body)
    fields = _CHAT.read(given)
    messages: list[Mapping[str, Any]] = [_message(i, one) for i, one in enumerate(fields.get("messages", []))]
    options = fields.get("options", {})
    others = {name: fields.get(name) for name in ("format", "logprobs", "top_logprobs")} | {"stop": options.get("stop")}
    # ollama's API has no tool_choice; some clients send OpenAI's field here, and it is done likewise.
    tools = tools_of(fields.get("tools"), given.get("tool_choice"), others)
    return _generation(fields, None, with_names(messages), tools)


def embed_asked(body: dict[str, Any]) -> dict[str, Any]:
    """Return the fields of ``/api/embed``."""
    if body.get("input") in ("", None):
        body = {**body, "input": []}
    return {"input": [], **_named(_EMBED.read(body))}


def old_embed_asked(body: dict[str, Any]) -> dict[str, Any]:
    """Return the fields of ``/api/embeddings``."""
    return {"prompt": "", **_named(_OLD_EMBED.read(body))}


def show_asked(body: dict[str, Any]) -> str:
    """Return the name of the model in a request of ``/api/show``."""
    fields = _SHOW.read(_given(body))
    name: str = _named({"model": fields.get("name"), **fields})["model"]
    return name


def _named(fields: dict[str, Any]) -> dict[str, Any]:
    if not fields.get("model"):
        raise InvalidRequest("model", "it is missing: give one of the names that GET /api/tags lists")
    return fields


def _given(body: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in body.items() if value not in ("", [], {}) or isinstance(value, bool)}


def _generation(
    fields: dict[str, Any],
    prompt: str | None,
    messages: list[Mapping[str, Any]] | None,
    tools: Tools | None = None,
) -> Generation:
    _named(fields)
    forced = {} if tools is None else {"grammar": tools.grammar}
    direct = ("format", "truncate", "shift", "logprobs", "top_logprobs")
    return Generation(
        model=fields["model"],
        prompt=prompt,
        messages=messages,
        tools=tools,
        stream=fields.get("stream", True),
        keep_alive=fields.get("keep_alive"),
        options=_options(fields.get("options", {}))
        | {name: fields[name] for name in direct if name in fields}
        | forced,
    )


def _options(asked: dict[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = Table(done=_OPTIONS, refused={}).read(_given(asked))
    for name, meaning in _ANY_BELOW_ZERO.items():
        if found.get(name, 0) < 0:
            found[name] = meaning
    if found.get("seed", 0) < 0:
        del found["seed"]
    return found


def _message(i: int, message: object) -> dict[str, Any]:
    """Return a message with its role in lower case, its text and its calls; other fields are ignored if empty."""

    def placed(check: Callable[[], Any]) -> Any:
        try:
            return check()
        except InvalidRequest as error:
            raise InvalidRequest(f"messages[{i}].{error.field}", error.reason) from None

    said = _given(mapping(f"messages[{i}]", message))
    fields = placed(lambda: Table(done=_MESSAGE, refused=_REFUSED_IN_MESSAGE).read(said))
    if "role" not in fields:
        raise InvalidRequest(f"messages[{i}].role", "it is missing")
    role = fields["role"].lower()
    return {"role": role, "content": fields.get("content", "")} | call_fields(f"messages[{i}]", said, role)
