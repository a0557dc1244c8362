"""Properties under two kinds of seed: examples that are the same in every run, and fresh ones."""

import os
from collections.abc import Callable
from random import Random, SystemRandom
from typing import Any, Final, TypeVar

import pytest
from hypothesis import HealthCheck, Phase, find, given, seed, settings
from hypothesis.errors import NoSuchExample
from hypothesis.strategies import SearchStrategy

from tests.mutants.change import BREAK_NAME

FRESH_SEED_NAME: Final = "REENACT_SEED"
"""The environment variable that repeats the fresh examples of an earlier run."""

# It stands in the environment, so that worker processes have the same one.
FRESH_SEED: Final = int(os.environ.setdefault(FRESH_SEED_NAME, str(SystemRandom().randrange(2**32))))

EXAMPLES_NAME: Final = "REENACT_EXAMPLES"
"""The environment variable that bounds the examples of a property, for who runs the tests thousands of times."""

SHARE: Final = 4
"""`make test` has one in so many of a property's examples; the tests marked `long` have all."""

T = TypeVar("T")


def phases() -> tuple[Phase, ...]:
    """Return what is done with examples: what is broken on purpose is to be found, and not to be reduced."""
    return (Phase.generate,) if os.environ.get(BREAK_NAME) else (Phase.generate, Phase.shrink)


def shares(examples: int) -> list[Any]:
    """Return the parameters of a property's test: a share of its examples, and all of them, marked `long`.

    Where something is broken on purpose, or where the environment bounds the examples, there are all, or as many as the
    bound.
    """
    if os.environ.get(BREAK_NAME) or EXAMPLES_NAME in os.environ:
        return [min(examples, int(os.environ.get(EXAMPLES_NAME, examples)))]
    return [-(-examples // SHARE), pytest.param(examples, marks=pytest.mark.long)]


def holds_for(
    *, examples: int = 200, **strategies: SearchStrategy[Any]
) -> Callable[[Callable[..., None]], Callable[[str, int], None]]:
    """Turn a property into two tests: on examples that are the same in every run, and on fresh ones.

    Args:
        examples: So many for each of the two; `make test` has a share of them.
        strategies: Of the property's arguments.
    """
    common = settings(
        database=None,
        deadline=None,
        phases=phases(),
        suppress_health_check=[HealthCheck.too_slow],
    )

    def decorate(body: Callable[..., None]) -> Callable[[str, int], None]:
        @pytest.mark.parametrize("n_examples", shares(examples))
        @pytest.mark.parametrize("examples", ["fixed", "fresh"])
        def test(examples: str, n_examples: int) -> None:
            so_many = settings(common, max_examples=n_examples)
            if examples == "fixed":
                settings(so_many, derandomize=True)(given(**strategies)(body))()
                return
            try:
                seed(FRESH_SEED)(so_many(given(**strategies)(body)))()
            except BaseException as error:
                error.add_note(f"Run these examples again with {FRESH_SEED_NAME}={FRESH_SEED}")
                raise

        test.__name__, test.__qualname__, test.__doc__ = body.__name__, body.__qualname__, body.__doc__
        test.__module__ = body.__module__
        return test

    return decorate


def exists(strategy: SearchStrategy[T], holds: Callable[[T], bool]) -> bool:
    """Return whether something holds for any of a thousand examples, which are those of every run.

    Args:
        strategy: Of the examples; no more of them are made than it takes.
        holds: It may also remember what it was told, and hold once it has been told everything.
    """
    once = settings(max_examples=1000, database=None, deadline=None, phases=[Phase.generate])
    try:
        find(strategy, holds, settings=once, random=Random(1))  # noqa: S311  # it is to be the same again
    except NoSuchExample:
        return False
    return True
