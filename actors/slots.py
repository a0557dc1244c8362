"""Slots: what their cells hold, and which one a sequence gets.

A slot remembers the inputs in its cells, also after its sequence has ended. The rules of the choice
(docs/runner-semantics.md section 2, "Slots and prefix reuse"):

* It may *take over* a free slot of whose cells at least half are reused.
* It may go into the *room*: an empty slot, and where there is none one that it could take over, or else the free one
  that was used *least recently*, counted in batches.
* It may *fork* into the room the common beginning of any other slot, free or busy.
* Of all of these it gets the one that saves most: the rows that need not be evaluated, less those that a copy costs.
  Of several that save as much it gets one without a copy, and then the lowest.

At least one input is always evaluated, so that there are logits to sample from.
"""

from collections.abc import Sequence
from typing import Final

from attrs import evolve as changed
from attrs import frozen

from reenact.actors.batch import ABORTED, DONE, Part, Wants
from reenact.actors.inputs import NONE, Inputs
from reenact.actors.limits import COPIED_CELLS_PER_ROW, PICKED_CELL

NEVER: Final = -1
"""Where a slot was last used that never was."""


@frozen(kw_only=True)
class Work:
    """What a sequence wants evaluated."""

    sequence: int
    priority: int
    inputs: Inputs = NONE
    """All that it has, evaluated or not; none before its prompt is tokenised."""
    wants: Wants = None
    """What is wanted of the last of them; None while its reader keeps the next one back."""
    preempted: bool = False
    """It had a slot before, and waits outside the queue's limit."""

    @property
    def kept_back(self) -> bool:
        """Whether there is nothing to evaluate because its reader does not read on; not because it has no inputs."""
        return bool(self.inputs) and self.wants is None


@frozen
class Gap:
    """Cells that a shift discards."""

    keep: int
    """Cells before them."""
    discard: int


@frozen(kw_only=True)
class Slot:
    """One llama.cpp sequence id and its cells."""

    work: Work | None = None
    cells: Inputs = NONE
    """What its cells hold, as far as it is of use; for a busy slot the beginning of what its sequence has."""
    n_cells: int = 0
    """Cells in use in the engine; those beyond ``cells`` are removed before the next rows."""
    pure: int | None = None
    """So many cells are a function of their inputs; None for all. Cells that were moved carry traces of those that were
    dropped (docs/llama-cpp.md section 2), so nobody else may have them."""
    gap: Gap | None = None
    """Cells that are to be discarded, and those behind them moved down, before the next rows."""
    used: int = NEVER
    """The last batch it had rows in."""

    @property
    def sequence(self) -> int | None:
        """The sequence that has it."""
        return None if self.work is None else self.work.sequence

    @property
    def queued(self) -> int:
        """How many inputs wait to be evaluated."""
        return 0 if self.work is None or self.work.wants is None else len(self.work.inputs) - len(self.cells)

    @property
    def has_excess(self) -> bool:
        """Whether there are cells that are to be removed."""
        return self.n_cells - (self.gap.discard if self.gap else 0) > len(self.cells)

    @property
    def reusable(self) -> Inputs:
        """The cells that another sequence may have."""
        return self.cells if self.pure is None else self.cells.first(self.pure)


@frozen
class Choice:
    """A slot for a sequence."""

    slot: int
    reused: int
    """Its first inputs that are in cells already."""
    source: int | None = None
    """The slot that is to be copied first."""


def choose(inputs: Inputs, slots: Sequence[Slot], n_ctx_seq: int) -> Choice | None:
    """Return the slot that a sequence with these inputs gets; None where none is free.

    Args:
        inputs: What the sequence has.
        slots: All slots.
        n_ctx_seq: Cells of each.
    """
    free = [number for number, slot in enumerate(slots) if slot.work is None]
    if not free:
        return None
    common = [usable(inputs, slot.reusable) for slot in slots]
    fitting = {number for number in free if takes_over(inputs, slots[number])}
    used = [recency(slot) for slot in slots]
    room = min(free, key=lambda number: (used[number] != NEVER, number not in fitting, used[number], number))
    choices = [Choice(number, common[number]) for number in free if number == room or number in fitting]
    choices += [Choice(room, common[number], number) for number in range(len(slots)) if number != room]
    return max(choices, key=lambda choice: saved(choice, slots, n_ctx_seq))


def usable(inputs: Inputs, others: Inputs) -> int:
    """Return how many inputs of a sequence are saved where these are in cells: never all, because one is evaluated."""
    return inputs.first(len(inputs) - 1).common(others)


def takes_over(inputs: Inputs, slot: Slot) -> bool:
    """Return whether a sequence with these inputs reuses at least half of a slot's cells."""
    common = inputs.common(slot.reusable)
    return common > 0 and common >= len(slot.cells) - common


def saved(choice: Choice, slots: Sequence[Slot], n_ctx_seq: int) -> int:
    """Return what a choice saves, in cells whose copy takes as long: rows, less the copy."""
    copy = 0 if choice.source is None else copied(slots[choice.source].n_cells, n_ctx_seq)
    return choice.reused * COPIED_CELLS_PER_ROW - copy


def copied(n_cells: int, n_ctx_seq: int) -> int:
    """Return what a copy of so many cells costs: an engine picks them out, or copies all that the slot has."""
    return min(n_cells * PICKED_CELL, n_ctx_seq)


def recency(slot: Slot) -> int:
    """Return the batch that a slot was last used in; an empty slot comes before all that were used."""
    return slot.used if len(slot.reusable) else NEVER


def decoded(slot: Slot, part: Part, position: int | None, *, code: int) -> Slot:
    """Return a slot after a batch with rows of it.

    Args:
        slot: The slot.
        part: Its rows.
        position: The last position in its cells, as the engine reports it; None where it reports none.
        code: The batch's.
    """
    start, end = part.position, part.position + len(part.inputs)
    if code not in {DONE, ABORTED} or position is None or not start - 1 <= position < end:
        return unknown(slot)
    n_cells = position + 1
    work = slot.work
    if part.pools:
        # A text that is pooled begins in an empty slot, and leaves it so.
        work = changed(work, wants=None) if work is not None and code == DONE else work
        return changed(slot, work=work, cells=NONE, n_cells=n_cells)
    if work is None:
        # It ended while the batch was in flight.
        if len(slot.cells) < start:
            return changed(slot, n_cells=n_cells)
        return changed(slot, cells=slot.cells.first(start).then(part.inputs[: n_cells - start]), n_cells=n_cells)
    if code == DONE and part.draw is not None:
        work = changed(work, wants=None)
        return changed(slot, work=work, cells=work.inputs.first(n_cells), n_cells=n_cells)
    # One at least is left to evaluate: after an aborted decode the logits of the last row are gone.
    return changed(slot, cells=work.inputs.first(min(n_cells, len(work.inputs) - 1)), n_cells=n_cells)


def unknown(slot: Slot) -> Slot:
    """Return a slot whose cells hold nobody knows what: they are of no use, and are removed before the next rows."""
    return changed(slot, cells=NONE, n_cells=max(slot.n_cells, 1), pure=None, gap=None)
