"""Requests that nobody sends: valid ones of every endpoint, changed at random, a seed each.

A body is changed as the JSON that it is, or as bytes; its method, path and headers are changed too.
"""

import json
from collections.abc import Callable
from contextlib import suppress
from copy import deepcopy
from random import Random
from typing import Any, Final

from attrs import frozen

Node = tuple[Any, Any]
"""A list or an object, and an index or a key in it."""

_SCHEMA: Final[dict[str, Any]] = {
    "type": "object",
    "properties": {
        "name": {"type": "string", "maxLength": 9},
        "age": {"type": "integer", "minimum": 0, "maximum": 150},
        "tags": {"type": "array", "items": {"enum": ["a", 1, None]}, "maxItems": 3},
        "when": {"anyOf": [{"type": "null"}, {"$ref": "#/$defs/day"}]},
    },
    "required": ["name", "age"],
    "$defs": {"day": {"type": "string", "pattern": "^[0-9]{4}-[0-9]{2}$"}},
}
_TOOL: Final[dict[str, Any]] = {
    "type": "function",
    "function": {"name": "weather", "description": "The weather.", "parameters": _SCHEMA},
}
_NAMED: Final = {"type": "function", "function": {"name": "weather"}}
_CALL: Final = {"function": {"name": "weather", "arguments": {"city": "Rome"}}, "id": "c1"}
_WRITTEN: Final = {"id": "c1", "type": "function", "function": {"name": "weather", "arguments": '{"city": "Rome"}'}}
_OPTIONS: Final[dict[str, Any]] = {
    "seed": 7,
    "num_predict": 8,
    "num_keep": 4,
    "stop": ["z"],
    "temperature": 0.8,
    "top_k": 40,
    "top_p": 0.9,
    "min_p": 0.05,
    "typical_p": 1.0,
    "repeat_last_n": 64,
    "repeat_penalty": 1.1,
    "presence_penalty": 0.0,
    "frequency_penalty": 0.0,
    "num_ctx": 4096,
    "mirostat": 0,
}
_SAID: Final = [{"role": "system", "content": "be"}, {"role": "user", "content": "x"}]
_CALLED: Final = [*_SAID, {"role": "assistant", "content": "", "tool_calls": [_CALL]}]
_ANSWERED: Final = [*_CALLED, {"role": "tool", "tool_name": "weather", "content": "sunny"}]
_PARTS: Final = [{"role": "user", "content": [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]}]

VALID: Final[tuple[tuple[str, str, Any], ...]] = (
    *(("GET", path, None) for path in ("/", "/health", "/metrics", "/api/version", "/api/tags", "/api/ps")),
    *(("GET", path, None) for path in ("/v1/models", "/v1/models/m", "/openapi.json", "/debug/requests")),
    ("POST", "/api/show", {"model": "m"}),
    ("POST", "/api/generate", {"model": "m", "prompt": "x", "options": _OPTIONS, "keep_alive": "5m", "raw": True}),
    ("POST", "/api/generate", {"model": "m", "prompt": "x", "system": "be", "stream": False, "format": _SCHEMA}),
    ("POST", "/api/generate", {"model": "m", "keep_alive": 0}),
    ("POST", "/api/chat", {"model": "m", "messages": _SAID, "options": _OPTIONS, "logprobs": True, "top_logprobs": 2}),
    ("POST", "/api/chat", {"model": "m", "messages": _ANSWERED, "tools": [_TOOL], "options": {"num_predict": 8}}),
    ("POST", "/api/chat", {"model": "m", "messages": _SAID, "format": "json", "think": False, "truncate": True}),
    ("POST", "/api/embed", {"model": "v", "input": ["a", "b"], "truncate": True, "dimensions": 1}),
    ("POST", "/api/embeddings", {"model": "v", "prompt": "a"}),
    (
        "POST",
        "/v1/chat/completions",
        {"model": "m", "messages": _PARTS, "stream": True, "stream_options": {"include_usage": True}, "max_tokens": 8},
    ),
    (
        "POST",
        "/v1/chat/completions",
        {"model": "m", "messages": _SAID, "tools": [_TOOL], "tool_choice": _NAMED, "max_completion_tokens": 8},
    ),
    (
        "POST",
        "/v1/chat/completions",
        {
            "model": "m",
            "messages": [*_SAID, {"role": "assistant", "tool_calls": [_WRITTEN]}],
            "response_format": {"type": "json_schema", "json_schema": {"name": "p", "schema": _SCHEMA}},
            "temperature": 1,
            "top_p": 0.5,
            "seed": 1,
            "n": 1,
        },
    ),
    (
        "POST",
        "/v1/completions",
        {"model": "m", "prompt": "x", "max_tokens": 8, "logprobs": 1, "stop": ["z"], "echo": False, "stream": True},
    ),
    (
        "POST",
        "/v1/responses",
        {"model": "m", "input": _SAID, "instructions": "be", "stream": True, "max_output_tokens": 8, "temperature": 1},
    ),
    (
        "POST",
        "/v1/responses",
        {
            "model": "m",
            "input": [
                {"type": "reasoning", "summary": []},
                {"type": "message", "role": "user", "content": [{"type": "input_text", "text": "a"}]},
            ],
            "text": {"format": {"type": "json_schema", "name": "p", "schema": _SCHEMA}},
            "truncation": "disabled",
        },
    ),
    ("POST", "/v1/embeddings", {"model": "v", "input": "a", "encoding_format": "base64", "dimensions": 2}),
    ("POST", "/api/pull", {"model": "m"}),
    ("DELETE", "/api/delete", {"model": "m"}),
)
"""Requests that are answered: method, path and body."""

_HOSTILE: Final[tuple[Any, ...]] = (
    *(0, 1, -1, 2, 7, 255, 2**31 - 1, 2**31, 2**53 - 1, 2**53, -(2**53), 2**63, 2**64, -(2**70), 10**40),
    *(0.0, -0.0, 0.5, 1.5, 40.0, 1e15, 1e300, 1e308, -1e308, 5e-324, True, False, None),
    *([], {}, [[]], [None], [{}], [1, 2], ["a", 5], {"": {}}, {"a": None}, [0] * 2000, [""] * 300),
    *(
        "",
        " ",
        "x",
        "m",
        "v",
        "json",
        "text",
        "auto",
        "required",
        "tool",
        "assistant",
        "system",
        "\x00",
        "\x1b[2J\u202e",
    ),
    *(
        "\ud800",
        "é",
        "\U0001f600",
        "{{ 7 * 7 }}",
        "<|im_end|>",
        "../../etc/passwd",
        "C:\\x",
        "-5m",
        "1h",
        "9" * 400 + "h",
    ),
    *("x" * 3000, "é" * 600, "a\n" * 50, "(a+)+$", "^(?=a)", "[", '{"a": 1}', "[" * 400),
    *({"$ref": "#"}, {"anyOf": [{"$ref": "#"}]}, {"type": ["string", "null"]}, {"type": "array", "minItems": 10**9}),
    *(
        {"type": "string", "maxLength": 10**9},
        {"type": "string", "pattern": "(a|a)*{1000}"},
        {"enum": list(range(400))},
    ),
    *({"type": "integer", "minimum": -(10**30), "maximum": 10**30}, {"type": "number", "multipleOf": 1e-9}),
    *({"type": "object", "properties": {f"p{i}": {"type": "string"} for i in range(60)}}, {"const": {"a": [1]}}),
    *({"type": "image_url", "image_url": {"url": "x"}}, {"role": "user", "content": [{"type": "text"}]}),
)
_KEYS: Final = (
    *("model", "name", "prompt", "messages", "input", "stream", "options", "format", "keep_alive", "logprobs", "think"),
    *("top_logprobs", "tools", "tool_choice", "system", "raw", "suffix", "images", "template", "context", "n", "stop"),
    *("dimensions", "encoding_format", "max_tokens", "seed", "response_format", "stream_options", "logit_bias", "echo"),
    *(
        "role",
        "content",
        "tool_calls",
        "function",
        "arguments",
        "parameters",
        "properties",
        "type",
        "",
        "\x00",
        "x" * 999,
    ),
    *("$ref", "anyOf", "pattern", "enum", "items", "__proto__", "tool_call_id", "functions", "audio", "best_of"),
)
_METHODS: Final = ("GET", "POST", "PUT", "PATCH", "DELETE", "HEAD", "OPTIONS", "TRACE", "CONNECT", "FOO", "get")
_PATHS: Final = (
    *(
        "/",
        "//",
        "/api",
        "/api/",
        "/v1",
        "/v1/models/",
        "/v1/models/a/b",
        "/v1/models/%2e%2e",
        "/api/generate/",
        "/API/chat",
    ),
    *(
        "/api/chat?x=1",
        "/api/blobs/sha256:0",
        "/v1/responses",
        "/debug/requests/1",
        "/debug/requests/%00",
        "/%ff",
        "/\x7f",
    ),
)
_HEADERS: Final[tuple[tuple[bytes, bytes], ...]] = (
    *(
        (b"content-type", kind)
        for kind in (b"", b"text/plain", b"application/x-www-form-urlencoded", b"\xff", b"a" * 3000)
    ),
    *((b"x-request-id", name) for name in (b"", b"mine", b"\x1b[2J", b"\xff\xfe", b"x" * 500, b"../a")),
    *((b"origin", page) for page in (b"http://localhost:3000", b"https://evil.example", b"null", b"\xff", b"")),
    *((b"host", name) for name in (b"", b"evil.example", b"[::1]:80", b"[", b"\xff", b"localhost:x", b"a" * 3000)),
    *((b"authorization", key) for key in (b"Bearer k", b"Bearer", b"\xff", b"Basic eDp4")),
    *(
        (b"accept-encoding", b"gzip"),
        (b"content-encoding", b"gzip"),
        (b"expect", b"100-continue"),
        (b"range", b"bytes=1-"),
    ),
    *((b"access-control-request-method", b"POST"), (b"cookie", b"a=b; \xff"), (b"traceparent", b"00-0-0-00")),
    *(
        (b"upgrade", b"websocket"),
        (b"connection", b"upgrade"),
        (b"forwarded", b"for=8.8.8.8"),
        (b"\xff", b"x"),
        (b"", b"x"),
    ),
)


@frozen
class Asked:
    """A request that nobody sends."""

    seed: int
    method: str
    path: str
    headers: tuple[tuple[bytes, bytes], ...]
    body: bytes
    n_parts: int
    """In so many parts the body comes."""
    leaves: int | None
    """The client hangs up after so many parts; None if it stays for the answer."""


def asked(seed: int) -> Asked:
    """Return the request of a seed."""
    random = Random(seed)  # noqa: S311  # it is to be the same again
    method, path, valid = random.choice(VALID)
    body = {"x": deepcopy(valid)}
    for _ in range(random.choice((0, 1, 1, 1, 2, 2, 3, 5))):
        with suppress(RecursionError):  # It is nested too deeply to be copied once more.
            random.choice(_CHANGES)(random, body)
    raw = b"" if body["x"] is None else _written(random, body["x"])
    if random.random() < 0.25:
        for _ in range(random.choice((1, 1, 2, 4))):
            raw = random.choice(_DAMAGES)(random, raw)
    if random.random() < 0.08:
        method = random.choice(_METHODS)
    if random.random() < 0.08:
        path = random.choice(_PATHS)
    headers = [(b"host", b"localhost"), (b"content-type", b"application/json")]
    while random.random() < 0.15:
        added = random.choice(_HEADERS)
        headers = [one for one in headers if one[0] != added[0] or random.random() < 0.2] + [added]
    n_parts = random.choice((1, 1, 1, 2, 5))
    leaves = random.randint(0, n_parts) if random.random() < 0.05 else None
    return Asked(seed, method, path, tuple(headers), raw, n_parts, leaves)


# ---------------------------------------------------------------- the body as JSON


def _nodes(value: Any) -> list[Node]:
    found: list[Node] = []
    waiting = [value]
    while waiting:
        one = waiting.pop()
        keys: Any = one.keys() if isinstance(one, dict) else range(len(one)) if isinstance(one, list) else ()
        for key in keys:
            found.append((one, key))
            waiting.append(one[key])
    return found[:3000]


def _replace(random: Random, body: Any) -> None:
    holder, key = random.choice(_nodes(body))
    holder[key] = deepcopy(random.choice(_HOSTILE))


def _drop(random: Random, body: Any) -> None:
    holder, key = random.choice(_nodes(body))
    if holder is not body:
        del holder[key]


def _add(random: Random, body: Any) -> None:
    holders = [holder[key] for holder, key in _nodes(body) if isinstance(holder[key], dict | list)]
    if holders:
        holder = random.choice(holders)
        value = deepcopy(random.choice(_HOSTILE))
        if isinstance(holder, dict):
            holder[random.choice(_KEYS)] = value
        else:
            holder.insert(random.randint(0, len(holder)), value)


def _rename(random: Random, body: Any) -> None:
    named = [(holder, key) for holder, key in _nodes(body) if isinstance(holder, dict) and holder is not body]
    if named:
        holder, key = random.choice(named)
        holder[random.choice(_KEYS)] = holder.pop(key)


def _swap(random: Random, body: Any) -> None:
    nodes = _nodes(body)
    (one, key), (other, place) = random.choice(nodes), random.choice(nodes)
    one[key] = deepcopy(other[place])


def _repeat(random: Random, body: Any) -> None:
    lists = [holder[key] for holder, key in _nodes(body) if isinstance(holder[key], list) and holder[key]]
    if lists:
        one = random.choice(lists)
        one.extend(deepcopy(one) * random.choice((1, 3, 100)) if len(one) < 50 else ())


def _nest(random: Random, body: Any) -> None:
    holder, key = random.choice(_nodes(body))
    for _ in range(random.choice((1, 2, 70, 300))):
        holder[key] = random.choice(([holder[key]], {"a": holder[key]}, {"properties": {"a": holder[key]}}))


def _mix(random: Random, body: Any) -> None:
    """Add the fields of another endpoint."""
    _, _, other = random.choice(VALID)
    if isinstance(body["x"], dict) and other:
        fields = [name for name in other if random.random() < 0.5]
        body["x"] |= {name: deepcopy(other[name]) for name in fields}


_Change = Callable[[Random, Any], None]
_CHANGES: Final[tuple[_Change, ...]] = (
    _replace,
    _replace,
    _replace,
    _drop,
    _add,
    _add,
    _rename,
    _swap,
    _repeat,
    _nest,
    _mix,
)


def _written(random: Random, value: Any) -> bytes:
    """Write JSON, once in a while as few do."""
    kind = random.random()
    try:
        written = json.dumps(value, ensure_ascii=kind < 0.7, indent=1 if kind > 0.97 else None)
    except RecursionError:
        return b"[" * 5000
    return written.encode("utf-8", "surrogatepass" if kind < 0.9 else "replace")


# ---------------------------------------------------------------- the body as bytes


def _place(random: Random, raw: bytes) -> int:
    return random.randint(0, len(raw))


def _cut(random: Random, raw: bytes) -> bytes:
    return raw[: _place(random, raw)]


def _flip(random: Random, raw: bytes) -> bytes:
    at = _place(random, raw)
    return raw[:at] + bytes([random.randrange(256)]) + raw[at + 1 :]


def _insert(random: Random, raw: bytes) -> bytes:
    at = _place(random, raw)
    return raw[:at] + random.choice(_SNIPPETS) + raw[at:]


def _double(random: Random, raw: bytes) -> bytes:
    """Give a key twice, or more."""
    return raw.replace(b'{"', b'{"model": "m", "stream": 5, "', random.choice((1, -1)))


def _encode(random: Random, raw: bytes) -> bytes:
    return raw.decode("utf-8", "replace").encode(
        random.choice(("utf-16", "utf-32-le", "utf-8-sig", "latin-1")), "replace"
    )


def _exchange(random: Random, raw: bytes) -> bytes:
    return raw.replace(
        random.choice((b'"', b":", b",", b"{", b"1", b"x")), random.choice(_SNIPPETS), random.choice((1, -1))
    )


_SNIPPETS: Final = (
    *(b"", b"\x00", b"\xff", b"\xed\xa0\x80", b"\\ud800", b"\\u0000", b"NaN", b"Infinity", b"1e999", b"-", b"01", b"'"),
    *(
        b'"',
        b"{",
        b"}",
        b"[",
        b"]",
        b",",
        b":",
        b"//",
        b"/**/",
        b"\xef\xbb\xbf",
        b"9" * 5000,
        b"[" * 2000,
        b'{"a":' * 500,
    ),
)
_DAMAGES: Final[tuple[Callable[[Random, bytes], bytes], ...]] = (
    _cut,
    _flip,
    _flip,
    _insert,
    _double,
    _encode,
    _exchange,
)
