"""Replacements that break a rule, for `tests/mutants/rules/table.py`: those that take more than a line."""

from collections.abc import Callable
from functools import wraps
from typing import Any

from attrs import evolve as changed

from reenact.actors import batcher
from reenact.actors import events as e
from reenact.actors.inputs import Inputs, Row
from reenact.actors.options import Options
from reenact.actors.slots import Choice, Slot, Work, choose, takes_over, usable
from reenact.actors.text import Assembled
from reenact.runtime.llama.marked import noticed
from tests.mutants.change import answered, asked


def with_options(**options: Any) -> Any:
    """Let a function of a Sequence believe in other options."""
    return asked(lambda state, *rest: (changed(state, options=changed(state.options, **options)), *rest))


def with_state(**fields: Any) -> Any:
    """Let a function of an actor believe in another state."""
    return asked(lambda state, *rest: (changed(state, **fields), *rest))


def with_shift(way: str) -> Any:
    """Let a function of the Batcher believe in another way to shift a context."""
    return asked(lambda state, *rest: (changed(state, context=changed(state.context, shift=way)), *rest))


def with_flight(**fields: Any) -> Any:
    """Let a function of the Batcher believe in another state of its last batch."""
    return asked(lambda state, *rest: (changed(state, flight=changed(state.flight, **fields)), *rest))


def longer_if_full(original: Any) -> Any:
    """Shift a context as soon as it is full."""

    def queue(state: Any, token: int, *, n_sampled: int, length: int) -> e.Event:
        event: e.Event = original(state, token, n_sampled=n_sampled, length=length + (length == state.n_ctx))
        return event

    return queue


def without(*kinds: type[e.Event]) -> Any:
    """Let a function that decides forget events of these kinds."""
    return answered(lambda events: [event for event in events if not isinstance(event, kinds)])


def deaf_to(kind: type[e.Event]) -> Any:
    """Let an actor decide nothing on events of this kind."""
    return lambda original: lambda state, event: [] if isinstance(event, kind) else original(state, event)


def first_rows(wanted: list[int], budget: int) -> list[int]:
    """Share rows as a first-come batch does: the first one gets all it wants."""
    rows = [1] * len(wanted)
    for i, want in enumerate(wanted):
        rows[i] += min(want - 1, budget - sum(rows))
    return rows


def prompts_first(wanted: list[int], budget: int) -> list[int]:
    """Give the rows to the longest, and nothing to the last ones."""
    rows = [0] * len(wanted)
    for i in sorted(range(len(wanted)), key=lambda i: -wanted[i]):
        rows[i] = min(wanted[i], budget - sum(rows))
    return rows


def stop_of_the_list(pending: bytes, stops: tuple[str, ...]) -> tuple[int, str] | None:
    """Take the first stop string in the order of the list, as the reference does."""
    return next(((pending.find(stop.encode()), stop) for stop in stops if stop.encode() in pending), None)


def last_start(pending: bytes, stops: tuple[str, ...]) -> tuple[int, str] | None:
    """Of the stop strings that are complete first take the one that starts last."""
    complete = [(pending.find(stop.encode()), stop) for stop in stops if stop.encode() in pending]
    return min(complete, key=lambda one: (one[0] + len(one[1].encode()), -one[0]), default=None)


def piece_by_piece(_held: bytes, _held_by: tuple[int, ...], piece: bytes, _stops: tuple[str, ...]) -> Assembled:
    """Send every piece out as it comes."""
    return Assembled(piece.decode("utf-8", "replace"), b"", (), None, 0)


def until_invalid(original: Any) -> Any:
    """Drop everything behind bytes that can never become valid, as the reference does."""

    def cut(assembled: Assembled) -> Assembled:
        text, found, _ = assembled.text.partition("\ufffd")
        return changed(assembled, text=text, held=b"" if found else assembled.held)

    return lambda *args: cut(original(*args))


def oldest(work: Work, slots: tuple[Slot, ...]) -> tuple[int, Work] | None:
    """Preempt the oldest."""
    lower = [(n, slot.work) for n, slot in enumerate(slots) if slot.work and slot.work.priority < work.priority]
    return min(lower, key=lambda one: one[1].sequence, default=None)


def overtaking(state: batcher.Batcher) -> Any:
    """Let a request that is tokenized sooner overtake."""
    return [work for work in state.waiting if work.wants]


def counted_when_planned(original: Any) -> Any:
    """Take rows for cells as soon as they are planned."""

    def planned(state: batcher.Batcher, event: e.BatchPlanned) -> batcher.Batcher:
        after: batcher.Batcher = original(state, event)
        slots = list(after.slots)
        for part in event.parts:
            work = slots[part.slot].work
            assert work is not None
            slots[part.slot] = changed(slots[part.slot], cells=work.inputs.first(part.position + len(part.inputs)))
        return changed(after, slots=tuple(slots))

    return planned


def as_if_done(original: Any) -> Any:
    """Take every row for evaluated, whatever the code."""
    return lambda slot, part, _position, *, code: original(
        slot, part, part.position + len(part.inputs) - 1, code=min(abs(code), 0)
    )


def all_that_was_reached(original: Any) -> Any:
    """Leave the last input in the cells after an abort, though its logits are gone."""

    def decoded(slot: Slot, part: e.Part, position: int | None, *, code: int) -> Slot:
        after: Slot = original(slot, part, position, code=code)
        if code != e.ABORTED or after.work is None or position is None:
            return after
        return changed(after, cells=after.work.inputs.first(position + 1))

    return decoded


def pooled_cells(original: Any) -> Any:
    """Take the rows of a text that was pooled for cells."""
    return lambda slot, part, position, *, code: original(
        slot, part, len(part.inputs) - 1 if part.pools else position, code=code
    )


def by_first_digits(original: Any) -> Any:
    """Compare rows by how their digests begin."""

    def cut(inputs: Inputs) -> Inputs:
        return Inputs(one if isinstance(one, int) else Row(one.digest[:1]) for one in inputs[:])

    return lambda self, other: original(cut(self), cut(other))


def everybody_fails(original: Any) -> Any:
    """Let a failed batch end the sequences of all slots."""

    def commit(state: batcher.Batcher, event: e.BatchDecoded) -> list[e.Event]:
        sequences = tuple(slot.work.sequence for slot in state.slots if slot.work)
        return [
            changed(one, sequences=sequences) if isinstance(one, e.BatchFailed) else one
            for one in original(state, event)
        ]

    return commit


def as_evaluated(original: Any) -> Any:
    """Take it that a preempted sequence still has its cells."""

    def assigned(state: batcher.Batcher, event: e.SlotAssigned) -> Any:
        work = next(work for work in state.waiting if work.sequence == event.sequence)
        return original(state, changed(event, reused=len(work.inputs) - 1) if work.preempted else event)

    return assigned


def busy_is_free(work: Work, slots: Any, n_ctx_seq: int) -> tuple[Work, Any, int]:
    """Take busy slots for free ones."""
    return work, [changed(slot, work=None) for slot in slots], n_ctx_seq


def first_of_all(_work: Work, slots: Any, _n_ctx_seq: int) -> Choice | None:
    """Take the first free slot, warm or not, as the reference does."""
    return next((Choice(number, 0) for number, slot in enumerate(slots) if slot.work is None), None)


def taken_over_first(original: Any) -> Any:
    """Take over a slot wherever one fits, whatever a fork would save."""

    def chosen(work: Work, slots: Any, n_ctx_seq: int) -> Choice | None:
        fitting = [n for n, slot in enumerate(slots) if slot.work is None and takes_over(work, slot)]
        ways = [Choice(number, usable(work, slots[number].reusable)) for number in fitting]
        best: Choice | None = max(ways, key=lambda way: way.reused, default=None) or original(work, slots, n_ctx_seq)
        return best

    return chosen


def no_slot_kept(state: batcher.Batcher) -> list[e.Event]:
    """Give a slot to the first that need not wait, also the last one."""
    for work in batcher._in_turn(state):  # it is what is broken
        way = choose(work, state.slots, state.context.n_ctx_seq)
        if way is None:
            return batcher._preempt(state, work)
        if batcher.beginning_awaited(state, work, way) is None:
            return [e.SlotAssigned(sequence=work.sequence, slot=way.slot, reused=way.reused, source=way.source)]
    return []


def refused_when_full(original: Any) -> Any:
    """Refuse any request that comes to a full queue."""

    def admit(state: batcher.Batcher, event: e.RequestReceived) -> list[e.Event]:
        follows: list[e.Event] = original(state, event)
        if not isinstance(follows[0], e.RequestDisplaced):
            return follows
        return [e.RequestRejected(sequence=event.sequence, failure=follows[0].failure)]

    return admit


def unread(original: Any) -> Any:
    """Take a sequence that wants nothing for one that holds its place."""
    return lambda state: original(state) if not state.waiting or state.waiting[0].wants else []


def kept(**changes: Any) -> Any:
    """Let another number of inputs be kept."""
    return lambda original: (
        lambda num_keep, n_prompt, n_ctx, *, bos_added: original(
            **{"num_keep": num_keep, "n_prompt": n_prompt, "n_ctx": n_ctx, "bos_added": bos_added}
            | {name: change(num_keep, n_ctx) for name, change in changes.items()}
        )
    )


def empty_stops_forgotten(original: Any) -> Any:
    """Leave empty stop strings out."""

    def init(self: Options, *, stop: Any = (), **options: Any) -> None:
        original(self, stop=[one for one in stop if one != ""] if isinstance(stop, list) else stop, **options)

    return init


def preempted_counted(original: Any) -> Any:
    """Let those that were preempted take the places of those that wait."""
    return lambda state, event: original(
        changed(state, waiting=tuple(changed(work, preempted=False) for work in state.waiting)), event
    )


def released_empty(events: list[e.Event]) -> list[e.Event]:
    """Forget what is in a slot that is released."""
    return [changed(one, length=0) if isinstance(one, e.SlotReleased) else one for one in events]


def ends_with_length(events: list[e.Event]) -> list[e.Event]:
    """Say `length` of a full context, as the reference does."""
    return [changed(one, finish_reason="length") if isinstance(one, e.SequenceFinished) else one for one in events]


def all_or_none(original: Any) -> Any:
    """Do nothing while a sequence that has a slot wants nothing."""
    return lambda state: [] if any(slot.work and not slot.work.wants for slot in state.slots) else original(state)


def first_row(original: Any) -> Any:
    """Draw every token from the row of the first slot in the batch."""
    rows: list[int] = []

    def draw(self: Any, row: int, part: e.Part, drawing: Any) -> Any:
        if part.slot == 0 or not rows:
            rows[:] = [row]
        return original(self, rows[0], part, drawing)

    return draw


def any_continuation(original: Any) -> Any:
    """Look at the first byte of a character alone."""

    def add(self: Any, node: int, low: bytes, high: bytes, then: int) -> None:
        rest = len(low) - 1
        original(self, node, low[:1] + b"\x80" * rest, high[:1] + b"\xbf" * rest, then)

    return add


def less_room_for_who_comes_again(original: Any) -> Any:
    """Leave out more of a chat where others were answered before."""

    def fit(session: Any, chats: Any, messages: Any, options: Options, **asked: Any) -> Any:
        before = vars(chats)["_chats"]
        return original(session, chats, messages, changed(options, num_predict=-1) if before else options, **asked)

    return fit


def had_a_slot_for_nothing(original: Any) -> Any:
    """Let those that had a slot wait outside of every limit."""

    def excess(state: batcher.Batcher, came: Work) -> Work | None:
        found: Work | None = original(changed(state, waiting=tuple(w for w in state.waiting if not w.preempted)), came)
        return found

    return excess


async def nothing_leads(*_: object) -> None:
    """Know of no system part."""


def recorded_whole(original: Any) -> Any:
    """Record the reason of a wrong argument as its caller sees it."""

    def init(self: Any, field: str, reason: str, **_: object) -> None:
        original(self, field, reason)

    return init


def only_noticed(call: Callable[..., Any]) -> Any:
    """Let what a filter makes of a message's text be the template's where it lost the marks."""
    return wraps(call)(answered(noticed)(call))
