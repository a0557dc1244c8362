"""Defines a batch: its rows, the operations on cells before them, its outcome, and a check of the outcome.

The rules (docs/runner-semantics.md section 2, "Faults"):

* `apply_operations` defines the effect of copies, trims and shifts on cells of any kind. Three modules have their own
  version on purpose: `runtime/llama/context.py` calls llama.cpp, `runtime/engine/scripted.py` replaces it, and
  `replay/check/recount.py` checks both.
* An outcome that contradicts the plan is not accepted as a fact: the core's picture of the cells would be wrong.
* A return code is an outcome like any other; `failure` assigns its fault.
"""

from collections.abc import Callable, Mapping
from typing import Literal, TypeVar

from attrs import frozen

from reenact.actors.errors import Failure
from reenact.actors.inputs import Input, Kind

CellsT = TypeVar("CellsT")
"""The known facts about the cells of a slot: their contents, or their count."""
CellT = TypeVar("CellT")

# ---------------------------------------------------------------- the plan of a batch


@frozen
class Draw:
    """A wanted token, which is sampled from the logits of the last row."""

    index: int
    """The index of the token among those that are sampled for its sequence, from 0."""


@frozen
class Pool:
    """A wanted vector, which is pooled from all rows of a text."""


Wants = Draw | Pool | None
"""The outcome that is wanted of rows; with None they only fill cells."""


@frozen(kw_only=True)
class Part:
    """Rows of one sequence in a batch: ``inputs`` at positions ``position``, ``position + 1``, ..."""

    sequence: int
    slot: int
    position: int
    inputs: tuple[Input, ...]
    """Either only tokens or only rows."""
    wants: Wants = None
    """The wanted outcome; a vector only if these are all inputs of a text."""

    @property
    def draw(self) -> int | None:
        """The index of the token that is sampled from its last row; None if none is."""
        return self.wants.index if isinstance(self.wants, Draw) else None

    @property
    def pools(self) -> bool:
        """Whether its rows are pooled."""
        return isinstance(self.wants, Pool)


@frozen(kw_only=True)
class BatchKey:
    """The properties that all rows of a batch share; keys take turns."""

    kind: Kind = "token"
    uncut: bool = False
    """Whether its runs are evaluated whole, such as a text that is pooled."""


@frozen(kw_only=True)
class Copy:
    """Copies all cells of one slot to another, and replaces the cells there."""

    source: int
    slot: int


@frozen(kw_only=True)
class Trim:
    """Removes the cells of a slot from position ``length`` on."""

    slot: int
    length: int


@frozen(kw_only=True)
class Shift:
    """Removes ``discard`` cells of a slot from position ``keep`` on, and moves the cells behind them down."""

    slot: int
    keep: int
    discard: int


Operation = Copy | Trim | Shift
"""An operation on the cells of ``slot``."""


@frozen(kw_only=True)
class BatchPlanned:
    """The engine's work in one step: first copies, then trims, then shifts, then decode, then draw."""

    batch: int
    key: BatchKey = BatchKey()
    copies: tuple[Copy, ...] = ()
    trims: tuple[Trim, ...] = ()
    shifts: tuple[Shift, ...] = ()
    parts: tuple[Part, ...]
    """Ascending by slot (llama.cpp computes ascending ids together, docs/llama-cpp.md section 3)."""

    @property
    def operations(self) -> tuple[Operation, ...]:
        """The operations on cells before the rows, in order."""
        return (*self.copies, *self.trims, *self.shifts)

    @property
    def slots(self) -> frozenset[int]:
        """The slots that the batch reads or changes."""
        sources = (copy.source for copy in self.copies)
        return frozenset((*(part.slot for part in self.parts), *(one.slot for one in self.operations), *sources))


def apply_operations(
    cells: Mapping[int, CellsT], planned: BatchPlanned, remove: Callable[[CellsT, slice], CellsT]
) -> dict[int, CellsT]:
    """Return the cells of each slot after the copies, trims and shifts of a batch, and before its rows.

    Args:
        cells: The cells of each slot before the batch.
        planned: The batch.
        remove: A function such as `without`, which returns the cells of a slot without some of them.
    """
    after = dict(cells)
    for operation in planned.operations:
        match operation:
            case Copy(source=source, slot=slot):
                after[slot] = after[source]
            case Trim(slot=slot, length=length):
                after[slot] = remove(after[slot], slice(length, None))
            case Shift(slot=slot, keep=keep, discard=discard):
                after[slot] = remove(after[slot], slice(keep, keep + discard))
    return after


def without(cells: list[CellT], removed: slice) -> list[CellT]:
    """Return a slot's cells without some of them."""
    left = list(cells)
    del left[removed]
    return left


def n_without(n_cells: int, removed: slice) -> int:
    """Return the count of a slot's cells without some of them."""
    return n_cells - len(range(n_cells)[removed])


# ---------------------------------------------------------------- the outcome of a batch

DONE, NO_ROOM, ABORTED, INVALID = 0, 1, 2, -1
"""The return codes of ``llama_decode``; below -1 it failed."""


@frozen(kw_only=True)
class Likely:
    """One of the likeliest tokens."""

    token: int
    piece: bytes
    logprob: float
    """The natural logarithm of its probability, before the options of the request change it."""


@frozen(kw_only=True)
class Sample:
    """The token that was drawn from one row of logits."""

    sequence: int
    index: int
    """The index of the draw among those of its sequence, from 0."""
    token: int
    piece: bytes = b""
    """The token's bytes; they can end in the middle of a character. Empty for an end-of-generation token."""
    eog: bool = False
    fault: Literal["nan", "grammar", "cost", "engine"] | None = None
    """The reason why there is no token (-1): the logits held a NaN, the grammar allows no token, or has too many
    possible continuations, or the engine has no token for this sequence."""
    reason: str | None = None
    """The engine's message about the fault."""
    logits_crc32: int | None = None
    """The CRC-32 of the row of logits in memory; None if the session records none."""
    logprob: float | None = None
    """As in `Likely`; None if the request did not ask for it."""
    top: tuple[Likely, ...] = ()
    """The likeliest tokens, likeliest first; among equal ones the lower id first."""


@frozen(kw_only=True)
class Vector:
    """The vector of a pooled text."""

    sequence: int
    values: tuple[float, ...]
    """The values as the model gives them; empty if one is NaN or infinite, or if the engine has none."""
    crc32: int
    """The CRC-32 of the vector in memory."""
    reason: str | None = None
    """The engine's message if it has no vector."""


Outcome = Sample | Vector
"""The outcome of a part."""


@frozen(kw_only=True)
class BatchDecoded:
    """The engine's report of one step."""

    batch: int
    code: int
    """The return code of ``llama_decode``: done, no room, aborted, an invalid batch, or failed."""
    samples: tuple[Sample, ...] = ()
    """One sample for each part with a draw, in the order of the parts; none unless ``code`` is 0."""
    vectors: tuple[Vector, ...] = ()
    """One vector for each pooled part, likewise."""
    positions: tuple[tuple[int, int], ...]
    """(slot, last position in its cells or -1 for none) for the slot of each part. A pooled text leaves no cells.

    Empty if the engine refused the batch: then it did no part of the plan, and changed no cells.
    """

    @property
    def outcomes(self) -> tuple[Outcome, ...]:
        """The outcomes of its parts."""
        return (*self.samples, *self.vectors)


# ---------------------------------------------------------------- the check of an outcome


def contradiction(planned: BatchPlanned, decoded: BatchDecoded) -> str | None:
    """Return the difference between an outcome and its plan; None if the outcome belongs to this batch."""
    done = planned.parts if decoded.code == DONE else ()
    drawn = [(part.sequence, part.draw) for part in done if part.draw is not None]
    pooled = [part.sequence for part in done if part.pools]
    if [(sample.sequence, sample.index) for sample in decoded.samples] != drawn:
        return f"batch {decoded.batch} was sampled for other sequences, or other tokens, than planned"
    if [vector.sequence for vector in decoded.vectors] != pooled:
        return f"batch {decoded.batch} was pooled for other sequences than planned"
    due = tuple((part.slot, -1 if part.pools else part.position + len(part.inputs) - 1) for part in planned.parts)
    if decoded.code == DONE and decoded.positions != due:
        return f"the last positions are {list(decoded.positions)}, and by the plan {list(due)}"
    if not {slot for slot, _ in decoded.positions} <= {slot for slot, _ in due}:
        return f"batch {decoded.batch} has positions of slots that are not in it"
    return None


def failure(code: int) -> Failure:
    """Return the failure that a return code of ``llama_decode`` means, and so the fault."""
    if code in {NO_ROOM, INVALID}:
        # Each slot has a stream of its own, and the plan fits in it: the core's picture of the cells is wrong.
        meaning = "no room in the cells" if code == NO_ROOM else "an invalid batch"
        return Failure(kind="internal_error", reason=f"llama_decode returned {code}, {meaning}")
    return Failure(kind="sequence_failed", reason=f"llama_decode returned {code}")
