"""The same requests in other schedules: which requests, and which schedules.

The rule that holds here: a schedule is all that is not in a request. Slots, rows, order and time of arrival, who else
is there and what he does, readers who pause, batches that are aborted or fail.
"""

from itertools import product
from typing import Any, Final

from attrs import field, frozen
from hypothesis import strategies as st

from reenact.actors import events as e
from reenact.replay.testing.strategies import TAILS, weighted
from tests.helpers.programs.programs import Step, Submit, Tell


@frozen
class Arrive:
    """The next of the requests arrives, if there is one left."""


@frozen
class Schedule:
    """What happens around the requests."""

    settings: dict[str, Any]
    """Of the context, but for ``n_ctx``."""
    order: list[int]
    """The requests as they arrive."""
    happenings: list[Arrive | Submit | Tell | Step] = field(repr=lambda all_: "\n  " + "\n  ".join(map(repr, all_)))
    """A `Submit` is a neighbour's."""


@frozen
class Case:
    """Requests, and schedules for them."""

    n_ctx: int
    requests: list[Submit]
    """One that follows another has its prompt, and what it says, before its own."""
    schedules: list[Schedule]


# Long beginnings in common, and what stands here more than once comes more often.
PROMPT: Final = st.builds(
    lambda family, length, tail: (*range(family, family + length), *tail),
    st.sampled_from([100, 100, 100, 200]),
    st.sampled_from([1, 3, 5, 5, 8, 8, 12, 20]),
    st.sampled_from(TAILS),
)
OPTIONS: Final = st.sampled_from(
    [
        dict(zip(("seed", "num_predict", "num_keep", "stop", "shift", "truncate", "priority"), values, strict=True))
        for values in product(
            [1, 2],
            [-1, -1, -1, 20, 5, 0],
            [4, 0, 2, 30, -1],
            [[], [], ["</s>"], ["the a", "b<", "éa"]],
            [True, True, True, False],
            [True, True, True, False],
            [0, 0, 0, 1, 2, -1],
        )
    ]
)
REQUEST: Final = st.builds(
    Submit,
    prompt=PROMPT,
    follows=st.sampled_from([None, None, 0, 1]),
    bos=st.booleans(),
    options=OPTIONS,
    late=st.sampled_from([False, False, False, True]),
)
TELL: Final = st.builds(
    Tell,
    what=st.sampled_from(
        [
            *[e.ReaderPaused] * 3,
            *(e.ReaderResumed, e.PromptTokenized, e.CancelRequested, e.DeadlineExpired),
        ]
    ),
    which=st.integers(0, 5),
)
BATCHES: Final = st.builds(Step, times=st.sampled_from([1, 1, 2, 4]))
# Before "leave" the caller with the most rows leaves, so that the batch is aborted. The rest is what an engine reports.
GONE_WRONG: Final = st.builds(Step, outcome=st.sampled_from([*["leave"] * 4, 1, 2, -2, "refuse"]))
HAPPENING: Final = weighted((3, BATCHES), (2, st.just(Arrive())), (2, REQUEST), (2, TELL), (1, GONE_WRONG))


def schedules(n_requests: int) -> st.SearchStrategy[Schedule]:
    """Return schedules for so many requests."""
    settings = st.integers(1, 4).flatmap(
        lambda n_slots: st.fixed_dictionaries(
            {
                "n_slots": st.just(n_slots),
                "n_batch": st.integers(n_slots, 12),
                "determinism": st.sampled_from(["auto", "recorded-schedule"]),
            }
        )
    )
    order = st.permutations(range(n_requests))
    return st.builds(Schedule, settings, order, st.lists(HAPPENING, min_size=15, max_size=40))


CASES: Final = st.integers(2, 4).flatmap(
    lambda n_requests: st.builds(
        Case,
        n_ctx=st.sampled_from([9, 12, 18, 18, 40]),
        requests=st.lists(REQUEST, min_size=n_requests, max_size=n_requests),
        schedules=st.lists(schedules(n_requests), min_size=2, max_size=2),
    )
)
