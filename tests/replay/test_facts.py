"""The facts of a session: all of them lead to the same records again, and some of them to others."""

from pathlib import Path

import pytest
from hypothesis import strategies as st

from reenact.actors import events as e
from reenact.actors.errors import LogNotComparable
from reenact.replay.check.runner import Checks
from reenact.replay.facts import Facts, Outcome, Play, facts_of
from reenact.runtime.log.reader import Entry
from reenact.runtime.log.writer import Journal
from tests.helpers.paths import GOLDEN
from tests.helpers.programs.playing import played
from tests.helpers.programs.programs import ANY, GENERATING, Program
from tests.helpers.properties import holds_for
from tests.replay import logs

LOGS = sorted(GOLDEN.glob("*.jsonl"))
Captured = pytest.CaptureFixture[str]


def happened(facts: Facts) -> list[e.Record]:
    """Return what today's actors make of facts."""
    return [record for fact in Play(facts).run() for record in fact.records]


@pytest.mark.parametrize("golden", LOGS, ids=lambda path: path.stem)
def test_the_facts_of_a_log_lead_to_the_log(golden: Path) -> None:
    """What today's actors make of all facts of a golden log is the log."""
    whole = logs.read(golden)
    assert [entry.record for entry in whole] == happened(facts_of(whole))


def test_the_facts_of_the_eventful_session_lead_to_it(eventful: Path) -> None:
    """The same for a session in which nearly everything happens that can."""
    whole = logs.read(eventful)
    assert [entry.record for entry in whole] == happened(facts_of(whole))


@holds_for(examples=60, program=ANY, t=st.integers(0, 9))
def test_the_facts_of_any_session_lead_to_it(program: Program, t: int) -> None:
    """Whatever callers, readers and engines do, all facts lead to the same records."""
    records = played(program).session.records
    line = logs.read(LOGS[0])[0].line
    assert records == happened(facts_of(Entry(record, t, line) for record in records))


@holds_for(examples=60, program=GENERATING, data=st.data())
def test_facts_happen_without_others(program: Program, data: st.DataObject) -> None:
    """Whatever does not happen, the rest can, and keeps all rules."""
    line = logs.read(LOGS[0])[0].line
    facts = facts_of(Entry(record, 0, line) for record in played(program).session.records)
    kept = data.draw(st.lists(st.booleans(), min_size=len(facts.happenings), max_size=len(facts.happenings)))
    happenings = tuple(one for one, stays in zip(facts.happenings, kept, strict=True) if stays)
    checks = Checks()
    for fact in Play(Facts(header=facts.header, happenings=happenings, drawn=facts.drawn, vectors={})).run():
        assert fact.error is None
        assert [] == [violation for record in fact.records for violation in checks.add(record, 0)]
    assert [] == checks.end()


def test_an_outcome_is_told_of_sequences(path: Path) -> None:
    """What a batch came to is told by how many rows of each sequence are missing."""
    session = logs.Session(path, n_batch=8)
    session.request("one", inputs=4)
    session.request("two", inputs=4)
    session.decode(code=-2, rows=2)
    outcomes = [one.what for one in facts_of(logs.read(path)).happenings if isinstance(one.what, Outcome)]
    assert [Outcome(code=-2, refused=False, missing={1: 2})] == outcomes


def test_a_log_without_records_has_no_facts(path: Path) -> None:
    """A log that is empty has nothing to happen again."""
    Journal(path).close()
    with pytest.raises(LogNotComparable, match="no record"):
        facts_of(logs.read(path))
