"""Logs made smaller: what is wrong stays wrong, and what does not matter goes."""

import json
import signal
import stat
from collections.abc import Callable
from contextlib import suppress
from itertools import count
from pathlib import Path
from typing import Any

import pytest
from attrs import evolve as changed

from reenact.actors import events as e
from reenact.actors import sequence
from reenact.actors.errors import LogNotComparable
from reenact.actors.options import Options
from reenact.replay import check_facts, check_log, replay_log
from reenact.replay.cli import main as cli
from reenact.replay.facts import Facts, facts_of
from reenact.replay.shrink.patience import Patience
from reenact.replay.shrink.question import Shows
from reenact.replay.shrink.reduce import Reduction, fewest
from reenact.replay.shrink.shrink import shrink_log
from reenact.replay.testing.kernel import Submission, header_of
from reenact.runtime import ScriptedEngine
from reenact.runtime.engine.driver import Driver, execute
from reenact.runtime.engine.protocol import ContextSettings
from reenact.runtime.log.writer import Journal
from tests.helpers.sessions import read_fields, write_fields
from tests.replay import logs
from tests.replay.check.wrongs import (
    HOLDS_NOTHING,
    broken,
    long_session,
    missing,
    other_event,
    other_plan,
    other_text,
    tampered,
    too_many,
)

Captured = pytest.CaptureFixture[str]


# ---------------------------------------------------------------- what is left


@pytest.mark.parametrize(
    ("needed", "expected"), [(set(), []), ({3}, [3]), ({0, 9}, [0, 9]), (set(range(10)), list(range(10)))]
)
def test_fewest_leaves_what_is_needed(needed: set[int], expected: list[int]) -> None:
    """Of ten things those are left without which it does not stay."""
    assert expected == fewest(range(10), lambda kept: needed <= set(kept))


def test_of_many_things_one_is_found_soon() -> None:
    """Of a thousand things the one that matters is found in some dozens of tries."""
    n_tries = count()
    assert [617] == fewest(range(1000), lambda kept: next(n_tries) < 50 and 617 in kept)


# ---------------------------------------------------------------- a rule that stays broken


def test_a_log_that_breaks_a_rule(path: Path, small: Path) -> None:
    """Of twelve requests the one is left that breaks the rule, with a token and the option that it needs."""
    with broken(*HOLDS_NOTHING):
        long_session(path)
        shrunk = shrink_log(path, out=small, rule="text")
        assert ("text", 1, 4) == (shrunk.rule, shrunk.after.n_requests, shrunk.after.n_facts)
        assert (12, 108) == (shrunk.before.n_requests, shrunk.before.n_inputs)
        assert replay_log(small).verdict == "same"
    checked = check_log(small, ["text"])
    assert ("violated", shrunk.n) == (checked.outcome, checked.violations[0].n)
    (request,) = (entry.record.event for entry in logs.read(small) if isinstance(entry.record.event, e.RequestReceived))
    assert ("r7", "") == (request.request_id, request.prompt)
    assert ("</s>", "END") == request.options.stop
    assert -1 == request.options.num_predict
    assert stat.S_IMODE(small.stat().st_mode) == 0o600


def test_what_is_wrong_is_found_out(path: Path, small: Path) -> None:
    """Without a rule it is the first one that the log breaks."""
    with broken(*HOLDS_NOTHING):
        assert "text" == shrink_log(long_session(path), out=small).rule


def with_an_engine(path: Path) -> None:
    """Write a session of two requests that have the beginning of their prompts in common, on an engine with cells."""
    engine, journal = ScriptedEngine(draws_from="history"), Journal(path)
    context = engine.load(ContextSettings(n_slots=1, n_ctx=8, n_batch=8, n_threads=1)).context
    driver = Driver()

    def give(fact: e.GivenEvent) -> None:
        journal.append(driver.give(fact).checked(), 0)

    give(header_of(context, max_waiting=1))
    for number, prompt in enumerate(((100, 101, 102), (100, 200)), 1):
        asked = Submission(prompt=prompt, bos_added=False, options=Options(seed=1, num_predict=1))
        give(asked.received(number))
        give(asked.tokenized(number))
        while driver.crossing is not None:
            give(execute(engine, driver.crossing))
    journal.close()


def test_a_fault_of_the_actors_gets_into_no_fact(path: Path, small: Path) -> None:
    """What an engine says because of a plan that is wrong is not kept: once mended, the smaller session is well."""

    def nothing_trimmed(original: Any) -> Any:
        return lambda state: [
            changed(one, trims=()) if isinstance(one, e.BatchPlanned) else one for one in original(state)
        ]

    with broken("reenact.actors.batcher:proceed", nothing_trimmed):
        with_an_engine(path)
        events = [entry.record.event for entry in logs.read(path)]
        assert -1 in [event.code for event in events if isinstance(event, e.BatchDecoded)]
        shrink_log(path, out=small, rule="positions")
        assert "violated" == check_facts(small, ["positions"]).outcome
    assert "holds" == check_facts(small).outcome


def test_actors_that_raise(path: Path, small: Path) -> None:
    """An actor that raises breaks a rule like any other, and what makes it raise is left."""

    def raising(original: Any) -> Any:
        return lambda held, *rest: original(held, *rest) if not held else {}[held]

    with broken("reenact.actors.sequence:assemble", raising):
        shrunk = shrink_log(long_session(path), out=small, rule="actors")
    assert 1 == shrunk.after.n_requests
    assert 2 == shrunk.after.n_tokens


def test_what_a_fact_owes_stays_owed(path: Path, small: Path) -> None:
    """Where nothing follows that should, the smaller log goes on to the fact by which that shows."""

    def deaf(original: Any) -> Any:
        return lambda state, event: [] if isinstance(event, e.CancelRequested) else original(state, event)

    with broken("reenact.actors.sequence:decide", deaf):
        session = logs.Session(path)
        session.request("one")
        session.request("two")
        session.decode()
        session.give(e.CancelRequested(sequence=2))
        session.decode()
        session.journal.close()
        shrunk = shrink_log(path, out=small, rule="cancels")
    assert ("violated", 1) == (check_log(small).outcome, shrunk.after.n_requests)


def test_what_takes_two_slots(path: Path, small: Path) -> None:
    """A fault that one slot cannot show keeps two, though a batch of one row would do for each."""

    def other_way_round(original: Any) -> Any:
        def reversed_batch(*asked: Any, alone: bool) -> Any:
            found = original(*asked, alone=alone)
            return found and (found[0], found[1][::-1])

        return reversed_batch

    with broken("reenact.actors.batcher:next_batch", other_way_round):
        shrunk = shrink_log(long_session(path), out=small, rule="batches")
        assert "violated" == check_facts(small, ["batches"]).outcome
    assert shrunk.after.n_requests < 4
    (header,) = (entry.record.event for entry in logs.read(small) if isinstance(entry.record.event, e.SessionOpened))
    assert (2, 2) == (header.context.n_slots, header.context.n_batch)


def test_requests_that_go_meanwhile(path: Path) -> None:
    """Requests behind the last fact that matters are gone when their options would be looked at."""
    facts = facts_of(logs.read(long_session(path)))

    def wrong(tried: Facts) -> Shows | None:
        plain = [
            one.what.options == Options(seed=7) for one in tried.happenings if isinstance(one.what, e.RequestReceived)
        ]
        return Shows(1 if plain[0] else len(tried.happenings), []) if plain else None

    reduction = Reduction(facts, wrong, on_progress=lambda _: None, stopped=lambda: False, patience=Patience())
    reduction.run()
    assert [e.RequestReceived] == [type(one.what) for one in reduction.facts.happenings]


def test_a_rule_that_todays_actors_keep(path: Path, small: Path, capsys: Captured) -> None:
    """A log whose facts break nothing today cannot be made smaller so; the cure is told, and nothing is written."""
    lines = read_fields(logs.short(path))
    next(fields for fields in lines if fields["type"] == "TokenEmitted")["text"] = "a"
    write_fields(path, lines)
    assert 4 == cli.main(["shrink", str(path), "--rule", "text", "-o", str(small)])
    assert "keep rule text" in capsys.readouterr().err
    assert not small.exists()


# ---------------------------------------------------------------- a record that stays different


@pytest.mark.parametrize(
    "change", [other_text, other_event, other_plan, missing, too_many], ids=lambda one: one.__name__
)
def test_a_log_that_diverges(change: Callable[[list[dict[str, Any]]], None], path: Path, small: Path) -> None:
    """The smaller log diverges by the same kind of record on both sides, and fewer requests are in it."""
    first = replay_log(tampered(path, change)).first_divergence
    shrunk = shrink_log(path, out=small)
    least = replay_log(small).first_divergence
    assert first is not None
    assert least is not None
    kinds = [[side and side["type"] for side in (one.expected, one.actual)] for one in (first, least)]
    assert kinds[0][1] == kinds[1][1]
    assert change is missing or kinds[0] == kinds[1]
    assert shrunk.rule is None
    assert shrunk.after.n_requests < shrunk.before.n_requests


def test_a_fact_that_cannot_be_taken(path: Path, small: Path) -> None:
    """A fact at which today's actors raise outright stays the last one."""

    def raising(original: Any) -> Any:
        def evolve(state: sequence.Sequence, event: e.Event) -> sequence.Sequence:
            nobody: dict[e.Event, sequence.Sequence] = {}
            evolved: sequence.Sequence = original(nobody[event] if isinstance(event, e.ReaderResumed) else state, event)
            return evolved

        return evolve

    long_session(path)
    with broken("reenact.actors.sequence:evolve", raising):
        assert 1 == shrink_log(path, out=small).after.n_requests
        divergence = replay_log(small).first_divergence
    assert divergence is not None
    assert divergence.expected is not None
    assert "ReaderResumed" == divergence.expected["type"]


def test_a_digest_alone_cannot_be_kept(path: Path, small: Path, capsys: Captured) -> None:
    """Where only the digest differs no smaller session can show it, and that is said."""
    lines = read_fields(logs.short(path))
    lines[-1]["digest"] = "0" * 32
    write_fields(path, lines)
    assert 4 == cli.main(["shrink", str(path), "--diverges", "-o", str(small)])
    assert "only the digest differs" in capsys.readouterr().err


# ---------------------------------------------------------------- the commands


def test_the_command_tells_what_is_left(path: Path, capsys: Captured) -> None:
    """Without a name the smaller log stands beside the log; it is told what is wrong where, and what to do next."""
    with broken(*HOLDS_NOTHING):
        assert 0 == cli.main(["shrink", str(long_session(path))])
    small = path.with_name("session-small.jsonl")
    head, sizes, check, to_test = capsys.readouterr().out.splitlines()
    assert head == f"shrunk: {small}: breaks rule text at record 8; 1 request, 4 facts, 1 input, 1 token"
    assert sizes.startswith("  from 12 requests, ")
    assert [f"  replay check {small} --rules text", f"  replay to-test {small} --rule text"] == [check, to_test]


def test_the_time_can_be_over(path: Path, small: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """When the time is over the smallest session so far is written, and the command to go on from there is told."""
    now = [0]
    monkeypatch.setattr("reenact.replay.shrink.patience.monotonic", lambda: now[0])
    with broken(*HOLDS_NOTHING):
        shrunk = shrink_log(
            long_session(path), out=small, on_progress=lambda _doing, _fraction: now.append(now.pop() + 40)
        )
        assert shrunk.before.n_requests > shrunk.after.n_requests > 1
        assert f"  more can be left out: replay shrink {small} --rule text" == shrunk.lines()[2][0][0]
        assert 1 == check_log(small, ["text"]).exit_code


@pytest.mark.parametrize("asked", [[], ["--rule", "text"], ["--diverges"]], ids=["", "rule", "diverges"])
def test_reading_takes_of_the_time(path: Path, small: Path, capsys: Captured, asked: list[str]) -> None:
    """Where the time is over before the session has happened once nothing is written, and the cure is told."""
    with broken(*HOLDS_NOTHING):
        assert 4 == cli.main(["shrink", str(long_session(path)), "-o", str(small), "--limit", "0", *asked])
    assert "the fault was not found within 0 seconds: give it more time" in capsys.readouterr().err
    assert not small.exists()


@pytest.mark.parametrize("spent", range(0, 120, 10))
def test_the_time_ends_whatever_is_done(path: Path, small: Path, monkeypatch: pytest.MonkeyPatch, spent: int) -> None:
    """Wherever the time is over, in reading, in a replay or in a try, no more than one item is looked at after that."""
    looks = count()
    monkeypatch.setattr("reenact.replay.shrink.patience.monotonic", lambda: next(looks))
    with broken(*HOLDS_NOTHING), suppress(LogNotComparable):
        shrink_log(long_session(path), out=small, seconds=spent)
    assert next(looks) <= spent + 4


@pytest.mark.parametrize("limit", ["-1", "nan", "inf", "soon"])
def test_a_time_that_cannot_be(path: Path, capsys: Captured, limit: str) -> None:
    """The time is a number from 0 on."""
    with pytest.raises(SystemExit, match="2"):
        cli.main(["shrink", str(path), "--limit", limit])
    assert f"expected a number from 0 on, got '{limit}'" in capsys.readouterr().err


def test_the_command_as_json(path: Path, small: Path, capsys: Captured) -> None:
    """For machines there is one object."""
    with broken(*HOLDS_NOTHING):
        assert 0 == cli.main(["shrink", str(long_session(path)), "-o", str(small), "--json"])
    told = json.loads(capsys.readouterr().out)
    assert {"log", "rule", "n", "before", "after", "tries", "finished"} == told.keys()
    assert ("text", 1) == (told["rule"], told["after"]["n_requests"])


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        ([], 4, "it has no fault to keep"),
        (["--diverges"], 4, "it has no difference to keep"),
        (["--rule", "txt"], 2, "there is no rule 'txt'"),
        (["--rule", "text", "--diverges"], 2, "not allowed with"),
    ],
)
def test_what_cannot_be_made_smaller(
    arguments: list[str], code: int, said: str, tmp_path: Path, capsys: Captured
) -> None:
    """A log in which nothing is wrong, or an argument that cannot be, is one line and leaves no file."""
    path, small = logs.short(tmp_path / "session.jsonl"), tmp_path / "small.jsonl"
    try:
        given = cli.main(["shrink", str(path), "-o", str(small), *arguments])
    except SystemExit as left:
        given = int(left.code or 0)
    assert (code, True) == (given, said in capsys.readouterr().err)
    assert not small.exists()


def test_no_log_is_overwritten(path: Path, small: Path, capsys: Captured) -> None:
    """A file that exists stays as it is."""
    logs.short(path)
    small.write_text("mine")
    assert 2 == cli.main(["shrink", str(path), "-o", str(small)])
    assert "File exists" in capsys.readouterr().err
    assert "mine" == small.read_text()


def test_ctrl_c_writes_the_smallest_so_far(path: Path, small: Path, capsys: Captured) -> None:
    """Ctrl-C ends the search, and what was left by then is written."""
    tries: list[int] = []

    def interrupting(original: Any) -> Any:
        def assemble(*args: Any) -> Any:
            tries.append(1)
            if len(tries) == 200:
                signal.raise_signal(signal.SIGINT)
            return original(*args)

        return assemble

    with broken(*HOLDS_NOTHING), broken("reenact.actors.sequence:assemble", interrupting):
        long_session(path)
        assert 130 == cli.main(["shrink", str(path), "-o", str(small)])
    assert "the smallest session so far" in capsys.readouterr().err
    assert "violated" == check_log(small, ["text"]).outcome
