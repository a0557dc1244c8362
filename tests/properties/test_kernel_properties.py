"""What holds for the kernel whatever callers, readers and the engine do, in whatever order, beside all rules."""

from reenact.actors import events as e
from reenact.actors.kernel import Kernel
from reenact.actors.slots import Slot
from tests.helpers.programs.playing import Cell, Played, Player, Playing, evaluated, played
from tests.helpers.programs.programs import ANY, Program
from tests.helpers.properties import holds_for
from tests.helpers.watched_kernel import Moment


def check_cells(session: Playing) -> None:
    """Check that the engine's cells are what the Batcher takes them for, once it has done what is planned."""
    if session.batcher.broken is not None:
        return
    for slot, cells in zip(session.batcher.slots, session.engine.cells_before(session.in_flight), strict=True):
        check_slot(slot, cells)


def check_slot(slot: Slot, cells: list[Cell]) -> None:
    """Check one slot against the engine's."""
    unknown = len(slot.cells) == 0 and slot.n_cells > 0
    assert unknown or len(cells) == slot.n_cells
    reusable = slot.reusable[:]
    assert evaluated([], reusable) == cells[: len(reusable)]
    if slot.gap is not None:
        del cells[slot.gap.keep : slot.gap.keep + slot.gap.discard]
    assert list(slot.cells[:]) == [one for one, _ in cells[: len(slot.cells)]]
    if slot.work is not None:
        assert slot.cells[:] == slot.work.inputs[: len(slot.cells)]
        assert not slot.work.wants or slot.queued > 0


@holds_for(examples=100, program=ANY)
def test_the_cells_are_what_the_batcher_takes_them_for(program: Program) -> None:
    """At every step a slot's cells begin with what the Batcher says, and those that others may have are pure."""
    Player(program).play(check_cells)


@holds_for(examples=60, program=ANY)
def test_a_session_does_not_go_round_in_circles(program: Program) -> None:
    """Once nothing interferes, every batch brings a sequence on: no more batches than rows are left to evaluate."""
    result = played(program)
    session = result.session
    n_shifts, n_preempted = (len(session.events(kind)) for kind in (e.ContextShifted, e.SequencePreempted))
    n_sampled = sum(end.n_sampled for end in session.events(e.SequenceFinished))
    n_contexts = len(result.requests) + n_shifts + n_preempted
    assert result.n_left <= n_contexts * session.context.n_ctx + n_sampled
    assert ((), None) == (session.batcher.waiting, session.batcher.in_flight)
    assert {None} == {slot.work for slot in session.batcher.slots}


def is_of_its_history(result: Played, number: int) -> bool:
    """Return whether a text may depend on the schedule: cells were moved, and could not be kept."""
    session = result.session
    if session.context.shift != "move" or number not in {
        shifted.sequence for shifted in session.events(e.ContextShifted)
    }:
        return False
    lost = number in {preempted.sequence for preempted in session.events(e.SequencePreempted)}
    return lost or any(decoded.code != 0 and not decoded.positions for decoded in session.events(e.BatchDecoded))


@holds_for(examples=100, program=ANY)
def test_nobody_notices_the_others(program: Program) -> None:
    """A request that ends of its own says what it says alone, chunk by chunk, whatever happens to the others."""
    result = played(program)
    for end in result.session.events(e.SequenceFinished):
        if is_of_its_history(result, end.sequence) or is_refused(end):
            continue
        alone = result.alone(end.sequence)
        emitted, expected = emitted_by(result.session, end.sequence), emitted_by(alone, 1)
        if end.finish_reason in {"cancelled", "deadline", "error"}:
            assert emitted == expected[: len(emitted)]
            continue
        assert expected == emitted
        ended = alone.end(1)
        assert (ended.finish_reason, ended.stop, ended.text) == (end.finish_reason, end.stop, end.text)
        assert (ended.n_prompt, ended.n_sampled, ended.n_hidden) == (end.n_prompt, end.n_sampled, end.n_hidden)


def is_refused(end: e.SequenceFinished) -> bool:
    """Return whether a request was not served at all."""
    return end.error is not None and end.error.kind in {"overloaded", "engine_broken"} and not end.n_sampled


def emitted_by(session: Playing, number: int) -> list[object]:
    """Return what a sequence said, piece by piece, or its vector."""
    said: list[object] = []
    for event in (record.event for record in session.records):
        match event:
            case e.TokenEmitted() | e.StopMatched() if event.sequence == number:
                said.append((event.token, event.text))
            case e.EmbeddingComputed() if event.sequence == number:
                said.append(event.embedding)
            case _:
                pass
    return said


@holds_for(examples=60, program=ANY)
def test_the_given_events_decide_everything(program: Program) -> None:
    """Given the same facts another kernel makes the same records; at each their fold gives the state that it had."""
    result, kernel = played(program), Kernel()
    moments = []
    for record in result.session.records:
        kernel.fold(record)
        moments.append(Moment(record, kernel.state))
    assert result.moments() == moments
    assert result.session.kernel.digest() == kernel.digest()
