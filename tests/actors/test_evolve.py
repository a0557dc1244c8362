"""What each event changes in its owner's state, and that all else stays as it was."""

from typing import Any

import pytest
from attrs import evolve as changed

from reenact.actors import batcher, sequence
from reenact.actors import events as e
from reenact.actors.batcher import Batcher, Flight
from reenact.actors.errors import Failure, InternalError
from reenact.actors.inputs import Inputs
from reenact.actors.options import Options
from reenact.actors.sequence import Sequence
from reenact.actors.slots import Gap, Slot, Work
from tests.helpers.header import opened

GENERATING = Sequence(
    sequence=1,
    request_id="mine",
    n_ctx=16,
    options=Options(seed=1),
    n_prompt=5,
    keep=2,
    length=9,
    n_sampled=4,
    last_token=7,
    held=b"ab",
    held_by=(1, 1),
    reader_paused=True,
    paused=True,
)
READING = changed(GENERATING, reader_paused=False, paused=False)
OTHER_OPTIONS = Options(seed=2)


@pytest.mark.parametrize(
    ("before", "event", "after"),
    [
        (GENERATING, e.PromptTruncated(sequence=1, keep=2, discard=3), {"length": 6}),
        (GENERATING, e.ContextShifted(sequence=1, keep=2, discard=3), {"length": 6}),
        (
            GENERATING,
            e.TokenEmitted(sequence=1, index=4, token=8, text="x", held=b"c", held_by=(1,)),
            {"n_sampled": 5, "length": 10, "last_token": 8, "held": b"c", "held_by": (1,)},
        ),
        (
            GENERATING,
            e.StopMatched(sequence=1, index=4, token=8, stop="abc", text=""),
            {"n_sampled": 5, "last_token": 8, "held": b""},
        ),
        (GENERATING, e.EogSampled(sequence=1, index=4, token=8), {"n_sampled": 5, "last_token": 8}),
        (GENERATING, e.SequenceForked(sequence=1, options=OTHER_OPTIONS), {"options": OTHER_OPTIONS}),
        (READING, e.ReaderPaused(sequence=1), {"reader_paused": True}),
        (GENERATING, e.ReaderResumed(sequence=1), {"reader_paused": False}),
        (READING, e.SequencePaused(sequence=1), {"paused": True}),
        (GENERATING, e.SequenceResumed(sequence=1), {"paused": False}),
        (
            GENERATING,
            e.SequenceFinished(
                sequence=1, finish_reason="stop", stop=None, text="", n_prompt=5, n_sampled=4, n_hidden=0, error=None
            ),
            {"finish_reason": "stop", "held": b"", "held_by": (), "paused": False},
        ),
        (GENERATING, e.CancelRequested(sequence=1), {}),
        (GENERATING, e.DeadlineExpired(sequence=1), {}),
        (GENERATING, e.TokenizeFailed(sequence=1, error=""), {}),
        (GENERATING, e.EmbeddingComputed(sequence=1, embedding=(1.0,)), {}),
    ],
    ids=lambda value: type(value).__name__,
)
def test_what_an_event_changes_in_a_sequence(before: Sequence, event: e.Event, after: dict[str, Any]) -> None:
    """An event of a Sequence changes these fields of its state, and no other."""
    assert changed(before, **after) == sequence.evolve(before, event)


def test_a_prompt_gives_a_sequence_its_length() -> None:
    """A prompt's inputs are counted, and so many of them are kept as were asked for, and a BOS."""
    before = changed(READING, n_prompt=None, keep=0, length=0, options=Options(seed=1, num_keep=2))
    event = e.PromptTokenized(sequence=1, inputs=(1, 2, 3, 4, 5), bos_added=True, grammar=None)
    assert changed(before, n_prompt=5, length=5, keep=3) == sequence.evolve(before, event)


WORK = Work(sequence=1, priority=2, inputs=Inputs(range(6)), wants=e.Draw(4))
FREE = Slot(cells=Inputs(range(50, 55)), n_cells=5, used=3)
BUSY = Slot(work=WORK, cells=Inputs(range(5)), n_cells=6, pure=3, gap=Gap(1, 2), used=4)
FIRST = Work(sequence=3, priority=1, inputs=Inputs(range(50, 58)), wants=e.Draw(0), preempted=True)
LAST = Work(sequence=4, priority=0)
CONTEXT = opened(n_slots=2, n_batch=8, n_ctx=16, shift="move", alone=True).context
PLAN = e.BatchPlanned(
    batch=7,
    copies=(),
    trims=(),
    shifts=(),
    parts=(e.Part(sequence=1, slot=0, position=5, inputs=(5,), wants=e.Draw(4)),),
)
COPY = e.Copy(source=1, slot=0)
FLIGHT = Flight(plan=PLAN, stage="aborting", spared=True)
STATE = Batcher(
    context=CONTEXT,
    max_waiting=4,
    slots=(BUSY, FREE),
    waiting=(FIRST, LAST),
    copies=(COPY,),
    flight=FLIGHT,
)
FAILURE = Failure(kind="engine_broken", reason="the engine failed: lost")
UNKNOWN = Slot(used=3)


@pytest.mark.parametrize(
    ("event", "after"),
    [
        (
            e.RequestQueued(sequence=5, priority=1, n_ahead=1),
            {"waiting": (FIRST, Work(sequence=5, priority=1), LAST)},
        ),
        (e.RequestQueued(sequence=5, priority=0, n_ahead=2), {"waiting": (FIRST, LAST, Work(sequence=5, priority=0))}),
        (e.RequestWithdrawn(sequence=3), {"waiting": (LAST,)}),
        (
            e.InputQueued(sequence=1, inputs=(6, 7), wants=e.Draw(5)),
            {"slots": (changed(BUSY, work=changed(WORK, inputs=Inputs(range(8)), wants=e.Draw(5))), FREE)},
        ),
        (
            e.InputQueued(sequence=4, inputs=(1, 2), wants=e.Draw(0)),
            {"waiting": (FIRST, Work(sequence=4, priority=0, inputs=Inputs([1, 2]), wants=e.Draw(0)))},
        ),
        (
            e.InputQueued(sequence=4, inputs=(1, 2), wants=e.Pool()),
            {"waiting": (FIRST, Work(sequence=4, priority=0, inputs=Inputs([1, 2]), wants=e.Pool(), uncut=((0, 2),)))},
        ),
        (
            e.InputsDropped(sequence=1, keep=2, discard=1),
            {
                "slots": (
                    changed(
                        BUSY,
                        work=changed(WORK, inputs=Inputs([0, 1, 3, 4, 5])),
                        cells=Inputs([0, 1, 3, 4]),
                        pure=2,
                        gap=Gap(2, 1),
                    ),
                    FREE,
                )
            },
        ),
        (
            e.InputsDropped(sequence=1, keep=2, discard=3),
            {
                "slots": (
                    changed(
                        BUSY,
                        work=changed(WORK, inputs=Inputs([0, 1, 5])),
                        cells=Inputs([0, 1]),
                        pure=2,
                        gap=Gap(2, 3),
                    ),
                    FREE,
                )
            },
        ),
        (
            e.InputsDropped(sequence=1, keep=4, discard=2),
            {"slots": (changed(BUSY, work=changed(WORK, inputs=Inputs(range(4))), cells=Inputs(range(4))), FREE)},
        ),
        (
            e.InputsDropped(sequence=3, keep=1, discard=6),
            {"waiting": (changed(FIRST, inputs=Inputs([50, 57])), LAST)},
        ),
        (
            e.SlotAssigned(sequence=3, slot=1, reused=5, source=None),
            {
                "slots": (
                    BUSY,
                    Slot(work=changed(FIRST, preempted=False), cells=Inputs(range(50, 55)), n_cells=5, used=3),
                ),
                "waiting": (LAST,),
            },
        ),
        (
            e.SlotAssigned(sequence=3, slot=1, reused=2, source=0),
            {
                "slots": (BUSY, Slot(work=changed(FIRST, preempted=False), cells=Inputs([50, 51]), n_cells=6, used=3)),
                "waiting": (LAST,),
                "copies": (COPY, e.Copy(source=0, slot=1)),
            },
        ),
        (
            e.SequencePreempted(sequence=1, slot=0, by=3),
            {
                "slots": (Slot(cells=Inputs(range(3)), n_cells=6, used=4), FREE),
                "waiting": (changed(WORK, preempted=True), FIRST, LAST),
            },
        ),
        (
            changed(PLAN, batch=8),
            {
                "slots": (changed(BUSY, n_cells=5, gap=None, used=8), FREE),
                "copies": (),
                "flight": Flight(plan=changed(PLAN, batch=8)),
            },
        ),
        (e.EngineFailed(error="lost"), {"flight": changed(FLIGHT, stage="lost"), "broken": FAILURE}),
        (
            e.CellsLost(),
            {
                "slots": (Slot(work=WORK, used=4), UNKNOWN),
                "copies": (),
                "flight": changed(FLIGHT, stage="lost"),
            },
        ),
        (
            e.SlotReleased(sequence=1, slot=0, length=2),
            {"slots": (Slot(cells=Inputs(range(2)), n_cells=6, used=4), FREE)},
        ),
        (
            e.BatchDecoded(
                batch=7, code=e.DONE, samples=(e.Sample(sequence=1, index=4, token=6),), vectors=(), positions=((0, 5),)
            ),
            {
                "slots": (changed(BUSY, work=changed(WORK, wants=None), cells=Inputs(range(6))), FREE),
                "flight": changed(FLIGHT, stage="landed"),
            },
        ),
        (
            e.BatchDecoded(batch=7, code=e.ABORTED, samples=(), vectors=(), positions=((0, 4),)),
            {"slots": (changed(BUSY, n_cells=5), FREE), "flight": changed(FLIGHT, stage="aborted")},
        ),
        (
            e.BatchDecoded(batch=7, code=e.INVALID, samples=(), vectors=(), positions=()),
            {"slots": (Slot(work=WORK, n_cells=6, used=4), FREE), "flight": changed(FLIGHT, stage="landed")},
        ),
        (e.RequestRejected(sequence=5, failure=FAILURE), {}),
        (e.BatchFailed(batch=7, sequences=(1,), failure=FAILURE), {}),
        (e.TokenDropped(sequence=1, index=0, token=1), {}),
    ],
    ids=lambda value: type(value).__name__,
)
def test_what_an_event_changes_in_the_batcher(event: e.Event, after: dict[str, Any]) -> None:
    """An event of the Batcher changes these fields of its state, and no other."""
    assert changed(STATE, **after) == batcher.evolve(STATE, event)


def test_an_abort_is_under_way() -> None:
    """A batch that is to end early is known to be so."""
    before = changed(STATE, flight=changed(FLIGHT, stage="in flight"))
    assert STATE == batcher.evolve(before, e.AbortRequested(batch=7, sequence=1))


def test_a_plan_removes_no_cells_of_a_free_slot() -> None:
    """The plan of a batch counts on the trims of busy slots alone: what is too much in a free one stays for later."""
    before = changed(STATE, slots=(BUSY, changed(FREE, n_cells=7)))
    after = batcher.evolve(before, changed(PLAN, batch=8))
    assert [5, 7] == [slot.n_cells for slot in after.slots]


def test_cells_are_not_moved_where_they_are_evaluated_again() -> None:
    """Where cells are not moved, only those before the gap stay, and nothing is wrong with them."""
    before = changed(STATE, context=changed(CONTEXT, shift="evaluate"))
    after = batcher.evolve(before, e.InputsDropped(sequence=1, keep=2, discard=1))
    slot = changed(BUSY, work=changed(WORK, inputs=Inputs([0, 1, 3, 4, 5])), cells=Inputs([0, 1]))
    assert changed(before, slots=(slot, FREE)) == after


def test_cells_that_were_moved_stay_moved() -> None:
    """What an earlier shift moved is no function of its inputs after a later one either, however much that keeps."""
    before = changed(STATE, slots=(changed(BUSY, pure=1), FREE))
    after = batcher.evolve(before, e.InputsDropped(sequence=1, keep=2, discard=1))
    assert 1 == after.slots[0].pure


@pytest.mark.parametrize(("num_predict", "most"), [(0, 0), (1, 1), (7, 7), (-1, 160)])
def test_how_many_tokens_are_sampled_at_most(num_predict: int, most: int) -> None:
    """As many as were asked for, none included; without a limit so many contexts."""
    assert most == sequence.num_predicted(num_predict, 16)


def test_a_refused_batch_leaves_operations_undone() -> None:
    """Where the engine refused a batch, a slot that was to be copied into holds unknown cells, too."""
    copy = e.Copy(source=0, slot=1)
    before = changed(STATE, flight=changed(FLIGHT, plan=changed(PLAN, copies=(copy,))))
    after = batcher.evolve(before, e.BatchDecoded(batch=7, code=e.INVALID, samples=(), vectors=(), positions=()))
    assert (Slot(work=WORK, n_cells=6, used=4), Slot(n_cells=5, used=3)) == after.slots


def test_a_slot_without_a_sequence_is_not_preempted() -> None:
    """There is no sequence to preempt in a free slot."""
    with pytest.raises(InternalError, match="slot 1 has no sequence to preempt"):
        batcher.evolve(STATE, e.SequencePreempted(sequence=1, slot=1, by=3))


def test_a_batch_without_its_row_is_nothing_to_a_sequence() -> None:
    """A Sequence that is told of a batch that brought it neither a token nor a vector decides nothing."""
    other = e.Sample(sequence=2, index=0, token=6)
    decoded = e.BatchDecoded(batch=7, code=e.DONE, samples=(other,), vectors=(), positions=())
    assert [] == sequence.decide(READING, decoded)


def test_a_batch_after_one_that_stopped_by_itself_is_spared() -> None:
    """A decode that ended early though nothing asked it to spares the next batch, as one that was asked to does."""
    before = changed(STATE, flight=Flight(plan=PLAN))
    decoded = e.BatchDecoded(batch=7, code=e.ABORTED, samples=(), vectors=(), positions=((0, 4),))
    stopped = batcher.evolve(before, decoded)
    assert Flight(plan=PLAN, stage="stopped") == stopped.flight
    planned = batcher.evolve(stopped, changed(PLAN, batch=8))
    assert planned.flight is not None
    assert planned.flight.spared
