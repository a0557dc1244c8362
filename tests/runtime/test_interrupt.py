"""Ctrl-C at any place of the shell: a fact is recorded whole or not at all, and the log is closed."""

import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import trio
from trio.testing import MockClock

from reenact.replay import replay_log
from reenact.runtime import ScriptedEngine, open_runtime
from reenact.runtime.log.codec import Fields
from reenact.runtime.log.writer import Journal
from reenact.runtime.session import Session
from tests.helpers.sessions import read_fields


async def application(log: Path) -> None:
    """Read two chunks as a reader that lags, leave, and complete another prompt."""
    async with open_runtime(ScriptedEngine(["a"] * 9), log=log, max_reader_lag=1) as runtime:
        async with runtime.stream("left") as stream:
            for _ in range(2):
                await trio.sleep(1)
                await stream.__anext__()
        await runtime.complete("p")


def interrupted(function: Callable[..., Any], at: int) -> Callable[..., Any]:
    """Return a function that presses Ctrl-C when it is called for the ``at``-th time, and then does its work."""
    calls = 0

    def press(*args: Any, **kwargs: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls == at:
            signal.raise_signal(signal.SIGINT)
        return function(*args, **kwargs)

    return press


def run_and_interrupt(log: Path) -> None:
    """Run the application, which ends by Ctrl-C."""
    try:
        trio.run(application, log, clock=MockClock(autojump_threshold=0))
    except BaseExceptionGroup as group:
        interrupts, others = group.split(KeyboardInterrupt)
        assert interrupts is not None
        assert others is None
    except KeyboardInterrupt:
        pass
    else:
        pytest.fail("nothing was interrupted")


def closed_and_same(log: Path) -> list[Fields]:
    """Check that the log is closed and replays the same; return its lines."""
    replay_log(log).raise_for_divergence()
    lines = read_fields(log)
    assert "SessionClosed" == lines[-1]["type"]
    return lines


@pytest.mark.parametrize("at", range(1, 20))
def test_inside_a_fact(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, at: int) -> None:
    """While a fact is worked off Ctrl-C waits: the log is closed and replays the same."""
    monkeypatch.setattr(Journal, "append", interrupted(Journal.append, at))
    log = tmp_path / "log.jsonl"
    run_and_interrupt(log)
    closed_and_same(log)


@pytest.mark.parametrize("at", range(1, 6))
def test_inside_a_step_of_the_engine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, at: int) -> None:
    """A batch that is being computed is computed to its end, and its outcome is recorded."""
    monkeypatch.setattr(ScriptedEngine, "step", interrupted(ScriptedEngine.step, at))
    log = tmp_path / "log.jsonl"
    run_and_interrupt(log)
    lines = closed_and_same(log)
    planned, decoded = ([f["batch"] for f in lines if f["type"] == name] for name in ("BatchPlanned", "BatchDecoded"))
    assert planned == decoded


@pytest.mark.parametrize("name", ["receive", "tokenize", "leave", "close", "raise_unreported"])
def test_around_a_step_of_the_shell(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    """On the way into and out of the runtime Ctrl-C waits too."""
    monkeypatch.setattr(Session, name, interrupted(getattr(Session, name), 1))
    log = tmp_path / "log.jsonl"
    run_and_interrupt(log)
    if log.exists():
        closed_and_same(log)


def test_inside_contextlib(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The lines of contextlib around entering and leaving are protected as well."""
    from contextlib import _AsyncGeneratorContextManager as Manager

    monkeypatch.setattr(Manager, "__aexit__", interrupted(Manager.__aexit__, 2))
    log = tmp_path / "log.jsonl"
    run_and_interrupt(log)
    closed_and_same(log)
