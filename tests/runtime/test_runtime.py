"""The shell, in virtual time and without a model; every session here must also replay the same (`session_log`)."""

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
import trio
from attrs import evolve
from trio.testing import MockClock, wait_all_tasks_blocked

from reenact.actors import batcher, sequence
from reenact.actors import events as e
from reenact.actors.inputs import Input
from reenact.replay import replay_log
from reenact.runtime import (
    EngineBroken,
    InternalError,
    InvalidRequest,
    LogBroken,
    Overloaded,
    ScriptedEngine,
    SequenceFailed,
    open_runtime,
)
from reenact.runtime.engine.protocol import ContextSettings, Drawing, Loaded, Rendered, Tokenized
from reenact.runtime.engine.scripted import EOG, NAN
from reenact.runtime.log.writer import Journal
from reenact.runtime.pytest_plugin import OpenScripted
from tests.helpers.sessions import read_fields

pytestmark = pytest.mark.usefixtures("autojump_clock")

LONG = ["x"] * 500


def types(log: Path) -> list[str]:
    """Return the types of a log's records in order."""
    return [fields["type"] for fields in read_fields(log)]


async def test_a_completion(scripted_runtime: OpenScripted) -> None:
    """A request comes back with its text, tokens, reason, counts and the seed that was drawn."""
    async with scripted_runtime(["Hel", "lo", EOG]) as runtime:
        completion = await runtime.complete("Hi!", request_id="mine")
    assert ("Hello", "stop", None) == (completion.text, completion.finish_reason, completion.stop)
    assert (1, "mine", 3, 3) == (completion.sequence, completion.request_id, completion.n_prompt, completion.n_sampled)
    assert 2 == len(completion.tokens)
    assert 0 <= completion.seed < 2**32


async def test_a_seed_that_is_given_is_kept(scripted_runtime: OpenScripted, session_log: Path) -> None:
    """The caller's seed is recorded and returned."""
    async with scripted_runtime(["a"]) as runtime:
        assert 7 == (await runtime.complete("p", seed=7)).seed
    assert 7 == read_fields(session_log)[1]["options"]["seed"]


async def test_text_is_streamed_as_it_grows(scripted_runtime: OpenScripted) -> None:
    """A stream gives each text as soon as it is final: held text comes in one chunk with what released it."""
    async with scripted_runtime(["x", "<", "p", b"\xf0\x9f", b"\x98\x80"]) as runtime:
        async with runtime.stream("p", stop=["</s>"]) as stream:
            chunks = [chunk.text async for chunk in stream]
        assert ["x", "<p", "😀"] == chunks
        assert "x<p😀" == stream.completion.text


async def test_a_stream_that_has_not_ended_has_no_completion(scripted_runtime: OpenScripted) -> None:
    """Asking for the completion too early is an error that says what to do."""
    async with scripted_runtime(LONG) as runtime, runtime.stream("p") as stream:
        with pytest.raises(RuntimeError, match="leave its block"):
            _ = stream.completion


async def test_leaving_a_stream_cancels_its_sequence(scripted_runtime: OpenScripted, session_log: Path) -> None:
    """A stream that was left has its completion, with reason cancelled, and its slot is free at once."""
    async with scripted_runtime(LONG, n_slots=1) as runtime:
        async with runtime.stream("p") as stream:
            async for _ in stream:
                break
        assert "cancelled" == stream.completion.finish_reason
        assert stream.completion.text
        assert 0 == runtime.statistics().n_active
        assert "length" == (await runtime.complete("q", num_predict=3)).finish_reason
    assert "SlotReleased" in types(session_log)


async def test_a_cancel_scope_cancels_a_completion(scripted_runtime: OpenScripted) -> None:
    """Trio's own cancellation ends a request, and the others do not notice."""
    async with scripted_runtime({"slow": LONG, "other": ["o"] * 5}) as runtime:
        with trio.CancelScope() as scope:
            scope.cancel()
            await runtime.complete("slow")
        assert scope.cancelled_caught
        assert "ooooo" == (await runtime.complete("other")).text
        assert 2 == runtime.statistics().n_finished


async def test_leaving_the_runtime_ends_everything(session_log: Path, scripted_runtime: OpenScripted) -> None:
    """A request that still waits when the runtime is left has an error; the log holds the cancels and is closed."""
    told: list[type[Exception]] = []

    async def wait() -> None:
        try:
            await runtime.complete("p")
        except trio.ClosedResourceError as error:
            told.append(type(error))

    async with trio.open_nursery() as nursery:
        async with scripted_runtime(LONG, n_slots=2, n_ctx=10_000) as runtime:
            for _ in range(3):
                nursery.start_soon(wait)
            while runtime.statistics().n_sampled < 10:
                await trio.lowlevel.checkpoint()
    assert [trio.ClosedResourceError] * 3 == told
    assert 3 == types(session_log).count("CancelRequested")
    assert "SessionClosed" == types(session_log)[-1]
    with pytest.raises(trio.ClosedResourceError):
        await runtime.complete("p")


async def test_an_error_in_the_block_comes_out_as_it_is(scripted_runtime: OpenScripted, session_log: Path) -> None:
    """An error of the application leaves the runtime's block ungrouped, and the log is closed."""
    with pytest.raises(ZeroDivisionError):
        async with scripted_runtime(LONG) as runtime, runtime.stream("p"):
            _ = 1 / 0
    assert "SessionClosed" == types(session_log)[-1]


async def test_a_reader_who_stops_pauses_only_himself(scripted_runtime: OpenScripted, session_log: Path) -> None:
    """A reader that lags pauses its own sequence after the agreed number of chunks; others go on; it misses nothing."""
    async with scripted_runtime(["t"] * 50, max_reader_lag=4) as runtime:
        async with runtime.stream("stalled") as stream:
            assert 50 == len((await runtime.complete("other")).text)
            assert runtime.statistics().n_sampled <= 50 + 4 + 2
            chunks = [chunk async for chunk in stream]
        assert 50 == len(chunks)
    assert types(session_log).count("SequencePaused") == types(session_log).count("SequenceResumed") > 0


async def test_leaving_a_paused_stream(scripted_runtime: OpenScripted) -> None:
    """A paused sequence can be left; its slot is free."""
    async with scripted_runtime(LONG, max_reader_lag=1, n_slots=1) as runtime:
        async with runtime.stream("p") as stream:
            await trio.sleep(1)
        assert "cancelled" == stream.completion.finish_reason
        assert 0 == runtime.statistics().n_active


async def test_two_tasks_cannot_read_one_stream(scripted_runtime: OpenScripted) -> None:
    """The second reader of a stream is told that it is busy."""
    async with (
        scripted_runtime(LONG, n_slots=1, max_reader_lag=1) as runtime,
        runtime.stream("has the slot"),
        runtime.stream("waits") as stream,
        trio.open_nursery() as nursery,
    ):
        nursery.start_soon(stream.__anext__)
        await wait_all_tasks_blocked()
        with pytest.raises(trio.BusyResourceError):
            await stream.__anext__()
        nursery.cancel_scope.cancel()


async def test_a_full_queue_refuses_at_once(scripted_runtime: OpenScripted) -> None:
    """The request beyond the queue's bound gets Overloaded immediately; the others are served."""
    texts: list[str] = []

    async def ask() -> None:
        texts.append((await runtime.complete("p", num_predict=5)).text)

    async with scripted_runtime(LONG, n_slots=1, max_waiting=1) as runtime, trio.open_nursery() as nursery:
        for _ in range(2):
            nursery.start_soon(ask)
        await wait_all_tasks_blocked()
        async with runtime.stream("a"):
            pass
    assert ["xxxxx"] * 2 == texts


async def test_overload_is_told_before_any_work(scripted_runtime: OpenScripted, session_log: Path) -> None:
    """A rejected request is never tokenized."""
    async with scripted_runtime(LONG, n_slots=1, max_waiting=0, max_reader_lag=1) as runtime:
        async with runtime.stream("a"):
            with pytest.raises(Overloaded, match="wait for a slot"):
                await runtime.complete("b")
    assert 1 == types(session_log).count("PromptTokenized")


@pytest.mark.parametrize(
    ("options", "field"),
    [
        ({"temperature": -1}, "temperature"),
        ({"stop": [""]}, "stop"),
        ({"stop": "word"}, "stop"),
        ({"seed": "7"}, "seed"),
        ({"num_predict": 1.5}, "num_predict"),
        ({"top_p": float("nan")}, "top_p"),
        ({"tempreature": 1.0}, "tempreature"),
        ({"request_id": 7}, "request_id"),
    ],
)
async def test_a_wrong_option_names_its_field(
    scripted_runtime: OpenScripted, session_log: Path, options: dict[str, object], field: str
) -> None:
    """A wrong or unknown option is refused with its name, and the refusal is a fact."""
    async with scripted_runtime(LONG) as runtime:
        with pytest.raises(InvalidRequest) as raised:
            await runtime.complete("p", **options)  # type: ignore[arg-type]
        assert field == raised.value.field
    assert ["SessionOpened", "RequestRefused", "SessionClosed"] == types(session_log)


@pytest.mark.parametrize("prompt", ["", "x" * 101, b"bytes", "\ud800"])
async def test_a_wrong_prompt_is_refused(scripted_runtime: OpenScripted, prompt: str) -> None:
    """A prompt without tokens, too long for the context, or no text is the caller's error."""
    async with scripted_runtime(LONG, n_ctx=100) as runtime:
        with pytest.raises(InvalidRequest) as raised:
            await runtime.complete(prompt, truncate=False)
        assert "prompt" == raised.value.field
        assert "context_full" == (await runtime.complete("x" * 100, shift=False)).finish_reason


@pytest.mark.parametrize(
    ("settings", "field"),
    [
        ({"n_slots": 0}, "n_slots"),
        ({"n_ctx": 0}, "n_ctx"),
        ({"n_slots": 4, "n_batch": 3}, "n_batch"),
        ({"n_threads": 0}, "n_threads"),
        ({"max_waiting": -1}, "max_waiting"),
        ({"max_reader_lag": True}, "max_reader_lag"),
        ({"max_pause": 0}, "max_pause"),
        ({"max_pause": True}, "max_pause"),
        ({"max_pause": float("nan")}, "max_pause"),
        ({"max_pause": 1e8}, "max_pause"),
    ],
)
async def test_a_wrong_setting_names_its_field(tmp_path: Path, settings: dict[str, int], field: str) -> None:
    """A setting that cannot be is refused with its name, and no log is left behind."""
    log = tmp_path / "log.jsonl"
    with pytest.raises(InvalidRequest) as raised:
        async with open_runtime(ScriptedEngine(), log=log, **settings):  # type: ignore[arg-type]
            pass
    assert field == raised.value.field
    assert not log.exists()


@pytest.mark.parametrize(
    ("fault", "error"), [(1, InternalError), (-1, InternalError), (2, SequenceFailed), (-3, SequenceFailed)]
)
async def test_a_failed_decode_ends_its_sequences(
    scripted_runtime: OpenScripted, fault: int, error: type[Exception]
) -> None:
    """A bad return code is an error where its caller waits; the next request is served as if nothing had been."""
    async with scripted_runtime(["a", "b", "c"], faults={1: fault}) as runtime:
        with pytest.raises(error, match=str(fault)):
            await runtime.complete("p")
        assert "abc" == (await runtime.complete("p")).text


async def test_nan_ends_one_sequence(scripted_runtime: OpenScripted) -> None:
    """Logits with a NaN end their own sequence, and the one beside it goes on."""
    texts: list[str] = []

    async def good() -> None:
        texts.append((await runtime.complete("good")).text)

    async def bad() -> None:
        with pytest.raises(SequenceFailed, match="NaN"):
            await runtime.complete("bad")

    async with scripted_runtime({"good": ["g"] * 9, "bad": ["b", NAN]}) as runtime, trio.open_nursery() as nursery:
        nursery.start_soon(good)
        nursery.start_soon(bad)
    assert ["g" * 9] == texts


async def test_an_engine_that_raises_ends_everybody(scripted_runtime: OpenScripted, session_log: Path) -> None:
    """Every waiter gets EngineBroken at once, so does every later request, and the log says why and is closed."""
    errors: list[str] = []

    async def ask() -> None:
        with pytest.raises(EngineBroken) as raised:
            await runtime.complete("p")
        errors.append(str(raised.value))

    async with scripted_runtime(LONG, n_slots=2, faults={3: OSError("no more")}) as runtime:
        async with trio.open_nursery() as nursery:
            for _ in range(5):
                nursery.start_soon(ask)
        with pytest.raises(EngineBroken):
            await runtime.complete("p")
    assert ["the engine failed: OSError: no more"] * 5 == errors
    assert "SessionClosed" == types(session_log)[-1]


class Strange(ScriptedEngine):
    """An engine whose second step returns a token that no log can hold."""

    def step(self, planned: e.BatchPlanned, drawings: Mapping[int, Drawing], numbers: Any) -> e.BatchDecoded:
        """Play, strangely."""
        decoded = super().step(planned, drawings, numbers)
        token = 2**60 if planned.batch == 1 else 7
        return evolve(decoded, samples=tuple(evolve(sample, token=token) for sample in decoded.samples))


async def test_a_value_that_no_log_can_hold_ends_everybody(session_log: Path) -> None:
    """What cannot be recorded cannot happen: the engine is broken, and the log replays the same."""
    async with open_runtime(Strange(["a"] * 5), log=session_log) as runtime:
        for _ in range(2):
            with pytest.raises(EngineBroken, match="Integer exceeds 53-bit range"):
                await runtime.complete("p")
    verdict = replay_log(session_log)
    assert (0, "SessionClosed") == (verdict.exit_code, types(session_log)[-1])


class Picky(ScriptedEngine):
    """An engine that cannot tokenize one prompt."""

    def tokenize(self, text: str | Rendered, *, after: Input | None = None) -> Tokenized:
        """Tokenize what is good."""
        if text == "bad":
            raise OSError("no such word")
        return super().tokenize(text, after=after)


async def test_a_prompt_that_cannot_be_tokenized_ends_alone(session_log: Path) -> None:
    """An engine that raises while it tokenizes ends that request; one beside it, in flight, goes on."""
    async with (
        open_runtime(Picky(["a"] * 20), log=session_log) as runtime,
        runtime.stream("good") as stream,
    ):
        await stream.__anext__()
        with pytest.raises(SequenceFailed, match="could not be tokenized: OSError: no such word"):
            await runtime.complete("bad")
        async for _ in stream:
            pass
    assert "a" * 20 == stream.completion.text


async def test_a_console_that_fails_is_switched_off(
    scripted_runtime: OpenScripted, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing depends on the console: if it raises, the session goes on without it."""
    shown: list[int] = []

    def show(record: e.Record) -> None:
        shown.append(record.n)
        raise OSError("closed")

    monkeypatch.setattr("reenact.runtime.console.subscriber", lambda: show)
    async with scripted_runtime(["a"] * 3) as runtime:
        assert "aaa" == (await runtime.complete("p")).text
    assert [0] == shown


async def test_an_engine_serves_one_runtime(tmp_path: Path) -> None:
    """An engine that is loaded already is refused, and the runtime that has it goes on."""
    engine = ScriptedEngine(["a"])
    async with open_runtime(engine) as runtime:
        with pytest.raises(EngineBroken, match="loaded already"):
            async with open_runtime(engine):
                pass
        assert "a" == (await runtime.complete("p")).text


async def test_an_error_keeps_its_context(scripted_runtime: OpenScripted) -> None:
    """The error behind an application's error is still behind it outside the block."""
    with pytest.raises(ValueError, match="second") as raised:  # noqa: PT012  # the block is the application
        async with scripted_runtime():
            try:
                _ = dict[str, int]()["first"]
            except KeyError:
                raise ValueError("second")  # noqa: B904  # its context is the fact under test
    assert isinstance(raised.value.__context__, KeyError)


async def test_a_session_that_cannot_begin_is_not_entered(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """If record 0 cannot be written, open_runtime raises and the block is not run."""

    def append(_journal: Journal, _records: object, _t: int, _numbers: object) -> None:
        raise LogBroken("full")

    monkeypatch.setattr(Journal, "append", append)
    entered = False
    with pytest.raises(LogBroken, match="full"):
        async with open_runtime(ScriptedEngine(), log=tmp_path / "log.jsonl"):
            entered = True
    assert not entered
    assert [] == list(tmp_path.iterdir())


async def test_a_broken_log_that_only_a_leaver_could_know_of(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """If the log breaks while the last reader leaves, leaving the runtime says so."""

    def append(_journal: Journal, _records: object, _t: int, _numbers: object) -> None:
        raise LogBroken("full")

    with pytest.raises(LogBroken, match="full"):  # noqa: PT012  # it is raised by leaving the block
        async with open_runtime(ScriptedEngine(LONG), log=tmp_path / "log.jsonl", max_reader_lag=1) as runtime:
            async with runtime.stream("p") as stream:
                await stream.__anext__()
                monkeypatch.setattr(Journal, "append", append)


async def test_a_broken_log_is_told_when_all_is_cancelled(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """If the end of a session cannot be written, that is told also where the block is left by a cancel."""

    def append(_journal: Journal, _records: object, _t: int, _numbers: object) -> None:
        raise LogBroken("full")

    with pytest.raises(LogBroken, match="full"):  # noqa: PT012  # it is raised by leaving the block
        with trio.move_on_after(1):
            async with open_runtime(ScriptedEngine(), log=tmp_path / "log.jsonl"):
                monkeypatch.setattr(Journal, "append", append)
                await trio.sleep_forever()


@pytest.mark.parametrize("model", [None, 5, b"x.gguf"])
async def test_what_is_no_model_is_refused(tmp_path: Path, model: object) -> None:
    """Neither a path nor an engine: the caller's error, and no log is left behind."""
    log = tmp_path / "log.jsonl"
    with pytest.raises(InvalidRequest, match="model: expected a path or an engine"):
        async with open_runtime(model, log=log):  # type: ignore[arg-type]
            pass
    assert not log.exists()


async def test_time_goes_on_after_104_days(
    session_log: Path, scripted_runtime: OpenScripted, autojump_clock: MockClock
) -> None:
    """Nanoseconds from 2^53 on, which is after 104 days, are written and read like any other."""
    async with scripted_runtime(["a"]) as runtime:
        autojump_clock.jump(200 * 86400)
        assert "a" == (await runtime.complete("p")).text
    assert read_fields(session_log)[1]["t"] > 2**53


class Unloadable(ScriptedEngine):
    """An engine that cannot be loaded."""

    def load(self, settings: ContextSettings) -> Loaded:
        """Fail."""
        raise EngineBroken(f"no room for {settings.n_ctx} cells")


async def test_an_engine_that_cannot_be_loaded(tmp_path: Path) -> None:
    """The error comes out of open_runtime, and the empty log does not stay."""
    log = tmp_path / "log.jsonl"
    with pytest.raises(EngineBroken, match="no room"):
        async with open_runtime(Unloadable(), log=log):
            pass
    assert not log.exists()


async def test_a_log_that_exists_is_never_overwritten(tmp_path: Path) -> None:
    """Opening on a log that exists is an error that names it, and the file stays as it is."""
    log = tmp_path / "log.jsonl"
    log.write_text("precious")
    with pytest.raises(FileExistsError) as raised:
        async with open_runtime(ScriptedEngine(), log=log):
            pass
    assert str(log) == str(raised.value.filename)
    assert "precious" == log.read_text()


async def test_a_log_that_is_deleted_ends_everybody(tmp_path: Path) -> None:
    """When the log of a session goes away every waiter gets LogBroken with the cure, and no new request is admitted."""
    log = tmp_path / "log.jsonl"
    errors: list[str] = []

    async def ask() -> None:
        with pytest.raises(LogBroken) as raised:
            await runtime.complete("p", num_predict=50)
        errors.append(str(raised.value))

    async with open_runtime(ScriptedEngine(LONG), log=log) as runtime:
        async with trio.open_nursery() as nursery:
            for _ in range(6):
                nursery.start_soon(ask)
            log.unlink()
        with pytest.raises(LogBroken, match="deleted or moved"):
            await runtime.complete("p")
    assert 6 == len(errors)
    assert 1 == len(set(errors))
    assert "keep other programs" in errors[0]


async def test_a_log_that_cannot_be_written_ends_everybody(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """When a write fails every waiter gets LogBroken, no new request is admitted, and what was written replays."""
    real_write, room = os.write, 6000

    def write(fd: int, data: bytes) -> int:
        nonlocal room
        if room <= 0:
            raise OSError(28, "No space left on device")
        written = real_write(fd, data[:room])
        room -= written
        return written

    errors: list[Exception] = []
    log = tmp_path / "log.jsonl"

    async def ask() -> None:
        try:
            await runtime.complete("p")
        except LogBroken as error:
            errors.append(error)

    with monkeypatch.context() as patched:
        patched.setattr("reenact.runtime.log.writer.os.write", write)
        async with open_runtime(ScriptedEngine(LONG), log=log) as runtime:
            async with trio.open_nursery() as nursery:
                for _ in range(6):
                    nursery.start_soon(ask)
            with pytest.raises(LogBroken, match="No space left"):
                await runtime.complete("p")
    assert 6 == len(errors)
    verdict = replay_log(log)
    assert (0, True) == (verdict.exit_code, "did not close" in verdict.notes[0])


async def test_a_broken_log_that_nobody_was_told_of(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """If the end of a session cannot be written, leaving the runtime says so."""

    def append(_journal: Journal, _records: object, _t: int, _numbers: object) -> None:
        raise LogBroken("full")

    with pytest.raises(LogBroken, match="full"):  # noqa: PT012  # it is raised by leaving the block
        async with open_runtime(ScriptedEngine(["a"]), log=tmp_path / "log.jsonl") as runtime:
            await runtime.complete("p")
            monkeypatch.setattr(Journal, "append", append)


async def test_a_sequence_that_raises_ends_alone(
    scripted_runtime: OpenScripted, monkeypatch: pytest.MonkeyPatch, session_log: Path
) -> None:
    """A bug in one Sequence ends that sequence with InternalError; the log diverges where the bug is mended."""
    decide = sequence.decide

    def buggy(state: sequence.Sequence, event: e.Event) -> list[e.Event]:
        if isinstance(event, e.BatchDecoded) and state.sequence == 1:
            raise KeyError("lost")
        return decide(state, event)

    with monkeypatch.context() as patched:
        patched.setattr(sequence, "decide", buggy)
        async with scripted_runtime(["a", "b"]) as runtime:
            with pytest.raises(InternalError, match="please report"):
                await runtime.complete("p")
            assert "ab" == (await runtime.complete("p")).text
        replay_log(session_log).raise_for_divergence()
    divergence = replay_log(session_log).first_divergence
    assert divergence is not None
    assert divergence.expected is not None
    assert "ActorFailed" == divergence.expected["type"]
    session_log.unlink()


async def test_a_batcher_that_raises_ends_everybody(
    scripted_runtime: OpenScripted, monkeypatch: pytest.MonkeyPatch, session_log: Path
) -> None:
    """A bug in the Batcher ends every request with InternalError, and none hangs."""

    def buggy(_state: batcher.Batcher) -> list[e.Event]:
        raise KeyError("lost")

    async def ask() -> None:
        with pytest.raises(InternalError, match="atcher raised KeyError"):
            await runtime.complete("p")

    monkeypatch.setattr(batcher, "proceed", buggy)
    async with scripted_runtime(["a"]) as runtime:
        async with trio.open_nursery() as nursery:
            for _ in range(3):
                nursery.start_soon(ask)
        with pytest.raises(InternalError):
            await runtime.complete("p")
    assert "RequestRejected" in types(session_log)
    assert "ActorFailed" in types(session_log)
    replay_log(session_log).raise_for_divergence()
    session_log.unlink()


async def test_a_kernel_that_raises_leaves_the_fact_in_the_log(
    scripted_runtime: OpenScripted, monkeypatch: pytest.MonkeyPatch, session_log: Path
) -> None:
    """The fact that the kernel could not take is the log's last record, and a replay points at it."""

    def buggy(_state: batcher.Batcher, event: e.Event) -> batcher.Batcher:
        if isinstance(event, e.BatchDecoded):
            raise KeyError("lost")
        return real(_state, event)

    real = batcher.evolve
    monkeypatch.setattr(batcher, "evolve", buggy)
    async with scripted_runtime(["a"]) as runtime:
        with pytest.raises(InternalError, match="KeyError"):
            await runtime.complete("p")
    assert "BatchDecoded" == types(session_log)[-1]
    divergence = replay_log(session_log).first_divergence
    assert divergence is not None
    assert "cannot take this fact: KeyError" in divergence.note
    session_log.unlink()


async def test_statistics_count_the_session(scripted_runtime: OpenScripted, session_log: Path) -> None:
    """Statistics are a frozen snapshot that agrees with the log."""
    async with scripted_runtime(["a"] * 4, n_slots=2) as runtime:
        for _ in range(3):
            await runtime.complete("p")
        statistics = runtime.statistics()
    assert (3, 3, 2, 0, 0) == (
        statistics.n_requests,
        statistics.n_finished,
        statistics.n_slots,
        statistics.n_active,
        statistics.n_waiting,
    )
    tally = replay_log(session_log).tally
    assert statistics.n_sampled == tally.statistics.n_sampled
    assert len(read_fields(session_log)) - 1 == statistics.n_records


class Counting(ScriptedEngine):
    """An engine that counts its steps and says when it is closed."""

    def __init__(self, script: Sequence[str]) -> None:
        super().__init__(script)
        self.n_steps = 0
        self.closed = False

    def step(self, planned: e.BatchPlanned, drawings: Mapping[int, Drawing], numbers: Any) -> e.BatchDecoded:
        """Play, and count."""
        self.n_steps += 1
        return super().step(planned, drawings, numbers)

    def close(self) -> None:
        """Close, and say so."""
        self.closed = True
        super().close()


@pytest.mark.parametrize("n_facts", range(2, 7))
async def test_nothing_is_done_that_is_not_in_the_journal(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, n_facts: int
) -> None:
    """Where the journal cannot be written no text of that fact is released and no batch of it is computed."""
    real = Journal.append
    written: list[e.Event] = []

    def append(journal: Journal, records: list[e.Record], t: int, numbers: Any) -> None:
        if len([event for event in written if isinstance(event, e.GivenEvent)]) == n_facts:
            raise LogBroken("full")
        written.extend(record.event for record in records)
        real(journal, records, t, numbers)

    monkeypatch.setattr(Journal, "append", append)
    engine = Counting(["a", "b", "c", "d", "e", "f"])
    texts: list[str] = []
    async with open_runtime(engine, log=tmp_path / "log.jsonl") as runtime:
        with pytest.raises(LogBroken, match="full"):  # noqa: PT012  # until it breaks it is read
            async with runtime.stream("p") as stream:
                async for chunk in stream:
                    texts.append(chunk.text)  # noqa: PERF401  # what was read before it broke counts
    assert "".join(event.text for event in written if isinstance(event, e.TokenEmitted)) == "".join(texts)
    assert sum(isinstance(event, e.BatchPlanned) for event in written) == engine.n_steps


async def test_every_plan_gets_its_outcome_when_all_is_cancelled(session_log: Path) -> None:
    """A cancel from outside while a batch is in flight: its outcome is recorded, the log closed, the engine freed."""
    engine = Counting(LONG)
    with trio.CancelScope() as scope:
        async with open_runtime(engine, log=session_log) as runtime, runtime.stream("p") as stream:
            await stream.__anext__()
            scope.cancel()
            await trio.sleep_forever()
    assert engine.closed
    assert types(session_log).count("BatchPlanned") == types(session_log).count("BatchDecoded")
    assert "SessionClosed" == types(session_log)[-1]


async def test_without_a_log_nothing_is_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Recording is asked for, never done by itself."""
    monkeypatch.chdir(tmp_path)
    async with open_runtime(ScriptedEngine(["a"])) as runtime:
        assert "a" == (await runtime.complete("p")).text
    assert [] == list(tmp_path.iterdir())


async def test_a_log_is_its_owners(scripted_runtime: OpenScripted, session_log: Path) -> None:
    """A log holds prompts, so others cannot read it."""
    async with scripted_runtime():
        pass
    assert 0o600 == session_log.stat().st_mode & 0o777
