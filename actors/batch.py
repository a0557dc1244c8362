"""A batch, and what may come of it: its rows, what is done to cells before them, the outcome, and a check of both.

The rules (docs/runner-semantics.md section 2, "Faults"):

* `apply_operations` says what copies, trims and shifts do to cells, of whatever kind. Three places say it for
  themselves, on purpose: llama.cpp does it (`runtime/llama/context.py`), `runtime/engine/scripted.py` stands in for it,
  and `replay/check/recount.py` is what both are held against.
* An outcome that contradicts the plan is no fact: our picture of the cells would be wrong from then on.
* A return code is an outcome like any other; `failure` says whose fault it is.
"""

from collections.abc import Callable, Mapping
from typing import Literal, TypeVar

from attrs import frozen

from reenact.actors.errors import Failure, InternalError
from reenact.actors.inputs import Input

CellsT = TypeVar("CellsT")
"""What is known of the cells of a slot: themselves, or how many they are."""
CellT = TypeVar("CellT")

# ---------------------------------------------------------------- what a batch is to do


@frozen
class Draw:
    """A token is wanted, which is sampled from the logits of the last row."""

    index: int
    """Of the token among those that are sampled for its sequence, from 0."""


@frozen
class Pool:
    """A vector is wanted, which is pooled from all rows of a text."""


Wants = Draw | Pool | None
"""What is wanted of rows, beside that they are in cells."""


@frozen(kw_only=True)
class Part:
    """Rows of one sequence in a batch: ``inputs`` at positions ``position``, ``position + 1``, ..."""

    sequence: int
    slot: int
    position: int
    inputs: tuple[Input, ...]
    """All tokens or all rows."""
    wants: Wants = None
    """A vector is wanted only where these are all inputs of a text."""

    @property
    def draw(self) -> int | None:
        """The index of the token that is sampled from its last row; None where none is."""
        return self.wants.index if isinstance(self.wants, Draw) else None

    @property
    def pools(self) -> bool:
        """Whether its rows are pooled."""
        return isinstance(self.wants, Pool)


@frozen(kw_only=True)
class Copy:
    """All cells of one slot are copied to another, in place of what is there."""

    source: int
    slot: int


@frozen(kw_only=True)
class Trim:
    """The cells of a slot from position ``length`` on are removed."""

    slot: int
    length: int


@frozen(kw_only=True)
class Shift:
    """The ``discard`` cells of a slot from position ``keep`` on are removed, and those behind them move down."""

    slot: int
    keep: int
    discard: int


Operation = Copy | Trim | Shift
"""What is done to the cells of ``slot``."""


@frozen(kw_only=True)
class BatchPlanned:
    """What the engine is to do in one step: first copies, then trims, then shifts, then decode, then draw."""

    batch: int
    copies: tuple[Copy, ...] = ()
    trims: tuple[Trim, ...] = ()
    shifts: tuple[Shift, ...] = ()
    parts: tuple[Part, ...]
    """Ascending by slot (llama.cpp computes ascending ids together, docs/llama-cpp.md section 3)."""

    @property
    def operations(self) -> tuple[Operation, ...]:
        """What is done to cells before the rows, in this order."""
        return (*self.copies, *self.trims, *self.shifts)

    @property
    def slots(self) -> frozenset[int]:
        """The slots that it has to do with."""
        sources = (copy.source for copy in self.copies)
        return frozenset((*(part.slot for part in self.parts), *(one.slot for one in self.operations), *sources))


def apply_operations(
    cells: Mapping[int, CellsT], planned: BatchPlanned, remove: Callable[[CellsT, slice], CellsT]
) -> dict[int, CellsT]:
    """Return what each slot holds once a batch has copied, trimmed and shifted, and before its rows.

    Args:
        cells: What each slot holds before.
        planned: The batch.
        remove: Returns what is left of the cells of a slot without some of them, such as `without`.
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
    """Return how many of a slot's cells are left without some of them."""
    return n_cells - len(range(n_cells)[removed])


# ---------------------------------------------------------------- what came of it

DONE, NO_ROOM, ABORTED, INVALID = 0, 1, 2, -1
"""What ``llama_decode`` returns; below -1 it failed."""


@frozen(kw_only=True)
class Likely:
    """One of the likeliest tokens."""

    token: int
    piece: bytes
    logprob: float
    """The natural logarithm of its probability, before any option of the request changes it."""


@frozen(kw_only=True)
class Sample:
    """What was drawn from one row of logits."""

    sequence: int
    index: int
    """Which of its sequence's draws it is, from 0."""
    token: int
    piece: bytes = b""
    """The token's bytes; they can end in the middle of a character. Empty for an end-of-generation token."""
    eog: bool = False
    fault: Literal["nan", "grammar", "cost", "engine"] | None = None
    """Why there is no token (-1): the logits held a NaN, the grammar allows none, or has too many ways to go on, or the
    engine has none for this sequence."""
    reason: str | None = None
    """What the engine says of it."""
    logits_crc32: int | None = None
    """CRC-32 of the row of logits as it lies in memory; None where the session takes none."""
    logprob: float | None = None
    """As in `Likely`; None where nobody asked."""
    top: tuple[Likely, ...] = ()
    """The likeliest tokens, likeliest first; of equal ones the lower id first."""


@frozen(kw_only=True)
class Vector:
    """What became of a text that is pooled."""

    sequence: int
    values: tuple[float, ...]
    """As the model gives them; none where one of them is NaN or infinite, or where the engine has none."""
    crc32: int
    """Of the vector as it lies in memory."""
    reason: str | None = None
    """What the engine says where it has none."""


Outcome = Sample | Vector
"""What comes of a part."""


@frozen(kw_only=True)
class BatchDecoded:
    """What the engine did."""

    batch: int
    code: int
    """``llama_decode``'s: done, no room, aborted, an invalid batch, or failed."""
    samples: tuple[Sample, ...] = ()
    """One for each part with a draw, in the order of the parts; none unless ``code`` is 0."""
    vectors: tuple[Vector, ...] = ()
    """One for each part that is pooled, likewise."""
    positions: tuple[tuple[int, int], ...]
    """(slot, last position in its cells, -1 for none) for the slot of each part. What was pooled leaves no cells.

    Empty where the engine refused the batch: then it did nothing of what was planned, with cells neither.
    """

    @property
    def outcomes(self) -> tuple[Outcome, ...]:
        """What came of its parts."""
        return (*self.samples, *self.vectors)


# ---------------------------------------------------------------- held against each other


def check(planned: BatchPlanned, decoded: BatchDecoded) -> None:
    """Refuse an outcome that is none of this batch's.

    Raises:
        InternalError: It is not; the error says in what.
    """
    done = planned.parts if decoded.code == DONE else ()
    drawn = [(part.sequence, part.draw) for part in done if part.draw is not None]
    pooled = [part.sequence for part in done if part.pools]
    if [(sample.sequence, sample.index) for sample in decoded.samples] != drawn:
        raise InternalError(f"batch {decoded.batch} was sampled for other sequences, or other tokens, than planned")
    if [vector.sequence for vector in decoded.vectors] != pooled:
        raise InternalError(f"batch {decoded.batch} was pooled for other sequences than planned")
    due = tuple((part.slot, -1 if part.pools else part.position + len(part.inputs) - 1) for part in planned.parts)
    if decoded.code == DONE and decoded.positions != due:
        raise InternalError(f"the last positions are {list(decoded.positions)}, and by the plan {list(due)}")
    if not {slot for slot, _ in decoded.positions} <= {slot for slot, _ in due}:
        raise InternalError(f"batch {decoded.batch} has positions of slots that are not in it")


def failure(code: int) -> Failure:
    """Say whose fault a return code of llama_decode is."""
    if code in {NO_ROOM, INVALID}:
        # A slot has a stream of its own and the plan is within it: our picture of the cells is wrong.
        meaning = "no room in the cells" if code == NO_ROOM else "an invalid batch"
        return Failure(kind="internal_error", reason=f"llama_decode returned {code}, {meaning}")
    return Failure(kind="sequence_failed", reason=f"llama_decode returned {code}")
