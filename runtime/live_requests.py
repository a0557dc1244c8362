"""Shows the requests of a session that have not ended, and for which of them each one waits.

The rule that holds here: everything follows from the actors' state between two records, as in `replay state`, and
nothing is asked of a task.
"""

from typing import Literal

from attrs import frozen

from reenact.actors import batcher as b
from reenact.actors.admission import next_slots, obstacle
from reenact.actors.kernel import State
from reenact.actors.sequence import Sequence
from reenact.actors.slots import Work

WaitsFor = Literal["tokenizer", "engine", "reader", "slot", "prompt"]
"""The thing for which a request waits; "prompt" is another one's that begins alike and is evaluated first."""


@frozen(kw_only=True)
class LiveRequest:
    """A request that has not ended."""

    sequence: int
    request_id: str | None
    slot: int | None
    """Its slot; None while it waits for one."""
    n_prompt: int | None
    """The count of its prompt's inputs; None until it is tokenized."""
    n_sampled: int
    waits_for: WaitsFor | None
    behind: tuple[int, ...]
    """The sequences of which one must go on or end first; empty if it waits for something outside the actors."""


def live_requests(state: State) -> list[LiveRequest]:
    """Return the requests that have not ended, in the order of their numbers."""
    batcher = state.batcher
    if batcher is None:
        return []
    live = (one for one in state.sequences if one.finish_reason is None)
    return [_live(batcher, one) for one in sorted(live, key=lambda one: one.sequence)]


def _live(batcher: b.Batcher, state: Sequence) -> LiveRequest:
    slots = [number for number, slot in enumerate(batcher.slots) if slot.sequence == state.sequence]
    waits_for, behind = _waits(batcher, state, slots[0] if slots else None)
    return LiveRequest(
        sequence=state.sequence,
        request_id=state.request_id,
        slot=slots[0] if slots else None,
        n_prompt=state.n_prompt,
        n_sampled=state.n_sampled,
        waits_for=waits_for,
        behind=behind,
    )


def _waits(batcher: b.Batcher, state: Sequence, number: int | None) -> tuple[WaitsFor | None, tuple[int, ...]]:
    """Return the thing for which a request waits, and the sequences of which one must go on first."""
    if state.n_prompt is None:
        return "tokenizer", ()
    if number is not None:
        in_flight = () if batcher.in_flight is None else batcher.in_flight.parts
        if any(part.sequence == state.sequence for part in in_flight):
            return "engine", ()
        if state.paused:
            return "reader", ()
        return ("engine" if in_flight else None), ()
    if state.paused:
        return "reader", ()
    mine = next((work for work in batcher.waiting if work.sequence == state.sequence), None)
    return (None, ()) if mine is None or not mine.wants else _in_queue(batcher, mine)


def _in_queue(batcher: b.Batcher, mine: Work) -> tuple[WaitsFor | None, tuple[int, ...]]:
    found = next_slots(batcher)
    if mine.sequence in found.losers:
        return ("engine" if batcher.in_flight is not None else None), ()
    kept_by, behind = obstacle(batcher, found.after, mine)
    return ("prompt" if kept_by == "prompt" else "slot"), behind
