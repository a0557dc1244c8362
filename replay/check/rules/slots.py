"""Rules of slots and of the queue before them: which request gets one, what it reuses, and what stays in the cells.

The rule that holds here: what a new sequence reuses is compared, input by input, with the content of the cells.
"""

from bisect import bisect_left, insort
from collections.abc import Generator, Iterator
from heapq import heapify, heapreplace

from reenact.actors import events as e
from reenact.actors.routing import BATCHER
from reenact.replay.check.recount import Recount, RecountedRequest, common
from reenact.replay.check.rule import Rule, Violation
from reenact.replay.render.values import count


class SlotsRule(Rule):
    """The content of a slot when it is assigned."""

    name = "slots"
    says = (
        "A slot has one sequence, until that ends or makes room; it is assigned between batches, and what it reuses "
        "is either nothing or a beginning of the sequence's inputs, never moved and never all of them, in its own "
        "cells or in those of a slot that the next batch copies."
    )
    source = "docs/runner-semantics.md, Slots and prefix reuse"
    hears = (e.SlotAssigned, e.SlotReleased, e.SequencePreempted, e.SlotYielded, e.BatchPlanned)

    def see(self, record: e.Record) -> Iterator[Violation]:
        """Check which sequence gets or leaves a slot, and which slots are copied."""
        match record.event:
            case e.SlotAssigned() as assigned:
                yield from self._assigned(record.n, assigned)
            case (
                e.SlotReleased(sequence=sequence, slot=slot)
                | e.SequencePreempted(sequence=sequence, slot=slot)
                | e.SlotYielded(sequence=sequence, slot=slot)
            ):
                holder = self.recount.slot(slot).sequence
                if holder != sequence:
                    yield self.violation(record.n, f"sequence {holder} in slot {slot}", f"sequence {sequence}")
            case e.BatchPlanned(copies=copies):
                due = [(copy.source, copy.slot) for copy in self.recount.copies]
                actual = [(copy.source, copy.slot) for copy in copies]
                if due != actual:
                    yield self.violation(record.n, f"copies {due}", f"copies {actual}")
            case _:
                pass

    def settle(self) -> Iterator[Violation]:
        """Check that every ended sequence has left its slot."""
        for request in self.recount.just_ended:
            if request.slot is not None and BATCHER not in self.recount.failed:
                yield self.violation(self.recount.n, f"slot {request.slot} released", f"sequence {request.number}")

    def _assigned(self, n: int, assigned: e.SlotAssigned) -> Iterator[Violation]:
        recount, number = self.recount, assigned.slot
        request, holder = recount.request(assigned.sequence), recount.slot(number).sequence
        if not 0 <= number < len(recount.slots) or holder is not None or recount.in_flight is not None:
            taken = f"slot {number}" if holder is None else f"slot {number}, which sequence {holder} has"
            yield self.violation(n, "a free slot between two batches", taken)
        if not (request.waits and request.wants and request.inputs):
            yield self.violation(n, "a sequence that waits and has inputs", f"sequence {request.number}")
        n_possible = 0 if isinstance(request.wants, e.Pool) else max(len(request.inputs) - 1, 0)
        content = recount.content(number if assigned.source is None else assigned.source)
        reused = assigned.reused
        is_known = content.pure is None or reused <= content.pure
        if not 0 <= reused <= n_possible or not is_known or content.cells[:reused] != request.inputs[:reused]:
            expected = min(common(content.cells[: content.pure], request.inputs), n_possible)
            yield self.violation(n, f"{count(expected, 'reused input')} at most", f"{reused}")


class KeptRule(Rule):
    """The cells that stay in a released slot."""

    name = "kept"
    says = (
        "A released slot keeps the evaluated inputs that are wholly part of the visible text, and no cell that was "
        "moved."
    )
    source = "docs/runner-semantics.md, After a stop string"
    hears = (e.SlotReleased,)

    def see(self, record: e.Record) -> Iterator[Violation]:
        """Check a released slot."""
        released, end = record.event, self.recount.cause(record)
        if not isinstance(released, e.SlotReleased) or not isinstance(end, e.SequenceFinished):
            return
        slot = self.recount.slot(released.slot)
        visible = slot.useful - end.n_hidden
        due = max(visible if slot.unmoved is None else min(visible, slot.unmoved), 0)
        if released.length != due:
            yield self.violation(record.n, f"{due} cells of slot {released.slot}", f"{released.length}")


class PlacesRule(Rule):
    """The order in which requests get slots."""

    name = "places"
    says = (
        "Slots go by priority, then first come, first served, and no request overtakes another; where none is "
        "free, the youngest sequence of the lowest priority makes room for a higher one; meanwhile no slot is left "
        "free, or to a lower priority. A request waits, with a slot kept free for it, only while a prompt that "
        "begins alike is evaluated."
    )
    source = "docs/runner-semantics.md, Admission"
    hears = (e.SlotAssigned, e.SequencePreempted, e.BatchPlanned)

    def see(self, record: e.Record) -> Iterator[Violation]:
        """Check which sequence gets a slot, which one loses it, and which one was passed over."""
        match record.event:
            case e.SlotAssigned(sequence=sequence):
                n_kept = yield from self._in_turn(record.n, sequence)
                if n_kept >= self._n_free > 0:
                    yield self.violation(record.n, f"{count(n_kept, 'slot')} kept free", f"sequence {sequence} in it")
            case e.SequencePreempted() as preempted:
                n_kept = yield from self._in_turn(record.n, preempted.by)
                chosen = self._youngest_below(self.recount.request(preempted.by))
                if self._n_free > n_kept or chosen != preempted.sequence:
                    expected = "no sequence" if self._n_free > n_kept or chosen is None else f"sequence {chosen}"
                    yield self.violation(record.n, f"{expected} makes room", f"sequence {preempted.sequence}")
            case _:
                yield from self._passed_over(record.n)

    def settle(self) -> Iterator[Violation]:
        """Check that no sequence waits although it could have a slot."""
        if self.recount.in_flight is None and not self.recount.halted:
            yield from self._passed_over(self.recount.n)

    @property
    def _n_free(self) -> int:
        return sum(slot.sequence is None for slot in self.recount.slots)

    def _in_turn(self, n: int, sequence: int) -> Generator[Violation, None, int]:
        """Check whose turn it is, and return how many requests before it wait with a slot kept free."""
        n_kept = 0
        for one in self.recount.in_turn:
            if one.number == sequence:
                return n_kept
            if not one.inputs or not self.recount.may_wait(one):
                yield self.violation(n, f"sequence {one.number} in turn", f"sequence {sequence}")
                return n_kept
            n_kept += 1
        yield self.violation(n, "no sequence in turn", f"sequence {sequence}")
        return n_kept

    def _youngest_below(self, request: RecountedRequest) -> int | None:
        lower = [
            (other.options.priority, -other.number)
            for other in (self.recount.request(slot.sequence or 0) for slot in self.recount.slots)
            if not other.ended and other.options.priority < request.options.priority
        ]
        return -min(lower)[1] if lower else None

    def _passed_over(self, n: int) -> Iterator[Violation]:
        if not self.recount.waiting:
            return
        n_free = self._n_free
        for n_kept, one in enumerate(self.recount.in_turn):
            if not one.inputs:
                return
            if n_kept == n_free:
                if self._youngest_below(one) is not None:
                    yield self.violation(n, f"a slot for sequence {one.number}", "it waits")
                return
            if not self.recount.may_wait(one):
                yield self.violation(n, f"a slot for sequence {one.number}", "it waits")
                return


class QueueRule(Rule):
    """The length of the queue."""

    name = "queue"
    says = (
        "A request is queued if fewer than max_waiting wait, not counting those that get a slot at once nor, among "
        "those that had a slot before, as many as there are slots; otherwise the last in turn that never had a slot "
        "is refused: the new request, or one that waits. A queued request carries the number ahead, and leaves the "
        "queue if it ends."
    )
    source = "docs/runner-semantics.md, Admission"
    hears = (e.RequestReceived, e.RequestQueued, e.RequestRejected, e.RequestDisplaced, e.RequestWithdrawn)

    def __init__(self, recount: Recount) -> None:
        super().__init__(recount)
        self._owed: tuple[int, int] | None = None
        """The number of the record of a new request, and the request."""
        self._leaver: int | None = None
        """The request that loses its place in the queue to the new one."""

    def see(self, record: e.Record) -> Iterator[Violation]:
        """Check the answer to a new request."""
        match record.event:
            case e.RequestReceived(sequence=number) as received:
                self._owed, self._leaver = (record.n, number), self._last(received)
            case e.RequestDisplaced() as displaced:
                due = self._owed and (self._leaver, self._owed[1], "overloaded")
                actual = displaced.sequence, displaced.by, displaced.failure.kind
                if due != actual or self.recount.halted:
                    yield self.violation(record.n, f"(displaced request, new request, reason) {due}", f"{actual}")
                self._leaver = None
            case e.RequestWithdrawn(sequence=number):
                if not self.recount.request(number).waits:
                    yield self.violation(record.n, "a request that waits", f"request {number}")
            case e.RequestQueued() as queued:
                yield from self._queued(record.n, queued)
                yield from self._answered(record.n, queued.sequence)
            case e.RequestRejected(sequence=number, failure=failure):
                if failure.kind != self._refusal:
                    expected = "a place in the queue" if self._refusal is None else self._refusal
                    yield self.violation(record.n, expected, failure.kind)
                yield from self._answered(record.n, number)
            case _:
                pass

    def settle(self) -> Iterator[Violation]:
        """Check that a new request was queued or refused."""
        owed, self._owed = self._owed, None
        if BATCHER in self.recount.failed:
            return
        if owed is not None:
            yield self.violation(owed[0], f"request {owed[1]} queued or rejected", "neither")
        for request in self.recount.just_ended:
            if request.waits:
                yield self.violation(self.recount.n, f"request {request.number} withdrawn", "it waits")

    def _answered(self, n: int, number: int) -> Iterator[Violation]:
        if self._owed is None or self._owed[1] != number:
            yield self.violation(n, "one answer to a request that has just come", f"request {number}")
        self._owed = None

    @property
    def _refusal(self) -> str | None:
        """The kind of error with which a request is refused now; None if it is not."""
        recount = self.recount
        if recount.halted:
            return "internal_error" if BATCHER in recount.failed else "engine_broken"
        return None if self._leaver is None or self._owed is None or self._leaver != self._owed[1] else "overloaded"

    def _last(self, received: e.RequestReceived) -> int | None:
        """Return the last in turn if too many would wait once slots are assigned: the free ones, then those taken.

        A request that had a slot before is not refused, but takes a place where more of them wait than there are slots.
        """
        recount = self.recount
        limit, n_slots = (0 if recount.header is None else recount.header.limits.max_waiting), len(recount.slots)
        if len(recount.waiting) < limit:
            return None
        came = RecountedRequest(number=received.sequence, options=received.options)
        if len(recount.waiting) > limit + 3 * n_slots:
            return came.number  # More than can: max_waiting, those that had a slot, and those that get or lose it.
        held = [recount.request(slot.sequence).options.priority for slot in recount.slots if slot.sequence is not None]
        queue = list(recount.in_turn)
        insort(queue, came, key=lambda one: one.turn)
        left = [one for one in queue[_n_going(queue, held, n_slots - len(held)) :] if not one.preempted]
        n_before = sum(one.preempted for one in recount.waiting) - n_slots
        if len(left) + max(n_before, 0) <= limit:
            return None
        return left[-1].number if left else came.number

    def _queued(self, n: int, queued: e.RequestQueued) -> Iterator[Violation]:
        request = self.recount.request(queued.sequence)
        if self._refusal is not None or self._leaver is not None:
            expected = f"a place for {self._leaver} no more" if self._refusal is None else f"a refusal, {self._refusal}"
            yield self.violation(n, expected, f"a place behind {len(self.recount.waiting)} that wait")
        n_ahead = bisect_left(self.recount.waiting, request.turn, key=lambda one: one.turn)
        if (queued.priority, queued.n_ahead) != (request.options.priority, n_ahead):
            expected = f"priority {request.options.priority}, {n_ahead} ahead"
            yield self.violation(n, expected, f"priority {queued.priority}, {queued.n_ahead} ahead")


def _n_going(queue: list[RecountedRequest], held: list[int], n_free: int) -> int:
    """Return how many of a queue get a slot at once: a free one, or one of a lower priority among ``held``."""
    heapify(held)
    for number, one in enumerate(queue[n_free:], n_free):
        if not held or held[0] >= one.options.priority:
            return number
        heapreplace(held, one.options.priority)
    return len(queue)
