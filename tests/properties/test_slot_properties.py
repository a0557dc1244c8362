"""Which slot a sequence gets, by the rules of docs/runner-semantics.md told a second time, naively."""

from collections.abc import Sequence
from itertools import pairwise

from reenact.actors import events as e
from reenact.actors.inputs import Input
from reenact.actors.slots import Slot
from reenact.replay.testing.strategies import weighted
from tests.helpers.programs.playing import played
from tests.helpers.programs.programs import GENERATING, POOLING, RELATIVES, STRANGERS, Program
from tests.helpers.properties import holds_for


@holds_for(examples=80, program=weighted((2, GENERATING), (2, STRANGERS), (2, RELATIVES), (1, POOLING)))
def test_a_sequence_gets_the_slot_where_most_is_kept(program: Program) -> None:
    """It is the one that docs/runner-semantics.md says, with as many inputs reused as that has in common with it."""
    used: dict[int, int] = {}
    for before, moment in pairwise(played(program).moments()):
        batcher = before.state.batcher
        match moment.record.event:
            case e.BatchPlanned() as planned:
                used |= dict.fromkeys((part.slot for part in planned.parts), planned.batch)
            case e.SlotAssigned() as assigned if batcher is not None:
                work = next(work for work in batcher.waiting if work.sequence == assigned.sequence)
                inputs = () if isinstance(work.wants, e.Pool) else work.inputs[:]
                expected = where_most_is_kept(inputs, batcher.slots, used, batcher.context.n_ctx_seq)
                assert expected == (assigned.slot, assigned.reused, assigned.source)
            case _:
                pass


def where_most_is_kept(
    inputs: Sequence[Input], slots: Sequence[Slot], used: dict[int, int], n_ctx_seq: int
) -> tuple[int, int, int | None]:
    """Return the slot, how much of it is reused, and which one is copied first; a copy costs less than a row here.

    Args:
        inputs: Of the sequence that gets it.
        slots: All of them.
        used: The last batch that each had rows in.
        n_ctx_seq: Cells of each slot.
    """
    cells = [slot.cells[: slot.pure] for slot in slots]
    common = [
        next((i for i, (a, b) in enumerate(zip(inputs, one, strict=False)) if a != b), min(len(inputs), len(one)))
        for one in cells
    ]
    usable = [min(one, max(len(inputs) - 1, 0)) for one in common]
    free = [number for number, slot in enumerate(slots) if slot.work is None]
    mostly = [number for number in free if common[number] and 2 * common[number] >= len(cells[number])]
    empty = [number for number in free if not cells[number]]
    room = empty[0] if empty else min(mostly or free, key=lambda number: (used[number], number))
    best = min({*mostly, room}, key=lambda number: (-usable[number], number))
    longest = max(usable)
    if usable[best] == longest:
        return best, longest, None
    sources = [number for number, one in enumerate(usable) if one == longest]
    return room, longest, min(sources, key=lambda number: (min(2 * slots[number].n_cells, n_ctx_seq), number))
