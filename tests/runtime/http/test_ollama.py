"""ollama's API over a scripted runtime, without a socket."""

import re
from typing import Any

import pytest

from reenact.actors.options import OPTION_NAMES
from reenact.runtime.http.ollama import requests
from reenact.runtime.pytest_plugin import OpenScripted
from tests.helpers.http import CHAT, client, lines

RFC3339 = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9:.]+Z")


async def test_generate_streams_lines(scripted_runtime: OpenScripted) -> None:
    """A stream is NDJSON: a line for each text, and a last one with the reason, counts and whole nanoseconds."""
    async with scripted_runtime(["Hel", "lo"]) as runtime, client(runtime) as asking:
        response = await asking.post("/api/generate", json={"model": "m", "prompt": "x"})
    assert (200, "application/x-ndjson") == (response.status_code, response.headers["content-type"])
    *texts, last = lines(response)
    assert [("m", "Hel", False), ("m", "lo", False)] == [(one["model"], one["response"], one["done"]) for one in texts]
    assert ("", True, "stop", 3) == (last["response"], last["done"], last["done_reason"], last["eval_count"])
    # "user: x", a line, and "assistant: ": generate is a chat of one message.
    assert len("user: x\nassistant: ") == last["prompt_eval_count"]
    times = [last[f"{name}_duration"] for name in ("total", "load", "prompt_eval", "eval")]
    assert all(type(time) is int and time > 0 for time in times)
    assert all(RFC3339.fullmatch(one["created_at"]) for one in [*texts, last])


async def test_chat_answers_whole(scripted_runtime: OpenScripted) -> None:
    """Without a stream the answer is one object with the whole message."""
    async with scripted_runtime(["Hel", "lo"]) as runtime, client(runtime) as asking:
        body = {"model": "M:latest", "messages": CHAT, "stream": False, "options": {"num_predict": 1.0}}
        response = await asking.post("/api/chat", json=body)
    answer = response.json()
    assert {"role": "assistant", "content": "Hel"} == answer["message"]
    assert ("M:latest", True, "length", 1) == tuple(answer[x] for x in ("model", "done", "done_reason", "eval_count"))


async def test_raw_is_the_prompt_itself(scripted_runtime: OpenScripted) -> None:
    """With raw no template is around the prompt; without it the system message is in front."""
    scripts = {"x": ["raw"], "system: be\nuser: x\nassistant: ": ["chat"]}
    async with scripted_runtime(scripts) as runtime, client(runtime) as asking:
        raw = await asking.post("/api/generate", json={"model": "m", "prompt": "x", "raw": True, "stream": False})
        chat = await asking.post("/api/generate", json={"model": "m", "prompt": "x", "system": "be", "stream": False})
    assert ["raw", "chat"] == [raw.json()["response"], chat.json()["response"]]


@pytest.mark.parametrize("path", ["/api/generate", "/api/chat"])
@pytest.mark.parametrize(("more", "reason"), [({}, "load"), ({"keep_alive": 0}, "unload"), ({"prompt": ""}, "load")])
async def test_nothing_to_answer_loads(
    scripted_runtime: OpenScripted, path: str, more: dict[str, Any], reason: str
) -> None:
    """A request without a prompt or messages only loads the model, or unloads it."""
    async with scripted_runtime(["x"]) as runtime, client(runtime) as asking:
        response = await asking.post(path, json={"model": "m", **more})
        assert 0 == runtime.statistics().n_requests
    assert (200, True, reason) == (response.status_code, response.json()["done"], response.json()["done_reason"])


@pytest.mark.parametrize(
    "more",
    [
        {"format": None, "keep_alive": None, "options": None, "think": None, "tools": None, "stream": None},
        {"format": "", "options": {}, "think": False, "tools": [], "images": [], "suffix": "", "context": []},
        {"options": {"mirostat": 2, "num_ctx": 4096, "seed": -1, "num_predict": -2, "top_k": -1, "stop": None}},
        {"options": {"top_k": 40.0, "temperature": 1, "stop": "z"}, "anything": {"else": True}},
        {"keep_alive": "1h30m"},
        {"keep_alive": -1},
    ],
)
async def test_what_changes_nothing_is_taken(scripted_runtime: OpenScripted, more: dict[str, Any]) -> None:
    """null, empty values, dead options, options below 0 and numbers written otherwise are fine."""
    async with scripted_runtime(["x"]) as runtime, client(runtime) as asking:
        response = await asking.post("/api/generate", json={"model": "m", "prompt": "x", **more})
    assert (200, "stop") == (response.status_code, lines(response)[-1]["done_reason"])


LARGE = {"type": "object", "properties": {f"p{i}": {"enum": ["x" * 100]} for i in range(900)}}
"""A schema whose grammar is too large."""


@pytest.mark.parametrize(
    ("path", "more", "field"),
    [
        ("generate", {"suffix": "x"}, "suffix"),
        ("generate", {"images": ["aGk="]}, "images"),
        ("generate", {"template": "x"}, "template"),
        ("generate", {"context": [1]}, "context"),
        ("generate", {"think": True}, "think"),
        ("generate", {"think": "high"}, "think"),
        ("generate", {"raw": True, "system": "x"}, "system"),
        ("generate", {"format": "xml"}, "format"),
        ("generate", {"keep_alive": "soon"}, "keep_alive"),
        ("generate", {"stream": "no"}, "stream"),
        ("generate", {"top_logprobs": 21}, "top_logprobs"),
        ("generate", {"options": {"temperature": "hot"}}, "temperature"),
        ("generate", {"options": {"top_k": 1.5}}, "top_k"),
        ("generate", {"options": {"top_p": 2}}, "top_p"),
        ("generate", {"prompt": "", "options": {"top_p": 2}}, "top_p"),
        ("generate", {"options": {"grammar": "root ::="}}, "grammar"),
        ("generate", {"options": {"grammar": 'root ::= "x"'}, "format": "json"}, "grammar"),
        (
            "chat",
            {"tools": [{"type": "function", "function": {"name": "f"}}], "options": {"grammar": 'root ::= "x"'}},
            "grammar",
        ),
        ("generate", {"options": []}, None),
        ("generate", {"options": [1]}, "options"),
        ("generate", {"prompt": 5}, "prompt"),
        ("generate", {"model": ""}, "model"),
        ("chat", {"tools": [{"type": "function"}]}, "tools[0].function"),
        ("chat", {"messages": [{"content": "x"}]}, "messages[0].role"),
        ("chat", {"messages": [{"role": "user", "images": ["aGk="]}]}, "messages[0].images"),
        ("chat", {"messages": [5]}, "messages[0]"),
        ("chat", {"messages": [5] * (2**17 + 1)}, "messages"),
        ("chat", {"tools": [{"type": "function", "function": {"name": "f", "parameters": LARGE}}]}, "tools"),
        ("embed", {"input": 5}, "input"),
        ("embed", {"input": ["x", 5]}, "input[1]"),
        ("generate", {"options": {"stop": [1]}}, "stop[0]"),
        ("embed", {"input": "x"}, "input"),
        ("embeddings", {}, "prompt"),
        ("generate", {"prompt": "x" * 2048, "truncate": False}, "prompt"),
        ("chat", {"messages": [{"role": "user", "content": "x" * 2048}], "truncate": False}, "messages"),
    ],
)
async def test_what_cannot_be_had_is_named(
    scripted_runtime: OpenScripted, path: str, more: dict[str, Any], field: str | None
) -> None:
    """A field of the wrong type, and one that would change the answer, is a 400 that names it."""
    asked: dict[str, Any] = {"model": "m", **({"messages": CHAT} if path == "chat" else {"prompt": "x"}), **more}
    async with scripted_runtime(["x"]) as runtime, client(runtime) as asking:
        response = await asking.post(f"/api/{path}", json=asked)
    if field is None:
        assert 200 == response.status_code
    else:
        assert 400 == response.status_code
        assert response.json()["error"].startswith(f"{field}: ")


@pytest.mark.parametrize("raw", [b"", b"x", b"[]", b'{"a": NaN}', b'{"a": "\\ud800"}', b"[" * 5000, b"1" * 5000])
async def test_a_body_that_is_none(scripted_runtime: OpenScripted, raw: bytes) -> None:
    """A body that is no JSON object is a 400."""
    async with scripted_runtime(["x"]) as runtime, client(runtime) as asking:
        response = await asking.post("/api/generate", content=raw)
    assert (400, True) == (response.status_code, response.json()["error"].startswith("body: "))


async def test_logprobs_stand_with_their_text(scripted_runtime: OpenScripted) -> None:
    """Each part has the probabilities of its tokens, and so many likeliest ones."""
    async with scripted_runtime([b"\xc3", b"\xa9"]) as runtime, client(runtime) as asking:
        body = {"model": "m", "prompt": "x", "logprobs": True, "top_logprobs": 1}
        first, _ = lines(await asking.post("/api/generate", json=body))
    assert "é" == first["response"]
    assert [[0xC3], [0xA9]] == [one["bytes"] for one in first["logprobs"]]
    assert [1, 1] == [len(one["top_logprobs"]) for one in first["logprobs"]]


async def test_embeddings(scripted_runtime: OpenScripted) -> None:
    """Texts come back as vectors in their order, one text as a list of one, nothing as nothing."""
    async with scripted_runtime(vectors={"a": [3.0, 4.0], "b": [0.0, 1.0]}) as runtime, client(runtime) as asking:
        two = (await asking.post("/api/embed", json={"model": "m", "input": ["a", "b"]})).json()
        one = (await asking.post("/api/embed", json={"model": "m", "input": "a", "dimensions": 1})).json()
        none = (await asking.post("/api/embed", json={"model": "m", "input": ""})).json()
        old = (await asking.post("/api/embeddings", json={"model": "m", "prompt": "a"})).json()
        empty = (await asking.post("/api/embeddings", json={"model": "m", "prompt": ""})).json()
    assert [[0.6, 0.8], [0.0, 1.0]] == two["embeddings"]
    assert ([[1.0]], [], 2) == (one["embeddings"], none["embeddings"], two["prompt_eval_count"])
    assert ([0.6, 0.8], []) == (old["embedding"], empty["embedding"])


async def test_models_are_listed(scripted_runtime: OpenScripted) -> None:
    """Each model has a name with its tag, a time with its zone, and what clients decide by."""
    async with scripted_runtime(["x"], n_ctx=512) as runtime, client(runtime) as asking:
        (tag,) = (await asking.get("/api/tags")).json()["models"]
        (running,) = (await asking.get("/api/ps")).json()["models"]
        shown = (await asking.post("/api/show", json={"model": "m"})).json()
        unknown = await asking.post("/api/show", json={"name": "other"})
    assert ("m:latest", "m:latest") == (tag["name"], tag["model"])
    assert (tag["digest"], 512) == (running["digest"], running["context_length"])
    assert RFC3339.fullmatch(running["expires_at"])
    architecture = shown["model_info"]["general.architecture"]
    assert (["completion", "tools"], 512) == (
        shown["capabilities"],
        shown["model_info"][f"{architecture}.context_length"],
    )
    assert 404 == unknown.status_code


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/", 200),
        ("HEAD", "/", 200),
        ("GET", "/health", 200),
        ("GET", "/api/version", 200),
        ("GET", "/api/generate", 405),
        ("GET", "/api/nothing", 404),
        ("POST", "/api/pull", 501),
        ("DELETE", "/api/delete", 501),
    ],
)
async def test_the_rest(scripted_runtime: OpenScripted, method: str, path: str, status: int) -> None:
    """The small endpoints answer, and what is not there or not done has its status and ollama's shape of an error."""
    async with scripted_runtime(["x"]) as runtime, client(runtime) as asking:
        response = await asking.request(method, path)
    assert status == response.status_code
    assert status == 200 or list(response.json()) == ["error"]
    cure = {404: "/openapi.json", 405: "POST"}.get(status, "")
    assert cure in response.text


def test_options_are_named_as_a_request_names_them() -> None:
    """What is read of ``options`` goes to a runtime under the same names, each of which it knows."""
    assert set() == set(requests._OPTIONS.done) - set(OPTION_NAMES)
