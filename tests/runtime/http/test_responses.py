"""OpenAI's ``/v1/responses``: text in, text out, whole and streamed, and what is refused."""

from pathlib import Path
from typing import Any

import orjson
import pytest

from reenact.runtime.engine.scripted import NAN
from reenact.runtime.pytest_plugin import OpenScripted
from tests.helpers.http import client
from tests.helpers.sessions import read_fields

BODY: dict[str, Any] = {"model": "m", "input": "Hi"}
ALWAYS = "{{ '</think>' }}"


async def test_a_response_is_whole(scripted_runtime: OpenScripted, session_log: Path) -> None:
    """It holds one message with the text, the usage, and an id by which its recording is found."""
    async with scripted_runtime(["a", "b"]) as runtime, client(runtime) as asking:
        more = {"instructions": "Be brief.", "temperature": 0, "metadata": {"case": "7"}}
        response = await asking.post("/v1/responses", json=BODY | more)
        session = runtime.header.session
    told = response.json()
    (item,) = told["output"]
    assert ("completed", f"resp-{session}-1", None) == (told["status"], told["id"], told["incomplete_details"])
    assert ("Be brief.", {"case": "7"}) == (told["instructions"], told["metadata"])
    assert ("message", "assistant", "ab") == (item["type"], item["role"], item["content"][0]["text"])
    assert (3, 0) == (told["usage"]["output_tokens"], told["usage"]["input_tokens_details"]["cached_tokens"])
    (received,) = [fields for fields in read_fields(session_log) if fields["type"] == "RequestReceived"]
    assert "system: Be brief.\nuser: Hi\nassistant: " == received["prompt"]
    assert (0.0, False, False) == tuple(received["options"][name] for name in ("temperature", "truncate", "shift"))


async def test_items_are_messages(scripted_runtime: OpenScripted, session_log: Path) -> None:
    """An input may be a conversation, whose contents are texts or parts; the model's old thinking is left out."""
    said = [
        {"role": "developer", "content": "Be brief."},
        {
            "type": "message",
            "role": "user",
            "content": [{"type": "input_text", "text": "H"}, {"type": "text", "text": "i"}],
        },
        {"type": "reasoning", "id": "rs", "summary": []},
        {"role": "assistant", "content": [{"type": "output_text", "text": "a", "annotations": []}]},
    ]
    async with scripted_runtime(["a"]) as runtime, client(runtime) as asking:
        assert 200 == (await asking.post("/v1/responses", json=BODY | {"input": said})).status_code
    (received,) = [fields for fields in read_fields(session_log) if fields["type"] == "RequestReceived"]
    assert "system: Be brief.\nuser: Hi\nassistant: a\nassistant: " == received["prompt"]


async def test_a_response_that_is_cut_is_incomplete(scripted_runtime: OpenScripted) -> None:
    """The bound of the answer's tokens ends it, and the response says why."""
    async with scripted_runtime(["a"] * 9) as runtime, client(runtime) as asking:
        told = (await asking.post("/v1/responses", json=BODY | {"max_output_tokens": 2})).json()
    assert ("incomplete", {"reason": "max_output_tokens"}) == (told["status"], told["incomplete_details"])
    assert ("incomplete", "aa") == (told["output"][0]["status"], told["output"][0]["content"][0]["text"])


def events_of(text: str) -> list[dict[str, Any]]:
    """Return the events of a stream, each of which has its type twice."""
    found = []
    for one in text.removesuffix("\n\n").split("\n\n"):
        kind, data = one.split("\n")
        found.append(orjson.loads(data.removeprefix("data: ")))
        assert f"event: {found[-1]['type']}" == kind
    assert list(range(len(found))) == [event["sequence_number"] for event in found]
    return found


async def test_a_response_is_streamed(scripted_runtime: OpenScripted) -> None:
    """Each item is added, grows and is done; the last event has the response that a whole one would be."""
    script = ["Let me", " see.", "</think>", "\n", "a", "b"]
    async with scripted_runtime(script, chat_template=ALWAYS) as runtime, client(runtime) as asking:
        whole = (await asking.post("/v1/responses", json=BODY)).json()
        events = events_of((await asking.post("/v1/responses", json=BODY | {"stream": True})).text)
    assert ["".join(script)] == [item["content"][0]["text"] for item in whole["output"]]
    last = events[-1]["response"]
    assert [item["content"][0]["text"] for item in whole["output"]] == [
        item["content"][0]["text"] for item in last["output"]
    ]
    assert "".join(script) == "".join(
        event["delta"] for event in events if event["type"] == "response.output_text.delta"
    )


async def test_thinking_is_an_item_of_its_own(scripted_runtime: OpenScripted) -> None:
    """It comes before the message, whole and streamed."""
    script = ["<think>", "Let me", " see.", "</think>", "\n", "a", "b"]
    async with scripted_runtime(script, chat_template=ALWAYS) as runtime, client(runtime) as asking:
        whole = (await asking.post("/v1/responses", json=BODY)).json()
        events = events_of((await asking.post("/v1/responses", json=BODY | {"stream": True})).text)
    expected = [("reasoning", "Let me see."), ("message", "ab")]
    for response in (whole, events[-1]["response"]):
        assert expected == [(item["type"], item["content"][0]["text"]) for item in response["output"]]
    assert [
        *("response.created", "response.in_progress"),
        *("response.output_item.added", "response.reasoning_text.delta", "response.reasoning_text.delta"),
        *("response.reasoning_text.done", "response.output_item.done"),
        *("response.output_item.added", "response.content_part.added"),
        *("response.output_text.delta", "response.output_text.delta"),
        *("response.output_text.done", "response.content_part.done", "response.output_item.done"),
        "response.completed",
    ] == [event["type"] for event in events]


async def test_a_failure_ends_the_stream(scripted_runtime: OpenScripted) -> None:
    """The last event of a stream that fails is its error; before the first token the status tells it."""
    async with scripted_runtime({"user: Hi\nassistant: ": ["a", NAN], "user: x\nassistant: ": [NAN]}) as runtime:
        async with client(runtime) as asking:
            late = events_of((await asking.post("/v1/responses", json=BODY | {"stream": True})).text)
            early = await asking.post("/v1/responses", json=BODY | {"stream": True, "input": "x"})
    assert ("error", "api_error") == (late[-1]["type"], late[-1]["code"])
    assert 500 == early.status_code


@pytest.mark.parametrize(
    ("field", "value", "named"),
    [
        ("tools", [{"type": "function", "name": "f"}], "tools"),
        ("previous_response_id", "resp-1", "previous_response_id"),
        ("background", True, "background"),
        ("tool_choice", "required", "tool_choice"),
        ("reasoning", {"effort": "high"}, "reasoning"),
        ("input", [], "input"),
        ("input", [{"type": "function_call_output", "output": "1"}], "input[0]"),
        ("input", [{"role": "user", "content": [{"type": "input_image"}]}], "input[0].content[0].type"),
        ("text", {"format": {"type": "grammar"}}, "text.format"),
        ("text", {"format": {"type": "json_schema", "schema": {"uniqueItems": True}}}, "text.format"),
    ],
)
async def test_what_cannot_be_done_is_refused(
    scripted_runtime: OpenScripted, field: str, value: object, named: str
) -> None:
    """A 400 names the field."""
    async with scripted_runtime(["x"]) as runtime, client(runtime) as asking:
        response = await asking.post("/v1/responses", json=BODY | {field: value})
    assert 400 == response.status_code
    assert response.json()["error"]["param"].startswith(named)
