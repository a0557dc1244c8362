"""Remembers the contents of slots, and chooses a slot for a sequence.

A slot remembers the inputs in its cells, even after its sequence has ended. The rules by which a sequence gets a slot
(docs/runner-semantics.md section 2, "Slots and prefix reuse"):

* The sequence may *take over* a free slot if it reuses at least half of its cells.
* It may go into the *room*: an empty slot; if there is none, a slot that it could take over; otherwise the free slot
  that was used *least recently*, counted in batches.
* It may *fork*: the beginning that it has in common with any other slot, free or busy, is copied into the room.
* It gets the choice that saves most: the rows that need not be evaluated, less the cost of a copy. Among equal choices
  it gets one without a copy, and then the lowest slot.

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
"""The value of `Slot.used` for a slot that was never used."""


@frozen(kw_only=True)
class Work:
    """The inputs that a sequence has, and the outcome that it wants of them."""

    sequence: int
    priority: int
    inputs: Inputs = NONE
    """All its inputs, evaluated or not; none before its prompt is tokenized."""
    wants: Wants = None
    """The outcome that it wants of the last input; None while its paused reader keeps the next one back."""
    uncut: tuple[tuple[int, int], ...] = ()
    """The runs of its inputs that are evaluated whole, in one batch: (start, stop) of each, ascending."""
    preempted: bool = False
    """Whether it had a slot before; then it waits outside the queue's limit."""

    @property
    def kept_back(self) -> bool:
        """Whether it has inputs, but none to evaluate, because its reader is paused."""
        return bool(self.inputs) and self.wants is None

    def run_at(self, position: int) -> tuple[int, bool]:
        """Return the end of the run that begins at ``position``, and whether it may not be cut."""
        for start, stop in self.uncut:
            if position < stop:
                return (stop, True) if start <= position else (start, False)
        return len(self.inputs), False

    def without_part(self, length: int) -> int:
        """Return ``length``, or less, such that the first inputs of this count end with no part of an uncut run."""
        return next((start for start, stop in self.uncut if start < length < stop), length)


@frozen
class Gap:
    """The cells that a shift discards."""

    keep: int
    """The count of cells before them."""
    discard: int


@frozen(kw_only=True)
class Slot:
    """One llama.cpp sequence id and its cells."""

    work: Work | None = None
    cells: Inputs = NONE
    """The useful contents of its cells; for a busy slot, the first inputs of its sequence."""
    n_cells: int = 0
    """The count of cells in use in the engine; those beyond ``cells`` are removed before the next rows."""
    pure: int | None = None
    """The count of first cells that depend only on their inputs; None for all. Cells that were moved carry traces of
    the dropped ones (docs/llama-cpp.md section 2), so no other sequence may reuse them."""
    gap: Gap | None = None
    """The cells to discard before the next rows; the cells behind them move down."""
    used: int = NEVER
    """The last batch with rows of this slot."""

    @property
    def sequence(self) -> int | None:
        """The sequence in this slot."""
        return None if self.work is None else self.work.sequence

    @property
    def queued(self) -> int:
        """The count of inputs that wait to be evaluated."""
        return 0 if self.work is None or self.work.wants is None else len(self.work.inputs) - len(self.cells)

    @property
    def has_excess(self) -> bool:
        """Whether it has cells to remove."""
        return self.n_cells - (self.gap.discard if self.gap else 0) > len(self.cells)

    @property
    def reusable(self) -> Inputs:
        """The contents that another sequence may reuse."""
        return self.cells if self.pure is None else self.cells.first(self.pure)


@frozen
class Choice:
    """A slot that a sequence could get."""

    slot: int
    reused: int
    """The count of its first inputs that are in cells already."""
    source: int | None = None
    """The slot to copy first, if any."""


def choose(work: Work, slots: Sequence[Slot], n_ctx_seq: int) -> Choice | None:
    """Return the slot that a waiting sequence gets; None if no slot is free.

    Args:
        work: The work of the sequence.
        slots: All slots.
        n_ctx_seq: The count of cells in each slot.
    """
    free = [number for number, slot in enumerate(slots) if slot.work is None]
    if not free:
        return None
    common = [usable(work, slot.reusable) for slot in slots]
    fitting = {number for number in free if takes_over(work, slots[number])}
    used = [recency(slot) for slot in slots]
    room = min(free, key=lambda number: (used[number] != NEVER, number not in fitting, used[number], number))
    choices = [Choice(number, common[number]) for number in free if number == room or number in fitting]
    choices += [Choice(room, common[number], number) for number in range(len(slots)) if number != room]
    return max(choices, key=lambda choice: saved(choice, slots, n_ctx_seq))


def usable(work: Work, others: Inputs) -> int:
    """Return the count of inputs that need no evaluation if ``others`` are in cells; one input is always evaluated."""
    return work.without_part(work.inputs.first(len(work.inputs) - 1).common(others))


def takes_over(work: Work, slot: Slot) -> bool:
    """Return whether a sequence reuses at least half of a slot's cells."""
    common = work.without_part(work.inputs.common(slot.reusable))
    return common > 0 and common >= len(slot.cells) - common


def saved(choice: Choice, slots: Sequence[Slot], n_ctx_seq: int) -> int:
    """Return the saving of a choice, its rows less its copy; the unit is the time to copy one cell."""
    copy = 0 if choice.source is None else copied(slots[choice.source].n_cells, n_ctx_seq)
    return choice.reused * COPIED_CELLS_PER_ROW - copy


def copied(n_cells: int, n_ctx_seq: int) -> int:
    """Return the cost of copying ``n_cells``: an engine picks these cells out, or copies the whole slot."""
    return min(n_cells * PICKED_CELL, n_ctx_seq)


def recency(slot: Slot) -> int:
    """Return the batch that last used a slot; an empty slot sorts before all used slots."""
    return slot.used if len(slot.reusable) else NEVER


def decoded(slot: Slot, part: Part, position: int | None, *, code: int) -> Slot:
    """Return a slot after a batch with rows of it.

    Args:
        slot: The slot.
        part: Its rows.
        position: The last position in its cells, as the engine reports it; None if it reports none.
        code: The batch's return code.
    """
    start, end = part.position, part.position + len(part.inputs)
    if code not in {DONE, ABORTED} or position is None or not start - 1 <= position < end:
        return unknown(slot)
    n_cells = position + 1
    work = slot.work
    if part.pools:
        # A pooled text begins in an empty slot, and leaves it empty.
        work = changed(work, wants=None) if work is not None and code == DONE else work
        return changed(slot, work=work, cells=NONE, n_cells=n_cells)
    if work is None:
        # The sequence ended while the batch was in flight.
        if len(slot.cells) < start:
            return changed(slot, n_cells=n_cells)
        return changed(slot, cells=slot.cells.first(start).then(part.inputs[: n_cells - start]), n_cells=n_cells)
    if code == DONE and part.draw is not None:
        work = changed(work, wants=None)
        return changed(slot, work=work, cells=work.inputs.first(n_cells), n_cells=n_cells)
    # At least one input is left to evaluate: after an aborted decode the logits of the last row are gone.
    useful = work.without_part(min(n_cells, len(work.inputs) - 1))
    return changed(slot, cells=work.inputs.first(useful), n_cells=n_cells)


def dropped(slot: Slot, work: Work, keep: int, discard: int, *, moves: bool) -> Slot:
    """Return a busy slot after inputs of its sequence were dropped.

    Args:
        slot: The slot before.
        work: The work of its sequence, without the dropped inputs.
        keep: The count of inputs before them.
        discard: The count of dropped inputs.
        moves: Whether the cells behind them are moved; otherwise their inputs are evaluated again.
    """
    if moves and len(slot.cells) >= keep + discard:
        pure = keep if slot.pure is None else min(keep, slot.pure)
        cells = work.inputs.first(len(slot.cells) - discard)
        return changed(slot, work=work, cells=cells, pure=pure, gap=Gap(keep, discard))
    return changed(slot, work=work, cells=work.inputs.first(min(keep, len(slot.cells))))


def unknown(slot: Slot) -> Slot:
    """Return a slot with unknown contents; its cells are useless, and are removed before the next rows."""
    return changed(slot, cells=NONE, n_cells=max(slot.n_cells, 1), pure=None, gap=None)
