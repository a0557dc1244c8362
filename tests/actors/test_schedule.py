"""How the rows of a batch are shared out, case by case."""

import pytest

from reenact.actors.schedule import share_rows


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
    ],
)
def test_rows_are_shared_evenly(wanted: list[int], budget: int, rows: list[int]) -> None:
    """Everybody gets a row, the rest is even up to what each wants, and lower slots get the remainder."""
    assert rows == share_rows(wanted, budget)
