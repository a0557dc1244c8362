"""The OpenAPI document and the server agree: a body that fits its schema is taken, and any other is refused."""

import re
from typing import Any, Final

import httpx
import trio
from hypothesis import strategies as st
from jsonschema import Draft202012Validator

from reenact.runtime import ScriptedEngine, open_runtime
from reenact.runtime.http import app
from tests.helpers.properties import holds_for
from tests.properties.test_http_properties import values

USER: Final = [{"role": "user", "content": "x"}]
BASES: Final[dict[str, dict[str, Any]]] = {
    "/api/show": {"model": "m"},
    "/api/generate": {"model": "m", "prompt": "x", "options": {"num_predict": 1}, "logprobs": True},
    "/api/chat": {"model": "m", "messages": USER, "options": {"num_predict": 1}, "logprobs": True},
    "/api/embed": {"model": "v", "input": "x"},
    "/api/embeddings": {"model": "v", "prompt": "x"},
    "/v1/chat/completions": {"model": "m", "messages": USER, "max_tokens": 1, "logprobs": True},
    "/v1/completions": {"model": "m", "prompt": "x", "max_tokens": 1},
    "/v1/responses": {"model": "m", "input": "x", "max_output_tokens": 1},
    "/v1/embeddings": {"model": "v", "input": "x"},
}
"""A body of each endpoint, of which a property changes one field."""

BEYOND: Final = re.compile(
    "there are no tools to choose from|there is no tool|not supported together with tools|two tools have the same name"
    r"|only an assistant calls tools|at \$|logprobs is required|makes no embeddings|no vector for"
    r"|function\.arguments: |it has no tokens|longer than|nested too deeply|grammar: "
)
"""The reasons of refusals that depend on several fields or on the model, which no schema has."""


def _document() -> dict[str, Any]:
    async def ask() -> dict[str, Any]:
        async with httpx.AsyncClient(transport=httpx.ASGITransport(app({})), base_url="http://localhost") as asking:
            found: dict[str, Any] = (await asking.get("/openapi.json")).json()
            return found

    return trio.run(ask)


SCHEMAS: Final = {
    path: _document()["paths"][path]["post"]["requestBody"]["content"]["application/json"]["schema"] for path in BASES
}
changes = st.sampled_from(sorted(BASES)).flatmap(
    lambda path: st.tuples(st.just(path), st.sampled_from(sorted(SCHEMAS[path]["properties"])), values)
)


def test_each_body_is_tried() -> None:
    """There is a body for each endpoint that reads one."""
    paths = _document()["paths"]
    assert set(BASES) == {path for path in paths if "requestBody" in paths[path].get("post", {})}


@holds_for(examples=30, changed=st.lists(changes, min_size=1, max_size=20))
def test_what_fits_the_document_is_taken(changed: list[tuple[str, str, Any]]) -> None:
    """A body with one other field is taken if and only if it fits the schema of the document."""
    asked = [(path, BASES[path] | {name: value}) for path, name, value in changed]
    for (path, body), response in zip(asked, trio.run(_answers, asked), strict=True):
        fits = Draft202012Validator(SCHEMAS[path]).is_valid(body)
        seen = (path, body, response.text)
        if not fits:
            assert response.status_code == 400, seen
        elif response.status_code not in {200, 404}:
            assert BEYOND.search(response.text), seen


async def _answers(asked: list[tuple[str, dict[str, Any]]]) -> list[httpx.Response]:
    found = []
    with trio.fail_after(60):
        async with (
            open_runtime(ScriptedEngine(draws_from="history"), n_ctx=64) as runtime,
            open_runtime(ScriptedEngine(vectors={"x": [1.0, 1.0]})) as vectors,
            httpx.AsyncClient(
                transport=httpx.ASGITransport(app({"m": runtime, "v": vectors})), base_url="http://localhost"
            ) as asking,
        ):
            for path, body in asked:
                found.append(await asking.post(path, json=body))
    return found
