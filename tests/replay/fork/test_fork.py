"""Forks of sessions on engines that play: what stands in the child, and what is refused."""

import signal
from collections.abc import Callable, Mapping
from pathlib import Path
from threading import Thread
from typing import Any, Final

import pytest

from reenact.actors import events as e
from reenact.actors.errors import InternalError, InvalidRequest, LogCorrupt, LogNotComparable
from reenact.actors.options import CHANGEABLE, OPTION_NAMES
from reenact.replay import replay_log
from reenact.replay.cli import main as cli
from reenact.replay.cli.arguments import parsed
from reenact.replay.fold import NotInLog
from reenact.replay.fork.fork import Opened, OpenEngine, fork, fork_log
from reenact.replay.fork.report import Forked
from reenact.runtime import ScriptedEngine
from reenact.runtime.log.codec import SCHEMA, Fields, decode
from tests.helpers.driver import EventT
from tests.helpers.re_execution import executed, settings_of
from tests.helpers.sessions import EVENTFUL_SCRIPTS, read_fields, write_fields
from tests.replay import logs

PIECES: Final = ["a", "b", "c", "d", "e"]
"""What is played; after it an end-of-generation token."""

CUT: Final = 20
"""A given record of `two`: before it the first sequence has two tokens and the second one none."""


@pytest.fixture
def parent(tmp_path: Path) -> Path:
    """Return where a test's log is to be."""
    return tmp_path / "parent.jsonl"


@pytest.fixture
def child(tmp_path: Path) -> Path:
    """Return where its child is to be."""
    return tmp_path / "child.jsonl"


def playing(engine: ScriptedEngine | None = None) -> OpenEngine:
    """Return what opens an engine that plays `PIECES`, or the one that is given."""
    plays = engine or ScriptedEngine(PIECES)
    return lambda header: Opened(engine=plays, loaded=plays.load(settings_of(header)))


def forked(parent: Path, n: int, child: Path, engine: ScriptedEngine | None = None, **asked: Any) -> Forked:
    """Fork a log, and check that the child replays the same."""
    result = fork(parent, n, out=child, open_engine=playing(engine), **asked)
    replay_log(child).raise_for_divergence()
    return result


def two(path: Path) -> logs.Session:
    """Return a session of two sequences, the second one called "second", each with a token and a batch in flight."""
    session = logs.Session(path)
    session.request("one")
    session.decode({1: b"a"})
    session.request("two", request_id="second")
    session.decode({1: b"b"})
    session.decode({1: b"c", 2: b"a"})
    return session


def of(path: Path, kind: type[EventT]) -> list[EventT]:
    """Return the events of a kind in a log."""
    events = (decode(fields).event for fields in read_fields(path))
    return [event for event in events if isinstance(event, kind)]


def said(result: Forked) -> list[tuple[str, str, str | None]]:
    """Return of each sequence the text before, the text after, and the end."""
    ends = [one.in_child.end for one in result.sequences]
    return [
        (one.before, one.after, None if end is None else end.finish_reason)
        for one, end in zip(result.sequences, ends, strict=True)
    ]


# ---------------------------------------------------------------- any cut


def whole_texts(lines: list[Fields]) -> dict[int, tuple[str, str]]:
    """Return text and end of the sequences that ended for no reason from outside."""
    texts: dict[int, str] = {}
    ends: dict[int, tuple[str, str]] = {}
    for fields in lines:
        if fields["type"] in {"TokenEmitted", "StopMatched", "SequenceFinished"}:
            texts[fields["sequence"]] = texts.get(fields["sequence"], "") + fields["text"]
        if fields["type"] == "SequenceFinished":
            ends[fields["sequence"]] = texts[fields["sequence"]], fields["finish_reason"]
    return {sequence: end for sequence, end in ends.items() if end[1] in {"stop", "length", "context_full"}}


def rows_differ(path: Path) -> list[int]:
    """Return the records of a log with a row that is another one when the log is executed again."""
    steps = executed(path, ScriptedEngine(EVENTFUL_SCRIPTS))
    return [row.n for step in steps for row in step.rows if not (row.same_bits and row.same_token)]


def test_the_command_offers_what_may_change() -> None:
    """The command takes each option that a fork may change, and no other."""
    others = {"command", "log", "at", "out", "only", "model", "force", "json"}
    arguments = vars(parsed(["fork", "session.jsonl", "--at", "1", "-o", "child.jsonl"]))
    assert sorted(CHANGEABLE) == sorted(arguments.keys() - others)


@pytest.mark.parametrize("every", [12, pytest.param(1, marks=pytest.mark.long)])
def test_a_fork_from_before_any_given_record(eventful: Path, tmp_path: Path, every: int) -> None:
    """Wherever it is cut, the child begins with the parent's records and says what the parent said."""
    lines = read_fields(eventful)
    expected = whole_texts(lines)
    n_forked = n_compared = 0
    for n in [fields["n"] for fields in lines[1:] if "cause" not in fields][::every]:
        child = tmp_path / f"{n}.jsonl"
        try:
            result = forked(eventful, n, child, ScriptedEngine(EVENTFUL_SCRIPTS))
        except NotInLog:
            continue
        n_forked += 1
        copied = read_fields(child)
        assert lines[1:n] == copied[1:n]
        assert ("SequenceForked", "SessionClosed") == (copied[n]["type"], copied[-1]["type"])
        assert [] == rows_differ(child)
        for one in result.sequences:
            sequence, end = one.in_child.request.sequence, one.in_child.end
            if sequence in expected and end is not None:
                n_compared += 1
                assert expected[sequence] == (one.before + one.after, end.finish_reason), (n, sequence)
    assert n_forked > 60 // every
    assert n_compared > 40 // every


def test_a_derived_record_is_cut_before_its_fact(parent: Path, tmp_path: Path) -> None:
    """A fork from before a derived record is one from before the given record that it follows from."""
    session = two(parent)
    n = next(record.n for record in reversed(session.records) if record.cause is None)
    assert session.records[-1].n > n
    children = [tmp_path / f"{at}.jsonl" for at in (n, n + 1, session.records[-1].n)]
    cuts = [forked(parent, int(child.stem), child).parent.n for child in children]
    assert [n] * 3 == cuts
    assert 1 == len({tuple(fields["type"] for fields in read_fields(child)) for child in children})


def test_the_header(parent: Path, child: Path) -> None:
    """The child's header names parent and record, has a session of its own, and says what computes now."""
    two(parent)
    result = forked(parent, 10, child)
    before, after = read_fields(parent)[0], read_fields(child)[0]
    assert {"session": before["session"], "n": result.parent.n} == after["parent"]
    assert result.session == after["session"] != before["session"]
    assert (before["opened_at"], before["limits"]) == (after["opened_at"], after["limits"])
    assert ("scripted", "script", SCHEMA) == (after["engine"]["name"], after["model"]["name"], after["schema"])


def test_times_go_on(parent: Path, child: Path) -> None:
    """The parent's records keep their times, and the child's come after the last of them."""
    session = two(parent)
    result = forked(parent, session.records[-1].n + 1, child)
    times = [fields["t"] for fields in read_fields(child)]
    cut = result.parent.n
    assert [fields["t"] for fields in read_fields(parent)][:cut] == times[:cut]
    assert session.t <= times[cut] < session.t + 60_000 * logs.MS
    assert sorted(times) == times


def test_a_fork_of_a_fork(parent: Path, child: Path, tmp_path: Path) -> None:
    """A child is a log like any other: it can be forked, also where it was."""
    two(parent)
    first = forked(parent, 12, child, changes={"num_predict": 9})
    lines = read_fields(child)
    for n in (first.parent.n + 1, first.parent.n + 3, lines[-1]["n"] - 4):
        grandchild = tmp_path / f"{n}.jsonl"
        result = forked(child, n, grandchild)
        assert first.session == result.parent.session
        assert lines[1 : result.parent.n] == read_fields(grandchild)[1 : result.parent.n]
        assert said(first)[0][0] + said(first)[0][1] == said(result)[0][0] + said(result)[0][1]


def test_a_crashed_session_goes_on(parent: Path, child: Path) -> None:
    """From behind the last record a session that crashed comes to its end."""
    logs.crashed(parent)
    result = forked(parent, len(read_fields(parent)), child)
    assert [("11", "cde", "stop"), ("", "abcde", "stop")] == said(result)
    assert read_fields(parent)[1:] == read_fields(child)[1 : result.parent.n]


def test_a_write_that_did_not_finish(parent: Path, child: Path) -> None:
    """Where the last records are missing they are decided, as a replay does."""
    two(parent)
    data = parent.read_bytes().splitlines(keepends=True)
    parent.write_bytes(b"".join(data[:-2]) + data[-2][:20])
    result = forked(parent, len(data) - 2, child)
    assert [("abc", "de", "stop"), ("a", "bcde", "stop")] == said(result)
    assert [line for line in data[-2:] if b'"t"' not in line] == data[-2:]
    assert [fields["type"] for fields in read_fields(child)][len(data) - 2 : len(data)] == [
        decode_type(line) for line in data[-2:]
    ]


def decode_type(line: bytes) -> str:
    """Return the type of a line's record."""
    return line.partition(b'"type":"')[2].partition(b'"')[0].decode()


# ---------------------------------------------------------------- who goes on, and with what


def test_everybody_goes_on_with_other_options(parent: Path, child: Path) -> None:
    """Without a name, all that are live get the options; what changed is told of each."""
    two(parent)
    result = forked(parent, CUT, child, changes={"num_predict": 4, "seed": 9})
    assert [("ab", "cd", "length"), ("", "abcd", "length")] == said(result)
    options = [(event.options.num_predict, event.options.seed) for event in of(child, e.SequenceForked)]
    assert [(4, 9)] * 2 == options
    assert [{"num_predict": (-1, 4), "seed": (7, 9)}] * 2 == [one.changed for one in result.sequences]


@pytest.mark.parametrize("only", ["2", "second"])
def test_only_one_goes_on_with_other_options(parent: Path, child: Path, only: str) -> None:
    """With a number or a request_id, the others go on as they were."""
    two(parent)
    result = forked(parent, CUT, child, only=only, changes={"stop": ["c"]})
    assert [("ab", "cde", "stop"), ("", "ab", "stop")] == said(result)
    assert [{}, {"stop": ((), ("c",))}] == [one.changed for one in result.sequences]


def test_the_parents_options_stay(parent: Path, child: Path) -> None:
    """An option that is not named stays what it was for each sequence."""
    session = logs.Session(parent)
    session.request("one", num_predict=3, temperature=0.1)
    session.request("two", num_predict=4, temperature=0.2)
    forked(parent, session.records[-1].n + 1, child, changes={"temperature": 1})
    options = [(event.options.num_predict, event.options.temperature) for event in of(child, e.SequenceForked)]
    assert [(3, 1.0), (4, 1.0)] == options


def test_later_arrivals_are_left_out(parent: Path, child: Path) -> None:
    """A request that came to the parent later is not in the child, and is listed by number and request_id."""
    session = two(parent)
    n = session.records[-1].n + 1
    session.request("three", request_id="third")
    session.request("four")
    result = forked(parent, n, child)
    assert [(3, "third"), (4, None)] == [(one.sequence, one.request_id) for one in result.left_out]
    assert 2 == len(of(child, e.RequestReceived))


def tokenizing(parent: Path, fact: Callable[[logs.Session, int], object]) -> tuple[int, logs.Session]:
    """Write a session with a request that is being tokenized; return the record before which ``fact`` comes."""
    session = logs.Session(parent)
    session.request("one")
    late = session.arrive("late")
    n = session.records[-1].n + 1
    session.decode({1: b"a"})
    fact(session, late)
    return n, session


@pytest.mark.parametrize(
    ("fact", "end"),
    [
        (lambda session, late: session.tokenize(late), ("", "abcde", "stop")),
        (lambda session, late: session.give(e.TokenizeFailed(sequence=late, error="why")), ("", "", "error")),
        (lambda session, late: session.cancel(late), ("", "", "cancelled")),
        (lambda session, _late: session.pause(1), ("", "", "cancelled")),
    ],
)
def test_a_prompt_that_was_being_tokenized(
    parent: Path, child: Path, fact: Callable[[logs.Session, int], object], end: tuple[str, str, str]
) -> None:
    """Its tokens are the parent's, or its failure; where the parent has neither it is cancelled."""
    n, _ = tokenizing(parent, fact)
    assert [("", "abcde", "stop"), end] == said(forked(parent, n, child))


def test_a_reader_that_was_paused_reads_on(parent: Path, child: Path) -> None:
    """No reader is waited for: a paused sequence goes on, and so does one that waited for its slot."""
    logs.hanging(parent)
    result = forked(parent, len(read_fields(parent)), child)
    assert [("Once upon", "cde", "stop"), ("", "abcde", "stop")] == said(result)
    assert [e.ReaderResumed(sequence=1)] == of(child, e.ReaderResumed)


def test_a_deadline_does_not_come(parent: Path, child: Path) -> None:
    """A fork keeps no deadline, also where the parent's came."""
    session = logs.Session(parent)
    session.request("one", deadline=0.01)
    n = session.records[-1].n + 1
    session.expire(1)
    assert [("", "abcde", "stop")] == said(forked(parent, n, child))


# ---------------------------------------------------------------- what is refused


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        *(({name: 1}, name) for name in OPTION_NAMES if name not in CHANGEABLE),
        ({"colour": 1}, "colour"),
        ({"temperature": "hot"}, "temperature"),
        ({"top_k": -1}, "top_k"),
        ({"top_logprobs": 21}, "top_logprobs"),
        ({"logprobs": False, "top_logprobs": 2}, "top_logprobs"),
        ({"num_predict": 0}, "num_predict"),
        ({"num_predict": 2}, "num_predict"),
    ],
)
def test_options_that_cannot_be(parent: Path, child: Path, changes: Mapping[str, Any], field: str) -> None:
    """An option that there is not, cannot change or has a wrong value is named, and no child is made."""
    two(parent)
    with pytest.raises(InvalidRequest) as raised:
        forked(parent, CUT, child, changes=changes)
    assert field == raised.value.field
    assert not child.exists()


def test_all_that_can_change_changes(parent: Path, child: Path) -> None:
    """Every option that can change does, all at once; 1 is what two of them were."""
    session = two(parent)
    other = {"stop": ["z"], "shift": False, "logprobs": True, "top_logprobs": 1, "num_predict": 9, "seed": 1}
    changes = {name: other.get(name, 1) for name in CHANGEABLE}
    result = forked(parent, session.records[-1].n + 1, child, only="2", changes=changes)
    assert set(CHANGEABLE) - {"typical_p", "repeat_penalty"} == set(result.sequences[1].changed)


def test_num_predict_says_what_to_give(parent: Path, child: Path) -> None:
    """A number that was sampled already is refused with a cure where so many are, and taken where they are not."""
    two(parent)
    with pytest.raises(InvalidRequest) as raised:
        forked(parent, CUT, child, changes={"num_predict": 2})
    assert "sequence 1 has 2 tokens before that record: give more, or fork before an earlier one" == raised.value.reason
    assert [("ab", "cde", "stop"), ("", "ab", "length")] == said(
        forked(parent, CUT, child, only="2", changes={"num_predict": 2})
    )


def test_num_predict_of_a_prompt_that_was_being_tokenized(parent: Path, child: Path) -> None:
    """With 0 a request that has not begun ends without a text, as any does."""
    n, _ = tokenizing(parent, lambda session, late: session.tokenize(late))
    assert ("", "", "length") == said(forked(parent, n, child, only="2", changes={"num_predict": 0}))[1]


def test_a_shift_that_is_due_cannot_be_called_off(parent: Path, child: Path) -> None:
    """Where a paused sequence has a token more than its context holds, shift cannot be switched off any more."""
    session = logs.Session(parent, n_ctx=4)
    session.request("one", inputs=3)
    session.decode({1: b"a"})
    session.pause(1)
    session.decode({1: b"b"})
    n = session.records[-1].n + 1
    with pytest.raises(InvalidRequest) as raised:
        forked(parent, n, child, changes={"shift": False})
    assert "shift" == raised.value.field
    assert [("ab", "cde", "stop")] == said(forked(parent, n, child))


@pytest.mark.parametrize("n", [-1, 0, 1000])
def test_a_record_that_there_is_not(parent: Path, child: Path, n: int) -> None:
    """What is before record 0, or behind the last one, is not in the log."""
    two(parent)
    with pytest.raises(NotInLog):
        forked(parent, n, child)


def test_nobody_is_live(parent: Path, child: Path) -> None:
    """Before the first request, and where all have ended, there is nothing to go on with."""
    logs.short(parent)
    for n in (1, len(read_fields(parent)) - 1, len(read_fields(parent))):
        with pytest.raises(NotInLog, match=f"no sequence is live before record {n}"):
            forked(parent, n, child)
    assert not child.exists()


@pytest.mark.parametrize("only", ["3", "first", ""])
def test_a_sequence_that_there_is_not(parent: Path, child: Path, only: str) -> None:
    """A name that no live sequence has is told; one that comes later is none."""
    session = two(parent)
    n = session.records[-1].n + 1
    session.request("three", request_id="first")
    with pytest.raises(NotInLog, match=f"no sequence with the number or the request_id '{only}' is live"):
        forked(parent, n, child, only=only, changes={"seed": 1})


def test_a_log_that_today_would_be_another(parent: Path, child: Path) -> None:
    """A record before the cut that today's actors do not decide is named, with a cure; one behind it is no matter."""
    session = two(parent)
    n = session.records[-1].n + 1
    session.decode({1: b"d", 2: b"b"})
    lines = read_fields(parent)
    (behind, *_) = [fields["n"] for fields in lines[n:] if fields["type"] == "TokenEmitted"]
    lines[behind]["text"] = "other"
    write_fields(parent, lines)
    assert [("abc", "de", "stop"), ("a", "bcde", "stop")] == said(forked(parent, n, child))
    with pytest.raises(LogNotComparable, match=rf"record {behind} is not what .* use the reenact that wrote it \(0\)"):
        forked(parent, len(lines), child)


def without(lines: list[Fields], n: int) -> list[Fields]:
    """Return a log without a record; the numbers are dense again."""
    return [*lines[:n], *({**fields, "n": fields["n"] - 1} for fields in lines[n + 1 :])]


def later(lines: list[Fields], n: int) -> list[Fields]:
    """Return a log whose records from one on happened a nanosecond later."""
    return [*lines[:n], *({**fields, "t": fields["t"] + 1} for fields in lines[n:])]


@pytest.mark.parametrize(
    ("edit", "kind"),
    [(without, "RequestReceived"), (without, "BatchPlanned"), (without, "TokenEmitted"), (later, "TokenEmitted")],
)
def test_what_is_compared(
    parent: Path, child: Path, edit: Callable[[list[Fields], int], list[Fields]], kind: str
) -> None:
    """A fact that cannot be, a derived record too few and one at another time are differences too."""
    two(parent)
    lines = read_fields(parent)
    n = next(fields["n"] for fields in lines if fields["type"] == kind)
    write_fields(parent, edit(lines, n))
    with pytest.raises(LogNotComparable, match=f"record {n} is not"):
        forked(parent, CUT - 1, child)


def test_a_corrupt_log(parent: Path, child: Path) -> None:
    """A wrong byte anywhere, also behind the cut, makes a log corrupt; an empty one holds nothing."""
    two(parent)
    logs.flipped(parent, len(read_fields(parent)))
    with pytest.raises(LogCorrupt):
        forked(parent, 10, child)
    parent.write_bytes(b"")
    with pytest.raises(LogNotComparable):
        forked(parent, 1, child)


def test_what_was_not_computed_is_not_forked_by_name(parent: Path, child: Path) -> None:
    """`fork_log` computes: a session of an engine that plays is not for it, and leaves no file."""
    two(parent)
    with pytest.raises(LogNotComparable, match="nothing was computed"):
        fork_log(parent, CUT, out=child)
    assert not child.exists()


# ---------------------------------------------------------------- the file, and what goes wrong


def test_a_file_that_exists(parent: Path, child: Path) -> None:
    """A log is never overwritten, the parent least of all."""
    two(parent)
    before = parent.read_bytes()
    child.write_text("mine")
    for out in (child, parent):
        with pytest.raises(FileExistsError):
            forked(parent, CUT, out)
    assert ("mine", before) == (child.read_text(), parent.read_bytes())


def test_an_engine_that_cannot_be_opened(parent: Path, child: Path) -> None:
    """Where no engine is had, no file is left."""
    two(parent)

    def fails(_: e.SessionOpened) -> Opened:
        raise OSError("gone")

    with pytest.raises(OSError, match="gone"):
        fork(parent, CUT, out=child, open_engine=fails)
    assert not child.exists()


def test_an_engine_that_fails(parent: Path, child: Path) -> None:
    """An engine that raises ends every sequence with an error, and the child is closed all the same."""
    two(parent)
    engine = ScriptedEngine(PIECES, faults={5: RuntimeError("burnt")})
    result = forked(parent, CUT, child, engine)
    assert [("ab", "cd", "error"), ("", "ab", "error")] == said(result)
    assert [e.EngineFailed(error="RuntimeError: burnt")] == of(child, e.EngineFailed)
    assert engine.context_facts is None


def test_a_batch_that_fails(parent: Path, child: Path) -> None:
    """A return code is an outcome like any other."""
    two(parent)
    result = forked(parent, CUT, child, ScriptedEngine(PIECES, faults={4: -3}))
    assert ["error", "error"] == [end for _, _, end in said(result)]


class Contradicting(ScriptedEngine):
    """Says something of another batch."""

    def step(self, planned: e.BatchPlanned, drawings: Any, numbers: Any) -> e.BatchDecoded:
        """Name the batch after it."""
        decoded = super().step(planned, drawings, numbers)
        return e.BatchDecoded(
            batch=planned.batch + 1, code=0, samples=decoded.samples, vectors=(), positions=decoded.positions
        )


def test_an_outcome_that_cannot_be(parent: Path, child: Path) -> None:
    """The fact that the kernel cannot take is the child's last record, so that a replay leads to it."""
    two(parent)
    with pytest.raises(InternalError, match="BatchDecoded cannot be processed"):
        fork(parent, CUT, out=child, open_engine=playing(Contradicting(PIECES)))
    last = read_fields(child)[-1]
    divergence = replay_log(child).first_divergence
    assert divergence is not None
    assert ("BatchDecoded", last["n"]) == (last["type"], divergence.n)


class Pressing(ScriptedEngine):
    """Presses Ctrl-C in the middle of its second step."""

    n_steps = 0

    def step(self, planned: e.BatchPlanned, drawings: Any, numbers: Any) -> e.BatchDecoded:
        """Press, and step."""
        self.n_steps += 1
        if self.n_steps == 2:
            signal.raise_signal(signal.SIGINT)
        return super().step(planned, drawings, numbers)


def test_ctrl_c(parent: Path, child: Path) -> None:
    """The step comes to its end, what is live is cancelled, the log closed, and then Ctrl-C is what it was."""
    two(parent)
    before = signal.getsignal(signal.SIGINT)
    engine = Pressing(PIECES)
    with pytest.raises(KeyboardInterrupt):
        forked(parent, CUT, child, engine)
    replay_log(child).raise_for_divergence()
    assert ["cancelled"] * 2 == [event.finish_reason for event in of(child, e.SequenceFinished)]
    assert "SessionClosed" == read_fields(child)[-1]["type"]
    assert (2, before, None) == (engine.n_steps, signal.getsignal(signal.SIGINT), engine.context_facts)


def test_ctrl_c_is_told(
    parent: Path, child: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The command says of the log that it leaves behind what it is, and ends with exit code 130."""
    two(parent)
    play = playing(Pressing(PIECES))
    monkeypatch.setattr("reenact.replay.fork.fork._open", lambda header, *_, **__: play(header))
    assert 130 == cli.main(["fork", str(parent), "--at", str(CUT), "-o", str(child)])
    told = f"replay: interrupted; {child}: closed, with all live sequences cancelled\n"
    assert ("", told) == tuple(capsys.readouterr())


def test_ctrl_c_that_is_ignored(parent: Path, child: Path) -> None:
    """Where the process ignores Ctrl-C, as in the background of a script, it goes on being ignored."""
    two(parent)
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        result = forked(parent, CUT, child, Pressing(PIECES))
    finally:
        signal.signal(signal.SIGINT, before)
    assert ["stop", "stop"] == [end for _, _, end in said(result)]


def test_in_another_thread(parent: Path, child: Path) -> None:
    """Elsewhere than in the main thread, Ctrl-C is not ours to note."""
    two(parent)
    results: list[Forked] = []
    thread = Thread(target=lambda: results.append(forked(parent, CUT, child)))
    thread.start()
    thread.join()
    assert [("ab", "cde", "stop"), ("", "abcde", "stop")] == said(results[0])


# ---------------------------------------------------------------- what is told


def lines(result: Forked) -> list[str]:
    """Return all lines for people."""
    return ["".join(text for text, _ in line) for line in result.lines()]


def test_lines(parent: Path, child: Path) -> None:
    """People read of each sequence what changed, what had gone out, what came, and which were left out."""
    session = two(parent)
    n = session.records[-1].n + 1
    session.request("three", request_id="third")
    session.request("four")
    engine = ScriptedEngine([*PIECES[:3], "\nd\x1b", "e"])
    result = forked(parent, n, child, engine, only="second", changes={"stop": ["e"], "temperature": 0})
    assert [
        f"forked: {child}: before record {n} of session 5e55; sequences 1, 2 went on",
        "sequence 1: stop, 2 prompt tokens, 6 sampled",
        "  before | abc",
        "  after  | ",
        "         | d\x1be",
        "sequence 2 (second): stop at 'e', 2 prompt tokens, 5 sampled",
        "  with   | stop [] -> ['e'], temperature 0.8 -> 0.0",
        "  before | a",
        "  after  | bc",
        "         | d\x1b",
        "left out: 2 requests that came later: 3 (third), 4",
    ] == lines(result)


def test_as_json(parent: Path, child: Path) -> None:
    """Machines are told the same, and of each sequence what is told of any text."""
    session = two(parent)
    n = session.records[-1].n + 1
    session.request("three", request_id="third")
    told = forked(parent, n, child, changes={"seed": 1}).as_json()
    assert {"session": "5e55", "n": n} == told["parent"]
    assert [{"sequence": 3, "request_id": "third"}] == told["left_out"]
    names = ("sequence", "request_id", "before", "after", "text", "changed", "finish_reason")
    assert (2, "second", "a", "bcde", "abcde", {"seed": (7, 1)}, "stop") == tuple(
        told["sequences"][1][name] for name in names
    )
    assert (str(child), read_fields(child)[0]["session"], ()) == (told["log"], told["session"], told["notes"])


def test_where_results_depend_on_the_schedule(eventful: Path, child: Path) -> None:
    """Where nothing else was promised, it is told that a text may differ without any change."""
    result = forked(eventful, 20, child, ScriptedEngine(EVENTFUL_SCRIPTS))
    assert ["results depend on the schedule here: a text may differ from the parent's for that alone"] == [
        *result.notes
    ]
    assert lines(result)[-1] == result.notes[0]
