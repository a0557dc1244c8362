"""A limit of time that is checked between one item and the next."""

import math
from collections.abc import Iterable, Iterator
from time import monotonic
from typing import TypeVar

T = TypeVar("T")


class TimeIsOver(Exception):
    """The time is up: the work that was begun is not finished."""


class Patience:
    """A limit of time, counted from now on.

    Args:
        seconds: The length of the time.
    """

    def __init__(self, seconds: float = math.inf) -> None:
        self._ends = monotonic() + seconds

    def check(self) -> None:
        """Raise if the time is up.

        Raises:
            TimeIsOver: It is.
        """
        if monotonic() > self._ends:
            raise TimeIsOver

    def within(self, items: Iterable[T]) -> Iterator[T]:
        """Yield items until the time is up.

        Raises:
            TimeIsOver: While iterating, once the time is up.
        """
        for item in items:
            self.check()
            yield item
