"""How the rows of a batch are shared out, case by case."""

import pytest
from attrs import evolve as changed

from reenact.actors import events as e
from reenact.actors.batch import BatchKey
from reenact.actors.inputs import Inputs, Row
from reenact.actors.schedule import ROUND, awaited, next_batch, share_rows, turn_of
from reenact.actors.slots import Choice, Slot, Work, decoded, takes_over, usable


@pytest.mark.parametrize(
    ("wanted", "budget", "rows"),
    [
        ([], 8, []),
        ([3], 8, [3]),
        ([30], 8, [8]),
        ([1, 1, 1], 8, [1, 1, 1]),
        ([1, 30, 1], 8, [1, 6, 1]),
        ([30, 30], 8, [4, 4]),
        ([30, 30, 30], 8, [3, 3, 2]),
        ([2, 30, 30], 10, [2, 4, 4]),
        ([30, 3, 30], 16, [7, 3, 6]),
        ([9, 9, 9], 3, [1, 1, 1]),
        ([100, 100, 1], 13, [6, 6, 1]),
        ([1, 1, 3, 2, 2], 8, [1, 1, 2, 2, 2]),
        ([2, 9, 30], 24, [2, 9, 13]),
    ],
)
def test_rows_are_shared_evenly(wanted: list[int], budget: int, rows: list[int]) -> None:
    """Each sequence gets a row, the rest is even up to what each wants, and lower slots get the remainder."""
    assert rows == share_rows(wanted, budget)


def _work(inputs: Inputs, *uncut: tuple[int, int]) -> Work:
    return Work(sequence=1, priority=0, inputs=inputs, wants=e.Draw(0), uncut=uncut)


def test_an_uncut_run_has_a_batch_without_the_inputs_around_it() -> None:
    """Inputs before an uncut run, the run, and inputs behind it go in three batches, the run as a whole."""
    work = _work(Inputs(range(12)), (4, 9))
    found = []
    cells = 0
    while cells < 12:
        chosen = next_batch([Slot(work=work, cells=work.inputs.first(cells))], 6, None, alone=True)
        assert chosen is not None
        key, (part,) = chosen
        found.append((key.uncut, part.position, len(part.inputs), part.draw))
        cells += len(part.inputs)
    assert [(False, 0, 4, None), (True, 4, 5, None), (False, 9, 3, 0)] == found


def test_an_uncut_run_of_rows_has_the_key_of_rows() -> None:
    """The key of a batch tells the kind of its inputs, also where they are an uncut run."""
    rows = Inputs([Row(str(number)) for number in range(3)])
    chosen = next_batch([Slot(work=_work(rows, (0, 3)))], 6, None, alone=True)
    assert chosen is not None
    assert BatchKey(kind="row", uncut=True) == chosen[0]


@pytest.mark.parametrize(("alone", "expected"), [(True, [[1]]), (False, [[1, 2]])])
def test_uncut_runs_go_in_the_order_of_arrival(alone: bool, expected: list[list[int]]) -> None:
    """As many uncut runs as fit are in a batch, or one where neighbours would change it; first come, first served."""
    sizes = {3: 2, 1: 4, 2: 4}
    slots = [
        Slot(work=changed(_work(Inputs(range(size)), (0, size)), sequence=sequence)) for sequence, size in sizes.items()
    ]
    chosen = next_batch(slots, 8, None, alone=alone)
    assert chosen is not None
    assert expected == [[part.sequence for part in chosen[1]]]


def test_every_key_has_a_turn_in_the_round() -> None:
    """While all keys wait, each has every fourth batch; a key that is alone has all."""
    keys, last = set(ROUND), None
    turns = [last := turn_of(keys, last) for _ in range(8)]
    assert [*ROUND, *ROUND] == turns
    assert ROUND[2] == turn_of({ROUND[2]}, ROUND[2])


def test_part_of_an_uncut_run_is_not_reused() -> None:
    """Cells that hold the beginning of an uncut run are of use only up to its start, and those of a whole run are."""
    work = _work(Inputs(range(12)), (4, 9))
    assert [3, 4, 4, 9, 10] == [usable(work, Inputs(range(n))) for n in (3, 4, 8, 9, 10)]
    assert (True, True, False) == tuple(
        takes_over(work, Slot(cells=Inputs([*range(n), *[99] * more]))) for n, more in ((8, 0), (9, 9), (8, 1))
    )
    assert (False, True) == (takes_over(work, Slot()), takes_over(work, Slot(cells=Inputs([0, 99]))))


def test_part_of_an_uncut_run_that_was_aborted_is_evaluated_again() -> None:
    """If a batch ended inside an uncut run, its cells are of no use; a run before it that is whole is kept."""
    work = _work(Inputs(range(12)), (4, 9))
    part = e.Part(sequence=1, slot=0, position=4, inputs=tuple(range(4, 9)))
    slot = Slot(work=work, cells=work.inputs.first(4), n_cells=4)
    assert [4, 4, 9] == [len(decoded(slot, part, last, code=e.ABORTED).cells) for last in (3, 6, 8)]


def _busy(sequence: int, n_cells: int, n_inputs: int, *, draw: int = 0) -> Slot:
    """Return a slot with ``n_cells`` of the inputs 0, 1, ... of a sequence."""
    work = Work(sequence=sequence, priority=0, inputs=Inputs(range(n_inputs)), wants=e.Draw(draw))
    return Slot(work=work, cells=work.inputs.first(n_cells), n_cells=n_cells)


MINE = Work(sequence=9, priority=0, inputs=Inputs([*range(200), -1]), wants=e.Draw(0))


@pytest.mark.parametrize(("reused", "expected"), [(149, 7), (150, None)])
def test_a_beginning_is_awaited_if_that_saves_as_many_rows(reused: int, expected: int | None) -> None:
    """A wait of 50 batches with a row each is worth 50 rows: the common ones less the reused ones and a copy's row."""
    assert expected == awaited(MINE, Choice(1, reused), [_busy(7, 100, 300), Slot()], 2, 256)


def test_a_wait_costs_no_more_rows_than_are_left() -> None:
    """While another one evaluates the ten rows that a dear copy has not, a sequence with eleven left loses eleven."""
    slots = [_busy(7, 190, 300), Slot(cells=Inputs(range(190)), n_cells=2048), Slot()]
    assert 7 == awaited(MINE, Choice(2, 190, 1), slots, 60, 2048)


def test_only_a_prompt_that_has_not_come_so_far_is_awaited() -> None:
    """A sequence that generates is not waited for, nor one that has evaluated what is common, but one behind them."""
    passed = [Slot(), _busy(5, 299, 300, draw=1), _busy(6, 200, 300)]
    assert None is awaited(MINE, Choice(0, 0), passed, 8, 256)
    assert 7 == awaited(MINE, Choice(0, 0), [*passed, _busy(7, 199, 300)], 8, 256)
    assert 5 == awaited(MINE, Choice(0, 0), [_busy(5, 199, 300), _busy(7, 199, 300)], 8, 256)
