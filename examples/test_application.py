"""Tests of an application, without a model: each session is recorded, and must replay the same when its test ends.

The fixtures come with reenact. pytest needs pytest-trio and ``trio_mode = true`` in its configuration:
``pytest -o trio_mode=true examples/test_application.py``.
"""

from pathlib import Path

import trio
from trio.testing import MockClock

from reenact.replay import check_log, replay_log
from reenact.runtime import Runtime, ScriptedEngine, open_runtime
from reenact.runtime.pytest_plugin import OpenScripted


async def answer(runtime: Runtime, question: str) -> str:
    """Answer within two seconds, or apologize; this is the application under test."""
    completion = await runtime.complete(question, stop=["\n"], deadline=2.0)
    return "Sorry, not now." if completion.finish_reason == "deadline" else completion.text


async def test_an_answer_is_one_line(scripted_runtime: OpenScripted) -> None:
    """The text ends where the line does."""
    async with scripted_runtime({"Why?": ["Because", " it is.\n", "More"]}) as runtime:
        assert await answer(runtime, "Why?") == "Because it is."


async def test_a_slow_answer_is_an_apology(scripted_runtime: OpenScripted, autojump_clock: MockClock) -> None:
    """Each batch takes a second of virtual time, so the deadline comes first; the test itself does not wait."""
    async with scripted_runtime(["slow "] * 100, batch_seconds=1) as runtime:
        assert await answer(runtime, "Why?") == "Sorry, not now."
    assert autojump_clock.current_time() > 0


def test_a_log_is_kept_as_a_test(tmp_path: Path) -> None:
    """A log from production is a test: today's code decides the same, and no rule is broken."""
    log = tmp_path / "session.jsonl"

    async def record() -> None:
        async with open_runtime(ScriptedEngine(draws_from="history"), log=log) as runtime:
            await answer(runtime, "Why?")

    trio.run(record)
    replay_log(log).raise_for_divergence()
    check_log(log).raise_for_violation()
