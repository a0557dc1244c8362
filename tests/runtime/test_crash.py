"""Processes that die while they serve, and files that fail: no reader loses anything, or gets it twice."""

import errno
import os
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import trio
import trio.testing

from reenact.actors.errors import LogBroken
from reenact.replay import replay_log
from reenact.runtime import open_runtime
from tests.helpers.properties import FRESH_SEED
from tests.measure.crash import crashes
from tests.runtime.test_resume import SETTINGS, crowd, engine, resume, texts_of


def test_killed_processes_lose_nothing() -> None:
    """Of processes that are killed at random moments, each reader gets its text whole and once, over all lives."""
    found = crashes(12, FRESH_SEED, None, lambda _found: None)
    assert ([], 12) == (found.faults, found.n_kills)
    assert found.n_chunks > 0


def no_room(real: Callable[..., int], file: int, data: bytes) -> int:
    """Write a part, and then report a full disk."""
    real(file, data[: len(data) // 2])
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def broken_disk(_real: Callable[..., int], _file: int, _data: bytes) -> int:
    """Write nothing, and report a broken disk."""
    raise OSError(errno.EIO, os.strerror(errno.EIO))


def death_before(_real: Callable[..., int], _file: int, _data: bytes) -> int:
    """Die before the write."""
    os._exit(1)


def death_in(real: Callable[..., int], file: int, data: bytes) -> int:
    """Die in the middle of the write."""
    real(file, data[: len(data) // 3])
    os._exit(1)


def death_after(real: Callable[..., int], file: int, data: bytes) -> int:
    """Die after the write, before anything of it is delivered."""
    real(file, data)
    os._exit(1)


FAULTS = [no_room, broken_disk, death_before, death_in, death_after]


@pytest.mark.parametrize("stride", [pytest.param(17, marks=pytest.mark.long), 41])
@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.__name__)
def test_a_write_that_fails_loses_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fault: Any, stride: int
) -> None:
    """Whichever write fails, and however, the session goes on from the file to the texts of an uninterrupted one."""
    clock = trio.testing.MockClock
    trio.run(crowd, tmp_path / "whole.jsonl", clock=clock(autojump_threshold=0))
    expected = texts_of(tmp_path / "whole.jsonl")
    real = os.write
    n_writes = 0

    def counted(_real: Callable[..., int], file: int, data: bytes) -> int:
        return real(file, data)

    def write(file: int, data: bytes) -> int:
        nonlocal n_writes
        n_writes += 1
        return (fault if n_writes == failing else counted)(real, file, data)

    monkeypatch.setattr("reenact.runtime.log.own_file.os.write", write)
    failing = 0
    trio.run(crowd, tmp_path / "counted.jsonl", clock=clock(autojump_threshold=0))
    n_all = 10 * n_writes
    for failing in range(2, n_writes, stride):  # Without its first line a log has no session.
        n_writes = 0
        path = tmp_path / f"{failing}.jsonl"
        if not (child := os.fork()):
            with suppress(BaseException):
                trio.run(crowd, path, clock=clock(autojump_threshold=0))
            os._exit(0)
        os.waitpid(child, 0)
        n_writes = -n_all  # No write fails any more.
        trio.run(resume, path, clock=clock(autojump_threshold=0))
        assert "same" == replay_log(path).verdict
        for number, (finish_reason, text) in texts_of(path).items():
            if "error" != finish_reason and expected[number][0] != "cancelled":
                assert expected[number] == (finish_reason, text), f"write {failing}"


async def test_text_that_is_not_in_the_log_is_not_sent(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, autojump_clock: trio.testing.MockClock
) -> None:
    """If a write fails, its caller gets a typed error, and no text that the log lacks."""
    del autojump_clock
    real, seen = os.write, ""
    path = tmp_path / "log.jsonl"

    def write(file: int, data: bytes) -> int:
        return no_room(real, file, data) if b'"TokenEmitted"' in data and len(seen) > 4 else real(file, data)

    monkeypatch.setattr("reenact.runtime.log.own_file.os.write", write)

    async def ask() -> None:
        nonlocal seen
        async with (
            open_runtime(engine(), log=path, **SETTINGS) as runtime,
            runtime.stream("hi", seed=1, num_predict=30) as stream,
        ):
            async for chunk in stream:
                seen += chunk.text

    with pytest.raises(LogBroken, match="No space left on device"):
        await ask()
    monkeypatch.setattr("reenact.runtime.log.own_file.os.write", real)
    await resume(path)
    ((finish_reason, text),) = texts_of(path).values()
    assert (True, True) == (finish_reason in {"stop", "length"}, text.startswith(seen))
