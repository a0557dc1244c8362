"""Holds the inputs of a sequence in order: those that are evaluated, and those that wait to be.

An input takes one cell. It is a token, or a row of numbers in place of a token (such as an embedding of a picture's
part). The numbers of a row are not here: decisions depend only on whether two rows are equal, and their digests suffice
for that. Two inputs are equal if their tokens are equal, or if their whole rows are (docs/runner-semantics.md
section 2, "Slots and prefix reuse").
"""

from collections.abc import Iterable
from typing import Final, Literal, overload

from attrs import frozen


@frozen
class Row:
    """A row of numbers, by the digest of its contents."""

    digest: str
    """The SHA-256, in hexadecimal, of its numbers as little-endian float32 in order."""


Input = int | Row
"""A token, or a row of numbers."""
Kind = Literal["token", "row"]


def kind_of(one: Input) -> Kind:
    """Return the kind of an input; a batch holds one kind only (``llama_batch`` has either)."""
    return "row" if isinstance(one, Row) else "token"


def rows_of(inputs: Iterable[Input]) -> list[Row]:
    """Return the rows among inputs, in order."""
    return [one for one in inputs if isinstance(one, Row)]


class Inputs:
    """An immutable list of inputs that is cheap to extend.

    States hold the inputs of a whole context and change with every token, and copying a tuple of 100,000 takes longer
    than the decisions about one token. So lists share their beginning: extending the longest one appends to the shared
    part, beyond the end of every other list.
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

    __hash__ = None  # type: ignore[assignment]  # it is never a key

    def __repr__(self) -> str:
        return f"Inputs({list(self[:])})"

    def first(self, count: int) -> "Inputs":
        """Return the first ``count`` inputs, or all if there are fewer."""
        return self._view(min(max(count, 0), self._length))

    def then(self, more: Iterable[Input]) -> "Inputs":
        """Return these inputs followed by ``more``."""
        if len(self._shared) != self._length:
            return Inputs([*self[:], *more])
        self._shared.extend(more)
        return self._view(len(self._shared))

    def without(self, start: int, count: int) -> "Inputs":
        """Return these inputs without the ``count`` of them that begin at ``start``."""
        return Inputs([*self[:start], *self[start + count :]])

    def common(self, other: "Inputs") -> int:
        """Return the count of inputs with which both begin."""
        mine, others = self._shared, other._shared  # noqa: SLF001  # another of the same class
        shorter = min(len(self), len(other))
        if mine is others:
            return shorter
        # A binary search, because C compares slices fast.
        equal, unequal = 0, shorter + 1
        while unequal - equal > 1:
            middle = (equal + unequal) // 2
            if mine[equal:middle] == others[equal:middle]:
                equal = middle
            else:
                unequal = middle
        return equal

    def _view(self, length: int) -> "Inputs":
        """Return the first ``length`` shared inputs."""
        view = Inputs.__new__(Inputs)
        view._shared, view._length = self._shared, length  # noqa: SLF001  # another of the same class
        return view


NONE: Final = Inputs()
