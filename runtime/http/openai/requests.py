"""Reads the bodies of OpenAI's API into arguments for a runtime.

The rule that holds here: the defaults of temperature and top_p are OpenAI's, all others this runtime's. A prompt that
is too long is an error, and a text ends when the context is full.
"""

from collections.abc import Mapping, Sequence
from typing import Any, Final, Literal

from attrs import frozen

from reenact.actors.errors import InvalidRequest
from reenact.actors.limits import MAX_TOP_LOGPROBS
from reenact.runtime.http.fields import Check, Refusal, Table, flag, listed, mapping, number, text, texts, whole
from reenact.runtime.http.tools import Tools, call_fields, tools_of, with_names

_SYSTEM: Final = {"developer": "system"}
"""The roles that templates do not know, with the roles that replace them."""

_TEXTS: Final = "text"


def _any(_: str, value: object) -> object:
    """Take a field that is checked together with others."""
    return value


_COMMON: Final[dict[str, Check]] = {
    "model": text,
    "stream": flag,
    "stream_options": mapping,
    "temperature": number,
    "top_p": number,
    "max_tokens": whole,
    "stop": texts,
    "seed": whole,
    "frequency_penalty": number,
    "presence_penalty": number,
}
_ONE: Final = Refusal(reason="a request generates one answer: send one request for each", but=(1,))
_REFUSED: Final = {
    "n": _ONE,
    "best_of": _ONE,
    "logit_bias": Refusal(reason="token biases are not supported"),
}
_CHAT: Final = Table(
    done={
        **_COMMON,
        "messages": listed,
        "max_completion_tokens": whole,
        "response_format": mapping,
        "logprobs": flag,
        "top_logprobs": whole,
        "tools": listed,
        "tool_choice": _any,
    },
    refused={
        **_REFUSED,
        "functions": Refusal(reason="this model does not support functions"),
        "function_call": Refusal(reason="this model does not support functions", but=("none", "auto")),
        "audio": Refusal(reason="this model does not generate audio"),
        "modalities": Refusal(reason="this model generates only text", but=([_TEXTS],)),
        "prediction": Refusal(reason="predicted output is not supported"),
        "web_search_options": Refusal(reason="web search is not supported"),
        "reasoning_effort": Refusal(reason="this model does not support thinking", but=("none",)),
    },
)
_COMPLETION: Final = Table(
    done={**_COMMON, "prompt": text, "logprobs": whole},
    refused={
        **_REFUSED,
        "echo": Refusal(reason="the prompt is not repeated"),
        "suffix": Refusal(reason="this model does not support insert"),
    },
)
_EMBEDDING: Final = Table(
    done={"model": text, "dimensions": whole, "encoding_format": text, "input": texts},
    refused={},
)
_IN_MESSAGE: Final = {
    "function_call": Refusal(reason="this model does not support functions"),
    "audio": Refusal(reason="this model does not support audio"),
}


@frozen(kw_only=True)
class Question:
    """A client's request to generate."""

    model: str
    prompt: str | None
    """The prompt, unless the request is a chat."""
    messages: Sequence[Mapping[str, Any]] | None
    tools: Tools | None = None
    stream: bool
    include_usage: bool
    options: dict[str, Any]


@frozen(kw_only=True)
class TextsToEmbed:
    """A client's request to embed."""

    model: str
    texts: list[str]
    dimensions: int | None
    encoding: Literal["float", "base64"]


def chat_asked(body: dict[str, Any]) -> Question:
    """Return the request of ``/v1/chat/completions``.

    Raises:
        InvalidRequest: A field is wrong; the error names it.
    """
    fields = _CHAT.read(body)
    options = _options(fields)
    if fields.get("logprobs"):
        options |= {"logprobs": True, "top_logprobs": _top(fields.get("top_logprobs", 0), "top_logprobs")}
    elif fields.get("top_logprobs"):
        raise InvalidRequest("top_logprobs", "logprobs is required with it")
    if (form := _form(fields.get("response_format"))) is not None:
        options["format"] = form
    messages: list[Mapping[str, Any]] = [_message(i, one) for i, one in enumerate(_needed(fields, "messages"))]
    others = {"response_format": form, "logprobs": fields.get("logprobs"), "stop": options.get("stop")}
    tools = tools_of(fields.get("tools"), fields.get("tool_choice"), others)
    if tools is not None:
        options["grammar"] = tools.grammar
    return _question(fields, None, with_names(messages), options, tools)


def completion_asked(body: dict[str, Any]) -> Question:
    """Return the request of ``/v1/completions``.

    Raises:
        InvalidRequest: A field is wrong; the error names it.
    """
    if isinstance(body.get("prompt"), list):
        prompts = body["prompt"]
        if len(prompts) != 1 or not isinstance(prompts[0], str):
            raise InvalidRequest("prompt", "expected one text, not tokens: send one request for each text")
        body = {**body, "prompt": prompts[0]}
    fields = _COMPLETION.read(body)
    options = _options(fields)
    if "logprobs" in fields:
        options |= {"logprobs": True, "top_logprobs": _top(fields["logprobs"], "logprobs")}
    return _question(fields, _needed(fields, "prompt"), None, options)


def embedding_asked(body: dict[str, Any]) -> TextsToEmbed:
    """Return the request of ``/v1/embeddings``.

    Raises:
        InvalidRequest: A field is wrong; the error names it.
    """
    given = body.get("input")
    if isinstance(given, list) and given and not all(isinstance(one, str) for one in given):
        raise InvalidRequest(
            "input", "expected a string or a list of strings, not tokens, which may be another model's"
        )
    fields = _EMBEDDING.read(body)
    encoding = fields.get("encoding_format", "float")
    if encoding not in {"float", "base64"}:
        raise InvalidRequest("encoding_format", 'expected "float" or "base64"')
    return TextsToEmbed(
        model=_needed(fields, "model"),
        texts=_needed(fields, "input"),
        dimensions=fields.get("dimensions"),
        encoding=encoding,
    )


def _question(
    fields: dict[str, Any],
    prompt: str | None,
    messages: Sequence[Mapping[str, Any]] | None,
    options: dict[str, Any],
    tools: Tools | None = None,
) -> Question:
    usage = fields.get("stream_options", {}).get("include_usage")
    return Question(
        model=_needed(fields, "model"),
        prompt=prompt,
        messages=messages,
        tools=tools,
        stream=fields.get("stream", False),
        include_usage=usage is not None and flag("stream_options.include_usage", usage),
        options=options,
    )


def _options(fields: dict[str, Any]) -> dict[str, Any]:
    same = ("seed", "frequency_penalty", "presence_penalty")
    options: dict[str, Any] = {name: fields[name] for name in same if name in fields}
    options |= {"temperature": fields.get("temperature", 1.0), "top_p": fields.get("top_p", 1.0)}
    options |= {"truncate": False, "shift": False}
    if options.get("seed", 0) < 0:
        del options["seed"]
    bounds = [fields[name] for name in ("max_tokens", "max_completion_tokens") if name in fields]
    if bounds:
        if min(bounds) < 0:
            raise InvalidRequest("num_predict", "expected 0 or more")
        options["num_predict"] = min(bounds)
    if stops := [stop for stop in fields.get("stop", []) if stop]:
        options["stop"] = stops
    return options


def _top(asked: int, name: str) -> int:
    if not 0 <= asked <= MAX_TOP_LOGPROBS:
        raise InvalidRequest(name, f"expected 0 to {MAX_TOP_LOGPROBS}")
    return asked


def _form(asked: dict[str, Any] | None) -> Any:
    """Return the format for an answer."""
    if asked is None or asked.get("type") == _TEXTS:
        return None
    if asked.get("type") == "json_object":
        return "json"
    schema = asked.get("json_schema")
    schema = schema.get("schema") if isinstance(schema, dict) else None
    if asked.get("type") != "json_schema":
        raise InvalidRequest("response_format", 'expected the type "text", "json_object" or "json_schema"')
    if not isinstance(schema, dict) or not schema:
        raise InvalidRequest("response_format", "json_schema.schema is missing")
    return schema


def _needed(fields: dict[str, Any], name: str) -> Any:
    if name not in fields or (not fields[name] and name != "prompt"):
        raise InvalidRequest(name, "it is missing")
    return fields[name]


def _message(i: int, message: object) -> dict[str, Any]:
    where = f"messages[{i}]"
    said = mapping(where, message)
    for name, refusal in _IN_MESSAGE.items():
        if said.get(name):
            raise InvalidRequest(f"{where}.{name}", refusal.reason)
    if said.get("role") is None:
        raise InvalidRequest(f"{where}.role", "it is missing")
    role = text(f"{where}.role", said["role"])
    content = _content(f"{where}.content", said.get("content"))
    return {"role": _SYSTEM.get(role, role), "content": content} | call_fields(where, said, role)


def _content(where: str, content: object) -> str:
    """Return a content as one text, its parts joined."""
    if content is None:
        return ""
    if not isinstance(content, list):
        return text(where, content)
    found = []
    for i, part in enumerate(content):
        kind = mapping(f"{where}[{i}]", part).get("type")
        if kind != _TEXTS:
            raise InvalidRequest(f"{where}[{i}]", "this model accepts only text")
        found.append(text(f"{where}[{i}].text", part.get("text")))
    return "".join(found)
