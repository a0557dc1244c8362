"""Chooses the rows of one step, and shares them among sequences.

The rules (docs/runner-semantics.md section 2, "Batch" and "Embeddings"):

* A batch holds inputs of one kind; kinds take turns.
* Every sequence with queued inputs of that kind gets a row, and the rest of the budget is shared evenly among those
  that want more. A generating sequence wants one row, so it never waits for another's prompt; a prompt of any length
  advances in every batch; no sequence is skipped. The budget covers one row for each slot, because
  ``n_batch >= n_slots``.
* A pooled text is not split, and has a batch of its own if neighbours would change its vector.
* Parts are ordered by slot (llama.cpp computes ascending ids together, docs/llama-cpp.md section 3).
* A sequence with a free slot still waits while another one evaluates the beginning of the same prompt (section 2,
  "Slots and prefix reuse"), if the wait saves at least as many rows as the sequence could evaluate in the meantime.
"""

from collections.abc import Collection, Sequence
from itertools import takewhile

from reenact.actors.batch import BatchPlanned, Draw, Part, Pool
from reenact.actors.inputs import Input, Inputs, Kind, kind_of
from reenact.actors.limits import COPIED_CELLS_PER_ROW
from reenact.actors.slots import Choice, Slot, Work, copied, saved, usable


def generating(slots: Sequence[Slot], n_batch: int, last: BatchPlanned | None) -> list[Part]:
    """Return the rows of every slot that has inputs of the kind whose turn it is.

    Args:
        slots: All slots.
        n_batch: The most rows of a batch.
        last: The previous batch.
    """
    ready = [(number, slot, slot.work) for number, slot in enumerate(slots) if slot.work and slot.queued]
    kind = turn_of({kind_of(work.inputs[len(slot.cells)]) for _, slot, work in ready}, last)
    wanted: list[tuple[int, Slot, Work, tuple[Input, ...]]] = []
    for number, slot, work in ready:
        inputs = work.inputs[len(slot.cells) : len(slot.cells) + n_batch]
        of_kind = tuple(takewhile(lambda one: kind_of(one) == kind, inputs))
        if of_kind:
            wanted.append((number, slot, work, of_kind))
    rows = share_rows([len(inputs) for *_, inputs in wanted], n_batch)
    return [
        Part(
            sequence=work.sequence,
            slot=number,
            position=len(slot.cells),
            inputs=inputs[:n_rows],
            wants=work.wants if n_rows == slot.queued else None,
        )
        for (number, slot, work, inputs), n_rows in zip(wanted, rows, strict=True)
    ]


def turn_of(kinds: Collection[Kind], last: BatchPlanned | None) -> Kind:
    """Return the kind of inputs whose turn it is: if there are both, the one that the last batch did not have."""
    last_kind = "row" if last is None else kind_of(last.parts[0].inputs[0])
    if last_kind == "token":
        return "row" if "row" in kinds else "token"
    return "token" if "token" in kinds else "row"


def pooled(slots: Sequence[Slot], n_batch: int, *, alone: bool) -> list[Part]:
    """Return whole texts to pool, in the order of arrival: as many as fit, or one.

    Args:
        slots: All slots.
        n_batch: The most rows of a batch.
        alone: Whether each text has a batch of its own.
    """
    ready = [
        (slot.work.sequence, number, slot.work.inputs[:])
        for number, slot in enumerate(slots)
        if slot.work is not None and isinstance(slot.work.wants, Pool)
    ]
    parts: list[Part] = []
    for sequence, number, inputs in sorted(ready):
        n_batch -= len(inputs)
        if n_batch < 0 or (parts and alone):
            break
        parts.append(Part(sequence=sequence, slot=number, position=0, inputs=inputs, wants=Pool()))
    return sorted(parts, key=lambda part: part.slot)


def awaited(inputs: Inputs, choice: Choice, slots: Sequence[Slot], n_batch: int, n_ctx_seq: int) -> int | None:
    """Return the sequence whose prompt should be evaluated further before a waiting one gets a slot; None if none is.

    Args:
        inputs: The inputs of the waiting sequence.
        choice: The slot that it would get now.
        slots: All slots.
        n_batch: The most rows of a batch.
        n_ctx_seq: The count of cells in a slot.
    """
    ready = [(slot, slot.work) for slot in slots if slot.work and slot.queued]
    wanted = [slot.queued for slot, _ in ready]
    mine = share_rows([*wanted, len(inputs) - choice.reused], n_batch)[-1]
    rows = share_rows(wanted, n_batch)
    for (slot, work), n_rows in zip(ready, rows, strict=True):
        common = usable(inputs, work.inputs)
        n_left = common - len(slot.cells)
        if work.wants != Draw(0) or n_left <= 0:
            continue  # It generates, or has evaluated the common beginning already.
        gain = common * COPIED_CELLS_PER_ROW - copied(common, n_ctx_seq) - saved(choice, slots, n_ctx_seq)
        if -(-n_left // n_rows) * mine * COPIED_CELLS_PER_ROW <= gain:
            return work.sequence
    return None


def share_rows(wanted: list[int], budget: int) -> list[int]:
    """Share ``budget`` rows evenly among sequences, none of which gets more than it wants.

    Args:
        wanted: The count of rows that each sequence wants, at least 1; in the order of slots.
        budget: The most rows of the batch, at least ``len(wanted)``.

    Returns:
        The count of rows for each: at least 1, at most as wanted, and at most ``budget`` in total. A part that gets
        less than it wants has as many rows as any other, or one less if the rows do not divide evenly; then the lower
        slots have the extra rows.
    """
    rows = [0] * len(wanted)
    hungry = list(range(len(wanted)))
    while hungry and budget >= len(hungry):
        share = budget // len(hungry)
        for i in hungry:
            more = min(share, wanted[i] - rows[i])
            rows[i] += more
            budget -= more
        hungry = [i for i in hungry if rows[i] < wanted[i]]
    for i in hungry[:budget]:
        rows[i] += 1
    return rows
