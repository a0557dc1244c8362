"""Sessions that go on after their process died: cut anywhere, resumed, and compared with the uninterrupted one."""

from itertools import pairwise
from pathlib import Path
from typing import Any, Final

import pytest
import trio
from zstandard import ZstdDecompressor

from reenact.actors import events as e
from reenact.actors.errors import InvalidRequest, LogCorrupt, LogNotComparable, ReenactError
from reenact.replay import check_log, replay_log
from reenact.runtime import ScriptedEngine, open_runtime
from reenact.runtime.log.codec import loads
from reenact.runtime.log.reader import Entry, LogFile, entries
from reenact.runtime.log.writer import Journal

SETTINGS: Final[dict[str, Any]] = {"n_slots": 2, "n_ctx": 24, "n_batch": 8, "max_reader_lag": 3, "max_pause": 0.5}
"""Two slots for more requests; contexts that shift; a reader that pauses and loses its slot."""


ROWS: Final = 4
"""The number of the request with rows."""


def engine() -> ScriptedEngine:
    """Return an engine whose tokens depend on all that came before."""
    return ScriptedEngine(draws_from="history", batch_seconds=0.01)


async def crowd(log: Path) -> None:
    """Record a session of requests that wait, shift, preempt, pause and are left."""
    async with open_runtime(engine(), log=log, **SETTINGS) as runtime, trio.open_nursery() as nursery:

        async def ask(at: float, prompt: Any, *, pause: float = 0, left_at: int = 0, **options: Any) -> None:
            await trio.sleep(at)
            name = f"at {at}"
            async with runtime.stream(prompt, request_id=name, seed=7, num_predict=30, **options) as stream:
                n_read = 0
                async for _ in stream:
                    n_read += 1
                    if n_read == left_at:
                        return
                    await trio.sleep(pause)

        nursery.start_soon(ask, 0, "the first one")
        nursery.start_soon(lambda: ask(0.02, "a slow reader", pause=0.2))
        nursery.start_soon(ask, 0.03, "one that waits")
        nursery.start_soon(ask, 0.05, ["rows ", [1.0, 2.0], [3.0, 4.0]])
        nursery.start_soon(lambda: ask(0.2, "urgent", priority=1, stop=["a"]))
        nursery.start_soon(lambda: ask(0.25, "left alone", left_at=2))


def texts_of(log: Path) -> dict[int, tuple[str, str]]:
    """Return the end and the text of each request of a log, by number."""
    texts: dict[int, str] = {}
    found: dict[int, tuple[str, str]] = {}
    with LogFile(log) as lines:
        for entry in entries(lines):
            match entry.record.event:
                case e.TokenEmitted() | e.StopMatched() as event:
                    texts[event.sequence] = texts.get(event.sequence, "") + event.text
                case e.SequenceFinished() as event:
                    text = texts.get(event.sequence, "") + event.text
                    found[event.sequence] = event.finish_reason, text
                case _:
                    pass
    return found


async def resume(log: Path) -> None:
    """Resume a session, and let its requests end without readers."""
    async with open_runtime(engine(), log=log, resume=True, **SETTINGS) as runtime:
        await runtime.resumed()


@pytest.fixture(scope="module")
def recorded(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Record a session that nothing interrupts."""
    log = tmp_path_factory.mktemp("resume") / "whole.jsonl"
    trio.run(crowd, log, clock=trio.testing.MockClock(autojump_threshold=0))
    return log


@pytest.fixture
def whole(recorded: Path, tmp_path: Path, autojump_clock: trio.testing.MockClock) -> Path:
    """Give a copy of the log of a session that nothing interrupted."""
    del autojump_clock
    for path in recorded.parent.iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    return tmp_path / "whole.jsonl"


def cut(whole: Path, length: int) -> Path:
    """Return a copy of a log, with its rows, that ends after ``length`` bytes."""
    path = whole.with_name("cut.jsonl")
    for old in whole.parent.glob("cut.jsonl*"):
        old.unlink()
    path.write_bytes(whole.read_bytes()[:length])
    rows = whole.with_name("whole.jsonl.rows")
    path.with_name("cut.jsonl.rows").write_bytes(rows.read_bytes())
    return path


@pytest.mark.parametrize("stride", [pytest.param(3, marks=pytest.mark.long), 31])
async def test_a_session_goes_on_from_wherever_it_was_cut(whole: Path, stride: int) -> None:
    """After each record, and in the middle of a line, what goes on has the texts of the uninterrupted session."""
    expected = texts_of(whole)
    with LogFile(whole) as log:
        lines = list(log)
    tokenized = next(
        i for i, line in enumerate(lines) if b'"PromptTokenized"' in line.body and b'"sequence":4,' in line.body
    )
    for line in lines[1:-1:stride]:
        torn = 7 if line.number % 2 else 0
        path = cut(whole, line.offset + torn)
        received = sum(1 for one in lines[: line.number - 1] if b'"RequestReceived"' in one.body)
        await resume(path)
        found = texts_of(path)
        assert set(range(1, received + 1)) == set(found)
        for number, (finish_reason, text) in found.items():
            if number == ROWS and line.number <= tokenized + 1:
                assert "error" == finish_reason  # Its rows were never recorded.
            elif expected[number][0] != "cancelled":  # Nobody leaves after the process died.
                assert expected[number] == (finish_reason, text), f"cut before record {line.number - 1}"
        assert "same" == replay_log(path).verdict
        assert () == check_log(path).violations


async def test_lines_stay_short(whole: Path) -> None:
    """A request after the crash leaves out the same options as one before it."""
    with LogFile(whole) as log:
        path = cut(whole, list(log)[40].offset)
    async with open_runtime(engine(), log=path, resume=True, **SETTINGS) as runtime:
        await runtime.complete("one more", seed=7, num_predict=1)
    with LogFile(path) as log:
        first, *_, last = (set(loads(line.body)["options"]) for line in log if b'"RequestReceived"' in line.body)
    assert first == last == {"seed", "num_predict"}


async def test_what_was_cut_is_kept(whole: Path) -> None:
    """The bytes of a write that did not finish are in a file beside the log; a second crash adds to it."""
    with LogFile(whole) as log:
        lines = list(log)
    path = cut(whole, lines[40].offset + 9)
    await resume(path)
    torn = path.with_name("cut.jsonl.torn")
    assert whole.read_bytes()[lines[40].offset :][:9] == torn.read_bytes()


async def test_resuming_twice_is_the_same_as_once(whole: Path) -> None:
    """A process that dies while it resumes, or soon after, changes nothing: the next one goes on."""
    expected = texts_of(whole)
    with LogFile(whole) as log:
        offsets = [line.offset for line in log]
    path = cut(whole, offsets[60])
    first = path.read_bytes()
    await resume(path)
    again = path.read_bytes()
    assert first == again[: len(first)]
    for more in (1, 2, 3, 9, 20):
        with LogFile(path) as log:
            end = [line.offset for line in log if line.offset >= len(first)][more]
        path.write_bytes(again[:end])
        await resume(path)
        found = texts_of(path)
        assert {number: expected[number] for number in found if expected[number][0] != "cancelled"} == {
            number: one for number, one in found.items() if expected[number][0] != "cancelled"
        }
        assert "same" == replay_log(path).verdict
        path.write_bytes(again)


async def test_a_caller_reads_on_where_it_was(whole: Path) -> None:
    """A caller gets first what was emitted from its token on, and then the rest, also of a request that has ended."""
    expected = texts_of(whole)
    with LogFile(whole) as log:
        offset = next(line.offset for line in log if b'"SequenceFinished"' in line.body)
        offset = [line.offset for line in log if line.offset > offset][2]
    path = cut(whole, offset)
    async with open_runtime(engine(), log=path, resume=True, **SETTINGS) as runtime:
        for number, name in ((1, "at 0"), (2, "at 0.02"), (3, 3)):
            async with runtime.resume(name) as stream:
                chunks = [chunk async for chunk in stream]
            assert expected[number] == (stream.completion.finish_reason, "".join(chunk.text for chunk in chunks))
            assert expected[number][1] == stream.completion.text
        with pytest.raises(InvalidRequest, match="waits for a reader"):
            async with runtime.resume("at 0"):
                pass


async def test_a_caller_names_the_tokens_that_it_has(tmp_path: Path, autojump_clock: trio.testing.MockClock) -> None:
    """A stream begins at a chunk of its tokens, and a count within a chunk is refused with the nearest ones."""
    del autojump_clock
    path = tmp_path / "cut.jsonl"
    script = ScriptedEngine(["a", "b", "<", "/", "c", "d"])
    async with open_runtime(script, log=tmp_path / "whole.jsonl", **SETTINGS) as runtime:
        await runtime.complete("hi", stop=["</s>"], request_id="me")
    with LogFile(tmp_path / "whole.jsonl") as log:
        end = next(line.offset for line in log if b'"SequenceFinished"' in line.body)
    raw = (tmp_path / "whole.jsonl").read_bytes()[:end]
    for from_token, text in ((0, "ab</cd"), (2, "</cd"), (5, "d")):
        path.write_bytes(raw)
        async with open_runtime(
            ScriptedEngine(["a", "b", "<", "/", "c", "d"]), log=path, resume=True, **SETTINGS
        ) as go_on:
            with pytest.raises(InvalidRequest, match=r"no chunk begins with token 3: give 2 or 5"):
                async with go_on.resume("me", from_token=3):
                    pass
            async with go_on.resume("me", from_token=from_token) as stream:
                assert text == "".join([chunk.text async for chunk in stream])


@pytest.mark.parametrize(
    ("settings", "field"),
    [({"n_slots": 3}, "n_slots"), ({"n_ctx": 32}, "n_ctx"), ({"max_pause": None}, "max_pause")],
)
async def test_a_session_is_resumed_with_its_settings(whole: Path, settings: dict[str, Any], field: str) -> None:
    """A setting that differs is refused by its name, and the log is as it was."""
    path = cut(whole, len(whole.read_bytes()) // 2)
    with pytest.raises(InvalidRequest, match=rf"{field}: the session was opened with"):
        async with open_runtime(engine(), log=path, resume=True, **{**SETTINGS, **settings}):
            pass
    await resume(path)


async def test_a_session_that_was_closed_is_not_resumed(whole: Path) -> None:
    """A closed log is refused, and nothing of it changes."""
    before = whole.read_bytes()
    with pytest.raises(LogNotComparable, match="its session was closed"):
        await resume(whole)
    assert before == whole.read_bytes()


async def test_a_damaged_log_is_not_resumed(whole: Path) -> None:
    """A corrupt line is no torn end: nothing is cut for it."""
    raw = bytearray(whole.read_bytes())
    raw[len(raw) // 2] ^= 1
    path = cut(whole, 0)
    path.write_bytes(raw)
    with pytest.raises(LogCorrupt):
        await resume(path)
    assert bytes(raw) == path.read_bytes()


async def test_a_log_has_one_writer(whole: Path) -> None:
    """A log that another session writes is not resumed."""
    path = cut(whole, len(whole.read_bytes()) // 2)
    async with open_runtime(engine(), log=path, resume=True, **SETTINGS):
        with pytest.raises(FileExistsError, match="another session is writing it"):
            await resume(path)


async def test_without_a_log_a_session_is_opened(tmp_path: Path) -> None:
    """A service may always ask to resume: where there is no log yet, a session begins."""
    path = tmp_path / "new.jsonl"
    await resume(path)
    assert "same" == replay_log(path).verdict
    with pytest.raises(InvalidRequest, match="resume: "):
        async with open_runtime(engine(), resume=True):
            pass
    assert issubclass(InvalidRequest, ReenactError)


@pytest.mark.parametrize("stride", [pytest.param(31, marks=pytest.mark.long), 397])
async def test_a_compressed_session_goes_on_from_wherever_it_was_cut(whole: Path, stride: int) -> None:
    """After each byte, what goes on has the texts of the uninterrupted session, in a file that zstd reads."""
    expected = texts_of(whole)
    path = whole.with_name("cut.jsonl.zst")
    journal, first = Journal(path), 0
    with LogFile(whole) as log:
        for fact in facts_in(list(entries(log))):
            journal.append([entry.record for entry in fact], fact[0].t)
            first = first or journal.n_bytes
    journal.close()
    data = path.read_bytes()
    rows = whole.with_name("whole.jsonl.rows").read_bytes()
    for length in range(first, len(data) - 40, stride):
        for old in path.parent.glob("cut.jsonl.zst*"):
            old.unlink()
        path.write_bytes(data[:length])
        path.with_name("cut.jsonl.zst.rows").write_bytes(rows)
        await resume(path)
        for number, (finish_reason, text) in texts_of(path).items():
            if finish_reason != "error" and expected[number][0] != "cancelled":
                assert expected[number] == (finish_reason, text), f"cut after {length} bytes"
        assert "same" == replay_log(path).verdict
        printed = ZstdDecompressor().stream_reader(path.read_bytes(), read_across_frames=True).read()
        with LogFile(path) as log:
            assert [line.body[:-1] for line in log] == [line.rpartition(b',"crc"')[0] for line in printed.splitlines()]
            assert log.n_bytes == path.stat().st_size


def facts_in(whole: list[Entry]) -> list[list[Entry]]:
    """Return the records of a log, those of each fact together."""
    begins = [entry.record.n for entry in whole if entry.record.cause is None]
    return [whole[begin:end] for begin, end in pairwise([*begins, len(whole)])]
