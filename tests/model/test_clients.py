"""The Python packages `ollama` and `openai` against a server with SmolLM2: texts, schemas, and a recording computed."""

import json
from pathlib import Path
from typing import Any

import jsonschema
import ollama
import openai
import pytest
import trio
from pydantic import BaseModel

from reenact.replay import check_log, compute_log, replay_log
from reenact.replay.compute.alone import alone_log
from reenact.runtime.http.on_demand import ServedModel
from reenact.runtime.model_store import installed
from tests.helpers.serving import serving

pytestmark = pytest.mark.model


class Person(BaseModel):
    name: str
    age: int


WEATHER = {
    "type": "object",
    "properties": {
        "city": {"type": "string", "maxLength": 20},
        "days": {"type": "integer", "minimum": 1, "maximum": 7},
    },
    "required": ["city", "days"],
}


@pytest.fixture(scope="module")
def answers(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """Ask both clients once, beside one another."""
    folder = tmp_path_factory.mktemp("logs")
    found: dict[str, Any] = {"folder": folder}
    settings = {"n_slots": 2, "n_threads": 2}
    model = ServedModel(stored=installed(), n_ctx=512, log_folder=folder, settings=settings)

    def by_ollama(url: str) -> None:
        with ollama.Client(url) as client:
            options = {"seed": 7, "num_predict": 12}
            messages = [{"role": "user", "content": "What is the capital of France?"}]
            found["ollama"] = client.chat("smollm2", messages, options=options, logprobs=True, top_logprobs=2)
            parts = client.chat("smollm2", messages, options=options, stream=True)
            found["streamed"] = "".join(part.message.content or "" for part in parts)

    def by_openai(url: str) -> None:
        with openai.OpenAI(base_url=f"{url}/v1", api_key="any") as client:
            messages: Any = [{"role": "user", "content": "Describe a person."}]
            raw = client.chat.completions.with_raw_response.parse(
                model="smollm2",
                messages=messages,
                response_format=Person,
                seed=7,
                max_tokens=80,
                extra_headers={"x-request-id": "a-person"},
            )
            found["openai"], found["headers"] = raw.parse(), raw.headers
            messages = [{"role": "user", "content": "What is the weather in Rome for the next two days?"}]
            tools: Any = [{"type": "function", "function": {"name": "weather", "parameters": WEATHER}}]
            found["calls"] = [
                client.chat.completions.create(
                    model="smollm2", messages=messages, tools=tools, tool_choice="required", seed=seed, max_tokens=120
                )
                for seed in (1, 2, 3)
            ]
            with client.chat.completions.stream(
                model="smollm2", messages=messages, tools=tools, tool_choice="required", seed=1, max_tokens=120
            ) as streaming:
                found["streamed call"] = streaming.get_final_completion()
            found["auto"] = client.chat.completions.create(
                model="smollm2", messages=messages, tools=tools, seed=1, max_tokens=40
            )

    async def ask() -> None:
        async with serving(model) as server, trio.open_nursery() as nursery:
            nursery.start_soon(trio.to_thread.run_sync, by_ollama, server.url)
            nursery.start_soon(trio.to_thread.run_sync, by_openai, server.url)

    trio.run(ask)
    (found["log"],) = folder.glob("*.jsonl.zst")
    return found


def test_ollama_speaks_with_smollm2(answers: dict[str, Any]) -> None:
    """A chat has a text, which is the same when it is streamed with the same seed."""
    assert 12 == answers["ollama"].eval_count
    assert answers["ollama"].message.content == answers["streamed"]
    assert [2] * 12 == [len(one.top_logprobs) for one in answers["ollama"].logprobs]
    assert all(one.logprob <= 0 for one in answers["ollama"].logprobs)


def test_openai_has_a_schema_with_smollm2(answers: dict[str, Any]) -> None:
    """The answer is one that the client's model reads."""
    choice = answers["openai"].choices[0]
    assert "stop" == choice.finish_reason
    assert isinstance(choice.message.parsed, Person)


def test_openai_calls_with_smollm2(answers: dict[str, Any]) -> None:
    """A required call is one with any seed, and fits its schema; with auto an answer is a text or such a call."""
    for answer in answers["calls"]:
        (choice,) = answer.choices
        (call,) = choice.message.tool_calls
        assert ("tool_calls", "weather") == (choice.finish_reason, call.function.name)
        jsonschema.validate(json.loads(call.function.arguments), WEATHER)
    first, streamed = answers["calls"][0], answers["streamed call"]
    assert [first.choices[0].message.tool_calls[0].function.arguments] == [
        call.function.arguments for call in streamed.choices[0].message.tool_calls
    ]
    (choice,) = answers["auto"].choices
    assert (choice.message.content is None) == bool(choice.message.tool_calls)


def test_the_log_replays(answers: dict[str, Any]) -> None:
    """The log is the header's session; it decides and computes the same, and keeps all rules."""
    log = Path(answers["log"])
    assert log.name.endswith(f"{answers['headers']['x-reenact-session']}.jsonl.zst")
    assert "same" == replay_log(log).verdict
    assert [] == list(check_log(log).violations)
    assert "same" == compute_log(log).verdict


def test_one_answer_is_computed_again_alone(answers: dict[str, Any]) -> None:
    """The name that the client gave its request finds it in the log."""
    assert "same" == alone_log(answers["log"], "a-person").verdict
