"""More clients against a server with SmolLM2: a text that streams the same, schemas that hold, a log that replays."""

from pathlib import Path
from typing import Any

import pytest

from reenact.replay import check_log, replay_log
from reenact.runtime.http.on_demand import ServedModel
from reenact.runtime.model_store import installed
from tests.helpers.clients import skip_without, told_by
from tests.helpers.serving import serving

pytestmark = [pytest.mark.model, pytest.mark.long]

NAMES = {"chat": "smollm2:latest", "schema": "smollm2:latest", "tool": "smollm2:latest", "vectors": "", "slow": ""}


async def told(program: str, folder: Path) -> Any:
    """Run a program against SmolLM2; the log of all that it asked must replay, and break no rule."""
    skip_without(program)
    (logs := folder / "logs").mkdir()
    (own := folder / "own").mkdir()
    model = ServedModel(stored=installed(), n_ctx=512, log_folder=logs, settings={"n_slots": 2, "n_threads": 2})
    async with serving(model) as server:
        found = await told_by(program, server.url, NAMES, own)
    (log,) = logs.glob("*.jsonl.zst")
    assert "same" == replay_log(log).verdict
    assert [] == list(check_log(log).violations)
    return found


def holds(one: dict[str, Any]) -> None:
    """Check what holds for any model: a seed's text is the same streamed, an object and calls fit their schemas."""
    assert one["whole"]
    assert one["whole"] == one["streamed"]
    assert {"name", "age"} == set(one["schema"])
    assert len(one["schema"]["name"]) <= 10
    assert 0 <= one["schema"]["age"] <= 150
    assert all(name == "weather" and list(arguments) == ["city"] for name, arguments in one["tools"])


@pytest.mark.parametrize("program", ["litellm_calls.py", "langchain_calls.py"])
async def test_two_apis_with_smollm2(tmp_path: Path, program: str) -> None:
    """Two Python packages, litellm and LangChain, by either API."""
    for one in (await told(program, tmp_path)).values():
        holds(one)


async def test_openai_in_javascript_with_smollm2(tmp_path: Path) -> None:
    """The npm package `openai`; its call is required, so there is one."""
    found = await told("openai_calls.mjs", tmp_path)
    holds(found)
    assert 1 == len(found["tools"])


async def test_ollama_in_javascript_with_smollm2(tmp_path: Path) -> None:
    """The npm package `ollama`."""
    holds(await told("ollama_calls.mjs", tmp_path))


async def test_llm_with_smollm2(tmp_path: Path) -> None:
    """The command `llm`: a seed's text is the same streamed, and a conversation goes on."""
    found = await told("llm_calls.py", tmp_path)
    assert 0 == found["whole"][0]
    assert found["whole"] == found["streamed"]
    assert (0, 0) == (found["system"][0], found["again"][0])
