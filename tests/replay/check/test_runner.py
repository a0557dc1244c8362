"""The rules that every log keeps: logs of every kind keep them, and for each there is one that does not."""

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, Final

import pytest
from attrs import evolve, frozen
from hypothesis import strategies as st

from reenact.actors import events as e
from reenact.actors.inputs import Row
from reenact.actors.options import Options
from reenact.replay.check.report import Checked, check_log
from reenact.replay.check.rule import Violation
from reenact.replay.check.rules import RULES
from reenact.replay.check.runner import Checks
from reenact.replay.fold import NotInLog
from reenact.replay.fork.fork import Opened, fork
from reenact.replay.testing.kernel import CheckedKernel, Submission, context_of, decoded, header_of, left_undone
from reenact.runtime import ScriptedEngine
from reenact.runtime.engine.protocol import ContextSettings
from reenact.runtime.log.codec import Fields, UnreadableRecord, decode
from tests.helpers.paths import GOLDEN, ROOT
from tests.helpers.programs.playing import Player
from tests.helpers.programs.programs import ANY, Program
from tests.helpers.properties import holds_for
from tests.helpers.sessions import EVENTFUL_SCRIPTS, read_fields, write_fields
from tests.replay import logs

FOLDS: Final = frozenset({"statistics", "digest"})
"""The rules that run the fold itself; with a wrong state a digest is wrong, so they see nearly everything."""


def found(records: Iterable[tuple[e.Record, int]], rules: Iterable[str] | None = None) -> list[Violation]:
    """Return the violations of a session of which all is known."""
    checks = Checks(None if rules is None else list(rules))
    return [violation for record, t in records for violation in checks.add(record, t)] + checks.end()


def kept(path: Path) -> tuple[str, tuple[Violation, ...]]:
    """Return what came out of all rules."""
    checked = check_log(path)
    return checked.outcome, checked.violations


HOLDS: Final = ("holds", ())


# ---------------------------------------------------------------- logs that keep them


@pytest.mark.parametrize("path", sorted(GOLDEN.glob("*.jsonl")), ids=lambda path: path.stem)
def test_a_golden_log_keeps_all_rules(path: Path) -> None:
    """What llama.cpp computed, whatever was asked of it, keeps all rules."""
    assert HOLDS == kept(path)


def test_the_eventful_session_keeps_all_rules(eventful: Path) -> None:
    """A session in which nearly everything happens keeps all rules."""
    assert HOLDS == kept(eventful)


@pytest.mark.parametrize("write", [logs.short, logs.hanging, logs.crashed, logs.waiting])
def test_a_session_that_did_not_end_well_keeps_all_rules(write: Callable[[Path], Path], tmp_path: Path) -> None:
    """A session that hangs, crashed, or still tokenizes owes nothing yet."""
    assert HOLDS == kept(write(tmp_path / "session.jsonl"))


def test_a_log_that_ends_anywhere_keeps_all_rules(tmp_path: Path) -> None:
    """A log whose session died while it wrote owes nothing for the records that are missing."""
    lines = read_fields(logs.short(tmp_path / "whole.jsonl"))
    path = tmp_path / "cut.jsonl"
    for n in range(1, len(lines)):
        write_fields(path, lines[:n])
        assert HOLDS == kept(path)


@pytest.mark.parametrize("every", [12, pytest.param(2, marks=pytest.mark.long)])
def test_forks_keep_all_rules(eventful: Path, tmp_path: Path, every: int) -> None:
    """The children of a session, wherever it is cut, keep all rules."""
    engine = ScriptedEngine(EVENTFUL_SCRIPTS)

    def opened(header: e.SessionOpened) -> Opened:
        context = header.context
        return Opened(
            engine=engine,
            loaded=engine.load(
                ContextSettings(
                    n_slots=context.n_slots,
                    n_ctx=context.n_ctx,
                    n_batch=context.n_batch,
                    n_threads=context.n_threads,
                    determinism=header.determinism.policy,
                )
            ),
        )

    n_forked = 0
    for cut in [entry.record.n for entry in logs.read(eventful)[1:] if entry.record.cause is None][::every]:
        child = tmp_path / f"{cut}.jsonl"
        try:
            fork(eventful, cut, out=child, open_engine=opened, changes={"num_predict": 60})
        except NotInLog:
            continue
        n_forked += 1
        assert HOLDS == kept(child)
    assert n_forked > 40 // every


@holds_for(examples=30, program=ANY)
def test_whatever_happens_all_rules_are_kept(program: Program) -> None:
    """Whatever callers, readers and the engine do, in whatever order, all rules are kept."""
    Player(program).play()


@holds_for(examples=30, program=ANY, when=st.sets(st.integers(0, 45), max_size=4))
def test_a_new_context_and_other_options_keep_all_rules(program: Program, when: set[int]) -> None:
    """All rules are kept where sequences go on with other options in a context that is a new one."""
    player = Player(program)
    session = player.session
    for number, command in enumerate(program.commands):
        player.obey(command)
        if number not in when:
            continue
        for one in session.kernel.state.sequences:
            if one.finish_reason is None:
                options = evolve(one.options, num_predict=-1, stop=("bc",))
                session.give(e.SequenceForked(sequence=one.sequence, options=options))
        session.engine.renew()
        session.give(e.CellsLost())
    session.finish()


# ---------------------------------------------------------------- logs that do not


Lines = list[Fields]


@frozen
class Case:
    """A log that is made to break a rule."""

    rule: str
    log: str
    """The golden log by its name, or "eventful"."""
    tamper: Callable[[Lines], int]
    """Changes lines, and returns the number of the record that the violation is to name."""

    def __str__(self) -> str:
        return f"{self.rule}-{self.tamper.__name__}"


def first(lines: Lines, kind: str, where: Callable[[Fields], bool] = lambda _: True) -> int:
    """Return the number of the first record of a kind."""
    return next(n for n, fields in enumerate(lines) if fields["type"] == kind and where(fields))


def last_of_fact(lines: Lines, n: int) -> int:
    """Return the number of the last record that follows from the same fact."""
    return next((i for i in range(n + 1, len(lines)) if "cause" not in lines[i]), len(lines)) - 1


def leave_out(lines: Lines, first: int, last: int) -> None:
    """Leave out records; what followed from them follows from the one before."""
    n_out = last - first + 1
    del lines[first : last + 1]
    for n, fields in enumerate(lines):
        fields["n"] = n
        if fields.get("cause", -1) > last:
            fields["cause"] -= n_out
        elif fields.get("cause", -1) >= first:
            fields["cause"] = first - 1


def at(path: str, value: Any, kind: str, where: Callable[[Fields], bool] = lambda _: True) -> Callable[[Lines], int]:
    """Return what changes a field of the first record of a kind: a number is added, all else put in its place.

    Args:
        path: The field, with numbers for items of lists, and points between.
        value: The number or the value.
        kind: The kind of record.
        where: Which of them.
    """

    def tamper(lines: Lines) -> int:
        n = first(lines, kind, where)
        *owners, name = [int(key) if key.lstrip("-").isdigit() else key for key in path.split(".")]
        owner: Any = lines[n]
        for key in owners:
            owner = owner[key]
        owner[name] = owner[name] + value if type(value) is int else value
        return n

    tamper.__name__ = f"{kind}.{path}"
    return tamper


def many(name: str, n_least: int) -> Callable[[Fields], bool]:
    """Return whether a list has so many items."""
    return lambda fields: len(fields.get(name, ())) >= n_least


def is_first(fields: Fields) -> bool:
    """Return whether a record is about sequence 1."""
    return bool(fields["sequence"] == 1)


def nobody_ends(lines: Lines) -> int:
    """Let a deadline have no consequence."""
    n = first(lines, "DeadlineExpired")
    leave_out(lines, n + 1, last_of_fact(lines, n))
    return n


def slowed(lines: Lines) -> int:
    """Let two seconds pass before each fact: a deadline of less comes long after its time."""
    given = [fields["n"] for fields in lines if "cause" not in fields]
    for fields in lines:
        fields["t"] += 2_000_000_000 * sum(n <= fields["n"] for n in given)
    asked = first(lines, "RequestReceived", lambda fields: fields["options"]["deadline"] is not None)
    assert lines[asked]["options"]["deadline"] < 2
    return int(given[given.index(asked) + 3])


def keeps_its_slot(lines: Lines) -> int:
    """Let a pause that is too long have no consequence."""
    n = first(lines, "SlotYielded")
    leave_out(lines, n, n)
    return n - 1


def two_ends(lines: Lines) -> int:
    """Let a request end a second time."""
    n = first(lines, "SequenceFinished")
    for fields in lines[n + 1 :]:
        fields["n"] += 1
        if fields.get("cause", -1) > n:
            fields["cause"] += 1
    lines.insert(n + 1, {**lines[n], "n": n + 1})
    return n + 1


def nobody_aborts(lines: Lines) -> int:
    """Let a prefill be computed whose request has ended."""
    n = first(lines, "AbortRequested")
    leave_out(lines, n, n)
    return first(lines, "SequenceFinished")


def open_end(lines: Lines) -> int:
    """Let a request never end."""
    n = first(lines, "SequenceFinished")
    leave_out(lines, n, last_of_fact(lines, n))
    return len(lines) - 1


def not_dropped(lines: Lines) -> int:
    """Let a token be forgotten whose sequence ended meanwhile."""
    n = first(lines, "TokenDropped")
    given = max(i for i in range(n) if "cause" not in lines[i])
    leave_out(lines, n, n)
    return given


def not_emitted(lines: Lines) -> int:
    """Let a token be forgotten: the figures that are told at the next end are wrong."""
    n = first(lines, "TokenEmitted")
    leave_out(lines, n, n)
    return last_of_fact(lines, first(lines, "SequenceFinished"))


def reads_on(lines: Lines) -> int:
    """Let a sequence pause whose reader reads."""
    n = first(lines, "SequencePaused")
    number = lines[n]["sequence"]
    for fields in lines[:n]:
        if fields["type"] == "ReaderPaused" and fields["sequence"] == number:
            fields["type"] = "ReaderResumed"
    return n


def never_goes_on(lines: Lines) -> int:
    """Let a sequence stay paused though its reader reads on."""
    n = first(lines, "SequenceResumed")
    cause = lines[n]["cause"]
    leave_out(lines, n, last_of_fact(lines, n))
    return int(cause)


def overtaken(lines: Lines) -> int:
    """Let a later request have a slot before one that waits."""
    n = first(lines, "SlotAssigned", lambda fields: fields["sequence"] == 4)
    lines[n]["sequence"] = 5
    return n


def other_way_round(lines: Lines) -> int:
    """Let a batch go down the slots."""
    n = first(lines, "BatchPlanned", many("parts", 2))
    lines[n]["parts"].reverse()
    return n


def left_out(lines: Lines) -> int:
    """Leave a sequence that generates out of a batch."""
    n = first(lines, "BatchPlanned", many("parts", 3))
    lines[n]["parts"].pop()
    return n


def second_reader(lines: Lines) -> int:
    """Let a sequence read the same row as another."""
    n = first(lines, "BatchDecoded", many("samples", 2))
    lines[n]["samples"][1] = {**lines[n]["samples"][0]}
    return n


def after_its_end(lines: Lines) -> int:
    """Plan rows of a sequence that has ended."""
    ended = lines[first(lines, "SequenceFinished")]["sequence"]
    n = first(lines, "BatchPlanned", lambda fields: fields["n"] > first(lines, "SequenceFinished"))
    lines[n]["parts"][0]["sequence"] = ended
    return n


def one_raises(lines: Lines) -> int:
    """Let sequence 1 raise in place of saying something."""
    n = first(lines, "TokenEmitted", is_first)
    envelope = {name: lines[n][name] for name in ("n", "t", "cause")}
    lines[n] = {**envelope, "type": "ActorFailed", "actor": "session", "failed": "sequence-1", "error": "KeyError: 1"}
    return n


def nobody_may_wait(lines: Lines) -> int:
    """Let the queue have a place only while a slot is free: the first one is served alone, then six come."""
    lines[0]["limits"]["max_waiting"] = 0
    return first(lines, "RequestQueued", lambda fields: fields["sequence"] == 2 + lines[0]["context"]["n_slots"])


def small_batches(lines: Lines) -> int:
    """Let a batch have no more rows than slots."""
    n_rows = lines[0]["context"]["n_batch"] = lines[0]["context"]["n_slots"]
    return first(lines, "BatchPlanned", lambda fields: sum(len(part["inputs"]) for part in fields["parts"]) > n_rows)


def stop_string_leaves(lines: Lines) -> int:
    """Let a stop string go out."""
    n = first(lines, "TokenEmitted", lambda fields: fields["sequence"] in stopped(lines))
    lines[n]["text"] += "</s>"
    return first(lines, "SequenceFinished", lambda fields: fields["sequence"] == lines[n]["sequence"])


def stopped(lines: Lines) -> set[int]:
    """Return the requests that have a stop string."""
    return {
        fields["sequence"]
        for fields in lines
        if fields["type"] == "RequestReceived" and "</s>" in fields["options"]["stop"]
    }


def mirrored(lines: Lines) -> int:
    """Let an embedding point elsewhere."""
    n = first(lines, "EmbeddingComputed")
    lines[n]["embedding"][0] *= -1
    return n


CASES: Final = [
    Case("records", "company", at("cause", -1, "TokenEmitted", lambda fields: fields["cause"] > 30)),
    Case("records", "company", at("t", 1, "BatchPlanned")),
    Case("ends", "company", two_ends),
    Case("ends", "deadline", open_end),
    Case("ends", "company", at("sequence", 90, "InputQueued")),
    Case("reasons", "company", at("finish_reason", "context_full", "SequenceFinished")),
    Case("reasons", "company", at("n_sampled", 1, "SequenceFinished")),
    Case("reasons", "company", at("n_prompt", 1, "SequenceFinished")),
    Case("failures", "eventful", at("sequences", [], "BatchFailed")),
    Case("failures", "eventful", at("failure.kind", "internal_error", "BatchFailed")),
    Case("failures", "eventful", at("error.reason", "it rains", "SequenceFinished", lambda fields: fields["n"] < 20)),
    Case("actors", "company", one_raises),
    Case("cancels", "deadline", nobody_ends),
    Case("cancels", "reuse", after_its_end),
    Case("overdue", "deadline", slowed),
    Case("readers", "eventful", keeps_its_slot),
    Case("queue", "eventful", at("sequence", -1, "RequestDisplaced")),
    Case("queue", "company", at("n_ahead", 1, "RequestQueued")),
    Case("queue", "eventful", nobody_may_wait),
    Case("places", "eventful", overtaken),
    Case("places", "preemption", at("by", 1, "SequencePreempted")),
    Case("slots", "reuse", at("reused", 1, "SlotAssigned", lambda fields: fields["reused"] > 0)),
    Case("slots", "reuse", at("slot", 1, "SlotReleased", lambda fields: fields["slot"] == 0)),
    Case("slots", "fork", at("copies", [], "BatchPlanned", many("copies", 1))),
    Case("kept", "reuse", at("length", 1, "SlotReleased")),
    Case("inputs", "company", at("inputs.0", 1, "InputQueued")),
    Case("inputs", "company", at("wants", 1, "InputQueued", lambda fields: fields["wants"] > 0)),
    Case("inputs", "truncation", at("discard", 1, "PromptTruncated")),
    Case("shifts", "shift", at("discard", 1, "ContextShifted")),
    Case("shifts", "shift", at("keep", -1, "ContextShifted")),
    Case("shifts", "shift", at("discard", 1, "InputsDropped")),
    Case("shifts", "shift_moving", at("shifts.0.discard", 1, "BatchPlanned", many("shifts", 1))),
    Case("readers", "eventful", reads_on),
    Case("readers", "eventful", never_goes_on),
    Case("batches", "company", other_way_round),
    Case("batches", "company", at("batch", 1, "BatchPlanned")),
    Case("batches", "company", at("batch", 1, "BatchDecoded")),
    Case("batches", "company", small_batches),
    Case("turns", "company", left_out),
    Case("positions", "company", at("parts.0.position", 1, "BatchPlanned")),
    Case("positions", "company", at("parts.0.inputs.0", 1, "BatchPlanned")),
    Case("positions", "shift", at("trims.0.length", -1, "BatchPlanned", many("trims", 1))),
    Case("positions", "shift", at("trims", [], "BatchPlanned", many("trims", 1))),
    Case("draws", "company", second_reader),
    Case("draws", "company", at("parts.0.wants", 1, "BatchPlanned", lambda fields: "wants" in fields["parts"][0])),
    Case("draws", "company", at("samples.0.index", 1, "BatchDecoded", many("samples", 1))),
    Case("cells", "company", at("positions.0.1", 1, "BatchDecoded")),
    Case("cells", "cancel_in_prefill", at("positions.0.1", 1000, "BatchDecoded", lambda fields: fields["code"] == 2)),
    Case("aborts", "cancel_in_prefill", nobody_aborts),
    Case("aborts", "cancel_in_prefill", at("sequence", 1, "AbortRequested")),
    Case("tokens", "company", at("token", 1, "TokenEmitted")),
    Case("tokens", "company", at("index", 1, "TokenEmitted")),
    Case("tokens", "eventful", not_dropped),
    Case("text", "company", at("text", "a", "TokenEmitted")),
    Case("text", "eventful", at("held", "x", "TokenEmitted", lambda fields: "held" in fields)),
    Case("text", "eventful", at("text", "a", "StopMatched")),
    Case("text", "eventful", at("n_hidden", 1, "SequenceFinished")),
    Case("stops", "eventful", stop_string_leaves),
    Case("vectors", "embeddings", mirrored),
    Case("statistics", "company", not_emitted),
    Case("digest", "eventful", at("digest", "0" * 32, "SessionClosed")),
]


@pytest.mark.parametrize("case", CASES, ids=str)
def test_a_log_that_does_not_keep_a_rule(case: Case, eventful: Path, tmp_path: Path) -> None:
    """A log that was changed so that it breaks a rule is violated, and the first violation names rule and record."""
    source = eventful if case.log == "eventful" else GOLDEN / f"{case.log}.jsonl"
    path = tmp_path / "changed.jsonl"
    lines = read_fields(source)
    n = case.tamper(lines)
    write_fields(path, lines)
    checked: Checked = check_log(path, [case.rule])
    assert ("violated", (case.rule,)) == (checked.outcome, checked.rules)
    violation = checked.violations[0]
    assert (case.rule, n) == (violation.rule, violation.n)
    assert violation.first <= n
    assert violation.expected != violation.actual


def test_every_rule_can_be_broken() -> None:
    """For each rule there is a log that does not keep it; for that of numbers in tests/replay/test_numbers.py."""
    assert set(RULES) == {"numbers", *(case.rule for case in CASES)}


def test_every_field_that_was_decided_is_held(tmp_path: Path) -> None:
    """Whatever field of a derived record is another one, a rule sees it that does not run the fold."""
    lines = read_fields(logs.short(tmp_path / "session.jsonl"))
    whole = [(decode(fields), fields["t"]) for fields in lines]
    rules = [name for name in RULES if name not in FOLDS]
    assert [] == found(whole, rules)
    unseen, n_seen = [], 0
    for n, fields in enumerate(lines):
        for path in logs.scalars(fields) if "cause" in fields else ():
            other = logs.changed(fields, path)
            try:
                records = [*whole[:n], (decode(other), other["t"]), *whole[n + 1 :]]
            except UnreadableRecord:
                continue
            if found(records, rules):
                n_seen += 1
            else:
                unseen.append((n, path))
    assert [] == unseen
    assert n_seen > 100


@pytest.mark.parametrize("change", [lambda n: n + 1, lambda n: n - 1, lambda _: 0])
def test_records_are_dense(change: Callable[[int], int], tmp_path: Path) -> None:
    """A record with a number that is not due is a violation; a log with one is corrupt, so it is given by hand."""
    records = [(entry.record, entry.t) for entry in logs.read(logs.short(tmp_path / "session.jsonl"))]
    n = change(5)
    records[5] = e.Record(n, records[5][0].event, records[5][0].cause), records[5][1]
    assert ("records", n, "record 5", f"record {n}") == told(found(records, ["records"])[0])


def test_waiting_is_counted_anew_in_a_new_context() -> None:
    """A sequence that waited for a token and then begins with a row of numbers may miss a batch once more."""
    context = context_of(n_slots=2, n_ctx=16, n_ctx_seq=16, n_batch=2, shift="move")
    session = CheckedKernel(header_of(context, max_waiting=0))
    mixed, rows = (100, 101, 102, Row("a"), 103), (Row("a"), 200)
    for prompt in (mixed, rows):
        session.tokenize(session.submit(Submission(prompt=prompt, bos_added=False, options=Options(seed=1))))
    while not any(isinstance(part.inputs[0], Row) and part.sequence == 1 for part in planned_of(session).parts):
        session.give(decoded(planned_of(session)))
    assert [1] == [part.sequence for part in planned_of(session).parts]
    session.give(e.CellsLost())
    assert [1] == [part.sequence for part in planned_of(session).parts]


@pytest.mark.parametrize("code", [e.ABORTED, e.INVALID, -2])
def test_what_is_pooled_leaves_no_cells(code: int) -> None:
    """Also where its batch is not done: an engine that reports a cell of it breaks a rule."""
    context = context_of(n_slots=1, n_ctx=16, n_ctx_seq=16, n_batch=8, shift="evaluate", pooling="mean")
    session = CheckedKernel(header_of(context, max_waiting=0))
    options = Options(seed=1)
    session.tokenize(session.submit(Submission(prompt=(5, 6), bos_added=False, options=options, embedding=True)))
    reported = evolve(left_undone(planned_of(session), code, [0]), positions=((0, 0),))
    with pytest.raises(AssertionError, match=r"cells: record \d+, BatchDecoded: expected slot 0 at position -1, "):
        session.give(reported)


def planned_of(session: CheckedKernel) -> e.BatchPlanned:
    """Return the batch in flight."""
    assert session.in_flight is not None
    return session.in_flight


def told(violation: Violation) -> tuple[str, int, str, str]:
    """Return what a violation says."""
    return violation.rule, violation.n, violation.expected, violation.actual


# ---------------------------------------------------------------- how they are run


def test_a_violation_is_told_with_its_record(eventful: Path) -> None:
    """Records can be given one by one, and each answer is about that record or the fact before it."""
    checks = Checks(["text"])
    for entry in logs.read(eventful):
        event = entry.record.event
        if isinstance(event, e.TokenEmitted) and event.text:
            record = evolve(entry.record, event=evolve(event, text=""))
            assert [("text", record.n)] == [(one.rule, one.n) for one in checks.add(record, entry.t)]
            return
        assert [] == checks.add(entry.record, entry.t)


def test_what_a_fact_owes_is_looked_for_at_the_end(tmp_path: Path) -> None:
    """A caller that knows that nothing more follows asks for what the last fact owes."""
    session = logs.Session(tmp_path / "session.jsonl")
    session.request("one")
    session.cancel(1)
    cancelled = next(record for record in session.records if isinstance(record.event, e.CancelRequested))
    checks = Checks(["cancels"])
    for record in session.records[: cancelled.n + 1]:
        assert [] == checks.add(record, 0)
    assert [("cancels", cancelled.n)] == [(one.rule, one.n) for one in checks.end()]


def test_only_the_rules_that_are_asked_for() -> None:
    """Checks are of the rules that are named, each once, and of all without a name; no other name is one."""
    assert ("text", "stops") == Checks(["text", "stops", "text"]).names
    assert tuple(RULES) == Checks().names
    with pytest.raises(KeyError):
        Checks(["nonsense"])


@pytest.mark.parametrize("name", RULES)
def test_a_rule_says_where_it_is_written(name: str) -> None:
    """Each rule is a sentence, and stands in a paragraph or a section that there is."""
    rule = RULES[name]
    document, _, place = rule.source.partition(", ")
    text = (ROOT / document).read_text("utf-8")
    headings = [f"## {number}." for number in place.split() if number.isdigit()] or [f"**{place}.**"]
    assert [] == [heading for heading in headings if heading not in text]
    assert (name, ".") == (rule.name, rule.says[-1])
