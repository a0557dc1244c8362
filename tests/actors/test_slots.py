"""Which slot a sequence gets, and what a slot's cells hold after a batch."""

from itertools import takewhile

import pytest
from attrs import evolve as changed
from hypothesis import strategies as st

from reenact.actors import events as e
from reenact.actors.inputs import Inputs
from reenact.actors.limits import COPIED_CELLS_PER_ROW
from reenact.actors.slots import Choice, Gap, Slot, Work, choose, decoded, unknown
from tests.helpers.properties import holds_for

N_CTX_SEQ = 2048

LONG = range(74)


def chosen(inputs: Inputs, slots: list[Slot]) -> Choice | None:
    """Choose among slots of the size above."""
    return choose(Work(sequence=1, priority=0, inputs=inputs), slots, N_CTX_SEQ)


def free(length: int, *, used: int = 0, start: int = 0) -> Slot:
    """Return a free slot whose cells hold ``start``, ``start`` + 1, ..."""
    return Slot(cells=Inputs(range(start, start + length)), n_cells=length, used=used)


def busy(length: int, *, start: int = 0) -> Slot:
    """Return a slot that a sequence has; as in `free`."""
    cells = Inputs(range(start, start + length))
    return changed(free(length, start=start), work=Work(sequence=9, priority=0, inputs=cells.then([7])))


EMPTY = Slot()


def test_a_slot_is_taken_over_if_half_of_it_is_reused() -> None:
    """A free slot of whose cells at least half are reused is taken over, also where another is empty."""
    wanted = Inputs([0, 1, 2, -1])
    assert Choice(1, 3) == chosen(wanted, [EMPTY, free(6)])
    assert Choice(0, 3, source=1) == chosen(wanted, [EMPTY, free(7)])


def test_the_slot_of_which_most_is_reused_is_taken_over() -> None:
    """Of several slots that could be taken over it is the one with the longest common beginning, then the lowest."""
    wanted = Inputs(range(10))
    assert Choice(1, 5) == chosen(wanted, [free(4), free(5), free(5)])


def test_a_busy_slot_is_not_taken_over() -> None:
    """Whatever a busy slot holds, its sequence keeps it."""
    assert Choice(1, 9, source=0) == chosen(Inputs(range(10)), [busy(9), EMPTY])
    assert None is chosen(Inputs(range(10)), [busy(9), busy(3)])


def test_one_input_at_least_is_evaluated() -> None:
    """Where all inputs are in cells the last one is evaluated again, because its logits are wanted."""
    assert Choice(0, 2) == chosen(Inputs(range(3)), [free(3)])
    assert Choice(0, 2) == chosen(Inputs(range(3)), [free(5)])
    assert Choice(0, 0) == chosen(Inputs([0]), [free(1)])


def test_an_empty_slot_comes_before_a_used_one() -> None:
    """Where nothing is to be reused an empty slot is taken, and what others hold stays."""
    assert Choice(2, 0) == chosen(Inputs([5]), [free(3, used=4), free(3, used=1), EMPTY, EMPTY])


def test_then_comes_the_least_recently_used_slot() -> None:
    """Where no slot is empty, the one whose last batch is the longest ago loses what it holds; then the lowest."""
    assert Choice(1, 0) == chosen(Inputs([50]), [free(3, used=4), free(3, used=1), free(3, used=2)])
    assert Choice(0, 0) == chosen(Inputs([50]), [free(3, used=1), free(3, used=1)])


def test_a_slot_whose_cells_are_of_no_use_is_empty() -> None:
    """A slot that was used, and holds nothing that can be reused, is as good as an empty one."""
    assert Choice(1, 0) == chosen(Inputs([50]), [free(3, used=1), free(0, used=9)])


def test_a_common_beginning_is_forked_from_a_free_slot() -> None:
    """Where too little of a slot is reused to take it over, its beginning is copied into an empty one."""
    assert Choice(1, 64, source=0) == chosen(Inputs([*range(64), -1]), [free(192), EMPTY])


def test_a_common_beginning_is_forked_from_a_busy_slot() -> None:
    """A busy slot gives its beginning away by a copy; of several with the same beginning the lowest."""
    assert Choice(2, len(LONG), source=0) == chosen(Inputs([*LONG, -1]), [busy(len(LONG)), busy(len(LONG)), EMPTY])


@pytest.mark.parametrize(("n_cells", "least"), [(30, 1), (300, 3), (1000, 8), (2000, 9)])
def test_a_fork_saves_more_than_its_copy_costs(n_cells: int, least: int) -> None:
    """A copy costs a row for each 128 cells in use, and no more than a copy of the whole slot: 8 rows for 2,048."""
    slots = [busy(n_cells), EMPTY]
    assert Choice(1, 0) == chosen(Inputs([*range(least - 1), -1]), slots)
    assert Choice(1, least, source=0) == chosen(Inputs([*range(least), -1]), slots)


def test_of_several_sources_the_copy_that_saves_most_is_made() -> None:
    """Where as much is in common the slot with fewer cells in use is copied, and a longer beginning may cost more."""
    assert Choice(2, 30, source=1) == chosen(Inputs([*range(30), -1]), [busy(1000), busy(40), EMPTY])
    assert Choice(2, 33, source=1) == chosen(Inputs([*range(36), -1]), [busy(1000), busy(33), EMPTY])


def test_a_few_cells_in_a_free_slot_hide_no_beginning_in_a_busy_one() -> None:
    """A slot that could be taken over, and saves little, does not come before a fork that saves much."""
    wanted = Inputs([*range(1000), -1])
    assert Choice(1, 1000, source=0) == chosen(wanted, [busy(1100), free(5)])
    assert Choice(2, 1000, source=0) == chosen(wanted, [busy(1100), free(5), EMPTY])
    assert Choice(1, 995) == chosen(wanted, [busy(1100), free(995)])


def test_a_fork_goes_where_least_is_lost() -> None:
    """Where no slot is empty it goes into one that could be taken over, before one that holds something else."""
    wanted = Inputs([*range(1000), -1])
    assert Choice(2, 1000, source=0) == chosen(wanted, [busy(1100), free(900, used=1, start=5000), free(5, used=8)])


def test_what_the_slot_has_anyway_counts_against_a_fork() -> None:
    """A fork must save more than its cost beyond what the chosen slot holds itself."""
    short = Slot(cells=Inputs([*range(20), *range(-100, -50)]), n_cells=70)
    assert Choice(0, 20) == chosen(Inputs([*range(28), -1]), [short, busy(2000)])
    assert Choice(0, 29, source=1) == chosen(Inputs([*range(29), -1]), [short, busy(2000)])


def test_cells_that_were_moved_are_nobody_elses() -> None:
    """Of a slot that was shifted only the kept beginning is reused: the rest carries traces of what was dropped."""
    shifted = changed(busy(len(LONG)), pure=5)
    assert Choice(1, 5, source=0) == chosen(Inputs(LONG), [shifted, EMPTY])


def part(position: int, *inputs: int, draw: int | None = None) -> e.Part:
    """Return rows in slot 0."""
    return e.Part(sequence=9, slot=0, position=position, inputs=inputs, wants=None if draw is None else e.Draw(draw))


def holding(length: int, n_inputs: int, draw: int | None = 0) -> Slot:
    """Return a busy slot with some of its sequence's inputs in cells."""
    inputs = Inputs(range(n_inputs))
    work = Work(sequence=9, priority=0, inputs=inputs, wants=None if draw is None else e.Draw(draw))
    return Slot(work=work, cells=inputs.first(length), n_cells=length)


def test_cells_count_after_a_decode_that_succeeded() -> None:
    """What was evaluated is in the cells then, and no sooner."""
    after = decoded(holding(2, 6), part(2, 2, 3), 3, code=0)
    assert (Inputs(range(4)), 4, 2) == (after.cells, after.n_cells, after.queued)


def test_what_was_drawn_is_not_wanted_any_more() -> None:
    """After the last row, with its token sampled, nothing is queued."""
    after = decoded(holding(2, 4), part(2, 2, 3, draw=0), 3, code=0)
    assert (Inputs(range(4)), 0, None) == (after.cells, after.queued, after.work and after.work.wants)


def test_cells_of_a_failed_decode_are_of_no_use() -> None:
    """After a failure the cells' contents are unknown: they count for nothing and are removed before the next rows."""
    after = decoded(holding(2, 4), part(2, 2, 3, draw=0), 3, code=-2)
    assert (Inputs(), True) == (after.cells, after.has_excess)


def test_positions_that_cannot_be_are_believed_by_nobody() -> None:
    """Where the engine reports cells that neither were there nor were planned, the slot counts as unknown."""
    for position in (None, 0, 4):
        after = decoded(holding(2, 4), part(2, 2, 3, draw=0), position, code=2)
        assert (Inputs(), True) == (after.cells, after.has_excess)


def test_an_aborted_decode_keeps_what_was_evaluated() -> None:
    """After an aborted decode the rows that the engine reports are in the cells, the rest is queued again."""
    after = decoded(holding(2, 6), part(2, 2, 3, 4, 5, draw=0), 3, code=2)
    assert (Inputs(range(4)), 2, False) == (after.cells, after.queued, after.has_excess)


def test_after_an_abort_the_last_input_is_evaluated_again() -> None:
    """The logits of an aborted decode are gone: where all rows are in the cells, the last one is taken out again."""
    after = decoded(holding(2, 4), part(2, 2, 3, draw=0), 3, code=2)
    assert (Inputs(range(3)), 1, True) == (after.cells, after.queued, after.has_excess)


def test_rows_in_flight_of_an_ended_sequence_are_kept() -> None:
    """Rows that were in flight when their sequence ended can be reused like those before."""
    released = changed(free(2), work=None)
    after = decoded(released, part(2, 2, 3), 3, code=0)
    assert (Inputs(range(4)), 4) == (after.cells, after.n_cells)
    aborted = decoded(released, part(2, 2, 3), 2, code=2)
    assert (Inputs(range(3)), 3) == (aborted.cells, aborted.n_cells)


def test_rows_behind_a_cut_are_not_kept() -> None:
    """Where the end took inputs out of the reusable cells, rows in flight behind them are of no use either."""
    cut = changed(free(4), cells=Inputs(range(2)))
    after = decoded(cut, part(4, 4, 5), 5, code=0)
    assert (Inputs(range(2)), 6) == (after.cells, after.n_cells)


def test_every_slot_that_fits_is_looked_at() -> None:
    """A slot that has more in common, but not half of its cells, hides none that fits."""
    system = Inputs([*range(60), -1])
    assert Choice(1, 60) == chosen(system, [free(960), free(60), EMPTY])
    assert Choice(2, 60) == chosen(system, [free(960), free(20), free(60), EMPTY])


@holds_for(
    examples=300,
    wanted=st.lists(st.integers(0, 2), min_size=1, max_size=8),
    cells=st.lists(st.tuples(st.lists(st.integers(0, 2), max_size=8), st.booleans(), st.integers(0, 5)), min_size=1),
)
def test_the_choice_is_what_the_rules_say(wanted: list[int], cells: list[tuple[list[int], bool, int]]) -> None:
    """Whatever the slots hold, the choice is that of the rules read one after the other."""
    inputs = Inputs(wanted)
    slots = [
        Slot(
            cells=Inputs(held),
            n_cells=len(held),
            used=used if held else -1,
            work=Work(sequence=9, priority=0) if is_busy else None,
        )
        for held, is_busy, used in cells
    ]
    common = [
        len([*takewhile(lambda pair: pair[0] == pair[1], zip(wanted, held, strict=False))]) for held, _, _ in cells
    ]
    n_free = [i for i, (_, is_busy, _) in enumerate(cells) if not is_busy]
    reused = [min(length, len(wanted) - 1) for length in common]
    half = [i for i in n_free if common[i] and 2 * common[i] >= len(cells[i][0])]
    empty = [i for i in n_free if not cells[i][0]]
    expected = None
    if n_free:
        room = empty[0] if empty else min(half or n_free, key=lambda i: (cells[i][2], i))
        here: list[tuple[float, Choice]] = [(reused[i], Choice(i, reused[i])) for i in sorted({*half, room})]
        copies = [2 * len(held) / COPIED_CELLS_PER_ROW for held, _, _ in cells]
        there = [(reused[i] - copy, Choice(room, reused[i], i)) for i, copy in enumerate(copies) if i != room]
        expected = max([*here, *there], key=lambda one: one[0])[1]
    assert expected == choose(Work(sequence=1, priority=0, inputs=inputs), slots, 100)


@pytest.mark.parametrize(("n_cells", "left"), [(5, 5), (0, 1)])
def test_cells_that_nobody_knows_are_forgotten(n_cells: int, left: int) -> None:
    """Cells whose contents are unknown are of no use and to be removed, whatever was known before."""
    work = Work(sequence=1, priority=0, inputs=Inputs(range(9)), wants=e.Draw(0))
    slot = Slot(work=work, cells=Inputs(range(4)), n_cells=n_cells, pure=2, gap=Gap(1, 2), used=7)
    assert Slot(work=work, n_cells=left, used=7) == unknown(slot)
    assert unknown(slot).has_excess


def pooling(*, pool: bool = True) -> Slot:
    """Return a slot whose text of three inputs is to be pooled."""
    return Slot(work=Work(sequence=1, priority=0, inputs=Inputs([1, 2, 3]), wants=e.Pool() if pool else None))


def test_a_text_is_pooled_once_and_leaves_no_cells() -> None:
    """A vector that was computed is not wanted any more; after an abort it is, and what was evaluated is removed."""
    rows = e.Part(sequence=1, slot=0, position=0, inputs=(1, 2, 3), wants=e.Pool())
    assert pooling(pool=False) == decoded(pooling(), rows, -1, code=e.DONE)
    assert changed(pooling(), n_cells=2) == decoded(pooling(), rows, 1, code=e.ABORTED)
    assert Slot(n_cells=2) == decoded(Slot(), rows, 1, code=e.ABORTED)
    assert pooling(pool=False) == decoded(changed(pooling(), cells=Inputs([1]), n_cells=1), rows, -1, code=e.DONE)
