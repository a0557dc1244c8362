"""Random sessions: what callers, readers and the engine may do, in whatever order."""

from collections.abc import Callable
from itertools import product
from typing import Any, Literal

from attrs import evolve as changed
from attrs import field, frozen
from hypothesis import strategies as st

from reenact.actors import events as e
from reenact.actors.inputs import Input
from reenact.replay.testing.strategies import TAILS, weighted


@frozen
class Submit:
    """A request; one whose prompt is tokenized late waits for `Tell` or the end of the program."""

    prompt: tuple[Input, ...]
    follows: int | None
    """Which request's prompt and text stand before this prompt, as in a chat."""
    bos: bool
    options: dict[str, Any]
    late: bool
    dimensions: int | None
    """Values of an embedding, where one is wanted."""


@frozen
class Tell:
    """A fact about one of the requests so far: ``which`` counts, around, the living ones and then the ended ones."""

    what: Callable[..., e.GivenEvent]
    which: int


@frozen
class Step:
    """The batch in flight is carried out: a return code, or what else may become of it."""

    outcome: int | Literal["nan", "grammar", "abort", "leave", "refuse", "raise"] = 0
    times: int = 1
    rows: int = 0
    """How many of its rows were evaluated before a decode ended early."""


@frozen
class Program:
    """A session's settings, and all that happens in it."""

    header: dict[str, Any]
    commands: list[Submit | Tell | Step] = field(repr=lambda commands: "\n  " + "\n  ".join(map(repr, commands)))


# Long beginnings in common, longer than the smallest contexts, and tails of both kinds.
PROMPT = st.builds(
    lambda family, length, tail: (*range(family, family + length), *tail),
    st.sampled_from([100, 100, 200]),
    st.sampled_from([0, 1, 3, 3, 5, 5, 8, 8, 12, 20]),
    st.sampled_from(TAILS),
)
# What stands here more than once comes more often. One draw for all of them is quicker than one for each.
OPTIONS = st.sampled_from(
    [
        dict(zip(("num_predict", "num_keep", "stop", "shift", "truncate", "priority"), values, strict=True))
        for values in product(
            [-1, -1, -1, -1, 20, 9, 2, 0],
            [4, 4, 0, 2, 30, -1],
            [[], ["</s>"], ["ab", "é"], ["bb", "</s>"]],
            [True, True, True, False],
            [True, True, True, False],
            [0, 0, 1, 2, 3, -1],
        )
    ]
)
SUBMIT = st.builds(
    Submit,
    prompt=PROMPT,
    follows=st.sampled_from([*[None] * 12, *range(6)]),
    bos=st.booleans(),
    options=OPTIONS,
    late=st.sampled_from([False, False, False, True]),
    dimensions=st.sampled_from([None, None, 1, 2, 5]),
)
TELL = st.builds(
    Tell,
    what=st.sampled_from(
        [
            *[e.ReaderPaused] * 3,
            *[e.ReaderResumed] * 2,
            *(e.PauseExpired, e.CancelRequested, e.DeadlineExpired, e.PromptTokenized),
        ]
    ),
    which=st.integers(0, 5),
)
GOOD_STEP = st.builds(Step, times=st.sampled_from([1, 1, 2, 4]))
# An abort that nobody asked for is code 2; one that was asked for is "abort", and a good step where none was. Before
# "leave" the caller with the most rows leaves.
STEP = st.builds(
    Step,
    outcome=st.sampled_from(["abort"] * 4 + ["leave"] * 10 + ["nan", "grammar", "refuse", 1, 2, -1, -2, "raise"]),
    rows=st.integers(0, 12),
)
# Most steps succeed, so that sequences come to an end of their own.
COMMAND: st.SearchStrategy[Submit | Tell | Step] = weighted((5, GOOD_STEP), (2, SUBMIT), (1, TELL), (1, STEP))


def programs(
    commands: st.SearchStrategy[Submit | Tell | Step] = COMMAND, **header: st.SearchStrategy[Any]
) -> st.SearchStrategy[Program]:
    """Return programs in small contexts of such commands, with these settings beside."""
    settings = st.integers(1, 3).flatmap(
        lambda n_slots: st.fixed_dictionaries(
            {
                "n_slots": st.just(n_slots),
                "n_ctx": st.integers(4, 18),
                "n_batch": st.integers(n_slots, 10),
                "max_waiting": st.sampled_from([0, 2, 9, 9]),
                **header,
            }
        )
    )
    return st.builds(Program, header=settings, commands=st.lists(commands, min_size=15, max_size=45))


GENERATING = programs(shift=st.sampled_from(["move", "evaluate"]))
POOLING = programs(pooling=st.just("mean"), alone=st.booleans())
ANY = weighted((3, GENERATING), (1, POOLING))

# Short answers to prompts that have nothing in common: what slots were used for, and when, decides who gets which.
STRANGER = st.builds(
    Submit,
    prompt=st.builds(
        lambda family, length: tuple(range(family, family + length)),
        st.integers(1, 9).map(lambda i: 100 * i),
        st.integers(1, 4),
    ),
    follows=st.none(),
    bos=st.just(value=False),
    options=st.sampled_from([1, 2, 4, 9]).map(lambda num_predict: {"num_predict": num_predict}),
    late=st.just(value=False),
    dimensions=st.none(),
)
STRANGERS = programs(weighted((1, STRANGER), (2, GOOD_STEP)), shift=st.just("evaluate"))

# Prompts of which any two begin alike, for longer or shorter: one slot holds little of the next one, another one much.
RELATIVE = st.builds(
    changed,
    STRANGER,
    prompt=st.builds(lambda length, last: (*range(100, 100 + length), last), st.integers(0, 16), st.integers(1, 3)),
    options=st.sampled_from([1, 2, 9, 20]).map(lambda num_predict: {"num_predict": num_predict}),
)
RELATIVES = programs(weighted((1, RELATIVE), (2, GOOD_STEP)), shift=st.just("evaluate"))
