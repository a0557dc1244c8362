"""Whose rows one step has, and how many of each.

The rules (docs/runner-semantics.md section 2, "Batch" and "Embeddings"):

* A batch holds inputs of one kind; kinds take turns.
* Every sequence with queued inputs of that kind gets a row, and what is left of the budget is shared evenly among those
  that want more. A generating sequence wants one row, so it never waits for another's prompt; a prompt of any length
  advances in every batch; nobody is skipped. The budget covers one row for each slot, because ``n_batch >= n_slots``.
* A text that is pooled is not cut, and is alone where neighbours would change its vector.
* Parts go by slot number (llama.cpp computes ascending ids together, docs/llama-cpp.md section 3).
* A sequence for which a slot is free waits while another one evaluates the beginning of its prompt (section 2, "Slots
  and prefix reuse"), where in the batches until then it would itself evaluate no more rows than it saves so.
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
        n_batch: Rows of a batch.
        last: The batch before.
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
    """Return the kind of inputs whose turn it is: where there are both, the one that the last batch had not."""
    last_kind = "row" if last is None else kind_of(last.parts[0].inputs[0])
    if last_kind == "token":
        return "row" if "row" in kinds else "token"
    return "token" if "token" in kinds else "row"


def pooled(slots: Sequence[Slot], n_batch: int, *, alone: bool) -> list[Part]:
    """Return whole texts whose vectors are wanted: who came first goes first, as many as fit, or one.

    Args:
        slots: All slots.
        n_batch: Rows of a batch.
        alone: Whether a text has a batch of its own.
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
    """Return the sequence whose prompt is to be evaluated further before a sequence gets a slot; None for nobody's.

    Args:
        inputs: What it has.
        choice: The slot that it would get now.
        slots: All slots.
        n_batch: Rows of a batch.
        n_ctx_seq: Cells of a slot.
    """
    ready = [(slot, slot.work) for slot in slots if slot.work and slot.queued]
    wanted = [slot.queued for slot, _ in ready]
    mine = share_rows([*wanted, len(inputs) - choice.reused], n_batch)[-1]
    rows = share_rows(wanted, n_batch)
    for (slot, work), n_rows in zip(ready, rows, strict=True):
        common = usable(inputs, work.inputs)
        n_left = common - len(slot.cells)
        if work.wants != Draw(0) or n_left <= 0:
            continue  # It generates, or there is nothing to wait for.
        gain = common * COPIED_CELLS_PER_ROW - copied(common, n_ctx_seq) - saved(choice, slots, n_ctx_seq)
        if -(-n_left // n_rows) * mine * COPIED_CELLS_PER_ROW <= gain:
            return work.sequence
    return None


def share_rows(wanted: list[int], budget: int) -> list[int]:
    """Share ``budget`` rows among sequences, evenly up to what each wants.

    Args:
        wanted: Rows each sequence could use, each at least 1; in the order of slot numbers.
        budget: Rows of the batch, at least ``len(wanted)``.

    Returns:
        Rows for each: at least 1, at most what it wants, ``budget`` in all at most. A part that gets less than it wants
        has as many as any other, or one less where the rows do not divide; then lower slots have the one more.
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
