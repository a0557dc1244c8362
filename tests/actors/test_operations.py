"""What copies, trims and shifts do to cells."""

from reenact.actors.batch import BatchPlanned, Copy, Part, Shift, Trim, apply_operations, n_without, without

PLANNED = BatchPlanned(
    batch=0,
    copies=(Copy(source=0, slot=1),),
    trims=(Trim(slot=1, length=5),),
    shifts=(Shift(slot=1, keep=1, discard=2),),
    parts=(Part(sequence=1, slot=3, position=0, inputs=(7,)),),
)
"""What is copied is trimmed, and then shifted."""

CELLS = {0: [1, 2, 3, 4, 5, 6], 1: [9], 2: [8]}


def test_cells_are_copied_then_trimmed_then_shifted() -> None:
    """The copied slot has its beginning and what stood behind the discarded cells; the others are as they were."""
    assert {0: [1, 2, 3, 4, 5, 6], 1: [1, 4, 5], 2: [8]} == apply_operations(CELLS, PLANNED, without)


def test_what_is_known_before_stays_as_it_is() -> None:
    """The cells that were handed over are not changed, those of the copied slot included."""
    apply_operations(CELLS, PLANNED, without)
    assert {0: [1, 2, 3, 4, 5, 6], 1: [9], 2: [8]} == CELLS


def test_counts_of_cells_are_those_of_the_cells() -> None:
    """With numbers in place of cells the same comes out, counted."""
    counts = {number: len(cells) for number, cells in CELLS.items()}
    after = apply_operations(CELLS, PLANNED, without)
    assert {number: len(cells) for number, cells in after.items()} == apply_operations(counts, PLANNED, n_without)


def test_no_more_is_removed_than_there_is() -> None:
    """A removal that goes beyond the cells takes those that there are."""
    for removed, left in ((slice(3, None), 2), (slice(1, 9), 1), (slice(4, 6), 2)):
        assert (left, left) == (n_without(2, removed), len(without([1, 2], removed)))


def test_a_batch_names_every_slot_it_has_to_do_with() -> None:
    """Slots of rows, of operations, and those that are copied from."""
    assert {0, 1, 3} == PLANNED.slots
