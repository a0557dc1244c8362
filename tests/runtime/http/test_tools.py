"""Tools on both APIs over a scripted runtime, without a socket."""

from pathlib import Path
from typing import Any

import pytest

from reenact.replay import replay_log
from reenact.runtime.http.tools import AnswerPart, AnswerReader
from reenact.runtime.pytest_plugin import OpenScripted
from tests.helpers.http import CHAT, client, events, lines
from tests.helpers.sessions import read_fields

WEATHER = {
    "type": "function",
    "function": {
        "name": "weather",
        "description": "The weather.",
        "parameters": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
    },
}
CALL = ['{"na', 'me": "wea', 'ther", "arguments": {"ci', 'ty": "Rome', '"}', "}"]
ARGUMENTS = '{"city": "Rome"}'
ASKED = {"model": "m", "messages": CHAT, "tools": [WEATHER]}
NAMED = {"type": "function", "function": {"name": "weather"}}


async def test_openai_streams_a_call_in_pieces(scripted_runtime: OpenScripted) -> None:
    """The id and the name come once, the arguments in pieces, and the finish reason is tool_calls."""
    async with scripted_runtime(CALL) as runtime, client(runtime) as asking:
        chunks = events(await asking.post("/v1/chat/completions", json=ASKED | {"stream": True}))
        session = runtime.header.session
    first, head, *more, last = [one["choices"][0] for one in chunks]
    assert {"role": "assistant", "content": ""} == first["delta"]
    (call,) = head["delta"]["tool_calls"]
    assert (0, f"call-{session}-1", "function", "weather") == (
        call["index"],
        call["id"],
        call["type"],
        call["function"]["name"],
    )
    pieces = [one["delta"]["tool_calls"][0] for one in more]
    assert [{"index", "function"}] * len(pieces) == [set(piece) for piece in pieces]
    assert len(pieces) > 1
    assert ARGUMENTS == "".join(piece["function"]["arguments"] for piece in [call, *pieces])
    assert ({}, "tool_calls") == (last["delta"], last["finish_reason"])


async def test_openai_answers_whole_with_a_call(scripted_runtime: OpenScripted) -> None:
    """A whole answer has the call in place of a content."""
    async with scripted_runtime(["<tool_call>\n", *CALL, "\n</tool_call>"]) as runtime, client(runtime) as asking:
        answer = (await asking.post("/v1/chat/completions", json=ASKED)).json()
    (choice,) = answer["choices"]
    (call,) = choice["message"]["tool_calls"]
    assert (None, "tool_calls") == (choice["message"]["content"], choice["finish_reason"])
    assert {"name": "weather", "arguments": ARGUMENTS} == call["function"]


async def test_ollama_sends_a_call_in_one_part(scripted_runtime: OpenScripted) -> None:
    """The arguments are an object, and nothing of the call goes out as text."""
    async with scripted_runtime(CALL) as runtime, client(runtime) as asking:
        part, end = lines(await asking.post("/api/chat", json=ASKED))
        whole = (await asking.post("/api/chat", json=ASKED | {"stream": False})).json()
        session = runtime.header.session
    function = {"index": 0, "name": "weather", "arguments": {"city": "Rome"}}
    message = {"role": "assistant", "content": "", "tool_calls": [{"id": f"call-{session}-1", "function": function}]}
    assert (message, False) == (part["message"], part["done"])
    assert ({"role": "assistant", "content": ""}, "stop") == (end["message"], end["done_reason"])
    assert [function] == [call["function"] for call in whole["message"]["tool_calls"]]


async def test_a_text_stays_a_text(scripted_runtime: OpenScripted) -> None:
    """An answer that begins otherwise than a call goes out as without tools, whole and streamed."""
    async with scripted_runtime(["<to", "p> {", "}"]) as runtime, client(runtime) as asking:
        chunks = events(await asking.post("/v1/chat/completions", json=ASKED | {"stream": True}))
        *parts, end = lines(await asking.post("/api/chat", json=ASKED))
        whole = (await asking.post("/v1/chat/completions", json=ASKED)).json()["choices"][0]
    assert "<top> {}" == "".join(one["choices"][0]["delta"].get("content", "") for one in chunks)
    assert "<top> {}" == "".join(part["message"]["content"] for part in parts)
    assert ("<top> {}", "stop", "stop") == (whole["message"]["content"], whole["finish_reason"], end["done_reason"])


async def test_a_call_that_is_cut(scripted_runtime: OpenScripted) -> None:
    """OpenAI's API has what there is of the arguments, ollama's the text; both report the length."""
    async with scripted_runtime(CALL) as runtime, client(runtime) as asking:
        whole = (await asking.post("/v1/chat/completions", json=ASKED | {"max_tokens": 4})).json()["choices"][0]
        early = (await asking.post("/v1/chat/completions", json=ASKED | {"max_tokens": 2})).json()["choices"][0]
        chunks = events(await asking.post("/v1/chat/completions", json=ASKED | {"max_tokens": 4, "stream": True}))
        part, end = lines(await asking.post("/api/chat", json=ASKED | {"options": {"num_predict": 4}}))
    assert ('{"city": "Rome', "length") == (
        whole["message"]["tool_calls"][0]["function"]["arguments"],
        whole["finish_reason"],
    )
    assert ('{"name": "wea', "length") == (early["message"]["content"], early["finish_reason"])
    calls = [call for one in chunks for call in one["choices"][0]["delta"].get("tool_calls", ())]
    assert '{"city": "Rome' == "".join(call["function"]["arguments"] for call in calls)
    assert "length" == chunks[-1]["choices"][0]["finish_reason"]
    assert ("".join(CALL[:4]), "length") == (part["message"]["content"], end["done_reason"])


@pytest.mark.parametrize("choice", ["auto", "required", NAMED])
async def test_the_log_has_the_tools(scripted_runtime: OpenScripted, session_log: Path, choice: object) -> None:
    """The prompt shows them, the grammar enforces them and lets a text through with auto only; the log replays."""
    async with scripted_runtime(CALL) as runtime, client(runtime) as asking:
        await asking.post("/v1/chat/completions", json=ASKED | {"tool_choice": choice})
    (request,) = (fields for fields in read_fields(session_log) if fields["type"] == "RequestReceived")
    assert '"name": "weather", "description": "The weather."' in request["prompt"]
    assert (choice == "auto") == ("\ntext ::=" in request["options"]["grammar"])
    assert "same" == replay_log(session_log).verdict


async def test_without_a_choice_there_is_no_grammar(scripted_runtime: OpenScripted, session_log: Path) -> None:
    """With tool_choice none the tools are not shown, and a format may be asked for."""
    async with scripted_runtime(["{}"]) as runtime, client(runtime) as asking:
        body = ASKED | {"tool_choice": "none", "response_format": {"type": "json_object"}}
        answer = (await asking.post("/v1/chat/completions", json=body)).json()
    (request,) = (fields for fields in read_fields(session_log) if fields["type"] == "RequestReceived")
    assert ("{}", None) == (answer["choices"][0]["message"]["content"], request["options"]["grammar"])
    assert "weather" not in request["prompt"]


async def test_calls_and_results_are_rendered(scripted_runtime: OpenScripted, session_log: Path) -> None:
    """An assistant's call and a tool's result are part of the prompt on both APIs, the result with its tool's name."""
    call: dict[str, Any] = {"id": "c1", "type": "function", "function": {"name": "weather", "arguments": ARGUMENTS}}
    said = [*CHAT, {"role": "assistant", "content": None, "tool_calls": [call]}]
    own = {"function": {"name": "weather", "arguments": {"city": "Rome"}}}
    ours = [*CHAT, {"role": "assistant", "content": "", "tool_calls": [own]}]
    async with scripted_runtime(["x"]) as runtime, client(runtime) as asking:
        result: dict[str, Any] = {"role": "tool", "tool_call_id": "c1", "content": "sunny"}
        await asking.post("/v1/chat/completions", json={"model": "m", "messages": [*said, result]})
        result = {"role": "tool", "tool_name": "weather", "content": "sunny"}
        await asking.post("/api/chat", json={"model": "m", "messages": [*ours, result]})
    expected = (
        'user: x\nassistant: {"name": "weather", "arguments": {"city": "Rome"}}\n'
        "user: The result of weather: sunny\nassistant: "
    )
    prompts = [fields["prompt"] for fields in read_fields(session_log) if fields["type"] == "RequestReceived"]
    assert [expected, expected] == prompts


@pytest.mark.parametrize(
    ("more", "field"),
    [
        ({"tools": [WEATHER, WEATHER]}, "tools"),
        ({"tools": [WEATHER] * 129}, "tools"),
        ({"tools": [{"type": "retrieval"}]}, "tools[0].type"),
        ({"tools": [{"function": {"name": "a b"}}]}, "tools[0].function.name"),
        ({"tools": [{"function": {"name": "a", "parameters": {"type": "string"}}}]}, "tools[0].function.parameters"),
        ({"tools": [{"function": {"name": "a", "parameters": {"properties": {"x": {"not": {}}}}}}]}, "tools"),
        ({"tool_choice": "any"}, "tool_choice"),
        ({"tool_choice": {"type": "function", "function": {"name": "other"}}}, "tool_choice"),
        ({"tool_choice": {"type": "function"}}, "tool_choice.function"),
        ({"tools": [], "tool_choice": NAMED}, "tool_choice"),
        ({"stop": ["x"]}, "stop"),
        ({"logprobs": True}, "logprobs"),
        ({"response_format": {"type": "json_object"}}, "response_format"),
        ({"messages": [{"role": "user", "tool_calls": [{"function": {"name": "a"}}]}]}, "messages[0].tool_calls"),
        ({"messages": [{"role": "assistant", "tool_calls": [5]}]}, "messages[0].tool_calls[0]"),
        (
            {"messages": [{"role": "assistant", "tool_calls": [{"function": {"name": "a", "arguments": "{"}}]}]},
            "messages[0].tool_calls[0].function.arguments",
        ),
    ],
)
async def test_what_cannot_be_had_is_named(scripted_runtime: OpenScripted, more: dict[str, Any], field: str) -> None:
    """A tool, a choice or a call that is wrong is a 400 with its place, and so is what tools exclude."""
    async with scripted_runtime(["x"]) as runtime, client(runtime) as asking:
        response = await asking.post("/v1/chat/completions", json=ASKED | more)
    assert (400, field) == (response.status_code, response.json()["error"]["param"])


@pytest.mark.parametrize(("more", "field"), [({"format": "json"}, "format"), ({"options": {"stop": ["x"]}}, "stop")])
async def test_ollama_names_it_too(scripted_runtime: OpenScripted, more: dict[str, Any], field: str) -> None:
    """What tools exclude is a 400 in ollama's shape."""
    async with scripted_runtime(["x"]) as runtime, client(runtime) as asking:
        response = await asking.post("/api/chat", json=ASKED | more)
    assert (400, True) == (response.status_code, response.json()["error"].startswith(f"{field}: "))


@pytest.mark.parametrize("size", [1, 2, 3, 7, 100])
def test_a_call_grows_alike_in_any_pieces(size: int) -> None:
    """Braces and tags within a string are arguments, and what closes the call is not."""
    arguments = '{"a": "}} </tool_call", "b": {"c": []} }'
    text = f'<tool_call>\n{{"name":"f", "arguments": {arguments} }}\n</tool_call>'
    reader = AnswerReader("call")
    parts = [reader.take(text[at : at + size]) for at in range(0, len(text), size)]
    parts.append(reader.rest())
    assert arguments == "".join(part.arguments for part in parts)
    assert (["f"], "") == ([part.name for part in parts if part.name], "".join(part.text for part in parts))


def test_nothing_is_sent_twice() -> None:
    """An answer that ends within what could open a call is text, once."""
    reader = AnswerReader("call")
    assert (AnswerPart(), AnswerPart(text="<tool"), None) == (reader.take("<tool"), reader.rest(), reader.call())
