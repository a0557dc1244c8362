"""How long something may take: the time is looked at between one item and the next."""

import math
from collections.abc import Iterable, Iterator
from time import monotonic
from typing import TypeVar

T = TypeVar("T")


class TimeIsOver(Exception):
    """What was begun is not to be done."""


class Patience:
    """A time from now on.

    Args:
        seconds: When these are over, it is.
    """

    def __init__(self, seconds: float = math.inf) -> None:
        self._ends = monotonic() + seconds

    def check(self) -> None:
        """Go on only while there is time.

        Raises:
            TimeIsOver: There is none.
        """
        if monotonic() > self._ends:
            raise TimeIsOver

    def within(self, items: Iterable[T]) -> Iterator[T]:
        """Yield items while there is time.

        Raises:
            TimeIsOver: While iterating: there is none.
        """
        for item in items:
            self.check()
            yield item
