"""OpenAI's API over a scripted runtime, without a socket."""

import base64
import struct
from pathlib import Path
from typing import Any

import pytest

from reenact.actors.options import OPTION_NAMES
from reenact.runtime.http.openai import requests
from reenact.runtime.pytest_plugin import OpenScripted
from tests.helpers.http import CHAT, client, events
from tests.helpers.sessions import read_fields


async def test_a_chat_streams_chunks(scripted_runtime: OpenScripted) -> None:
    """First the role, then the text, then how it ended, then what it took if that was asked for."""
    async with scripted_runtime(["Hel", "lo"]) as runtime, client(runtime) as asking:
        body = {"model": "m", "messages": CHAT, "stream": True, "stream_options": {"include_usage": True}}
        response = await asking.post("/v1/chat/completions", json=body)
        session = runtime.header.session
    assert "text/event-stream" == response.headers["content-type"]
    *chunks, usage = events(response)
    deltas = [(one["choices"][0]["delta"], one["choices"][0]["finish_reason"]) for one in chunks]
    first = ({"role": "assistant", "content": ""}, None)
    assert [first, ({"content": "Hel"}, None), ({"content": "lo"}, None), ({}, "stop")] == deltas
    assert ([], 3) == (usage["choices"], usage["usage"]["completion_tokens"])
    assert {(f"chatcmpl-{session}-1", "chat.completion.chunk", "m")} == {
        (one["id"], one["object"], one["model"]) for one in [*chunks, usage]
    }
    assert 1 == len({one["created"] for one in [*chunks, usage]})


async def test_a_chat_answers_whole(scripted_runtime: OpenScripted) -> None:
    """Without a stream there is one object, with its usage."""
    async with scripted_runtime(["Hel", "lo"]) as runtime, client(runtime) as asking:
        await asking.post("/v1/chat/completions", json={"model": "m", "messages": CHAT})
        answer = (await asking.post("/v1/chat/completions", json={"model": "m", "messages": CHAT})).json()
    (choice,) = answer["choices"]
    assert ("Hello", "assistant", "stop") == (
        choice["message"]["content"],
        choice["message"]["role"],
        choice["finish_reason"],
    )
    n_prompt = len("user: x\nassistant: ")
    assert {
        "prompt_tokens": n_prompt,
        "completion_tokens": 3,
        "total_tokens": n_prompt + 3,
        "prompt_tokens_details": {"cached_tokens": n_prompt - 1},
    } == answer["usage"]


async def test_defaults_are_openais(scripted_runtime: OpenScripted, session_log: Path) -> None:
    """Both temperature and top_p are 1 unless given; a prompt is not cut, and a full context not shifted."""
    async with scripted_runtime(["x"]) as runtime, client(runtime) as asking:
        body = {"model": "m", "prompt": "x", "seed": 7, "stop": "z", "max_tokens": 9}
        await asking.post("/v1/completions", json=body)
    (request,) = (fields for fields in read_fields(session_log) if fields["type"] == "RequestReceived")
    options = request["options"]
    assert (1.0, 1.0, False, False) == tuple(options[x] for x in ("temperature", "top_p", "truncate", "shift"))
    assert (7, ["z"], 9) == (options["seed"], options["stop"], options["num_predict"])


@pytest.mark.parametrize("path", ["chat/completions", "completions", "responses"])
async def test_options_that_openai_does_not_have(scripted_runtime: OpenScripted, session_log: Path, path: str) -> None:
    """They reach the runtime under llama-server's names, and so the log."""
    bodies: dict[str, Any] = {"chat/completions": {"messages": CHAT}, "completions": {"prompt": "x"}}
    asked = bodies.get(path, {"input": "x"})
    given: dict[str, Any] = {
        "top_k": 1,
        "min_p": 0.5,
        "typical_p": 0.5,
        "repeat_last_n": 3,
        "repeat_penalty": 1.5,
        "seed": 3,
    }
    given["grammar"] = 'root ::= "x"'
    async with scripted_runtime(["x"]) as runtime, client(runtime) as asking:
        await asking.post(f"/v1/{path}", json={"model": "m", **asked, **given})
    (request,) = (fields for fields in read_fields(session_log) if fields["type"] == "RequestReceived")
    assert given == {name: request["options"][name] for name in given}


async def test_both_bounds_count(scripted_runtime: OpenScripted) -> None:
    """Of max_tokens and max_completion_tokens the lower one ends a text, as too long."""
    async with scripted_runtime(["a", "b", "c"]) as runtime, client(runtime) as asking:
        body = {"model": "m", "messages": CHAT, "max_tokens": 3, "max_completion_tokens": 2}
        (choice,) = (await asking.post("/v1/chat/completions", json=body)).json()["choices"]
    assert ("ab", "length") == (choice["message"]["content"], choice["finish_reason"])


async def test_old_completions_have_their_own_logprobs(scripted_runtime: OpenScripted) -> None:
    """Their logprobs is a number, and what is told are lists beside one another."""
    async with scripted_runtime(["Hel", "lo"]) as runtime, client(runtime) as asking:
        answer = (await asking.post("/v1/completions", json={"model": "m", "prompt": ["x"], "logprobs": 1})).json()
        body = {"model": "m", "prompt": "x", "logprobs": 0, "stream": True}
        streamed = events(await asking.post("/v1/completions", json=body))
    (choice,) = answer["choices"]
    assert ("Hello", ["Hel", "lo"], [0, 3]) == (
        choice["text"],
        choice["logprobs"]["tokens"],
        choice["logprobs"]["text_offset"],
    )
    assert [0, 3] == [one["choices"][0]["logprobs"]["text_offset"][0] for one in streamed[:-1]]
    assert [None, None, "stop"] == [one["choices"][0]["finish_reason"] for one in streamed]


async def test_a_chat_has_its_logprobs(scripted_runtime: OpenScripted) -> None:
    """Each token has its text, its bytes and the likeliest ones."""
    async with scripted_runtime(["é"]) as runtime, client(runtime) as asking:
        body = {"model": "m", "messages": CHAT, "logprobs": True, "top_logprobs": 1}
        answer = (await asking.post("/v1/chat/completions", json=body)).json()
    (token,) = answer["choices"][0]["logprobs"]["content"]
    assert ("é", [0xC3, 0xA9], 1) == (token["token"], token["bytes"], len(token["top_logprobs"]))


async def test_messages_are_rendered(scripted_runtime: OpenScripted, session_log: Path) -> None:
    """Parts of a content are joined, and a developer is the system."""
    parts = [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]
    messages = [{"role": "developer", "content": "be", "name": "d"}, {"role": "user", "content": parts}]
    async with scripted_runtime(["x"]) as runtime, client(runtime) as asking:
        await asking.post("/v1/chat/completions", json={"model": "m", "messages": messages})
    (request,) = (fields for fields in read_fields(session_log) if fields["type"] == "RequestReceived")
    assert "system: be\nuser: ab\nassistant: " == request["prompt"]


@pytest.mark.parametrize(
    ("form", "expected"),
    [
        ({"type": "text"}, None),
        ({"type": "json_object"}, "json"),
        ({"type": "json_schema", "json_schema": {"name": "p", "schema": {"type": "object"}}}, '{"type": "object"}'),
    ],
)
async def test_response_format(
    scripted_runtime: OpenScripted, session_log: Path, form: dict[str, Any], expected: str | None
) -> None:
    """The form of an answer is the runtime's format."""
    async with scripted_runtime(["{}"]) as runtime, client(runtime) as asking:
        body = {"model": "m", "messages": CHAT, "response_format": form}
        response = await asking.post("/v1/chat/completions", json=body)
    (request,) = (fields for fields in read_fields(session_log) if fields["type"] == "RequestReceived")
    assert (200, expected) == (response.status_code, request["options"]["format"])


@pytest.mark.parametrize(
    "more",
    [
        {"n": 1, "logit_bias": {}, "user": "u", "metadata": {"a": "b"}, "store": True, "service_tier": "auto"},
        {"n": None, "stop": None, "tools": None, "tool_choice": None, "seed": None, "stream_options": None},
        {"max_tokens": -1, "max_completion_tokens": -1, "top_k": -1},
        {"tools": [], "tool_choice": "none", "parallel_tool_calls": False, "prompt_cache_key": "k"},
    ],
)
async def test_what_changes_nothing_is_taken(scripted_runtime: OpenScripted, more: dict[str, Any]) -> None:
    """null, what asks for one answer, and what is for a service are ignored."""
    async with scripted_runtime(["x"]) as runtime, client(runtime) as asking:
        response = await asking.post("/v1/chat/completions", json={"model": "m", "messages": CHAT, **more})
    assert 200 == response.status_code


@pytest.mark.parametrize(
    ("path", "more", "field"),
    [
        ("chat/completions", {"n": 2}, "n"),
        ("chat/completions", {"logit_bias": {"50256": -100}}, "logit_bias"),
        ("chat/completions", {"tools": [{"type": "function"}]}, "tools[0].function"),
        ("chat/completions", {"tool_choice": "required"}, "tool_choice"),
        ("chat/completions", {"functions": [{}]}, "functions"),
        ("chat/completions", {"audio": {"voice": "x"}}, "audio"),
        ("chat/completions", {"response_format": {"type": "json_schema"}}, "response_format"),
        ("chat/completions", {"response_format": {"type": "xml"}}, "response_format"),
        ("chat/completions", {"top_logprobs": 1}, "top_logprobs"),
        ("chat/completions", {"logprobs": True, "top_logprobs": 21}, "top_logprobs"),
        ("chat/completions", {"messages": []}, "messages"),
        (
            "chat/completions",
            {"messages": [{"role": "user", "content": [{"type": "image_url"}]}]},
            "messages[0].content[0]",
        ),
        ("chat/completions", {"max_tokens": 1.5}, "max_tokens"),
        ("chat/completions", {"top_k": 1.5}, "top_k"),
        ("completions", {"min_p": 2}, "min_p"),
        ("completions", {"grammar": "root ::="}, "grammar"),
        ("chat/completions", {"grammar": 'root ::= "a"', "response_format": {"type": "json_object"}}, "grammar"),
        (
            "chat/completions",
            {"grammar": 'root ::= "a"', "tools": [{"type": "function", "function": {"name": "f"}}]},
            "grammar",
        ),
        ("chat/completions", {"temperature": 1000}, "temperature"),
        ("chat/completions", {"stream": "yes"}, "stream"),
        ("completions", {"echo": True}, "echo"),
        ("completions", {"best_of": 3}, "best_of"),
        ("completions", {"suffix": "x"}, "suffix"),
        ("completions", {"prompt": ["a", "b"]}, "prompt"),
        ("completions", {"prompt": [1, 2]}, "prompt"),
        ("embeddings", {"input": [[1, 2]]}, "input"),
        ("embeddings", {"input": "x", "encoding_format": "hex"}, "encoding_format"),
    ],
)
async def test_what_cannot_be_had_is_named(
    scripted_runtime: OpenScripted, path: str, more: dict[str, Any], field: str
) -> None:
    """A field of the wrong type, and one that would change the answer, is a 400 that names it as OpenAI does."""
    asked = {"model": "m", **({"messages": CHAT} if path == "chat/completions" else {"prompt": "x"}), **more}
    async with scripted_runtime(["x"]) as runtime, client(runtime) as asking:
        response = await asking.post(f"/v1/{path}", json=asked)
    error = response.json()["error"]
    assert (400, field, "invalid_request_error") == (response.status_code, error["param"], error["type"])


@pytest.mark.parametrize(
    ("path", "more", "field"),
    [
        ("completions", {"prompt": "x" * 9}, "prompt"),
        ("chat/completions", {"messages": CHAT}, "messages"),
        ("responses", {"input": "x"}, "input"),
    ],
)
async def test_a_prompt_that_is_too_long(
    scripted_runtime: OpenScripted, path: str, more: dict[str, Any], field: str
) -> None:
    """It is a 400 before any stream, with the code by which clients know it and the field that the request has."""
    async with scripted_runtime(["x"], n_ctx=8) as runtime, client(runtime) as asking:
        response = await asking.post(f"/v1/{path}", json={"model": "m", "stream": True, **more})
    error = response.json()["error"]
    expected = (400, "invalid_request_error", "context_length_exceeded", field)
    assert expected == (response.status_code, error["type"], error["code"], error["param"])


async def test_embeddings(scripted_runtime: OpenScripted) -> None:
    """Vectors are numbers, or little-endian floats in base64."""
    async with scripted_runtime(vectors={"a": [3.0, 4.0], "b": [0.0, 1.0]}) as runtime, client(runtime) as asking:
        two = (await asking.post("/v1/embeddings", json={"model": "m", "input": ["a", "b"]})).json()
        body = {"model": "m", "input": "a", "encoding_format": "base64"}
        packed = (await asking.post("/v1/embeddings", json=body)).json()
    assert [(0, [0.6, 0.8]), (1, [0.0, 1.0])] == [(one["index"], one["embedding"]) for one in two["data"]]
    assert {"prompt_tokens": 2, "total_tokens": 2} == two["usage"]
    assert struct.pack("<2f", 0.6, 0.8) == base64.b64decode(packed["data"][0]["embedding"])


async def test_models_are_listed(scripted_runtime: OpenScripted) -> None:
    """A model can be listed and asked about; one that is not served is a 404 on every path."""
    async with scripted_runtime(["x"]) as runtime, client(runtime) as asking:
        (one,) = (await asking.get("/v1/models")).json()["data"]
        same = (await asking.get("/v1/models/m")).json()
        unknown = [
            await asking.get("/v1/models/x/y"),
            await asking.post("/v1/completions", json={"model": "x", "prompt": "x", "stream": True}),
        ]
    assert (one, "m:latest", "model") == (same, one["id"], one["object"])
    assert [(404, "model_not_found")] * 2 == [(each.status_code, each.json()["error"]["code"]) for each in unknown]


def test_options_get_the_names_of_a_request() -> None:
    """Whatever a client gives of them, a runtime knows the names under which they reach it."""
    given = dict.fromkeys(requests._COMMON, 1) | {"max_completion_tokens": 1, "stop": ["."]}
    assert set() == requests._options(given).keys() - set(OPTION_NAMES)
