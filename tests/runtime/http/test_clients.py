"""The Python packages `ollama` and `openai`, unchanged, against a real server with scripted models."""

import re
from functools import partial
from pathlib import Path
from typing import Any

import httpx
import ollama
import openai
import pytest
import trio
from pydantic import BaseModel

from reenact.replay.cli.main import main as replay
from tests.helpers.clients import Person, ask_ollama, ask_openai, served
from tests.helpers.http import CHAT
from tests.helpers.paths import ROOT

RENDERED = "user: x\nassistant: "


# ---------------------------------------------------------------- ollama


async def test_ollama_generates(tmp_path: Path) -> None:
    """`generate`, whole and streamed."""
    async with served(tmp_path) as server:
        whole = await ask_ollama(server, lambda client: client.generate("hello", "x"))
        parts = await ask_ollama(server, lambda client: list(client.generate("hello", "x", stream=True)))
    assert ("Hello", True, "stop", 3) == (whole.response, whole.done, whole.done_reason, whole.eval_count)
    assert ["Hel", "lo", ""] == [part.response for part in parts]
    assert [False, False, True] == [part.done for part in parts]
    assert parts[-1].eval_duration > 0


async def test_ollama_chats(tmp_path: Path) -> None:
    """`chat`, whole and streamed, with options and probabilities."""
    async with served(tmp_path) as server:
        options = {"num_predict": 1, "temperature": 0.5, "num_ctx": 4096}
        whole = await ask_ollama(server, lambda client: client.chat("hello", CHAT, options=options, logprobs=True))
        parts = await ask_ollama(server, lambda client: list(client.chat("hello", CHAT, stream=True)))
    assert ("Hel", "assistant", "length") == (whole.message.content, whole.message.role, whole.done_reason)
    assert ["Hel"] == [one.token for one in whole.logprobs]
    assert "Hello" == "".join(part.message.content for part in parts)


async def test_ollama_has_a_schema(tmp_path: Path) -> None:
    """`format` as pydantic makes it."""
    async with served(tmp_path) as server:
        schema = Person.model_json_schema()
        whole = await ask_ollama(server, lambda client: client.chat("json", CHAT, format=schema))
    assert Person(name="Ann", age=7) == Person.model_validate_json(whole.message.content)


async def test_ollama_calls_tools(tmp_path: Path) -> None:
    """`chat` with a Python function as a tool, whole and streamed; the result of the call goes back."""

    def weather(city: str) -> str:
        """Tell the weather.

        Args:
            city: The city.
        """
        return f"sunny in {city}"

    async with served(tmp_path) as server:
        whole = await ask_ollama(server, lambda client: client.chat("tool", CHAT, tools=[weather]))
        parts = await ask_ollama(server, lambda client: list(client.chat("tool", CHAT, tools=[weather], stream=True)))
        (call,) = whole.message.tool_calls
        result = {"role": "tool", "tool_name": "weather", "content": weather(**call.function.arguments)}
        answer = await ask_ollama(server, lambda client: client.chat("hello", [*CHAT, whole.message, result]))
    assert ("weather", {"city": "Rome"}) == (call.function.name, call.function.arguments)
    assert [1, 0] == [len(part.message.tool_calls or ()) for part in parts]
    assert "Hello" == answer.message.content


async def test_ollama_embeds(tmp_path: Path) -> None:
    """`embed` and the old `embeddings`."""
    async with served(tmp_path) as server:
        found = await ask_ollama(server, lambda client: client.embed("vectors", ["a", "b"]))
        old = await ask_ollama(server, lambda client: client.embeddings("vectors", "a"))
    assert [[0.6, 0.8], [0.0, 1.0]] == [list(vector) for vector in found.embeddings]
    assert [0.6, 0.8] == list(old.embedding)


async def test_ollama_lists(tmp_path: Path) -> None:
    """`list`, `show` and `ps` are read by the client's own types."""
    async with served(tmp_path) as server:
        listed = await ask_ollama(server, lambda client: client.list())
        await ask_ollama(server, lambda client: client.generate("hello", keep_alive="1h"))
        running = await ask_ollama(server, lambda client: client.ps())
        shown = await ask_ollama(server, lambda client: client.show("hello"))
    assert "hello:latest" in [model.model for model in listed.models]
    assert [("hello:latest", 2048)] == [(model.model, model.context_length) for model in running.models]
    assert (["completion", "tools"], True) == (shown.capabilities, bool(shown.modelinfo))


@pytest.mark.parametrize(
    ("call", "status", "what"),
    [
        (lambda client: client.generate("nothing", "x"), 404, "not found"),
        (lambda client: client.generate("hello", "x", suffix="y"), 400, "suffix"),
        (lambda client: client.chat("hello", CHAT, think=True), 400, "think"),
        (lambda client: client.chat("hello", CHAT, tools=[lambda: None]), 400, "tools"),
        (lambda client: client.pull("hello"), 501, "does not download"),
    ],
)
async def test_ollama_raises(tmp_path: Path, call: Any, status: int, what: str) -> None:
    """What cannot be had is a `ResponseError` with the status and the text."""
    async with served(tmp_path) as server:
        with pytest.raises(ollama.ResponseError) as raised:
            await ask_ollama(server, call)
    assert status == raised.value.status_code
    assert what in raised.value.error


# ---------------------------------------------------------------- openai


async def test_openai_chats(tmp_path: Path) -> None:
    """`chat.completions`, whole, with its usage, its probabilities and the name of the request."""
    async with served(tmp_path) as server:

        def call(client: openai.OpenAI) -> Any:
            return client.chat.completions.create(model="hello", messages=CHAT, logprobs=True, top_logprobs=1)  # type: ignore[arg-type]

        answer = await ask_openai(server, call)
    (choice,) = answer.choices
    assert ("Hello", "stop", len(RENDERED)) == (
        choice.message.content,
        choice.finish_reason,
        answer.usage.prompt_tokens,
    )
    assert ["Hel", "lo"] == [one.token for one in choice.logprobs.content]
    assert answer._request_id.startswith("req-")


async def test_openai_streams(tmp_path: Path) -> None:
    """A stream has the text, the reason, and at the end what it took."""
    async with served(tmp_path) as server:

        def call(client: openai.OpenAI) -> Any:
            usage: Any = {"include_usage": True}
            messages: Any = CHAT
            return list(
                client.chat.completions.create(model="hello", messages=messages, stream=True, stream_options=usage)
            )

        *chunks, last = await ask_openai(server, call)
    assert "Hello" == "".join(chunk.choices[0].delta.content or "" for chunk in chunks)
    assert ("stop", [], 3) == (chunks[-1].choices[0].finish_reason, last.choices, last.usage.completion_tokens)


async def test_openai_parses(tmp_path: Path) -> None:
    """`parse` sends a schema and reads the answer by it."""
    async with served(tmp_path) as server:

        def call(client: openai.OpenAI) -> Any:
            messages: Any = CHAT
            return client.chat.completions.parse(model="json", messages=messages, response_format=Person)

        answer = await ask_openai(server, call)
    assert Person(name="Ann", age=7) == answer.choices[0].message.parsed


class Weather(BaseModel):
    """The weather of a city."""

    city: str


async def test_openai_calls_tools(tmp_path: Path) -> None:
    """`tools` of pydantic, whole and streamed by the client's own helper; the call and its result go back."""
    tool = openai.pydantic_function_tool(Weather, name="weather")
    named = {"type": "function", "function": {"name": "weather"}}

    async with served(tmp_path) as server:

        def call(client: openai.OpenAI) -> Any:
            messages: Any = CHAT
            choice: Any = named
            return client.chat.completions.parse(model="tool", messages=messages, tools=[tool], tool_choice=choice)

        def stream(client: openai.OpenAI) -> Any:
            messages: Any = CHAT
            with client.chat.completions.stream(
                model="tool", messages=messages, tools=[tool], tool_choice="required"
            ) as streaming:
                return streaming.get_final_completion()

        whole, streamed = await ask_openai(server, call), await ask_openai(server, stream)
        (called,) = whole.choices[0].message.tool_calls
        result = {"role": "tool", "tool_call_id": called.id, "content": "sunny"}
        said: Any = [*CHAT, whole.choices[0].message, result]
        answer = await ask_openai(server, lambda client: client.chat.completions.create(model="hello", messages=said))
    for one in (whole, streamed):
        (choice,) = one.choices
        assert "tool_calls" == choice.finish_reason
        assert [Weather(city="Rome")] == [call.function.parsed_arguments for call in choice.message.tool_calls]
    assert "Hello" == answer.choices[0].message.content


async def test_openai_completes(tmp_path: Path) -> None:
    """The old `completions`, whole and streamed."""
    async with served(tmp_path) as server:
        create: Any = partial(dict, model="hello", prompt="x", max_tokens=1)
        whole = await ask_openai(server, lambda client: client.completions.create(**create(logprobs=1)))
        parts = await ask_openai(server, lambda client: list(client.completions.create(**create(stream=True))))
    assert ("Hel", "length", ["Hel"]) == (
        whole.choices[0].text,
        whole.choices[0].finish_reason,
        whole.choices[0].logprobs.tokens,
    )
    assert ["Hel", ""] == [part.choices[0].text for part in parts]


async def test_openai_creates_responses(tmp_path: Path) -> None:
    """`responses.create`, whole, streamed and with a format, and `responses.stream`."""

    def call(client: openai.OpenAI) -> list[str]:
        whole = client.responses.create(model="hello", input="Hi")
        events = client.responses.create(model="hello", input=[{"role": "user", "content": "Hi"}], stream=True)
        deltas = [event.delta for event in events if event.type == "response.output_text.delta"]
        with client.responses.stream(model="hello", input="Hi") as streaming:
            streamed = streaming.get_final_response().output_text
        formed = client.responses.create(model="hello", input="Hi", text={"format": {"type": "json_object"}})
        return [whole.output_text, "".join(deltas), streamed, formed.output_text]

    async with served(tmp_path) as server:
        assert ["Hello"] * 4 == await ask_openai(server, call)


async def test_openai_embeds(tmp_path: Path) -> None:
    """`embeddings`, which the client asks for in base64."""
    async with served(tmp_path) as server:
        found = await ask_openai(server, lambda client: client.embeddings.create(model="vectors", input=["a", "b"]))
    assert [[pytest.approx(0.6), pytest.approx(0.8)], [0.0, 1.0]] == [one.embedding for one in found.data]


async def test_openai_lists(tmp_path: Path) -> None:
    """`models.list` and `models.retrieve`."""
    async with served(tmp_path) as server:
        listed = await ask_openai(server, lambda client: [model.id for model in client.models.list()])
        one = await ask_openai(server, lambda client: client.models.retrieve("hello"))
    assert {"hello:latest", "json:latest"} <= set(listed)
    assert "hello:latest" == one.id


@pytest.mark.parametrize(
    ("call", "error", "param"),
    [
        (lambda chat: chat.create(model="nothing", messages=CHAT), openai.NotFoundError, None),
        (lambda chat: chat.create(model="hello", messages=CHAT, n=2), openai.BadRequestError, "n"),
        (
            lambda chat: chat.create(model="hello", messages=CHAT, temperature=999),
            openai.BadRequestError,
            "temperature",
        ),
    ],
)
async def test_openai_raises(tmp_path: Path, call: Any, error: type[openai.APIStatusError], param: str | None) -> None:
    """What cannot be had is an error of the client's, with the field."""
    async with served(tmp_path) as server:
        with pytest.raises(error) as raised:
            await ask_openai(server, lambda client: call(client.chat.completions))
    assert param == raised.value.param


async def test_openai_comes_again(tmp_path: Path) -> None:
    """A client that finds the queue full comes again after as long as it was told, and is answered."""
    async with served(tmp_path) as server, httpx.AsyncClient(base_url=server.url) as asking:
        async with asking.stream("POST", "/api/generate", json={"model": "slow", "prompt": "x"}) as response:
            coming = response.aiter_lines()
            await anext(coming)

            async def read() -> None:
                async for _ in coming:
                    pass

            async with trio.open_nursery() as nursery:
                nursery.start_soon(read)
                with pytest.raises(openai.InternalServerError) as raised:
                    await ask_openai(
                        server, lambda client: client.completions.create(model="slow", prompt="y"), max_retries=0
                    )
                answer = await ask_openai(
                    server, lambda client: client.completions.create(model="slow", prompt="y", max_tokens=1)
                )
    assert (503, "1") == (raised.value.status_code, raised.value.response.headers["retry-after"])
    assert "x" == answer.choices[0].text


async def test_an_answer_leads_to_its_recording(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The header names the log, and `replay show --only` takes the name that the client gave its request."""
    async with served(tmp_path) as server:

        def call(client: openai.OpenAI) -> Any:
            messages: Any = CHAT
            headers = {"x-request-id": "order-66"}
            return client.chat.completions.with_raw_response.create(
                model="hello", messages=messages, extra_headers=headers
            )

        headers = (await ask_openai(server, call)).headers
    (log,) = tmp_path.glob(f"*-{headers['x-reenact-session']}.jsonl.zst")
    assert ("order-66", "1") == (headers["x-request-id"], headers["x-reenact-sequence"])
    assert 0 == replay(["show", str(log), "--only", "order-66"])
    shown = capsys.readouterr().out
    assert "order-66" in shown
    assert 0 == replay(["run", str(log)])


def test_the_clients_table_names_what_is_tried() -> None:
    """Each row of the table in docs/http.md names a test, and each test of these files is in the table."""
    page = (ROOT / "docs" / "http.md").read_text("utf-8")
    named = set(re.findall(r"`(test_\w+)`", page))
    files = [
        *(ROOT / "tests" / "runtime" / "http").glob("test_*clients*.py"),
        *(ROOT / "tests" / "model").glob("test_*clients*.py"),
    ]
    texts = "".join(file.read_text("utf-8") for file in files)
    written = set(re.findall(r"^(?:async )?def (test_\w+)", texts, re.MULTILINE))
    about_the_log = {"test_the_log_replays", "test_one_answer_is_computed_again_alone"}
    about_the_page = {"test_the_clients_table_names_what_is_tried"}
    assert set() == named - written
    assert set() == written - named - about_the_log - about_the_page
