"""Chooses the rows of one step, and shares them among sequences.

The rules (docs/runner-semantics.md section 2, "Batch" and "Embeddings"):

* All rows of a batch have one key: their kind, and whether they are of uncut runs. The keys of queued inputs take turns
  in a fixed round.
* Every sequence whose next inputs have that key gets a row, and the rest of the budget is shared evenly among those
  that want more. A generating sequence wants one row, so it never waits for another's prompt; a prompt of any length
  advances in every batch; no sequence is skipped. The budget covers one row for each slot, because
  ``n_batch >= n_slots``.
* An uncut run (a pooled text) is in one batch as a whole, and alone there if neighbours would change its vector.
* Parts are ordered by slot (llama.cpp computes ascending ids together, docs/llama-cpp.md section 3).
* A sequence with a free slot still waits while another one evaluates the beginning of the same prompt (section 2,
  "Slots and prefix reuse"), if the wait saves at least as many rows as the sequence could evaluate in the meantime.
"""

from collections.abc import Collection, Sequence
from itertools import accumulate, takewhile
from typing import Final, get_args

from attrs import frozen

from reenact.actors.batch import BatchKey, Draw, Part
from reenact.actors.inputs import Input, Kind, kind_of
from reenact.actors.limits import COPIED_CELLS_PER_ROW
from reenact.actors.slots import Choice, Slot, Work, copied, saved, usable


@frozen
class Run:
    """The next inputs of a sequence that may be in one batch."""

    slot: int
    position: int
    work: Work
    inputs: tuple[Input, ...]
    key: BatchKey


ROUND: Final = tuple(BatchKey(kind=kind, uncut=uncut) for uncut in (False, True) for kind in get_args(Kind))
"""All keys, in the order of their turns."""


def next_batch(
    slots: Sequence[Slot], n_batch: int, last: BatchKey | None, *, alone: bool
) -> tuple[BatchKey, tuple[Part, ...]] | None:
    """Return the key and the rows of the next batch; None if no sequence has inputs queued.

    Args:
        slots: All slots.
        n_batch: The most rows of a batch.
        last: The key of the previous batch; None if this is the first one.
        alone: Whether each uncut run has a batch of its own.
    """
    runs = [
        next_run(number, slot, slot.work, n_batch) for number, slot in enumerate(slots) if slot.work and slot.queued
    ]
    if not runs:
        return None
    key = turn_of({run.key for run in runs}, last)
    runs = [run for run in runs if run.key == key]
    if key.uncut:
        runs = fitting(runs, n_batch, alone=alone)
        rows = [len(run.inputs) for run in runs]
    else:
        rows = share_rows([len(run.inputs) for run in runs], n_batch)
    return key, tuple(_part(run, n_rows) for run, n_rows in zip(runs, rows, strict=True))


def next_run(number: int, slot: Slot, work: Work, n_batch: int) -> Run:
    """Return the next inputs of a slot that may be in one batch: an uncut run, or at most ``n_batch`` of one kind."""
    position = len(slot.cells)
    stop, uncut = work.run_at(position)
    if uncut:
        inputs = work.inputs[position:stop]
        return Run(number, position, work, inputs, BatchKey(kind=kind_of(inputs[0]), uncut=True))
    inputs = work.inputs[position : min(stop, position + n_batch)]
    kind = kind_of(inputs[0])
    return Run(number, position, work, tuple(takewhile(lambda one: kind_of(one) == kind, inputs)), BatchKey(kind=kind))


def turn_of(keys: Collection[BatchKey], last: BatchKey | None) -> BatchKey:
    """Return the key whose turn it is: the first one of ``keys`` that follows the last batch's in the round."""
    following = 0 if last is None else ROUND.index(last) + 1
    return min(keys, key=lambda key: (ROUND.index(key) - following) % len(ROUND))


def fitting(runs: list[Run], n_batch: int, *, alone: bool) -> list[Run]:
    """Return the uncut runs of the next batch: in the order of arrival as many as fit, or one.

    Args:
        runs: The next uncut run of each sequence that has one.
        n_batch: The most rows of a batch; each run fits in it.
        alone: Whether each run has a batch of its own.
    """
    by_arrival = sorted(runs, key=lambda run: run.work.sequence)
    ends = accumulate(len(run.inputs) for run in by_arrival)
    n_runs = 1 if alone else sum(end <= n_batch for end in ends)
    return sorted(by_arrival[:n_runs], key=lambda run: run.slot)


def _part(run: Run, n_rows: int) -> Part:
    """Return the first rows of a run; an outcome is wanted of the last input of a sequence."""
    is_last = run.position + n_rows == len(run.work.inputs)
    return Part(
        sequence=run.work.sequence,
        slot=run.slot,
        position=run.position,
        inputs=run.inputs[:n_rows],
        wants=run.work.wants if is_last else None,
    )


def awaited(mine: Work, choice: Choice, slots: Sequence[Slot], n_batch: int, n_ctx_seq: int) -> int | None:
    """Return the sequence whose prompt should be evaluated further before a waiting one gets a slot; None if none is.

    Args:
        mine: The work of the waiting sequence.
        choice: The slot that it would get now.
        slots: All slots.
        n_batch: The most rows of a batch.
        n_ctx_seq: The count of cells in a slot.
    """
    ready = [(slot, slot.work) for slot in slots if slot.work and slot.queued]
    wanted = [slot.queued for slot, _ in ready]
    n_mine = share_rows([*wanted, len(mine.inputs) - choice.reused], n_batch)[-1]
    rows = share_rows(wanted, n_batch)
    for (slot, work), n_rows in zip(ready, rows, strict=True):
        common = usable(mine, work.inputs)
        n_left = common - len(slot.cells)
        if work.wants != Draw(0) or n_left <= 0:
            continue  # It generates, or has evaluated the common beginning already.
        gain = common * COPIED_CELLS_PER_ROW - copied(common, n_ctx_seq) - saved(choice, slots, n_ctx_seq)
        if -(-n_left // n_rows) * n_mine * COPIED_CELLS_PER_ROW <= gain:
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
