"""The programs in examples/ run as a user copies them, on a scripted engine or a tiny model."""

import asyncio
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest
from anyio.from_thread import BlockingPortal, start_blocking_portal
from trio.testing import MockClock

from examples import chat_with_schema, from_asyncio, in_starlette, stream_and_cancel, two_requests, what_if
from reenact.replay import replay_log
from reenact.runtime import InvalidRequest, Runtime, ScriptedEngine, open_runtime
from tests.helpers.http import client_of
from tests.helpers.models.tiny import LETTERS, tiny
from tests.helpers.paths import ROOT

EXAMPLES = ROOT / "examples"
PROGRAMS: tuple[ModuleType, ...] = (
    chat_with_schema,
    from_asyncio,
    in_starlette,
    stream_and_cancel,
    two_requests,
    what_if,
)
TESTS = ("test_application.py", "test_policy.py")


def test_every_example_is_run() -> None:
    """Every file of the folder is a program or a test that runs here, and README.md links to it."""
    files = {path.name for path in EXAMPLES.glob("*.py")}
    assert files == {f"{program.__name__.rpartition('.')[2]}.py" for program in PROGRAMS} | set(TESTS)
    readme = (ROOT / "README.md").read_text("utf-8")
    assert [] == [name for name in sorted(files) if f"(examples/{name})" not in readme]


@pytest.mark.parametrize("program", PROGRAMS, ids=lambda program: program.__name__)
def test_an_example_says_how_to_run_it(program: ModuleType) -> None:
    """The docstring of a program names the command that runs it."""
    assert f"``python examples/{program.__name__.rpartition('.')[2]}.py``" in (program.__doc__ or "")


async def test_two_requests_share_the_batches(tmp_path: Path, autojump_clock: MockClock) -> None:
    """Both prompts are answered, and some batch holds rows of both sequences."""
    assert 0 == autojump_clock.rate
    engine = ScriptedEngine([" and so on"] * 4, batch_seconds=1)
    answers = await two_requests.main(engine, str(tmp_path / "log.jsonl"))
    assert {"The capital of France is", "Once upon a time"} == answers.keys()
    assert 2 == replay_log(tmp_path / "log.jsonl").tally.statistics.sequences_per_batch.maximum


async def test_the_stream_is_cancelled_after_a_sentence(tmp_path: Path) -> None:
    """The first sentence is returned, and the log says that the rest was cancelled."""
    engine = ScriptedEngine([" there was", " a cat.", " It", " slept."])
    assert " there was a cat." == await stream_and_cancel.main(engine, str(tmp_path / "log.jsonl"))
    assert {"cancelled": 1} == replay_log(tmp_path / "log.jsonl").tally.statistics.ends


async def test_the_chat_keeps_to_its_schema(tmp_path: Path) -> None:
    """The answer is read as JSON, and the chat goes on."""
    ask = "user: Invent a person and the person's job. Answer in JSON.\n"
    text = '{"name": "Ann", "job": "cook"}'
    scripts = {
        f"{ask}assistant: ": [text],
        f"{ask}assistant: {text}\nuser: Greet this person.\nassistant: ": ["Hello, Ann!"],
    }
    person, greeting = await chat_with_schema.main(ScriptedEngine(scripts), str(tmp_path / "log.jsonl"))
    assert ({"name": "Ann", "job": "cook"}, "Hello, Ann!") == (person, greeting)


def test_asyncio_has_a_portal(tmp_path: Path) -> None:
    """A whole answer and a stream come out of a thread in which trio runs, and the log is closed."""
    engine = ScriptedEngine({"The capital of France is": [" Paris", "."], "Once upon a time": [" there", " was."]})
    assert (" Paris.", " there was.") == from_asyncio.main(engine, str(tmp_path / "log.jsonl"))
    assert {"stop": 2} == replay_log(tmp_path / "log.jsonl").tally.statistics.ends


def test_a_cancel_on_asyncio_reaches_the_log(tmp_path: Path) -> None:
    """A task that is cancelled on asyncio, and a stream that is closed, cancel their requests; errors come through."""

    async def leave(portal: BlockingPortal, runtime: Runtime) -> None:
        growing = from_asyncio.stream(portal, runtime, "x")
        assert "tick " == await anext(growing)
        await growing.aclose()  # type: ignore[attr-defined]  # it is a generator
        endless = asyncio.create_task(from_asyncio.call(portal, runtime.complete, "x"))
        await asyncio.sleep(0)
        assert "tick " == (await from_asyncio.call(portal, runtime.complete, "x", num_predict=1)).text
        endless.cancel()
        with pytest.raises(asyncio.CancelledError):
            await endless
        with pytest.raises(InvalidRequest):
            await from_asyncio.call(portal, runtime.complete, "x", top_p=2)
        with pytest.raises(InvalidRequest):
            await anext(from_asyncio.stream(portal, runtime, "x", top_p=2))

    log = tmp_path / "log.jsonl"
    opening = open_runtime(ScriptedEngine(["tick "] * 1000, batch_seconds=0.01), log=log)
    with start_blocking_portal("trio") as portal, portal.wrap_async_context_manager(opening) as runtime:
        asyncio.run(leave(portal, runtime))
    assert {"cancelled": 2, "length": 1} == replay_log(log).tally.statistics.ends


async def test_an_application_mounts_the_api(tmp_path: Path) -> None:
    """Both the application's own page and a client of the API under its path are answered, by one runtime."""
    async with open_runtime(ScriptedEngine(["a", "b"]), log=tmp_path / "log.jsonl") as runtime:
        async with client_of(in_starlette.application(runtime)) as client:
            page = await client.get("/story/Ann")
            body = {"model": "smollm2", "prompt": "x", "stream": False}
            answer = await client.post("/llm/api/generate", json=body)
            answers = [answer, await client.get("/llm/v1/models"), await client.get("/llm/api/nothing")]
    assert ("ab", "1") == (page.text, page.headers["x-reenact-sequence"])
    assert ("ab", "2") == (answer.json()["response"], answer.headers["x-reenact-sequence"])
    assert [200, 200, 404] == [one.status_code for one in answers]
    assert 2 == replay_log(tmp_path / "log.jsonl").tally.statistics.ends["stop"]


@pytest.mark.model
def test_a_fork_has_a_text_of_its_own(tmp_path: Path) -> None:
    """Both logs replay, and the child begins like its parent: with what went out before the fork."""
    model = tiny(tmp_path / "tiny.gguf", n_positions=64, pieces=LETTERS)
    first, second = tmp_path / "first.jsonl", tmp_path / "second.jsonl"
    text, other = what_if.main(model, first, second)
    assert text != other
    assert text[:2] == other[:2]
    for log in (first, second):
        replay_log(log).raise_for_divergence()


def test_the_tests_among_the_examples_pass() -> None:
    """Each passes as its docstring says, with the fixtures that come with reenact."""
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-o", "trio_mode=true"]
    out = subprocess.run([*command, *TESTS], cwd=EXAMPLES, check=False, capture_output=True, text=True)
    assert (0, True) == (out.returncode, "4 passed" in out.stdout), out.stdout
