"""Finds the obstacle between a waiting sequence and a slot, from the Batcher's state alone.

The rule that holds here: the Batcher's own next steps are taken, as if nothing else happened until the batch in flight
is back. So a live runtime and a log show the same, and neither has a rule of its own.
"""

from typing import Literal

from attrs import frozen

from reenact.actors import batcher as b
from reenact.actors import events as e
from reenact.actors.slots import Work, choose

Obstacle = Literal["prompt", "tokenizer", "turn", "slot"]
"""The thing that keeps a sequence from a slot: another one's prompt, which begins alike and is evaluated first; the
tokenizer, which has the prompt of one that goes first; the turn of others, while a slot is free; or that all slots are
taken."""


@frozen
class NextSlots:
    """The slots that are assigned once no batch is in flight."""

    after: b.Batcher
    """The Batcher's state then."""
    losers: dict[int, int | None]
    """For each sequence that gets a slot, the sequence that loses it; None if the slot was free."""


def next_slots(batcher: b.Batcher) -> NextSlots:
    """Return the slots that the Batcher assigns once no batch is in flight, if nothing else happens until then."""
    after = b.lost(batcher)
    losers: dict[int, int | None] = {}
    loser: int | None = None
    while follows := b.proceed(after):
        (event,) = follows
        match event:
            case e.SequencePreempted():
                loser = event.sequence
            case e.SlotAssigned():
                losers[event.sequence], loser = loser, None
            case _:
                break
        after = b.evolve(after, event)
    return NextSlots(after, losers)


def ahead_of(batcher: b.Batcher, work: Work) -> list[Work]:
    """Return the waiting works that get a slot before another one."""
    return [one for one in batcher.waiting[: batcher.waiting.index(work)] if not one.kept_back]


def obstacle(batcher: b.Batcher, after: b.Batcher, work: Work) -> tuple[Obstacle, tuple[int, ...]]:
    """Return the obstacle of a waiting sequence, and the sequences of which one must go on first.

    Args:
        batcher: The state of the Batcher.
        after: The same state, once all possible slots are assigned; the sequence has none.
        work: The work of the sequence.
    """
    choice = choose(work, after.slots, after.context.n_ctx_seq)
    other = None if choice is None else b.beginning_awaited(after, work, choice)
    if other is not None:
        return "prompt", (other,)
    ahead = ahead_of(batcher, work)
    slow = next((one for one in ahead if not one.inputs), None)
    if slow is not None and (_has_room(after) or b.preempted(slow, after.slots) is not None):
        return "tokenizer", (slow.sequence,)
    if _has_room(batcher):
        return "turn", tuple(one.sequence for one in ahead)
    return "slot", tuple(slot.sequence for slot in batcher.slots if slot.sequence is not None)


def _has_room(batcher: b.Batcher) -> bool:
    return any(slot.work is None for slot in batcher.slots)
