"""What holds for the kernel whatever callers, readers and the engine do, in whatever order."""

from collections import Counter
from collections.abc import Sequence
from itertools import pairwise

from reenact.actors import events as e
from reenact.actors.inputs import Input, kind_of
from reenact.actors.kernel import Kernel
from reenact.actors.routing import ROUTES, Origin, Role, sequences_of
from reenact.actors.slots import Slot
from tests.helpers.driver import Driver, Moment
from tests.helpers.programs.playing import ComputingDriver, Played, Player, arrange, played
from tests.helpers.programs.programs import ANY, Program
from tests.helpers.properties import holds_for


def pure(cells: Sequence[Input]) -> list[int]:
    """Return what the cells hold if they were evaluated one after the other."""
    traces: list[int] = []
    for one in cells:
        traces.append(hash((*traces, one)))
    return traces


def check_cells(driver: ComputingDriver) -> None:
    """Check that the engine's cells are what the Batcher takes them for, once it has done what is planned."""
    batcher = driver.batcher
    if batcher.broken is not None:
        return
    cells, traces = [list(one) for one in driver.cells], [list(one) for one in driver.traces]
    if driver.planned is not None:
        arrange(cells, driver.planned)
        arrange(traces, driver.planned)
    for number, slot in enumerate(batcher.slots):
        check_slot(slot, cells[number], traces[number])


def check_slot(slot: Slot, cells: list[Input], traces: list[int]) -> None:
    """Check one slot against the engine's."""
    unknown = len(slot.cells) == 0 and slot.n_cells > 0
    assert unknown or len(cells) == slot.n_cells
    reusable = list(slot.reusable[:])
    assert reusable == cells[: len(reusable)]
    assert pure(reusable) == traces[: len(reusable)]
    if slot.gap is not None:
        del cells[slot.gap.keep : slot.gap.keep + slot.gap.discard]
    assert list(slot.cells[:]) == cells[: len(slot.cells)]
    if slot.work is not None:
        assert slot.cells[:] == slot.work.inputs[: len(slot.cells)]
        assert not slot.work.wants or slot.queued > 0


@holds_for(examples=100, program=ANY)
def test_the_cells_are_what_the_batcher_takes_them_for(program: Program) -> None:
    """At every step a slot's cells begin with what the Batcher says, and those that others may have are pure."""
    Player(program).play(check_cells)


@holds_for(examples=60, program=ANY)
def test_every_request_ends_exactly_once(program: Program) -> None:
    """Every request has one end, nothing of its own follows it, and all slots and places in the queue are free."""
    driver = played(program).driver
    ended: set[int] = set()
    for record in driver.records:
        route = ROUTES[type(record.event)]
        own = route.origin is Origin.DERIVED and route.owner is Role.SEQUENCE
        if own or isinstance(record.event, e.InputQueued | e.SlotAssigned | e.SequencePreempted):
            (number,) = sequences_of(record.event)
            assert number not in ended
            if isinstance(record.event, e.SequenceFinished):
                ended.add(number)
    assert set(range(1, driver.kernel.n_requests + 1)) == ended
    assert ((), {None}, False) == (driver.batcher.waiting, set(driver.holders()), driver.batcher.in_flight)
    assert [] == driver.events(e.ActorFailed)


@holds_for(examples=60, program=ANY)
def test_a_session_does_not_go_round_in_circles(program: Program) -> None:
    """Once nobody interferes, every batch brings somebody on: no more batches than rows are left to evaluate."""
    result = played(program)
    n_shifts, n_preempted = (len(result.driver.events(kind)) for kind in (e.ContextShifted, e.SequencePreempted))
    n_sampled = sum(end.n_sampled for end in result.driver.events(e.SequenceFinished))
    n_contexts = len(result.requests) + n_shifts + n_preempted
    assert result.n_left <= n_contexts * result.driver.context.n_ctx + n_sampled


@holds_for(examples=60, program=ANY)
def test_whoever_has_inputs_is_in_the_batch_of_their_kind(program: Program) -> None:
    """A batch has rows of one kind, of everybody who waits for this kind, by slot; no more rows than `n_batch`."""
    driver = played(program).driver
    last = None
    for before, moment in pairwise(driver.kernel.moments):
        planned = moment.record.event
        if not isinstance(planned, e.BatchPlanned):
            continue
        batcher = before.state.batcher
        assert batcher is not None
        (kind,) = {kind_of(one) for part in planned.parts for one in part.inputs} if not pools(planned) else {"token"}
        ready = {
            number: slot.work for number, slot in enumerate(batcher.slots) if slot.work is not None and slot.queued
        }
        kinds = {number: kind_of(work.inputs[len(batcher.slots[number].cells)]) for number, work in ready.items()}
        if not pools(planned):
            assert [number for number in ready if kinds[number] == kind] == [part.slot for part in planned.parts]
            assert last != kind or {kind} == set(kinds.values())
        assert sorted({part.slot for part in planned.parts}) == [part.slot for part in planned.parts]
        assert 1 <= sum(len(part.inputs) for part in planned.parts) <= batcher.n_batch
        for part in planned.parts:
            work, cells = ready[part.slot], batcher.slots[part.slot].cells
            end = part.position + len(part.inputs)
            assert (len(cells), work.inputs[len(cells) : end]) == (part.position, part.inputs)
            assert (part.draw is None) == (part.pool or end < len(work.inputs))
        last = kind


def pools(planned: e.BatchPlanned) -> bool:
    """Return whether texts are pooled."""
    return any(part.pool for part in planned.parts)


@holds_for(examples=60, program=ANY)
def test_slots_go_by_priority_and_then_by_arrival(program: Program) -> None:
    """Who gets a slot is who has the highest priority, then came first; who loses his is the youngest of a lower."""
    moments = played(program).driver.kernel.moments
    for before, moment in pairwise(moments):
        batcher = before.state.batcher
        match moment.record.event:
            case e.SlotAssigned() as assigned if batcher is not None:
                waiting = [work for work in batcher.waiting if work.wants or not work.inputs]
                first = min(waiting, key=lambda work: (-work.priority, work.sequence))
                assert first.sequence == assigned.sequence
                assert batcher.slots[assigned.slot].work is None
            case e.SequencePreempted() as preempted if batcher is not None:
                by = next(work for work in batcher.waiting if work.sequence == preempted.by)
                held = [slot.work for slot in batcher.slots if slot.work is not None]
                assert len(batcher.slots) == len(held)
                lower = [work for work in held if work.priority < by.priority]
                assert min(lower, key=lambda w: (w.priority, -w.sequence)).sequence == preempted.sequence
            case _:
                pass


@holds_for(examples=60, program=ANY)
def test_every_sampled_token_is_accounted_for_once(program: Program) -> None:
    """A sampled token is emitted, completes a stop string, ends the text or is dropped: one of them, once."""
    driver = played(program).driver
    draws = {(plan.batch, part.sequence): part.draw for plan in driver.events(e.BatchPlanned) for part in plan.parts}
    sampled = Counter(
        (sample.sequence, draws[decoded.batch, sample.sequence], sample.token)
        for decoded in driver.events(e.BatchDecoded)
        for sample in decoded.samples
        if sample.fault is None
    )
    accounted = Counter(
        (record.event.sequence, record.event.index, record.event.token)
        for record in driver.records
        if isinstance(record.event, e.TokenEmitted | e.StopMatched | e.EogSampled | e.TokenDropped)
    )
    assert sampled == accounted
    assert not sampled or 1 == max(sampled.values())


@holds_for(examples=60, program=ANY)
def test_a_released_slot_says_how_much_of_it_is_of_use(program: Program) -> None:
    """The length of a released slot is that of the cells that another may have."""
    for moment in played(program).driver.kernel.moments:
        released, batcher = moment.record.event, moment.state.batcher
        if isinstance(released, e.SlotReleased) and batcher is not None:
            assert len(batcher.slots[released.slot].cells) == released.length


def is_of_its_history(result: Played, number: int) -> bool:
    """Return whether a text may depend on the schedule: cells were moved, and could not be kept."""
    driver = result.driver
    if driver.context.shift != "move" or number not in {
        shifted.sequence for shifted in driver.events(e.ContextShifted)
    }:
        return False
    lost = number in {preempted.sequence for preempted in driver.events(e.SequencePreempted)}
    return lost or any(decoded.code != 0 and not decoded.positions for decoded in driver.events(e.BatchDecoded))


@holds_for(examples=100, program=ANY)
def test_nobody_notices_the_others(program: Program) -> None:
    """A request that ends of its own says what it says alone, chunk by chunk, whatever happens to the others."""
    result = played(program)
    for end in result.driver.events(e.SequenceFinished):
        if is_of_its_history(result, end.sequence) or is_refused(end):
            continue
        alone = result.alone(end.sequence)
        emitted, expected = emitted_by(result.driver, end.sequence), emitted_by(alone, 1)
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


def emitted_by(driver: Driver, number: int) -> list[object]:
    """Return what a sequence said, piece by piece, or its vector."""
    said: list[object] = []
    for event in (record.event for record in driver.records):
        match event:
            case e.TokenEmitted() | e.StopMatched() if event.sequence == number:
                said.append((event.token, event.text))
            case e.EmbeddingComputed() if event.sequence == number:
                said.append(event.embedding)
            case _:
                pass
    return said


@holds_for(examples=60, program=ANY)
def test_the_fold_knows_what_deciding_knew(program: Program) -> None:
    """At every record the fold of the records gives the state that deciding had, and the digest in the end."""
    driver, kernel = played(program).driver, Kernel()
    moments = []
    for record in driver.records:
        kernel.fold(record)
        moments.append(Moment(record, kernel.state))
    assert driver.kernel.moments == moments
    assert driver.kernel.digest() == kernel.digest()


@holds_for(examples=60, program=ANY)
def test_the_given_events_decide_everything(program: Program) -> None:
    """Given the same facts, another kernel makes the same records."""
    result = played(program)
    given = [record.event for record in result.driver.records if isinstance(record.event, e.GivenEvent)]
    kernel = Kernel()
    assert result.driver.records == [record for event in given for record in kernel.handle(event)]
