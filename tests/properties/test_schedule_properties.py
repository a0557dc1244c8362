"""How the rows of a batch are shared out, whatever is wanted."""

from hypothesis import strategies as st

from reenact.actors.schedule import share_rows
from tests.helpers.properties import holds_for

WANTED_AND_BUDGET = st.lists(st.one_of(st.just(1), st.integers(1, 40)), max_size=12).flatmap(
    lambda wanted: st.tuples(st.just(wanted), st.integers(len(wanted), 200))
)


@holds_for(asked=WANTED_AND_BUDGET)
def test_everybody_gets_rows_and_the_budget_is_used_up(asked: tuple[list[int], int]) -> None:
    """Each gets at least a row and at most what it wants, and what is left over none wants."""
    wanted, budget = asked
    rows = share_rows(wanted, budget)
    assert len(wanted) == len(rows)
    assert all(1 <= got <= want for got, want in zip(rows, wanted, strict=True))
    assert min(budget, sum(wanted)) == sum(rows)


@holds_for(asked=WANTED_AND_BUDGET)
def test_the_share_is_even(asked: tuple[list[int], int]) -> None:
    """A sequence that gets less than it wants has at least as many rows as any other, less one."""
    wanted, budget = asked
    rows = share_rows(wanted, budget)
    assert all(got >= max(rows) - 1 for got, want in zip(rows, wanted, strict=True) if got < want)


@holds_for(asked=WANTED_AND_BUDGET)
def test_lower_slots_get_the_remainder(asked: tuple[list[int], int]) -> None:
    """Among those that get less than they want, a lower slot never has fewer rows than a higher one."""
    wanted, budget = asked
    rows = share_rows(wanted, budget)
    hungry = [got for got, want in zip(rows, wanted, strict=True) if got < want]
    assert sorted(hungry, reverse=True) == hungry
