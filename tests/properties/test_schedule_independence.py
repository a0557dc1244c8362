"""What a request says does not depend on the schedule, where the model does not; else the recorded schedule says it."""

from collections.abc import Callable, Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Final

import pytest
from attrs import evolve as changed
from attrs import frozen
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

from reenact.actors import batcher, slots
from reenact.actors import events as e
from reenact.actors.errors import InternalError
from reenact.replay import replay_log
from reenact.replay.fork.fork import Opened, fork
from reenact.runtime.engine.scripted import DrawsFrom, ScriptedEngine
from reenact.runtime.log.reader import LogFile, entries
from tests.helpers.programs.playing_schedules import Player, Said, Scheduled, alone
from tests.helpers.programs.programs import Submit
from tests.helpers.programs.schedules import CASES, Case
from tests.helpers.properties import exists, holds_for
from tests.helpers.re_execution import executed, made_up_for, n_differ, reversed_order, settings_of, split

SOME: Final = 40
"""Cases that are looked at together."""

ITS_OWN: Final = {"stop", "length", "context_full"}
"""Ends that nobody else made."""


@frozen
class Expected:
    """A case, and what each request says in it that has all for itself."""

    case: Case
    requests: list[Submit]
    said: list[Said]

    def played(self, draws_from: DrawsFrom) -> Iterator[tuple[Scheduled, list[Said]]]:
        """Play each schedule, and return what each request says in it."""
        for schedule in self.case.schedules:
            player = Player(self.case, self.requests, schedule, draws_from)
            yield player.session, player.play()


def expected(case: Case) -> Expected:
    """Return what is expected of a case."""
    return Expected(case, *alone(case))


@pytest.fixture(scope="module")
def some() -> list[Expected]:
    """Give cases that are the same in every run."""
    cases: list[Case] = []

    @settings(max_examples=SOME, derandomize=True, database=None, deadline=None, phases=[Phase.generate])
    @given(case=CASES)
    def collect(case: Case) -> None:
        cases.append(case)

    collect()
    return [expected(case) for case in cases]


@pytest.fixture(scope="module")
def in_batches(some: list[Expected]) -> list[list[tuple[Scheduled, list[Said]]]]:
    """Give these cases played where draws follow from the batches' shapes: the schedules of each."""
    return [list(there.played("batch")) for there in some]


# ---------------------------------------------------------------- draws from the history


@holds_for(examples=40, case=CASES)
def test_any_schedule_gives_any_request_the_same_text(case: Case) -> None:
    """In any schedule a request has the text, the tokens, the rows' checksums and the end that it has alone."""
    there = expected(case)
    for _, said in there.played("history"):
        assert there.said == said


def test_nearly_everything_befalls_them() -> None:
    """Among these cases is all that a schedule may do to a sequence, and requests end in every way of their own."""
    unmet: set[object] = {
        *(e.PromptTruncated, e.ContextShifted, e.StopMatched, e.EogSampled, e.TokenDropped),
        *(e.SequencePreempted, e.SequencePaused, e.SequenceResumed, e.AbortRequested, e.BatchFailed),
        *("copies", "trims", "shifts"),
        *(0, 1, 2, -1, -2),
        *ITS_OWN,
        "invalid_request",
    }

    def all_met(case: Case) -> bool:
        there = expected(case)
        for session, _ in there.played("history"):
            unmet.difference_update(*(_marks(record.event) for record in session.records))
        for said in there.said:
            reason, _, error = said.end
            assert (reason == "error") == (error is not None and error.kind == "invalid_request")
            unmet.difference_update({reason, error and error.kind})
        return not unmet

    assert exists(CASES, all_met), unmet


def _marks(event: e.Event) -> set[object]:
    """Return what is remarkable in an event: its kind, what is done to cells, what the engine returns."""
    match event:
        case e.BatchPlanned():
            operations = {"copies": event.copies, "trims": event.trims, "shifts": event.shifts}
            return {name for name, done in operations.items() if done}
        case e.BatchDecoded():
            return {event.code}
        case _:
            return {type(event)}


def _one_too_many(work: Any, of: Any, n_ctx_seq: int, real: Any = slots.choose) -> Any:
    """Take over one cell more than is of use."""
    choice = real(work, of, n_ctx_seq)
    if choice is None or choice.source is not None:
        return choice
    return changed(choice, reused=min(choice.reused + 1, len(work.inputs) - 1, len(of[choice.slot].cells)))


def _not_trimmed(slot: Any, part: Any, position: Any, *, code: int, real: Any = slots.decoded) -> Any:
    """Take what an aborted batch left for all that it was to evaluate."""
    if code == e.ABORTED and position is not None:
        position = max(position, part.position + len(part.inputs) - 1)
    return real(slot, part, position, code=code)


def _kept_too_long(state: Any, event: Any, real: Any = batcher._shortened) -> Any:
    """Drop other inputs than those that the sequence says."""
    return real(state, changed(event, keep=event.keep + 1))


def _unshifted(self: Any, planned: Any, real: Any = ScriptedEngine._operate) -> None:
    """Remove as many cells as a shift says, at the end."""
    shifts = [changed(shift, keep=len(self._cells[shift.slot]) - shift.discard) for shift in planned.shifts]
    real(self, changed(planned, shifts=tuple(shifts)))


PLANTED: Final[dict[str, tuple[str, Callable[..., Any]]]] = {
    "a cell too many is taken over": ("reenact.actors.batcher.choose", _one_too_many),
    "what an aborted batch lacks is not evaluated": ("reenact.actors.batcher.decoded", _not_trimmed),
    "other inputs are dropped than those that were said": ("reenact.actors.batcher._shortened", _kept_too_long),
    "other cells are moved than those that were said": (
        "reenact.runtime.engine.scripted.ScriptedEngine._operate",
        _unshifted,
    ),
}


@pytest.mark.parametrize("bug", PLANTED)
def test_a_planted_bug_is_noticed(bug: str) -> None:
    """A schedule that does something else than is right with the cells gives some request another text."""

    def differs(case: Case) -> bool:
        """Return whether a sequence has another text in a schedule, or is refused what is planned for it."""
        there = expected(case)
        try:
            with pytest.MonkeyPatch.context() as patch:
                patch.setattr(*PLANTED[bug])
                return any(said != there.said for _, said in there.played("history"))
        except InternalError:
            return True

    assert exists(CASES, differs)


# ---------------------------------------------------------------- draws from the batch too


def test_in_another_schedule_others_are_drawn(in_batches: list[list[tuple[Scheduled, list[Said]]]]) -> None:
    """Where draws follow from the batches' shapes, many requests say something else in another schedule."""
    texts = [
        (here.text, there.text) for (_, one), (_, other) in in_batches for here, there in zip(one, other, strict=True)
    ]
    assert sum(here != there for here, there in texts) > len(texts) // 3


@holds_for(examples=12, case=CASES)
def test_the_recorded_schedule_gives_every_token_again(case: Case) -> None:
    """A log that is executed again gives every row and token; in other batches than the recorded ones it does not."""
    with TemporaryDirectory() as folder:
        session, _ = next(expected(case).played("batch"))
        log = Path(folder) / "log.jsonl"
        session.write(log)
        replay_log(log).raise_for_divergence()
        assert 0 == n_differ(executed(log, made_up_for(log)), outcomes=True)
        if has_company(session):
            assert n_differ(executed(log, made_up_for(log), planned=reversed_order)) > 0
            assert n_differ(executed(log, made_up_for(log), records=split)) > 0


def has_company(session: Scheduled) -> bool:
    """Return whether there is a batch of several parts, of which the first one draws."""
    done = {event.batch for event in session.events(e.BatchDecoded) if event.code == e.DONE}
    plans = [event for event in session.events(e.BatchPlanned) if event.batch in done]
    return any(len(plan.parts) > 1 and plan.parts[0].draw is not None for plan in plans)


def test_most_sessions_have_company(in_batches: list[list[tuple[Scheduled, list[Said]]]]) -> None:
    """In most sessions there is a batch that would be another one in another order."""
    found = [has_company(session) for played in in_batches for session, _ in played]
    assert sum(found) > len(found) // 2


# ---------------------------------------------------------------- forks


@holds_for(examples=12, case=CASES, at=st.integers(0, 1000), draws_from=st.sampled_from(["history", "batch"]))
def test_a_fork_says_what_its_parent_said(case: Case, at: int, draws_from: DrawsFrom) -> None:
    """With no change, a sequence that ends of its own says in a child what it said, unless draws follow from batches.

    A child executes again like any other session, whatever its draws follow from.
    """
    with TemporaryDirectory() as folder:
        session, _ = next(expected(case).played(draws_from))
        parent, child = Path(folder) / "parent.jsonl", Path(folder) / "child.jsonl"
        session.write(parent)
        cuts = list(places(parent))
        result = fork(parent, cuts[at % len(cuts)], out=child, open_engine=opened_as)
        replay_log(child).raise_for_divergence()
        assert 0 == n_differ(executed(child, made_up_for(child)), outcomes=True)
        for one in result.sequences:
            end = one.in_child.end
            said = session.said(one.in_child.request.sequence)
            if draws_from == "history" and said.end[0] in ITS_OWN:
                assert said.text == one.in_child.text
                assert end is not None
                assert said.end == (end.finish_reason, end.stop, end.error)


def places(log: Path) -> Iterator[int]:
    """Return before which records a session can go on: given ones before which a sequence is live."""
    living: set[int] = set()
    with LogFile(log) as lines:
        for entry in entries(lines):
            event = entry.record.event
            if living and entry.record.cause is None:
                yield entry.record.n
            if isinstance(event, e.RequestReceived):
                living.add(event.sequence)
            elif isinstance(event, e.SequenceFinished):
                living.remove(event.sequence)


def opened_as(header: e.SessionOpened) -> Opened:
    """Open a made-up model as a log's header says."""
    engine = ScriptedEngine(draws_from=header.policies["draws"])  # type: ignore[arg-type]
    return Opened(engine=engine, loaded=engine.load(settings_of(header)))
