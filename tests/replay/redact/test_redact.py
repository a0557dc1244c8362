"""Redacted logs: they replay the same, tell nothing of the texts, and say why nothing of them can be computed."""

import json
import re
import stat
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any, Final

import pytest
import trio
from trio.testing import MockClock
from zstandard import ZstdDecompressor

from reenact.actors import events as e
from reenact.actors.errors import InvalidRequest, LogCorrupt, LogNotComparable
from reenact.actors.inputs import Input, Row
from reenact.replay import check_log, compute_log, replay_log
from reenact.replay.cli.main import main
from reenact.replay.extract.extract import extract_log
from reenact.replay.fork.fork import Opened, fork, fork_log
from reenact.replay.redact.redact import redact_log, secret_of
from reenact.replay.shrink.shrink import shrink_log
from reenact.runtime import ScriptedEngine, open_runtime
from reenact.runtime.log.rows import rows_path
from tests.helpers.paths import GOLDEN
from tests.helpers.properties import FRESH_SEED
from tests.helpers.re_execution import settings_of
from tests.helpers.sessions import read_fields
from tests.replay import logs
from tests.simulation.world import run

SECRET: Final = b"a secret of the tests"

RUN: Final = 3
"""So many ids one after the other are no accident."""

LONG: Final = 6
"""So many characters one after the other are no accident."""


OWN_WORDS: Final = ("type", "actor", "finish_reason", "kind", "reason", "error", "failed")
"""Fields whose words are the log's own; that messages are left out is tested with the decisions."""

HASHED_WORD: Final = re.compile(r"\b(prompt|id|grammar|format)-[0-9a-f]{16}\b")
"""The stand-in for a text that no decision looks at."""


def redacted(log: Path, out: Path, **asked: Any) -> list[e.Event]:
    """Redact a log, check that it replays the same and keeps all rules, and return its events."""
    redact_log(log, out=out, **asked)
    replay_log(out).raise_for_divergence()
    check_log(out).raise_for_violation()
    return [entry.record.event for entry in logs.read(out)]


def events_of(log: Path) -> list[e.Event]:
    """Return the events of a log."""
    return [entry.record.event for entry in logs.read(log)]


def texts_in(log: Path) -> set[str]:
    """Return every text of a log that somebody wrote or a model said, and that is long enough to be known again."""
    found: set[str | None] = set()
    said: dict[int, str] = {}
    for event in events_of(log):
        match event:
            case e.RequestReceived() | e.SequenceForked():
                options = event.options
                found |= {*options.stop, options.grammar, options.format}
                if isinstance(event, e.RequestReceived):
                    found |= {event.prompt, *event.prompt.split(), event.request_id, event.traceparent}
            case e.PromptTokenized():
                found.add(event.grammar)
            case e.TokenEmitted() | e.StopMatched() | e.SequenceFinished():
                said[event.sequence] = said.get(event.sequence, "") + event.text
            case e.BatchDecoded():
                found |= {sample.piece.decode(errors="replace") for sample in event.samples}
                found |= {one.piece.decode(errors="replace") for sample in event.samples for one in sample.top}
                found |= {sample.reason for sample in event.samples}
            case e.TokenizeFailed() | e.EngineFailed():
                found.add(event.error)
            case e.RequestRefused():
                found |= {event.request_id, event.failure.reason}
            case _:
                pass
    for text in said.values():
        found |= {text, *text.split()}
    return {text for text in found if text is not None and len(text) >= LONG} - {"length"}


def inputs_in(events: list[e.Event]) -> list[tuple[Input, ...]]:
    """Return all lists of inputs of a log, and what each sequence drew."""
    drawn: dict[int, list[Input]] = {}
    lists = [event.inputs for event in events if isinstance(event, e.PromptTokenized | e.InputQueued)]
    for event in events:
        if isinstance(event, e.BatchPlanned):
            lists += [part.inputs for part in event.parts]
        if isinstance(event, e.BatchDecoded):
            for sample in event.samples:
                drawn.setdefault(sample.sequence, []).append(sample.token)
    return lists + [tuple(some) for some in drawn.values()]


def runs_in(events: list[e.Event]) -> set[tuple[Input, ...]]:
    """Return all runs of inputs that are long enough to be known again; failed draws have no token."""
    runs = {some[i : i + RUN] for some in inputs_in(events) for i in range(len(some) - RUN + 1)}
    return {some for some in runs if any(one != -1 for one in some)}


def strings_in(value: object) -> Iterator[str]:
    """Return all strings in a plain value, but for the names of its fields, and the words of the log itself."""
    match value:
        case str():
            yield value
        case dict():
            for name, inner in value.items():
                if name not in OWN_WORDS:
                    yield from strings_in(inner)
        case list():
            for inner in value:
                yield from strings_in(inner)
        case _:
            pass


def tells_nothing(log: Path, out: Path) -> None:
    """Check that no text, run of inputs, row, checksum, probability or vector of a log is in a redacted one."""
    text = "\n".join(strings_in(read_fields(out)[1:]))
    before, after = events_of(log), events_of(out)
    assert [] == [one for one in texts_in(log) if one in HASHED_WORD.sub("", text)]
    assert set() == runs_in(before) & runs_in(after)
    rows = {one for some in inputs_in(before) for one in some if isinstance(one, Row)}
    assert [] == [row for row in rows if row.digest in text]
    for event in after:
        if isinstance(event, e.BatchDecoded):
            assert all((None, None, ()) == (one.logits_crc32, one.logprob, one.top) for one in event.samples)
            assert all({0.0, 1.0} >= set(one.values) and one.crc32 == 0 for one in event.vectors)
    assert not rows_path(out).exists()


# ---------------------------------------------------------------- any session


@pytest.mark.parametrize("golden", sorted(GOLDEN.glob("*.jsonl")), ids=lambda path: path.stem)
def test_a_golden_log(golden: Path, small: Path) -> None:
    """A log of a real model replays the same redacted, and tells nothing of its texts."""
    redacted(golden, small, secret=SECRET)
    tells_nothing(golden, small)


def test_an_eventful_session(eventful: Path, small: Path) -> None:
    """So does a session in which nearly everything happens that can."""
    events = redacted(eventful, small, secret=SECRET)
    tells_nothing(eventful, small)
    stops = {event.stop for event in events if isinstance(event, e.StopMatched)}
    assert {4} == {len(stop) for stop in stops}
    assert stops <= {stop for event in events if isinstance(event, e.RequestReceived) for stop in event.options.stop}


@pytest.mark.parametrize(
    "seed", [3, 4, *(pytest.param(seed, marks=pytest.mark.long) for seed in (0, 1, 2, FRESH_SEED))]
)
def test_a_simulated_session(tmp_path: Path, seed: int) -> None:
    """So does a simulated session, with faults, forks, shifts and rows."""
    log, out = tmp_path / "log.jsonl", tmp_path / "out.jsonl"
    run(seed, 60, log)
    redacted(log, out, secret=SECRET)
    before, after = events_of(log), events_of(out)
    assert set() == runs_in(before) & runs_in(after)
    names = [event.request_id for event in before if isinstance(event, e.RequestReceived)]
    prompts = [event.prompt for event in before if isinstance(event, e.RequestReceived) and len(event.prompt) >= LONG]
    text = out.read_text()
    assert [] == [one for one in (*names, *prompts) if json.dumps(one)[1:-1] in text]


MARKS: Final = ("zebra", "plover", "quince", "walrus")


async def record_marked(log: Path) -> None:
    """Record a session in which each text that a caller or the model makes has a word of its own."""
    scripts: dict[str, Any] = {
        f"tell me of a {mark}": [f" {mark}ish", f" {mark}hood", f" {mark}dom<", "/s", ">"] for mark in MARKS
    }
    engine = ScriptedEngine(scripts)
    async with open_runtime(engine, log=log, n_slots=2, n_ctx=64) as runtime, trio.open_nursery() as nursery:
        for mark in MARKS:
            ask = partial(runtime.complete, f"tell me of a {mark}", request_id=f"my-{mark}", stop=["</s>", f"{mark}!"])
            nursery.start_soon(partial(ask, logprobs=True, top_logprobs=2, seed=7))


def test_no_word_is_left(tmp_path: Path) -> None:
    """No word of a prompt, a text, a name or a stop string is left, plain or compressed."""
    log, plain, packed = (tmp_path / name for name in ("log.jsonl", "plain.jsonl", "packed.jsonl.zst"))
    trio.run(record_marked, log, clock=MockClock(autojump_threshold=0))
    redacted(log, plain)
    redacted(log, packed)
    redacted(packed, tmp_path / "again.jsonl")
    for data in (plain.read_bytes(), ZstdDecompressor().decompressobj().decompress(packed.read_bytes())):
        assert [] == [mark for mark in (*MARKS, "</s>") if mark.encode() in data]


# ---------------------------------------------------------------- what stays


def test_equal_beginnings_stay_equal(path: Path, small: Path) -> None:
    """Prompts begin alike for as many inputs as before; behind that, and in other prompts, equal tokens are not."""
    session = logs.Session(path, n_slots=3)
    for inputs in ((1, 2, 3, 4), (1, 2, 5, 4), (9, 2, 3, 4)):
        session.request(inputs=inputs, num_predict=1)
        session.decode()
    session.close()
    redacted(path, small)
    first, second, third = (event.inputs for event in events_of(small) if isinstance(event, e.PromptTokenized))
    assert first[:2] == second[:2]
    assert 10 == len({*first, *second[2:], *third})


def test_shifts_may_need_equal_ids(path: Path, small: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Where a prompt reuses what is behind a gap, equal tokens get equal ids everywhere, and the command prints so."""
    session = logs.Session(path, n_slots=1, n_ctx=8, n_batch=8)
    session.request(inputs=(1, 2, 3, 4), num_keep=1, num_predict=12)
    while session.kernel.live:
        session.decode()
    batcher = session.kernel.state.batcher
    assert batcher is not None
    cells = batcher.slots[0].cells[:]
    session.request(inputs=(*cells[:5], 77), num_predict=1)
    session.decode()
    session.close()
    assert any(isinstance(event, e.SlotAssigned) and event.reused == 5 for event in events_of(path))
    assert 0 == main(["redact", str(path), "-o", str(small)])
    assert "equal tokens have equal ids everywhere" in capsys.readouterr().out
    events = events_of(small)
    assert any(isinstance(event, e.SlotAssigned) and event.reused == 5 for event in events)
    assert set() == runs_in(events_of(path)) & runs_in(events)


def test_the_header_is_marked(path: Path, small: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The header says that it is redacted, and keeps the session, the model and the machine."""
    logs.short(path)
    header = redacted(path, small)[0]
    assert isinstance(header, e.SessionOpened)
    assert header.redacted
    before = events_of(path)[0]
    assert isinstance(before, e.SessionOpened)
    assert (before.session, before.model, before.engine) == (header.session, header.model, header.engine)
    assert 0 == main(["show", str(small), "0"])
    assert "redacted  true" in capsys.readouterr().out
    assert b"redacted" not in path.read_bytes()


def test_it_needs_no_rows(tmp_path: Path) -> None:
    """Rows of numbers have other digests, there is no file of them, and their lack is no remark."""
    log, out = tmp_path / "log.jsonl", tmp_path / "out.jsonl"

    async def record() -> None:
        async with open_runtime(ScriptedEngine(["a", "b"]), log=log, n_slots=1, n_ctx=64) as runtime:
            for _ in range(2):
                await runtime.complete(["one", (0.5, 1), (1, 2), "two"], num_predict=2)

    trio.run(record)
    redacted(log, out)
    tells_nothing(log, out)
    assert () == replay_log(out).notes
    extracted = tmp_path / "extracted.jsonl"
    extract_log(out, "1", out=extracted)
    header = events_of(extracted)[0]
    assert isinstance(header, e.SessionOpened)
    assert header.redacted


def test_a_session_of_two_processes(tmp_path: Path) -> None:
    """A session that was resumed stays one."""
    log, out = tmp_path / "log.jsonl", tmp_path / "out.jsonl"

    async def live(*, resume: bool) -> None:
        engine = ScriptedEngine(draws_from="history")
        async with open_runtime(engine, log=log, resume=resume, n_slots=2, n_ctx=24) as runtime:
            if resume:
                await runtime.resumed()
                return
            await runtime.complete("a prompt", seed=7, num_predict=200)

    trio.run(partial(live, resume=False))
    lines = log.read_bytes().splitlines(keepends=True)
    log.write_bytes(b"".join(lines[: len(lines) // 2]) + b'{"n"')
    trio.run(partial(live, resume=True))
    events = redacted(log, out)
    assert 1 == sum(isinstance(event, e.SessionResumed) for event in events)


def test_a_fork_with_other_stop_strings(path: Path, tmp_path: Path) -> None:
    """A text goes on with the stop strings of a fork, held back and cut where it was."""
    session = logs.Session(path)
    session.request("one", stop=("END",))
    session.decode({1: b"fine E"})
    session.decode({1: b"xy"})
    session.journal.close()
    child, out = tmp_path / "child.jsonl", tmp_path / "out.jsonl"
    plays = ScriptedEngine(["never", "never", " finish", " xENDx E", "xy ST", "OP"])
    fork(
        path,
        len(logs.read(path)),
        out=child,
        open_engine=lambda header: Opened(engine=plays, loaded=plays.load(settings_of(header))),
        changes={"stop": ("STOP", "x E")},
    )
    before, after = events_of(child), redacted(child, out, secret=SECRET)
    stops = [[event.stop for event in events if isinstance(event, e.StopMatched)] for events in (before, after)]
    assert [len(stop) for stop in stops[0]] == [len(stop) for stop in stops[1]] == [len(stops[0][0])]
    forks = [event.options.stop for event in after if isinstance(event, e.SequenceForked)]
    assert stops[1][0] in forks[0]
    tells_nothing(child, out)


def test_a_log_that_breaks_off(path: Path, small: Path) -> None:
    """What a write left unfinished is decided now, and the session is not closed."""
    logs.crashed(path)
    path.write_bytes(b"".join(path.read_bytes().splitlines(keepends=True)[:-1]))
    events = redacted(path, small)
    assert len(events_of(path)) + 1 == len(events)
    assert ["same up to record"] == [note[:17] for note in replay_log(small).notes]


def test_a_last_fact_that_the_actors_cannot_take(path: Path, small: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The fact that ended a session ends the redacted one, so that such a bug can be reported."""
    session = logs.Session(path)
    session.request("secret words")
    wrong = e.BatchDecoded(batch=7, code=0, positions=())
    session.journal.append([e.Record(len(logs.read(path)), wrong, None)], session.t)
    session.journal.close()
    assert 0 == main(["redact", str(path), "-o", str(small)])
    assert "its last fact is one that the actors cannot take, as in the log" in capsys.readouterr().out
    divergences = [replay_log(one).first_divergence for one in (path, small)]
    assert divergences[0] is not None
    assert divergences[0].note == getattr(divergences[1], "note", None)


def test_a_shrunk_log_stays_redacted(path: Path, small: Path) -> None:
    """What is made of a redacted log without a model is marked like it."""
    logs.short(path)
    n = next(entry.record.n for entry in logs.read(path) if isinstance(entry.record.event, e.StopMatched))
    redact_log(path, out=small)
    logs.rewritten(small, n + 1, b'"text":""', b'"text":"x"')
    smaller = small.with_name("smaller.jsonl")
    shrink_log(small, out=smaller, diverges=True)
    header = events_of(smaller)[0]
    assert isinstance(header, e.SessionOpened)
    assert header.redacted


# ---------------------------------------------------------------- the key


def test_a_key_file_gives_equal_hashes(path: Path, tmp_path: Path) -> None:
    """With one secret two redactions are equal byte by byte; with another, or a random one, no hash is."""
    logs.short(path)
    outs = [tmp_path / f"{number}.jsonl" for number in range(5)]
    for out, secret in zip(outs, (SECRET, SECRET, b"another secret of tests", None, None), strict=True):
        redact_log(path, out=out, secret=secret)
    data = [out.read_bytes() for out in outs]
    assert data[0] == data[1]
    assert 4 == len(set(data))
    prompts = [{one.prompt for one in events_of(out) if isinstance(one, e.RequestReceived)} for out in outs[1:]]
    assert 8 == len(set().union(*prompts))


def test_the_key_is_in_no_log(path: Path, small: Path) -> None:
    """Neither the secret nor what is made of it is written, and only the owner can read the new log."""
    redact_log(logs.short(path), out=small, secret=SECRET)
    assert SECRET.decode() not in small.read_text()
    assert 0o600 == stat.S_IMODE(small.stat().st_mode)


def test_a_secret_that_is_too_short(path: Path, small: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A file with fewer than 16 bytes is refused, with the cure, and nothing is written."""
    logs.short(path)
    key = path.with_name("key")
    key.write_bytes(b"short")
    with pytest.raises(InvalidRequest, match="expected 16 to"):
        secret_of(key)
    assert 2 == main(["redact", str(path), "-o", str(small), "--key-file", str(key)])
    assert "replay: --key-file: " in capsys.readouterr().err
    assert not small.exists()
    key.write_bytes(SECRET)
    assert 0 == main(["redact", str(path), "-o", str(small), "--key-file", str(key)])


# ---------------------------------------------------------------- what is refused


def test_a_log_that_other_actors_wrote(path: Path, small: Path) -> None:
    """A record that today's actors decide otherwise is named with its field, and no file is left."""
    logs.short(path)
    n = next(entry.record.n for entry in logs.read(path) if isinstance(entry.record.event, e.StopMatched))
    logs.rewritten(path, n + 1, b'"text":""', b'"text":"x"')
    with pytest.raises(LogNotComparable, match=f"record {n} differs once texts are redacted: StopMatched.text is ano"):
        redact_log(path, out=small)
    assert not small.exists()


def test_a_corrupt_log(path: Path, small: Path) -> None:
    """A corrupt line is named, and no file is left."""
    logs.flipped(logs.short(path), 20)
    with pytest.raises(LogCorrupt, match="line 20, "):
        redact_log(path, out=small)
    assert not small.exists()


@pytest.mark.parametrize("error", [KeyboardInterrupt, OSError])
def test_what_fails_midway_leaves_no_file(path: Path, small: Path, error: type[BaseException]) -> None:
    """Whatever ends a redaction before it is done, Ctrl-C among it, what was written is removed."""

    def fail(doing: str, _fraction: float) -> None:
        if doing == "replaying the new log":
            assert small.stat().st_size
            raise error

    logs.short(path)
    with pytest.raises(error):
        redact_log(path, out=small, on_progress=fail)
    assert [path] == list(path.parent.iterdir())


def test_it_cannot_be_computed(small: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """An execution, a fork and a resumption of a redacted log say why they cannot be, before a model is looked for."""
    redact_log(GOLDEN / "company.jsonl", out=small)
    why = "its texts and tokens were replaced (replay redact), so nothing of it can be computed"
    verdict = compute_log(small)
    assert "not comparable" == verdict.verdict
    assert why in verdict.notes[0]
    assert 4 == main(["run", str(small), "--compute", "--only", "1"])
    assert why in capsys.readouterr().out
    with pytest.raises(LogNotComparable, match="its texts and tokens were replaced"):
        fork_log(small, 20, out=tmp_path / "child.jsonl")
    unclosed = tmp_path / "unclosed.jsonl"
    unclosed.write_bytes(b"".join(small.read_bytes().splitlines(keepends=True)[:-1]))

    async def resume() -> None:
        async with open_runtime(ScriptedEngine(["a"]), log=unclosed, resume=True):
            pass

    with pytest.raises(LogNotComparable, match="its texts and tokens were replaced"):
        trio.run(resume)


# ---------------------------------------------------------------- the command


def test_the_command(path: Path, small: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The command prints what it replaced, and how to run it; with --json, one object."""
    logs.short(path)
    n = len(logs.read(path))
    assert 0 == main(["redact", str(path), "-o", str(small)])
    out, err = capsys.readouterr()
    assert "" == err
    head = f"redacted: {small}: 2 prompts and 6 tokens replaced; {n} records of session 5e55"
    assert [head, f"  replay run {small}"] == out.splitlines()
    small.unlink()
    assert 0 == main(["redact", str(path), "-o", str(small), "--json"])
    expected = {"log": str(small), "session": "5e55", "records": n, "prompts": 2, "tokens": 6}
    assert {**expected, "by_token": False, "refused": False} == json.loads(capsys.readouterr().out)


def test_the_command_overwrites_nothing(path: Path, small: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A file that exists stays as it is."""
    logs.short(path)
    small.write_text("mine")
    assert 2 == main(["redact", str(path), "-o", str(small)])
    assert f"replay: {small}: File exists" in capsys.readouterr().err
    assert "mine" == small.read_text()
