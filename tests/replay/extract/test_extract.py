"""One request of a log, alone in a log of its own: what it keeps, what it must not keep, and what is refused."""

import json
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any, Final

import pytest
import trio
from attrs import evolve as changed
from trio.testing import MockClock
from zstandard import ZstdDecompressor

from reenact.actors import events as e
from reenact.actors.errors import LogCorrupt, LogNotComparable
from reenact.actors.header import Parent
from reenact.actors.routing import sequences_of
from reenact.replay import check_log, replay_log
from reenact.replay.cli.main import main
from reenact.replay.extract.extract import extract_log
from reenact.replay.fold import NotInLog
from reenact.replay.fork.fork import Opened, fork
from reenact.replay.look.texts import SequenceText, texts_of
from reenact.runtime import ScriptedEngine, open_runtime
from reenact.runtime.engine.protocol import refused as refused_batch
from reenact.runtime.log.reader import LogFile
from reenact.runtime.log.rows import rows_path
from tests.helpers.properties import FRESH_SEED
from tests.helpers.re_execution import executed, made_up_for, n_differ, settings_of
from tests.replay import logs
from tests.simulation.world import run

PROMPTS: Final = (
    "the plum orchard",
    "the plum orchard and the well",
    "a quiet walnut",
    "seven grey herons, and a boat that leaks",
    "copper kettle",
    "the old ferry",
)
"""No word that matters is in two of them, but for the first two, of which one reuses the other's beginning."""

MARKS: Final = ("orchard", "well", "walnut", "herons", "kettle", "ferry")
"""A word of each of them that is in no other."""


async def crowd(log: Path, engine: ScriptedEngine) -> None:
    """Record requests that reuse, fork, shift, wait, preempt, pause, yield, expire, and are left."""
    async with (
        open_runtime(
            engine, log=log, n_slots=2, n_ctx=48, n_batch=8, max_reader_lag=3, max_pause=0.5, determinism="auto"
        ) as runtime,
        trio.open_nursery() as nursery,
    ):

        async def ask(number: int, at: float, *, pause: float = 0, left_at: int = 0, **options: Any) -> None:
            await trio.sleep(at)
            name = f"caller-{MARKS[number]}"
            prompt: Any = PROMPTS[number] if number != 4 else [PROMPTS[4], [1.0, 2.0], [3.0, 4.0]]
            asked = {"num_predict": 60, **options}
            async with runtime.stream(prompt, request_id=name, seed=7, **asked) as stream:
                n_read = 0
                async for _ in stream:
                    n_read += 1
                    if n_read == left_at:
                        return
                    await trio.sleep(pause)

        for number, at, options in (
            (0, 0, {"num_predict": 20}),
            (1, 0.05, {"pause": 0.2, "num_predict": 30}),
            (2, 0.1, {"priority": 1, "stop": ["a"]}),
            (3, 0.2, {"deadline": 0.4}),
            (4, 0.3, {"priority": 2, "num_predict": 9}),
            (5, 0.4, {"left_at": 2}),
        ):
            nursery.start_soon(partial(ask, number, at, **options))


@pytest.fixture(scope="module")
def crowded(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Record the crowd, once."""
    path = tmp_path_factory.mktemp("crowd") / "crowd.jsonl"
    engine = ScriptedEngine(draws_from="history", batch_seconds=0.01)
    trio.run(crowd, path, engine, clock=MockClock(autojump_threshold=0))
    return path


def told(path: Path) -> list[SequenceText]:
    """Return the texts of a log."""
    with LogFile(path) as log:
        return texts_of(log)[0].all()


def events_of(path: Path, *kinds: type[e.Event]) -> list[Any]:
    """Return the events of some kinds."""
    return [entry.record.event for entry in logs.read(path) if isinstance(entry.record.event, kinds)]


def draws_of(path: Path, sequence: int) -> list[e.Sample]:
    """Return the draws of a sequence, as they are without its number."""
    decoded = events_of(path, e.BatchDecoded)
    samples = [sample for event in decoded for sample in event.samples if sample.sequence == sequence]
    return [changed(sample, sequence=0) for sample in samples]


def same_as_in(parent: Path, number: int, child: Path) -> None:
    """Check that a log has this request of another one and replays."""
    replay_log(child).raise_for_divergence()
    check_log(child).raise_for_violation()
    before = next(one for one in told(parent) if one.request.sequence == number)
    (after,) = told(child)
    assert changed(before.request, sequence=1, continues=None) == after.request
    assert (before.text, before.embedding) == (after.text, after.embedding)
    assert draws_of(parent, number) == draws_of(child, 1)
    ends = [None if one.end is None else changed(one.end, sequence=1) for one in (before, after)]
    assert ends[0] == ends[1]


# ---------------------------------------------------------------- any request of any session


@pytest.mark.parametrize("number", range(1, 7))
def test_each_request_of_a_crowd(crowded: Path, tmp_path: Path, number: int) -> None:
    """Whatever happened to a request, it has its text, tokens, end and times alone, and every row comes out again."""
    out = tmp_path / "new.jsonl"
    extract_log(crowded, str(number), out=out)
    same_as_in(crowded, number, out)
    assert 0 == n_differ(executed(out, ScriptedEngine(draws_from="history")))
    times = [
        [entry.t for entry in logs.read(path) if isinstance(entry.record.event, e.TokenEmitted) and _of(entry, which)]
        for path, which in ((crowded, number), (out, 1))
    ]
    assert times[0] == times[1]


def _of(entry: Any, number: int) -> bool:
    return bool(entry.record.event.sequence == number)


def test_much_befell_the_crowd(crowded: Path) -> None:
    """Among what befell these requests is all that depends on others."""
    kinds = {type(entry.record.event).__name__ for entry in logs.read(crowded)}
    expected = {"SequencePreempted", "SlotYielded", "ContextShifted", "StopMatched", "DeadlineExpired"}
    assert expected | {"CancelRequested", "SequencePaused"} <= kinds
    assert any(event.reused for event in events_of(crowded, e.SlotAssigned))


@pytest.mark.parametrize("ending", ["jsonl", "jsonl.zst"])
@pytest.mark.parametrize("number", range(1, 7))
def test_nothing_of_the_others_is_kept(crowded: Path, tmp_path: Path, number: int, ending: str) -> None:
    """No word, name or text of another request is in the new log, compressed or not, and its own are."""
    out = tmp_path / f"new.{ending}"
    extract_log(crowded, str(number), out=out)
    data = out.read_bytes()
    if ending.endswith("zst"):
        data = ZstdDecompressor().decompressobj().decompress(data)
    text = data.decode()
    texts = told(crowded)
    own = texts[number - 1]
    if own.text:
        assert own.text in "".join(one.text for one in told(out))
    for one, mark in zip(texts, MARKS, strict=True):
        if one is own:
            assert f"caller-{mark}" in text
            continue
        assert f"caller-{mark}" not in text
        assert mark not in text or mark in own.request.prompt
        assert len(one.text) < 8 or one.text not in own.text


@pytest.mark.parametrize("seed", [3, *(pytest.param(seed, marks=pytest.mark.long) for seed in (*range(3), FRESH_SEED))])
def test_any_request_of_a_simulated_session(tmp_path: Path, seed: int) -> None:
    """A request of a simulated session replays alone with its text, tokens and end, unless it was turned away."""
    log = tmp_path / "log.jsonl"
    run(seed, 60, log)
    header = logs.read(log)[0].record.event
    assert isinstance(header, e.SessionOpened)
    names = [json.dumps(one.request.request_id) for one in told(log)]
    n_extracted = 0
    for one, name in zip(told(log), names, strict=True):
        number = one.request.sequence
        out = tmp_path / f"{number}.jsonl"
        failed = one.end and one.end.error
        if header.determinism.policy == "recorded-schedule" or (failed and failed.kind == "overloaded"):
            refused(
                log, str(number), out, LogNotComparable, "depend on the schedule|turned away for the sake of others"
            )
            continue
        extract_log(log, str(number), out=out)
        n_extracted += 1
        same_as_in(log, number, out)
        assert [name] == [other for other in names if other in out.read_text()]
        if not any(sample.fault for sample in draws_of(out, 1)):
            assert 0 == n_differ(executed(out, made_up_for(out)))
    assert n_extracted or header.determinism.policy == "recorded-schedule"


# ---------------------------------------------------------------- what a log may hold


def extracted(parent: Path, number: int, out: Path) -> None:
    """Extract a request, and check it."""
    extract_log(parent, str(number), out=out)
    same_as_in(parent, number, out)


def test_its_header_names_the_parent(path: Path, small: Path) -> None:
    """The new log has a session of its own, and names the parent's, the records that it was made of, and the number."""
    logs.short(path)
    made = extract_log(path, "2", out=small)
    before, after = (logs.read(one)[0].record.event for one in (path, small))
    assert isinstance(before, e.SessionOpened)
    assert isinstance(after, e.SessionOpened)
    about = [entry.record.n for entry in logs.read(path) if 2 in sequences_of(entry.record.event)]
    decided_by_the_batcher = e.InputQueued | e.SlotAssigned | e.SlotReleased
    while isinstance(logs.read(path)[about[-1]].record.event, decided_by_the_batcher):
        about.pop()
    assert Parent(session="5e55", n=about[-1] + 1, sequences=(2,)) == after.parent
    assert made.session == after.session != before.session
    assert changed(before, session=after.session, parent=after.parent) == after


def test_a_caller_that_leaves_in_a_prefill(path: Path, small: Path) -> None:
    """A prefill that is in flight when the caller leaves is aborted, as far as the log says nothing else."""
    session = logs.Session(path)
    session.request("the others", inputs=16)
    session.request("mine", inputs=12)
    session.decode()
    session.cancel(2)
    session.decode(code=2)
    session.decode()
    session.close()
    extracted(path, 2, small)
    assert [e.ABORTED] == [event.code for event in events_of(small, e.BatchDecoded)][-1:]


def test_a_caller_that_leaves_too_late_for_an_abort(path: Path, small: Path) -> None:
    """A prompt's last batch that came to its end all the same does so alone, and its token is dropped."""
    session = logs.Session(path, n_batch=4)
    session.request("mine", inputs=11)
    session.decode()
    session.decode()
    session.cancel(1)
    session.decode({1: b"a"})
    session.close()
    extracted(path, 1, small)
    assert [0] == [event.index for event in events_of(small, e.TokenDropped)]


def test_a_chat_that_goes_on(path: Path, small: Path) -> None:
    """A turn keeps its prompt and not the number of the turn before, which is in the new log no more."""
    session = logs.Session(path, n_slots=1)
    session.request("Hi", inputs=(1, 2, 3), num_predict=1)
    session.decode()
    session.request("Hi x and on", inputs=(1, 2, 3, 1000, 5), continues=1, num_predict=1)
    session.decode()
    session.close()
    extracted(path, 2, small)
    assert [None] == [event.continues for event in events_of(small, e.RequestReceived)]


def test_several_of_one_name_come_one_after_the_other(path: Path, small: Path) -> None:
    """Their times move on as a whole, so that what each took is as it was."""
    session = logs.Session(path)
    session.request("one", request_id="twice", num_predict=2)
    session.request("two", request_id="twice", num_predict=2)
    session.decode()
    session.decode(after_ms=70)
    session.decode(after_ms=30)
    session.close()
    extract_log(path, "twice", out=small)

    def took(log: Path) -> list[int]:
        spans: dict[int, list[int]] = {}
        for entry in logs.read(log):
            if isinstance(entry.record.event, e.RequestReceived | e.TokenEmitted):
                spans.setdefault(entry.record.event.sequence, []).append(entry.t)
        return [later - earlier for _, times in sorted(spans.items()) for earlier, later in pairwise(times)]

    assert took(path) == took(small)
    check_log(small).raise_for_violation()


def test_a_caller_that_leaves_with_a_token_in_flight(path: Path, small: Path) -> None:
    """The token that was drawn for nobody is drawn for nobody alone, too."""
    session = logs.Session(path, n_slots=1)
    session.request("mine", inputs=1)
    session.decode({1: b"a"})
    session.cancel(1)
    session.decode({1: b"b"})
    session.request("another", inputs=2, num_predict=1)
    session.decode()
    session.close()
    extracted(path, 1, small)
    assert [1] == [event.index for event in events_of(small, e.TokenDropped)]
    assert [] == events_of(small, e.CellsLost)


def test_a_caller_that_leaves_without_a_slot(path: Path, small: Path) -> None:
    """Alone a batch is in flight where none was: it is lost, because the log has no outcome of it."""
    session = logs.Session(path, n_slots=1)
    session.request("mine", inputs=1)
    session.decode({1: b"a"})
    session.request("urgent", inputs=2, priority=1, num_predict=2)
    session.decode({1: b"b"})
    session.cancel(1)
    session.decode()
    session.decode()
    session.close()
    assert [1] == [event.sequence for event in events_of(path, e.SequencePreempted)]
    extracted(path, 1, small)
    assert [e.CellsLost, e.SessionClosed] == [type(entry.record.event) for entry in logs.read(small)[-2:]]


@pytest.mark.parametrize("code", [1, -1, -2])
def test_a_failed_batch(path: Path, small: Path, code: int) -> None:
    """A request whose batch failed ends with the same failure."""
    session = logs.Session(path)
    session.request("other")
    session.request("mine")
    session.decode()
    session.decode(code=code)
    session.close()
    extracted(path, 2, small)


def test_a_batch_that_the_engine_refused(path: Path, small: Path) -> None:
    """A refused batch stays one that changed no cells."""
    session = logs.Session(path)
    session.request("other")
    session.request("mine")
    session.decode()
    assert session.planned is not None
    session.give(refused_batch(session.planned))
    session.close()
    extracted(path, 2, small)
    assert [()] == [event.positions for event in events_of(small, e.BatchDecoded) if event.code]


def test_an_engine_that_failed(path: Path, small: Path) -> None:
    """A request that was live then ends with that, and one that came later is rejected for it."""
    session = logs.Session(path)
    session.request("other")
    session.request("mine")
    session.decode()
    session.give(e.EngineFailed(error="out of order"))
    session.arrive("later")
    session.close()
    extracted(path, 2, small)
    extracted(path, 3, small.with_name("later.jsonl"))


def test_a_prompt_that_could_not_be_tokenized(path: Path, small: Path) -> None:
    """Its request ends as it did."""
    session = logs.Session(path)
    session.request("other")
    session.arrive("mine")
    session.give(e.TokenizeFailed(sequence=2, error="no such token"))
    session.close()
    extracted(path, 2, small)


def test_a_pooled_text(path: Path, small: Path) -> None:
    """A text keeps its vector, and texts of one request are kept together, one after the other."""
    session = logs.Session(path, pooling="mean", alone=False)
    for number in (1, 2, 3):
        session.request(f"text {number}", embedding=True, request_id="one" if number < 3 else None)
    while session.planned is not None:
        session.step()
    session.close()
    extracted(path, 3, small)
    both = small.with_name("both.jsonl")
    made = extract_log(path, "one", out=both)
    assert (1, 2) == made.parent.sequences
    assert ["text 1", "text 2"] == [one.request.prompt for one in told(both)]
    assert [one.embedding for one in told(path)][:2] == [one.embedding for one in told(both)]


def test_a_log_that_breaks_off(path: Path, small: Path) -> None:
    """A request that had not ended has not ended in the new log either; a torn tail is no hindrance."""
    logs.crashed(path)
    path.write_bytes(path.read_bytes() + b'{"n":')
    extracted(path, 2, small)
    assert ["same up to record"] == [note[:17] for note in replay_log(small).notes]


SMALL: Final[dict[str, Any]] = {"n_slots": 2, "n_ctx": 24, "n_batch": 8}


@pytest.fixture
def whole(tmp_path: Path) -> Path:
    """Record a session of two requests."""
    log = tmp_path / "whole.jsonl"

    async def record() -> None:
        engine = ScriptedEngine(draws_from="history")
        async with open_runtime(engine, log=log, **SMALL) as runtime, trio.open_nursery() as nursery:
            for number in (1, 2):
                nursery.start_soon(partial(runtime.complete, f"prompt {number}", seed=7, num_predict=30))

    trio.run(record)
    return log


def cut(whole: Path, log: Path) -> Path:
    """Copy the first half of a log."""
    lines = whole.read_bytes().splitlines(keepends=True)
    log.write_bytes(b"".join(lines[: len(lines) // 2]))
    return log


async def resume(log: Path) -> None:
    """Go on with a session to its end."""
    async with open_runtime(ScriptedEngine(draws_from="history"), log=log, resume=True, **SMALL) as runtime:
        await runtime.resumed()


def test_a_session_of_two_processes(whole: Path, tmp_path: Path) -> None:
    """A request that another process finished is one request, and the new log says that there were two."""
    log = cut(whole, tmp_path / "cut.jsonl")
    trio.run(resume, log)
    for number in (1, 2):
        out = tmp_path / f"{number}.jsonl"
        extracted(log, number, out)
        assert 1 == len(events_of(out, e.SessionResumed))
        assert 0 == n_differ(executed(out, ScriptedEngine(draws_from="history")))
        assert [one.text for one in told(whole)][number - 1] == told(out)[0].text


def test_an_extract_goes_on(whole: Path, tmp_path: Path) -> None:
    """A request that had not ended is resumed from its extract, and ends with the text that it had in company."""
    log, out = cut(whole, tmp_path / "cut.jsonl"), tmp_path / "new.jsonl"
    extracted(log, 2, out)
    assert [None] == [one.end for one in told(out)]
    trio.run(resume, out)
    replay_log(out).raise_for_divergence()
    assert [told(whole)[1].text] == [one.text for one in told(out)]


def test_a_fork(path: Path, tmp_path: Path) -> None:
    """A request of a fork is kept with the options that it went on with."""
    logs.hanging(path)
    child, out = tmp_path / "child.jsonl", tmp_path / "new.jsonl"
    plays = ScriptedEngine(["a", "b", "c"])
    n = len(logs.read(path))
    changes = {"num_predict": 4}
    fork(
        path,
        n,
        out=child,
        open_engine=lambda header: Opened(engine=plays, loaded=plays.load(settings_of(header))),
        only="1",
        changes=changes,
    )
    extracted(child, 1, out)
    assert [4] == [event.options.num_predict for event in events_of(out, e.SequenceForked)]


def test_rows_lie_beside_it(crowded: Path, tmp_path: Path) -> None:
    """The rows of its own prompt lie beside the new log; a request without rows has no such file."""
    extract_log(crowded, "caller-kettle", out=tmp_path / "rows.jsonl")
    extract_log(crowded, "caller-walnut", out=tmp_path / "text.jsonl")
    assert rows_path(tmp_path / "rows.jsonl").exists()
    assert not rows_path(tmp_path / "text.jsonl").exists()


# ---------------------------------------------------------------- what is refused


def refused(parent: Path, only: str, out: Path, error: type[Exception], match: str) -> None:
    """Check that nothing is extracted, and that no file is left."""
    with pytest.raises(error, match=match):
        extract_log(parent, only, out=out)
    assert not out.exists()


def test_results_that_depend_on_the_schedule(eventful: Path, small: Path) -> None:
    """Such a log is refused, with what to record in its place."""
    refused(eventful, "1", small, LogNotComparable, 'depend on the schedule.* record with determinism="schedule-inde')


def test_one_that_was_turned_away(path: Path, small: Path) -> None:
    """A request that others kept from being served cannot be had without them."""
    session = logs.Session(path, n_slots=1, max_waiting=1)
    for number in range(3):
        session.request(f"prompt {number}")
    session.close()
    refused(
        path, "3", small, LogNotComparable, "sequence 3 was turned away for the sake of others .*: replay redact the"
    )


def test_no_such_request(path: Path, small: Path) -> None:
    """A name that no request has is refused."""
    refused(logs.short(path), "chat-2", small, NotInLog, "there is no sequence chat-2")


def test_a_corrupt_log(path: Path, small: Path) -> None:
    """A line that is corrupt is named, even behind the request."""
    logs.short(path)
    refused(logs.flipped(path, len(path.read_bytes().splitlines())), "1", small, LogCorrupt, "its checksum is")


def test_a_log_that_other_actors_wrote(path: Path, small: Path) -> None:
    """A record that today's actors decide otherwise is named, and nothing is written."""
    logs.short(path)
    n = next(entry.record.n for entry in logs.read(path) if isinstance(entry.record.event, e.StopMatched))
    logs.rewritten(path, n + 1, b'"text":""', b'"text":"x"')
    refused(path, "1", small, LogNotComparable, f"record {n} does not follow from the request alone: replay run says")


def test_lost_rows(crowded: Path, tmp_path: Path) -> None:
    """Without the numbers of its own rows it is refused, with the cure; a request without rows needs none."""
    copy = tmp_path / "copy.jsonl"
    copy.write_bytes(crowded.read_bytes())
    refused(copy, "caller-kettle", tmp_path / "new.jsonl", LogNotComparable, "copy it beside the log")
    extract_log(copy, "caller-walnut", out=tmp_path / "new.jsonl")


def test_two_of_one_name_of_which_one_has_not_ended(path: Path, small: Path) -> None:
    """They can follow each other only if the first one ended; else one is to be named by its number."""
    session = logs.Session(path)
    session.request("one", request_id="twice")
    session.request("two", request_id="twice")
    session.journal.close()
    refused(path, "twice", small, LogNotComparable, "sequence 1 of that name had not ended .*: extract one of them")


# ---------------------------------------------------------------- the command


def test_the_command(path: Path, small: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The command prints what it kept, and how to run it."""
    logs.short(path)
    assert 0 == main(["extract", str(path), "--only", "chat-1", "-o", str(small)])
    n = len(logs.read(small))
    out, err = capsys.readouterr()
    assert "" == err
    assert [
        f"extracted: {small}: sequence 1 of session 5e55, alone; {n} records",
        "  sequence 1 (chat-1): stop, 2 prompt tokens, 3 sampled",
        f"  replay run {small}",
    ] == out.splitlines()
    assert 0 == main(["show", str(small), "0"])
    assert "sequence 1 alone of session 5e55 before record" in capsys.readouterr().out


def test_the_command_in_json(path: Path, small: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """`--json` prints one object, with the number in the parent."""
    logs.short(path)
    assert 0 == main(["extract", str(path), "--only", "2", "-o", str(small), "--json"])
    printed = json.loads(capsys.readouterr().out)
    assert [2] == printed["parent"]["sequences"]
    expected = {"sequence": 1, "in_parent": 2, "request_id": None, "finish_reason": "stop"}
    assert [{**expected, "n_prompt": 10, "n_sampled": 3}] == printed["sequences"]


def test_the_command_overwrites_nothing(path: Path, small: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A file that exists stays, and the exit code is that of a file that cannot be made."""
    logs.short(path)
    small.write_text("mine")
    assert 2 == main(["extract", str(path), "--only", "2", "-o", str(small)])
    assert f"replay: {small}: File exists" in capsys.readouterr().err
    assert "mine" == small.read_text()
