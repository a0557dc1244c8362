"""Durability by name: what a caller has is on the disk, or in the system's hands; a disk that fails ends all."""

import os
import threading
from pathlib import Path
from typing import Any

import pytest
import trio
import trio.testing

from reenact.actors import events as e
from reenact.actors.errors import InvalidRequest, LogBroken
from reenact.actors.header import Durability
from reenact.replay import check_log, replay_log
from reenact.runtime import Runtime, ScriptedEngine, open_runtime
from reenact.runtime.log import writer
from reenact.runtime.log.reader import LogFile, entries, header_in
from tests.helpers.disks import Disk, Seen
from tests.runtime.test_resume import texts_of

SETTINGS: dict[str, Any] = {"n_slots": 2, "n_ctx": 64, "n_batch": 8}


def engine() -> ScriptedEngine:
    """Return an engine whose batches take a hundredth of a second."""
    return ScriptedEngine([f" {i}" for i in range(100)], batch_seconds=0.01)


class Computing(ScriptedEngine):
    """An engine that counts as one that computes, so that its session has threads."""

    computes = True


async def ask(runtime: Runtime, seen: Seen, prompt: str = "hi", **options: Any) -> None:
    """Read a completion, and note what is given."""
    async with runtime.stream(prompt, seed=7, **options) as stream:
        async for chunk in stream:
            seen.add(stream.sequence, chunk.text)


def resumed(log: Path) -> list[Durability | None]:
    """Return the durability in each fact that the session went on."""
    with LogFile(log) as lines:
        events = [entry.record.event for entry in entries(lines)]
    return [event.durability for event in events if isinstance(event, e.SessionResumed)]


@pytest.mark.parametrize("ending", ["jsonl", "jsonl.zst"])
@pytest.mark.parametrize("durability", [None, "process", "power", "relaxed"])
async def test_record_0_holds_it(
    tmp_path: Path, durability: Durability | None, ending: str, autojump_clock: object
) -> None:
    """The header has the durability, and its line leaves out the usual one; the log replays and keeps every rule."""
    log = tmp_path / f"log.{ending}"
    async with open_runtime(engine(), log=log, durability=durability, **SETTINGS) as runtime:
        text = (await runtime.complete("hi", seed=1, num_predict=20)).text
    with LogFile(log) as lines:
        assert (durability or "process") == header_in(lines).durability == runtime.header.durability
        assert (durability in {None, "process"}) is (b'"durability"' not in next(iter(lines)).body)
    assert {1: ("length", text)} == texts_of(log)
    assert "same" == replay_log(log).verdict
    assert () == check_log(log).violations


@pytest.mark.parametrize("wrong", ["", "Power", 7, ["power"], True])
async def test_only_three_names_are_known(tmp_path: Path, wrong: Any) -> None:
    """Another name is refused before a log is made."""
    with pytest.raises(InvalidRequest, match='expected one of "process", "power", "relaxed"'):
        async with open_runtime(engine(), log=tmp_path / "log.jsonl", durability=wrong):
            pass
    assert [] == list(tmp_path.iterdir())


async def test_nothing_endures_without_a_log() -> None:
    """A durability of nothing is refused."""
    with pytest.raises(InvalidRequest, match="nothing is recorded without a log"):
        async with open_runtime(engine(), durability="power"):
            pass


async def test_text_waits_for_the_disk_and_the_engine_does_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, autojump_clock: object
) -> None:
    """With "power" a chunk comes when the disk has it; meanwhile the engine goes on, and many facts share a sync."""
    disk = Disk(tmp_path / "log.jsonl", seconds=[1.0])
    disk.use(monkeypatch)
    seen = Seen(disk)
    async with open_runtime(engine(), log=disk.log, durability="power", **SETTINGS) as runtime:
        async with runtime.stream("hi", seed=7, num_predict=40) as stream:
            started = trio.current_time()
            seen.add(1, (await anext(stream)).text)
            assert trio.current_time() - started >= 1.0
            n_sampled = runtime.statistics().n_sampled
            async for chunk in stream:
                seen.add(1, chunk.text)
        taken = trio.current_time() - started
    assert 40 == len(stream.completion.tokens)
    assert [] == seen.unsynced()
    assert n_sampled > 1
    assert (disk.n_syncs, taken) < (6, 5.0)


@pytest.mark.parametrize("fails", range(5))
async def test_a_sync_that_fails_ends_everything(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, autojump_clock: object, fails: int
) -> None:
    """Nothing of a fact whose sync failed is delivered, and every caller gets the typed error, later ones too."""
    disk = Disk(tmp_path / "log.jsonl", seconds=[0.1], fails=fails)
    disk.use(monkeypatch)
    seen, ends = Seen(disk), list[str]()

    async def caller(at: float, prompt: str, num_predict: int) -> None:
        await trio.sleep(at)
        try:
            await ask(runtime, seen, prompt, num_predict=num_predict)
            ends.append("whole")
        except LogBroken as error:
            ends.append(str(error))

    async with open_runtime(engine(), log=disk.log, durability="power", **SETTINGS) as runtime:
        async with trio.open_nursery() as nursery:
            # The last one waits for a slot. The first has ended, as the kernel knows, before its reader gets a word.
            for at, prompt, num_predict in ((0.0, "a", 2), (0.001, "b", 50), (0.002, "c", 50)):
                nursery.start_soon(caller, at, prompt, num_predict)
        with pytest.raises(LogBroken, match="the log cannot be synced: Input/output error"):
            await runtime.complete("too late")
    assert 3 == len(ends)
    assert {f"{disk.log}: the log cannot be synced: Input/output error"} == set(ends) - {"whole"}
    assert ends.count("whole") == (0 if fails < 2 else 1)
    assert [] == seen.unsynced()
    assert bool(seen.texts) is (fails > 1)
    assert fails + 1 == disk.n_syncs  # It is not tried again.


async def test_the_end_must_be_on_the_disk_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, autojump_clock: object
) -> None:
    """If the last sync fails, the runtime's block raises."""
    disk = Disk(tmp_path / "log.jsonl")
    disk.use(monkeypatch)

    async def session() -> None:
        async with open_runtime(engine(), log=disk.log, durability="power", **SETTINGS) as runtime:
            await runtime.complete("hi", num_predict=3)
            disk.fails = disk.n_syncs

    with pytest.raises(LogBroken, match="cannot be synced"):
        await session()


async def test_who_leaves_early_has_what_is_on_the_disk(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, autojump_clock: object
) -> None:
    """After its block a stream that was left has its completion, all of which the disk has."""
    disk = Disk(tmp_path / "log.jsonl", seconds=[0.05])
    disk.use(monkeypatch)
    seen = Seen(disk)
    async with open_runtime(engine(), log=disk.log, durability="power", **SETTINGS) as runtime:
        async with runtime.stream("hi", seed=7, num_predict=40) as stream:
            await anext(stream)
            with pytest.raises(RuntimeError, match="has not ended yet"):
                _ = stream.completion
        seen.add(1, stream.completion.text)
        assert "cancelled" == stream.completion.finish_reason
    assert [] == seen.unsynced()


async def test_a_log_that_is_deleted_ends_everything(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, autojump_clock: object
) -> None:
    """A file that is gone before its sync is found out before anything of it is delivered."""
    disk = Disk(tmp_path / "log.jsonl", seconds=[5.0])
    disk.use(monkeypatch)
    seen = Seen(disk)

    async def move() -> None:
        await trio.sleep(1)
        disk.log.rename(tmp_path / "moved.jsonl")

    async with open_runtime(engine(), log=disk.log, durability="power", **SETTINGS) as runtime:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(move)
            with pytest.raises(LogBroken, match="deleted or moved"):
                await ask(runtime, seen, num_predict=2)
    assert {} == seen.texts


async def test_rows_and_folders_are_synced_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, autojump_clock: object
) -> None:
    """Rows are synced before the log that names them, and the folder's entry of each file once."""
    log = tmp_path / "log.jsonl"
    synced: list[int] = []
    monkeypatch.setattr("os.fdatasync", lambda file: synced.append(os.fstat(file).st_ino))
    monkeypatch.setattr("os.fsync", lambda file: synced.append(os.fstat(file).st_ino))
    async with open_runtime(engine(), log=log, durability="power", **SETTINGS) as runtime:
        await runtime.complete("hi", seed=1, num_predict=3)
        await runtime.complete(["rows ", [1.0, 2.0], [3.0, 4.0]], seed=1, num_predict=3)
    names = {path.stat().st_ino: path.name for path in (log, log.with_name("log.jsonl.rows"), tmp_path)}
    found = [names[one] for one in synced]
    assert ["log.jsonl", tmp_path.name] == found[:2]
    begins = found.index("log.jsonl.rows")
    assert ["log.jsonl.rows", tmp_path.name, "log.jsonl"] == found[begins : begins + 3]
    assert 2 == found.count(tmp_path.name)
    assert ["log.jsonl.rows", "log.jsonl"] == found[-2:]


async def test_a_thread_waits_for_the_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of an engine that computes, syncs are made in a thread of their own, and the engine decodes meanwhile."""
    may_go_on, threads = threading.Event(), set()

    def fdatasync(_: int) -> None:
        threads.add(threading.get_ident())
        assert may_go_on.wait(60)

    monkeypatch.setattr("os.fdatasync", fdatasync)
    log = tmp_path / "log.jsonl"
    async with (
        open_runtime(Computing([" a"] * 20), log=log, durability="power", **SETTINGS) as runtime,
        runtime.stream("hi", seed=7, num_predict=20) as stream,
    ):
        with trio.fail_after(60):
            while runtime.statistics().n_sampled < 20:
                await trio.lowlevel.checkpoint()
        assert 0 == stream._live.chunks.statistics().current_buffer_used
        may_go_on.set()
        assert 20 == sum([len(chunk.tokens) async for chunk in stream])
    assert (1, True) == (len(threads), threading.get_ident() not in threads)


@pytest.mark.parametrize("ending", ["jsonl", "jsonl.zst"])
async def test_relaxed_writes_are_large(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, autojump_clock: object, ending: str
) -> None:
    """With "relaxed" lines are collected and written together, and the end of the session writes the rest."""
    sizes: list[int] = []
    real = os.write

    def write(file: int, data: bytes) -> int:
        sizes.append(len(data))
        return real(file, data)

    monkeypatch.setattr(writer, "RELAXED_TEXT", 3000)
    log = tmp_path / f"log.{ending}"
    with monkeypatch.context() as patch:
        patch.setattr("reenact.runtime.log.own_file.os.write", write)
        async with open_runtime(engine(), log=log, durability="relaxed", **SETTINGS) as runtime:
            await runtime.complete("hi", seed=1, num_predict=60)
            n_writes = len(sizes)
            assert sum(sizes) == log.stat().st_size
    assert 60 < 10 * n_writes < 10 * len(sizes) < 100
    assert "same" == replay_log(log).verdict


async def test_a_relaxed_session_that_breaks_writes_what_it_has(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, autojump_clock: object
) -> None:
    """A session that ends for another reason than its log writes the lines that it has collected."""
    log = tmp_path / "log.jsonl"
    async with open_runtime(engine(), log=log, durability="relaxed", **SETTINGS) as runtime:
        await runtime.complete("hi", seed=1, num_predict=3)
        monkeypatch.setattr(runtime._session._driver.kernel, "handle", lambda _given: 1 / 0)
        with pytest.raises(Exception, match="ZeroDivisionError"):
            await runtime.complete("hi")
    with LogFile(log) as lines:
        events = [entry.record.event for entry in entries(lines)]
    assert isinstance(events[-1], e.RequestReceived)
    assert 3 == sum(isinstance(event, e.TokenEmitted) for event in events)


async def test_a_session_that_goes_on_keeps_it(tmp_path: Path, autojump_clock: object) -> None:
    """A resumed session has the recorded durability, and another one if it is given; a change is recorded."""
    whole = tmp_path / "whole.jsonl"
    async with open_runtime(engine(), log=whole, durability="power", **SETTINGS) as runtime:
        expected = (await runtime.complete("hi", seed=1, num_predict=20)).text
    log = tmp_path / "log.jsonl"
    log.write_bytes(whole.read_bytes()[:-1000])
    lives: list[tuple[Durability | None, Durability]] = [
        (None, "power"),
        ("process", "process"),
        ("process", "process"),
        (None, "process"),
        ("power", "power"),
    ]
    for given, in_force in lives:
        async with open_runtime(engine(), log=log, resume=True, durability=given, **SETTINGS) as runtime:
            journal = runtime._session._journal
            assert journal is not None
            assert in_force == journal.durability
            so_far = log.read_bytes()
        log.write_bytes(so_far)  # The process died.
    async with open_runtime(engine(), log=log, resume=True, **SETTINGS) as runtime:
        await runtime.resumed()
    assert [None, "process", None, None, "power", None] == resumed(log)
    assert {1: ("length", expected)} == texts_of(log)
    assert "same" == replay_log(log).verdict


async def test_a_session_that_goes_on_syncs_first(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, autojump_clock: object
) -> None:
    """What a killed process wrote is synced before a caller can ask for it."""
    disk = Disk(tmp_path / "log.jsonl")
    async with open_runtime(engine(), log=disk.log, durability="power", **SETTINGS) as runtime:
        await runtime.complete("hi", seed=1, num_predict=20)
    disk.log.write_bytes(disk.log.read_bytes()[:-1000])
    disk.use(monkeypatch)
    seen = Seen(disk)
    async with (
        open_runtime(engine(), log=disk.log, resume=True, **SETTINGS) as runtime,
        runtime.resume(1) as stream,
    ):
        async for chunk in stream:
            seen.add(1, chunk.text)
    assert 20 == len(stream.completion.tokens)
    assert [] == seen.unsynced()
