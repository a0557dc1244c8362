"""The OpenAPI document: all that is served is in it, and answers are as it says."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from jsonschema import Draft202012Validator

from reenact.runtime.http.application import app
from reenact.runtime.http.document import DescribedRoute
from reenact.runtime.pytest_plugin import OpenScripted
from tests.helpers.http import CHAT, client, events, lines

WEATHER = {"type": "function", "function": {"name": "weather", "parameters": {"type": "object"}}}
CALL = ['{"name": "weather", ', '"arguments": {}}']
LIKELY = {"logprobs": True, "top_logprobs": 1}


def closed(schema: Any) -> Any:
    """Return a schema that allows no field which it does not name."""
    if isinstance(schema, list):
        return [closed(one) for one in schema]
    if not isinstance(schema, dict):
        return schema
    found = {name: closed(value) for name, value in schema.items()}
    return found | ({"additionalProperties": False} if "properties" in found else {})


def test_every_route_is_described() -> None:
    """The document is made of all routes."""
    assert [] == [route for route in app({}).routes if not isinstance(route, DescribedRoute)]


async def test_paths_are_those_of_the_page(scripted_runtime: OpenScripted) -> None:
    """docs/http.md has each path of the document."""
    async with scripted_runtime() as runtime, client(runtime) as asking:
        document = (await asking.get("/openapi.json")).json()
    page = (Path(__file__).parents[3] / "docs" / "http.md").read_text("utf-8")
    shown = {path: path.replace("{name}", "NAME").replace("{id}", "ID") for path in document["paths"]}
    short = {f"/api/{name}": name for name in ("push", "create", "copy")}
    assert [] == [path for path in shown if f"{shown[path]}`" not in page and f"`{short.get(path)}`" not in page]


@pytest.mark.parametrize(("keys", "security"), [((), None), (("k",), [{"key": []}])])
async def test_a_key_is_in_it(scripted_runtime: OpenScripted, keys: tuple[str, ...], security: Any) -> None:
    """The document says where a key is needed, if clients must send one."""
    async with scripted_runtime() as runtime, client(runtime, keys=keys) as asking:
        document = (await asking.get("/openapi.json", headers={"authorization": "Bearer k"})).json()
    assert security == document["paths"]["/api/tags"]["get"].get("security")
    assert "security" not in document["paths"]["/health"]["get"]


@pytest.mark.parametrize(
    ("method", "path", "body"),
    [
        ("GET", "/api/version", None),
        ("GET", "/api/tags", None),
        ("GET", "/api/ps", None),
        ("GET", "/v1/models", None),
        ("GET", "/v1/models/{name}", None),
        ("GET", "/health", None),
        ("GET", "/debug/requests", None),
        ("POST", "/api/show", {}),
        ("POST", "/api/generate", {"prompt": "x", **LIKELY}),
        ("POST", "/api/generate", {"prompt": "x", "stream": False, **LIKELY}),
        ("POST", "/api/generate", {}),
        ("POST", "/api/chat", {"messages": CHAT}),
        ("POST", "/api/chat", {"messages": CHAT, "tools": [WEATHER]}),
        ("POST", "/api/chat", {"messages": CHAT, "tools": [WEATHER], "stream": False}),
        ("POST", "/v1/chat/completions", {"messages": CHAT, **LIKELY}),
        ("POST", "/v1/chat/completions", {"messages": CHAT, "stream": True, **LIKELY}),
        (
            "POST",
            "/v1/chat/completions",
            {"messages": CHAT, "stream": True, "tools": [WEATHER], "stream_options": {"include_usage": True}},
        ),
        ("POST", "/v1/chat/completions", {"messages": CHAT, "tools": [WEATHER]}),
        ("POST", "/v1/completions", {"prompt": "x", "logprobs": 1}),
        (
            "POST",
            "/v1/completions",
            {"prompt": "x", "logprobs": 1, "stream": True, "stream_options": {"include_usage": True}},
        ),
        ("POST", "/v1/responses", {"input": "x"}),
        ("POST", "/v1/completions", {"prompt": 5}),
        ("POST", "/api/generate", {"prompt": 5}),
        ("POST", "/api/pull", {}),
    ],
)
async def test_answers_are_as_described(
    scripted_runtime: OpenScripted, method: str, path: str, body: dict[str, Any] | None
) -> None:
    """An answer, each part of a stream and an error have the fields of the document and no others."""
    async with scripted_runtime(CALL) as runtime, client(runtime) as asking:
        document = (await asking.get("/openapi.json")).json()
        response = await asking.request(
            method, path.replace("{name}", "m"), json=None if body is None else {"model": "m", **body}
        )
    described = document["paths"][path][method.lower()]["responses"][str(response.status_code)]["content"]
    _check(response.headers["content-type"], response, described)


@pytest.mark.parametrize("path", ["/api/embed", "/api/embeddings", "/v1/embeddings"])
async def test_vectors_are_as_described(scripted_runtime: OpenScripted, path: str) -> None:
    """The same for vectors."""
    async with scripted_runtime(vectors={"x": [3.0, 4.0]}) as runtime, client(runtime) as asking:
        document = (await asking.get("/openapi.json")).json()
        response = await asking.post(path, json={"model": "m", "input": "x", "prompt": "x"})
    _check("application/json", response, document["paths"][path]["post"]["responses"]["200"]["content"])


def _check(kind: str, response: Any, described: Mapping[str, Any]) -> None:
    schema = closed(described[kind]["schema"])
    if kind == "text/event-stream":
        schema = schema["properties"]["data"]["anyOf"][0]["contentSchema"]
    parts = {"application/x-ndjson": lines, "text/event-stream": events}.get(kind, lambda whole: [whole.json()])
    found = parts(response)
    assert found
    assert [] == [error.message for part in found for error in Draft202012Validator(schema).iter_errors(part)]
