"""More clients, unchanged, against a real server with scripted models; each in a program of its own."""

from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.helpers.clients import NAMES, served, skip_without, told_by
from tests.helpers.sessions import read_fields

pytestmark = pytest.mark.long

PERSON = {"name": "Ann", "age": 7}
CALLS = [["weather", {"city": "Rome"}]]
VECTORS = [[pytest.approx(0.6), pytest.approx(0.8)], [0.0, 1.0]]


async def told(program: str, folder: Path) -> Any:
    """Run a program against the scripted models; the one for vectors is loaded before, as only then it says so."""
    skip_without(program)
    (logs := folder / "logs").mkdir()
    (own := folder / "own").mkdir()
    async with served(logs) as server:
        async with httpx.AsyncClient(base_url=server.url) as asking:
            assert 200 == (await asking.post("/api/embed", json={"model": "vectors", "input": "a"})).status_code
        return await told_by(program, server.url, NAMES, own)


async def test_litellm_speaks_both(tmp_path: Path) -> None:
    """`litellm` by either API: whole, streamed, a schema of pydantic, tools, vectors, and an unknown model."""
    found = await told("litellm_calls.py", tmp_path)
    for one in found.values():
        assert ("Hello", 3, "Hello", "stop") == (one["whole"], one["tokens"], one["streamed"], one["end"])
        assert (PERSON, CALLS, VECTORS) == (one["schema"], one["tools"], one["vectors"])
    # By ollama's API litellm makes an error of its own of every status.
    assert (["APIConnectionError", 500], ["NotFoundError", 404]) == (
        found["ollama"]["unknown"],
        found["openai"]["unknown"],
    )


async def test_langchain_speaks_both(tmp_path: Path) -> None:
    """`langchain-ollama` and `langchain-openai`: the same, and an answer to the result of a call."""
    found = await told("langchain_calls.py", tmp_path)
    for one in found.values():
        assert ("Hello", "Hello", "Hello") == (one["whole"], one["streamed"], one["after"])
        assert (PERSON, CALLS, VECTORS) == (one["schema"], one["tools"], one["vectors"])
        assert 404 == one["unknown"][1]


async def test_llm_speaks(tmp_path: Path) -> None:
    """The command `llm` with `llm-ollama`: its models, a conversation, a schema, a tool and a vector."""
    found = await told("llm_calls.py", tmp_path)
    assert "ollama/hello:latest" in found["models"]
    assert [[0, "Hello"]] * 4 == [found[name] for name in ("whole", "streamed", "system", "again")]
    assert ([0, '{"name": "Ann", "age": 7}'], [0, "[0.6, 0.8]"]) == (found["schema"], found["vectors"])
    assert "Tool call: weather({'city': 'Rome'})" in found["tools"][1]


async def test_ollama_in_javascript(tmp_path: Path) -> None:
    """The npm package `ollama`: whole, streamed, probabilities, a schema, tools, vectors, errors; one that leaves."""
    found = await told("ollama_calls.mjs", tmp_path)
    assert ("Hello", 2, "stop", "Hello", "Hello") == tuple(
        found[name] for name in ("whole", "n_logprobs", "reason", "streamed", "generated")
    )
    assert (PERSON, CALLS, VECTORS) == (found["schema"], found["tools"], found["vectors"])
    assert ({"hello:latest", "tool:latest"}, ["completion", "tools"]) == (
        {"hello:latest", "tool:latest"} & set(found["models"]) & set(found["running"]),
        found["capabilities"],
    )
    assert (["ResponseError", 404], ["ResponseError", 501]) == (found["unknown"][:2], found["pull"][:2])
    (log,) = (tmp_path / "logs").glob("*-slow-*.jsonl.zst")
    assert ["cancelled"] == [one["finish_reason"] for one in read_fields(log) if one["type"] == "SequenceFinished"]


async def test_openai_in_javascript(tmp_path: Path) -> None:
    """The npm package `openai`: the same, with the usage of a stream, and another try when the queue is full."""
    found = await told("openai_calls.mjs", tmp_path)
    assert ("Hello", 2, "stop", "Hello", 3, "Hello") == tuple(
        found[name] for name in ("whole", "n_logprobs", "reason", "streamed", "usage", "completed")
    )
    assert (PERSON, CALLS, VECTORS) == (found["schema"], found["tools"], found["vectors"])
    assert found["request"].startswith("req-")
    assert (["NotFoundError", 404, None], ["BadRequestError", 400, "n"]) == (found["unknown"], found["refused"])
    assert (["InternalServerError", 503, None], "x") == (found["full"], found["again"])
