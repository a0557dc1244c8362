"""Holds the numbers of rows: the core has their digests only, and an engine gets the numbers with a plan.

The rules that hold here:

* Numbers are float32, little-endian, without gaps, in digests, in logs and for llama.cpp alike.
* A session holds a row's numbers while a live sequence has the row, because the sequence may have to evaluate it again.
  Cells that other sequences reuse need no numbers.
"""

import sys
from array import array
from collections.abc import Iterable, Iterator, Mapping
from hashlib import sha256
from types import MappingProxyType
from typing import Final

from attrs import frozen

from reenact.actors.batch import BatchPlanned
from reenact.actors.inputs import Row, rows_of

Numbers = Mapping[Row, bytes]
"""The numbers of rows, as `packed` makes them."""

NO_NUMBERS: Final[Numbers] = MappingProxyType({})

NUMBER_SIZE: Final = 4
"""Bytes of a float32."""


def packed(numbers: Iterable[float]) -> bytes:
    """Return numbers as float32, little-endian; a number beyond its range becomes infinite."""
    values = array("f", numbers)
    if sys.byteorder == "big":
        values.byteswap()
    return values.tobytes()


def row_with(numbers: bytes) -> Row:
    """Return the row that has these numbers."""
    return Row(sha256(numbers).hexdigest())


@frozen
class GivenRows:
    """Consecutive rows of a prompt, as a caller gave them."""

    rows: tuple[Row, ...]
    numbers: Numbers


def given_rows(rows: Iterable[bytes]) -> GivenRows:
    """Return the rows that have these numbers, together with the numbers."""
    named = [(row_with(numbers), numbers) for numbers in rows]
    return GivenRows(tuple(row for row, _ in named), dict(named))


def numbers_of(planned: BatchPlanned, numbers: Numbers) -> Numbers:
    """Return the numbers of a batch's rows.

    Args:
        planned: The batch.
        numbers: The numbers of its rows and of others.

    Raises:
        KeyError: The numbers of a row are missing.
    """
    found: dict[Row, bytes] = {}
    for part in planned.parts:
        if rows_of(part.inputs[:1]):  # Inputs of a part are of one kind.
            found |= {row: numbers[row] for row in rows_of(part.inputs)}
    return found or NO_NUMBERS


class HeldNumbers(Mapping[Row, bytes]):
    """The numbers of the rows of live sequences."""

    def __init__(self) -> None:
        self._numbers: dict[Row, bytes] = {}
        self._held: dict[int, Numbers] = {}
        self._n_holders: dict[Row, int] = {}

    def __getitem__(self, row: Row) -> bytes:
        return self._numbers[row]

    def __iter__(self) -> Iterator[Row]:
        return iter(self._numbers)

    def __len__(self) -> int:
        return len(self._numbers)

    def hold(self, sequence: int, given: Iterable[GivenRows]) -> None:
        """Hold the numbers of a sequence's rows until it ends."""
        numbers: dict[Row, bytes] = {}
        for rows in given:
            numbers |= rows.numbers
        if not numbers:
            return
        self._held[sequence] = numbers
        for row in numbers:
            # Equal rows share the numbers that came first.
            self._numbers.setdefault(row, numbers[row])
            self._n_holders[row] = self._n_holders.get(row, 0) + 1

    def release(self, sequence: int) -> None:
        """Drop the numbers that only this sequence has, because it has ended."""
        for row in self._held.pop(sequence, {}):
            self._n_holders[row] -= 1
            if not self._n_holders[row]:
                del self._n_holders[row], self._numbers[row]
