"""Lists of inputs: what they have in common, and that sharing does not show."""

from collections.abc import Sequence

import pytest

from reenact.actors.inputs import NONE, Input, Inputs, Row, kind_of, rows_of


@pytest.mark.parametrize(
    ("one", "other", "common"),
    [
        ([1, 2, 3], [1, 2, 3], 3),
        ([1], [1, 2, 3], 1),
        ([1, Row("abc")], [1, Row("abc"), 5], 2),
        ([Row("abc")], [Row("ab")], 0),
        ([], [1], 0),
        ([1, 2, 3, 4], [1, 2, 9, 4], 2),
        ([7, 2], [1, 2], 0),
        ([Row("ac")], [Row("ad")], 0),
        (range(1000), [*range(777), -1, *range(778, 1000)], 777),
    ],
)
def test_the_common_beginning(one: Sequence[Input], other: Sequence[Input], common: int) -> None:
    """Inputs are equal if the tokens are, or the rows as a whole; behind the first unequal ones nothing counts."""
    assert (common, common) == (Inputs(one).common(Inputs(other)), Inputs(other).common(Inputs(one)))


def test_a_list_is_not_changed_by_who_lengthens_it() -> None:
    """Two that lengthen the same list get what each of them added, and the list stays as it was."""
    short = Inputs([1, 2])
    one, other = short.then([3]), short.then([4, 5])
    assert ((1, 2), (1, 2, 3), (1, 2, 4, 5)) == (short[:], one[:], other[:])
    assert (2, 3) == (one.common(other), one.common(one.then([6])))


def test_a_beginning_is_lengthened_for_itself() -> None:
    """What is behind the first inputs of a list is not theirs."""
    whole = Inputs(range(5))
    first = whole.first(2)
    assert ((0, 1), (0, 1, 9), (0, 1, 2, 3, 4)) == (first[:], first.then([9])[:], whole[:])
    assert (2, 1) == (len(first), first[-1])
    with pytest.raises(IndexError):
        first[2]


@pytest.mark.parametrize(("count", "length"), [(-1, 0), (0, 0), (3, 3), (9, 5)])
def test_the_first_are_as_many_as_there_are(count: int, length: int) -> None:
    """No fewer than none, and no more than all."""
    assert length == len(Inputs(range(5)).first(count))


def test_inputs_are_left_out() -> None:
    """Without some in the middle, the rest moves up, and the list itself is as it was."""
    whole = Inputs(range(6))
    assert ((0, 1, 4, 5), 6) == (whole.without(2, 2)[:], len(whole))


def test_equal_lists_are_equal() -> None:
    """Lists are equal by what is in them, whether they share it or not."""
    whole = Inputs([1, Row("a")])
    assert Inputs([1, Row("a")]) == whole
    assert Inputs([1, Row("a"), 2]).first(2) == whole
    assert whole != whole.then([3])
    assert whole != [1, Row("a")]
    assert NONE == Inputs()


def test_a_list_shows_its_inputs() -> None:
    """The digest of a state rests on this: what is shared with others beyond the end does not show."""
    whole = Inputs([1, 2])
    whole.then([3])
    assert "Inputs([1, 2])" == repr(whole)


def test_a_token_is_not_a_row() -> None:
    """There are two kinds of inputs, and rows are found among them."""
    assert ("token", "row") == (kind_of(1), kind_of(Row("a")))
    assert [Row("b"), Row("a"), Row("b")] == rows_of([1, Row("b"), Row("a"), 2, Row("b")])
