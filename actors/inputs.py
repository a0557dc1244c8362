"""Inputs: what a sequence has evaluated, and what it wants evaluated, one after the other.

An input takes one cell. It is a token, or a row of numbers that stands for one (an embedding of a picture's part, say).
The numbers of a row are not here: nothing that is decided depends on them but whether two rows are equal, and that
their digest says. Two inputs are equal if the tokens are, or if the rows are as a whole (docs/runner-semantics.md
section 2, "Slots and prefix reuse").
"""

from collections.abc import Iterable
from typing import Final, Literal, overload

from attrs import frozen


@frozen
class Row:
    """A row of numbers, by what is in it."""

    digest: str
    """The SHA-256 of its numbers as float32, little-endian, one after the other; in hexadecimal."""


Input = int | Row
"""A token, or a row of numbers."""
Kind = Literal["token", "row"]


def kind_of(one: Input) -> Kind:
    """Return which kind of input ``one`` is: a batch holds one kind only (``llama_batch`` has either)."""
    return "row" if isinstance(one, Row) else "token"


def rows_of(inputs: Iterable[Input]) -> list[Row]:
    """Return the rows among inputs, in their order."""
    return [one for one in inputs if isinstance(one, Row)]


class Inputs:
    """An immutable list of inputs that is cheap to lengthen.

    States hold the inputs of a whole context and change with every token, and copying a tuple of 100,000 takes longer
    than deciding what the token means. So lists share their beginning: whoever lengthens the longest one appends to
    what is shared, where no other one looks.
    """

    __slots__ = ("_length", "_shared")

    def __init__(self, items: Iterable[Input] = ()) -> None:
        self._shared: list[Input] = list(items)
        self._length = len(self._shared)

    def __len__(self) -> int:
        return self._length

    @overload
    def __getitem__(self, at: int) -> Input: ...
    @overload
    def __getitem__(self, at: slice) -> tuple[Input, ...]: ...
    def __getitem__(self, at: int | slice) -> Input | tuple[Input, ...]:
        if isinstance(at, int):
            return self._shared[range(self._length)[at]]
        start, stop, step = at.indices(self._length)
        return tuple(self._shared[start:stop:step])

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Inputs) and len(self) == len(other) and self.common(other) == len(self)

    __hash__ = None  # type: ignore[assignment]  # nobody looks one up

    def __repr__(self) -> str:
        return f"Inputs({list(self[:])})"

    def first(self, count: int) -> "Inputs":
        """Return the first ``count`` inputs, or all if there are fewer."""
        return self._view(min(max(count, 0), self._length))

    def then(self, more: Iterable[Input]) -> "Inputs":
        """Return these inputs and ``more`` behind them."""
        if len(self._shared) != self._length:
            return Inputs([*self[:], *more])
        self._shared.extend(more)
        return self._view(len(self._shared))

    def without(self, start: int, count: int) -> "Inputs":
        """Return these inputs without the ``count`` of them that begin at ``start``."""
        return Inputs([*self[:start], *self[start + count :]])

    def common(self, other: "Inputs") -> int:
        """Return how many inputs both begin with."""
        mine, others = self._shared, other._shared  # noqa: SLF001  # another of the same class
        shorter = min(len(self), len(other))
        if mine is others:
            return shorter
        # Slices are compared in C; so halve the distance between what is equal and what is not.
        equal, unequal = 0, shorter + 1
        while unequal - equal > 1:
            middle = (equal + unequal) // 2
            if mine[equal:middle] == others[equal:middle]:
                equal = middle
            else:
                unequal = middle
        return equal

    def _view(self, length: int) -> "Inputs":
        """Return the first ``length`` of what is shared."""
        view = Inputs.__new__(Inputs)
        view._shared, view._length = self._shared, length  # noqa: SLF001  # another of the same class
        return view


NONE: Final = Inputs()
