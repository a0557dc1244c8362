"""Reads the bodies of OpenAI's API into arguments for a runtime.

The rules that hold here:

* The defaults of temperature and top_p are OpenAI's, all others this runtime's. A prompt that is too long is an error,
  and a text ends when the context is full.
* Options that OpenAI does not have are taken under llama-server's names, because clients that know them send them.
"""

from collections.abc import Mapping, Sequence
from typing import Any, Final, Literal

from attrs import frozen

from reenact.actors.errors import InvalidRequest
from reenact.actors.limits import MAX_INTEGER, MAX_TOP_LOGPROBS
from reenact.runtime.http.fields import (
    Check,
    Refusal,
    Table,
    below_zero,
    each,
    filled,
    flag,
    mapping,
    nested,
    one_of,
    option,
    stops,
    takes,
    text,
    texts,
    within,
)
from reenact.runtime.http.tools import IN_MESSAGE, TOOLS, Tools, call_fields, tool_choice, tools_of, with_names

SYSTEM_ROLES: Final = {"developer": "system"}
"""The roles that templates do not know, with the roles that replace them."""

_TEXTS: Final = "text"


_PART: Final = Table(done={"type": one_of(_TEXTS), "text": text}, required=("type", "text"))


@takes(anyOf=[{"type": "string"}, {"type": "array", "items": _PART.schema}])
def _content(name: str, value: object) -> str:
    """Return a content as one text, its parts joined."""
    if not isinstance(value, list):
        return text(name, value)
    for i, part in enumerate(value):
        if isinstance(part, dict) and isinstance(part.get("type"), str) and part["type"] != _TEXTS:
            raise InvalidRequest(f"{name}[{i}]", "this model accepts only text")
    return "".join(part["text"] for part in each(nested(_PART))(name, value))


@takes(
    anyOf=[
        {"type": "object", "properties": {"type": {"enum": [_TEXTS, "json_object"]}}, "required": ["type"]},
        {
            "type": "object",
            "properties": {
                "type": {"enum": ["json_schema"]},
                "json_schema": {
                    "type": "object",
                    "properties": {"schema": {"type": "object", "minProperties": 1}},
                    "required": ["schema"],
                },
            },
            "required": ["type", "json_schema"],
        },
    ]
)
def response_format(name: str, value: object) -> Any:
    """Return the format for an answer."""
    asked = mapping(name, value)
    if asked.get("type") == _TEXTS:
        return None
    if asked.get("type") == "json_object":
        return "json"
    schema = asked.get("json_schema")
    schema = schema.get("schema") if isinstance(schema, dict) else None
    if asked.get("type") != "json_schema":
        raise InvalidRequest(name, 'expected the type "text", "json_object" or "json_schema"')
    if not isinstance(schema, dict) or not schema:
        raise InvalidRequest(name, "json_schema.schema is missing")
    return schema


@takes(anyOf=[{"type": "string"}, {"type": "array", "items": {"type": "string"}, "minItems": 1, "maxItems": 1}])
def _prompt(name: str, value: object) -> str:
    if isinstance(value, list):
        if len(value) != 1 or not isinstance(value[0], str):
            raise InvalidRequest(name, "expected one text: send one request for each, and no tokens")
        value = value[0]
    return text(name, value)


@takes(**filled(texts).schema)
def _input(name: str, value: object) -> list[str]:
    if isinstance(value, list) and not all(isinstance(one, str) for one in value):
        raise InvalidRequest(name, "expected a string or a list of strings, not tokens, which may be another model's")
    return filled(texts)(name, value)


SAMPLING: Final[dict[str, Check[Any]]] = {
    "stop": stops,
    "seed": below_zero(option("seed"), None),
    "frequency_penalty": option("frequency_penalty"),
    "presence_penalty": option("presence_penalty"),
    "top_k": below_zero(option("top_k"), 0),
    "min_p": option("min_p"),
    "typical_p": option("typical_p"),
    "repeat_last_n": below_zero(option("repeat_last_n"), -1),
    "repeat_penalty": option("repeat_penalty"),
    "grammar": text,
}
"""The options that go to the runtime under the same names."""
_BOUND: Final = below_zero(within(0, MAX_INTEGER), None)
"""The most tokens of an answer; as for ollama and llama-server, none below 0."""

_COMMON: Final[dict[str, Check[Any]]] = {
    "model": filled(text),
    "stream": flag,
    "stream_options": nested(Table(done={"include_usage": flag})),
    "temperature": option("temperature"),
    "top_p": option("top_p"),
    "max_tokens": _BOUND,
    **SAMPLING,
}
_ONE: Final = Refusal(reason="a request generates one answer: send one request for each", but=(1,))
_REFUSED: Final = {
    "n": _ONE,
    "best_of": _ONE,
    "logit_bias": Refusal(reason="token biases are not supported"),
}


@takes(enum=["none"])
def _reasoning_effort(name: str, value: object) -> Literal["none"]:
    """Return the only effort that does not need levels of thinking."""
    if value != "none":
        raise InvalidRequest(name, 'expected "none": there are no levels of thinking')
    return "none"


_MESSAGE: Final = Table(
    done={"role": text, "content": _content, **IN_MESSAGE},
    refused={
        "function_call": Refusal(reason="this model does not support functions"),
        "audio": Refusal(reason="this model does not support audio"),
    },
    required=("role",),
)
CHAT: Final = Table(
    done={
        **_COMMON,
        "messages": filled(each(nested(_MESSAGE))),
        "max_completion_tokens": _BOUND,
        "response_format": response_format,
        "logprobs": flag,
        "top_logprobs": within(0, MAX_TOP_LOGPROBS),
        "tools": TOOLS,
        "tool_choice": tool_choice,
        "reasoning_effort": _reasoning_effort,
    },
    refused={
        **_REFUSED,
        "functions": Refusal(reason="this model does not support functions"),
        "function_call": Refusal(reason="this model does not support functions", but=("none", "auto")),
        "audio": Refusal(reason="this model does not generate audio"),
        "modalities": Refusal(reason="this model generates only text", but=([_TEXTS],)),
        "prediction": Refusal(reason="predicted output is not supported"),
        "web_search_options": Refusal(reason="web search is not supported"),
        "chat_template_kwargs": Refusal(reason="reasoning_effort turns thinking off"),
    },
    required=("model", "messages"),
)
COMPLETION: Final = Table(
    done={**_COMMON, "prompt": _prompt, "logprobs": within(0, MAX_TOP_LOGPROBS)},
    refused={
        **_REFUSED,
        "echo": Refusal(reason="the prompt is not repeated"),
        "suffix": Refusal(reason="this model does not support insert"),
    },
    required=("model", "prompt"),
)
EMBEDDING: Final = Table(
    done={
        "model": filled(text),
        "dimensions": within(1, MAX_INTEGER),
        "encoding_format": one_of("float", "base64"),
        "input": _input,
    },
    required=("model", "input"),
)


@frozen(kw_only=True)
class Question:
    """A client's request to generate."""

    model: str
    prompt: str | None
    """The prompt, unless the request is a chat."""
    messages: Sequence[Mapping[str, Any]] | None
    tools: Tools | None = None
    think: bool | None = None
    """Whether the model is to think first; None for its template's default."""
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
    fields = CHAT.read(body)
    options = _options(fields)
    if fields.get("logprobs"):
        options |= {"logprobs": True, "top_logprobs": fields.get("top_logprobs", 0)}
    elif fields.get("top_logprobs"):
        raise InvalidRequest("top_logprobs", "logprobs is required with it")
    if (form := fields.get("response_format")) is not None:
        options["format"] = form
    messages: list[Mapping[str, Any]] = [_message(i, one) for i, one in enumerate(fields["messages"])]
    others = {"response_format": form} | {name: fields.get(name) for name in ("logprobs", "stop", "grammar")}
    if (tools := tools_of(fields, others)) is not None:
        options["grammar"] = tools.grammar
    return _question(fields, None, with_names(messages), options, tools)


def completion_asked(body: dict[str, Any]) -> Question:
    """Return the request of ``/v1/completions``.

    Raises:
        InvalidRequest: A field is wrong; the error names it.
    """
    fields = COMPLETION.read(body)
    options = _options(fields)
    if "logprobs" in fields:
        options |= {"logprobs": True, "top_logprobs": fields["logprobs"]}
    return _question(fields, fields["prompt"], None, options)


def embedding_asked(body: dict[str, Any]) -> TextsToEmbed:
    """Return the request of ``/v1/embeddings``.

    Raises:
        InvalidRequest: A field is wrong; the error names it.
    """
    fields = EMBEDDING.read(body)
    return TextsToEmbed(
        model=fields["model"],
        texts=fields["input"],
        dimensions=fields.get("dimensions"),
        encoding=fields.get("encoding_format", "float"),
    )


def _question(
    fields: dict[str, Any],
    prompt: str | None,
    messages: Sequence[Mapping[str, Any]] | None,
    options: dict[str, Any],
    tools: Tools | None = None,
) -> Question:
    return Question(
        model=fields["model"],
        prompt=prompt,
        messages=messages,
        tools=tools,
        think=False if "reasoning_effort" in fields else None,
        stream=fields.get("stream", False),
        include_usage=fields.get("stream_options", {}).get("include_usage", False),
        options=options,
    )


def _options(fields: dict[str, Any]) -> dict[str, Any]:
    options: dict[str, Any] = {name: fields[name] for name in SAMPLING if name in fields}
    options |= {"temperature": fields.get("temperature", 1.0), "top_p": fields.get("top_p", 1.0)}
    options |= {"truncate": False, "shift": False}
    bounds = [fields.get(name) for name in ("max_tokens", "max_completion_tokens")]
    if given := [bound for bound in bounds if bound is not None]:
        options["num_predict"] = min(given)
    return options


def _message(i: int, fields: dict[str, Any]) -> dict[str, Any]:
    role, content = fields["role"], fields.get("content", "")
    return {"role": SYSTEM_ROLES.get(role, role), "content": content} | call_fields(f"messages[{i}]", fields, role)
