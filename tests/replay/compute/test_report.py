"""What an execution came to: its cause is told where it is found, and the difference always."""

from reenact.replay.compute.report import Cause, Computed

DIFFERS = Computed(
    tokens_only=True,
    n_rows=0,
    n_tokens=2,
    n_rows_differ=0,
    n_tokens_differ=1,
    n_unchecked=0,
    n_outcomes_differ=0,
    differing=(1,),
    first_row=None,
    first_token=None,
    first_outcome=None,
    differences=(),
    forced=False,
    seconds=1.0,
)


def test_a_cause_that_is_found() -> None:
    """What a search finds is the cause."""
    cause = Cause(name="another seed", reason="it rains", shown=True)
    assert cause == DIFFERS.because(lambda: cause).cause


def test_a_search_that_fails() -> None:
    """A search that raises is told, and takes nothing from the difference."""
    nobody: dict[str, Cause] = {}
    found = DIFFERS.because(lambda: nobody["no such sequence"])
    expected = Cause(name="unknown", reason="the search for it failed: KeyError: 'no such sequence'", shown=False)
    assert expected == found.cause
    assert (False, 1) == (found.same, found.n_tokens_differ)
