"""Rules of batches: their rows and positions, the draws from them, and when one ends early.

The rule that holds here: a plan is checked, cell by cell, against earlier plans and the engine's reports of them.
"""

from collections.abc import Iterator

from reenact.actors import events as e
from reenact.actors.batch import apply_operations, n_without
from reenact.actors.inputs import Input, kind_of
from reenact.replay.check.recount import Recount, RecountedRequest
from reenact.replay.check.rule import Rule, Violation
from reenact.replay.render.values import inputs, key, sequences, wanted


class BatchesRule(Rule):
    """The numbers and the shape of batches."""

    name = "batches"
    says = (
        "A batch is planned only while none is in flight, and batches are numbered from 0; a batch has 1 to n_batch "
        "rows, all of its key; its parts are ordered by slot, each in the slot of its sequence."
    )
    source = "docs/runner-semantics.md, Batch"
    hears = (e.BatchPlanned, e.BatchDecoded)

    def see(self, record: e.Record) -> Iterator[Violation]:
        """Check a plan, and the number of a batch that came back."""
        n, recount = record.n, self.recount
        match record.event:
            case e.BatchPlanned() as plan:
                if recount.in_flight is not None or recount.halted:
                    yield self.violation(n, "no plan now", f"batch {plan.batch}")
                number = 0 if recount.plan is None else recount.plan.batch + 1
                if plan.batch != number:
                    yield self.violation(n, f"batch {number}", f"batch {plan.batch}")
                yield from self._shape(n, plan)
            case e.BatchDecoded(batch=batch):
                due = None if recount.in_flight is None else recount.in_flight.batch
                if batch != due:
                    expected = "no batch" if due is None else f"batch {due}"
                    yield self.violation(n, expected, f"batch {batch}", first=recount.planned_at)
            case _:
                pass

    def _shape(self, n: int, plan: e.BatchPlanned) -> Iterator[Violation]:
        recount, parts = self.recount, plan.parts
        n_batch = 0 if recount.header is None else recount.header.context.n_batch
        n_rows = sum(len(part.inputs) for part in parts)
        if not 1 <= n_rows <= n_batch or not all(part.inputs for part in parts):
            yield self.violation(n, f"1 to {n_batch} rows, at least one a part", f"{n_rows} rows")
        # A pooled text is not cut where its kinds of inputs change; callers give tokens only.
        keys = {_key(one, uncut=part.pools) for part in parts for one in part.inputs[: 1 if part.pools else None]}
        if not keys <= {plan.key}:
            yield self.violation(n, f"rows of {key(plan.key)}", f"rows of {' and '.join(sorted(map(key, keys)))}")
        slots = [part.slot for part in parts]
        if slots != sorted({slot for slot in slots if 0 <= slot < len(recount.slots)}):
            yield self.violation(n, f"slots ascending, of {len(recount.slots)}", f"slots {slots}")
        for part in parts:
            if recount.slot(part.slot).sequence != part.sequence:
                actual = f"rows of sequence {part.sequence} in slot {part.slot}"
                yield self.violation(n, f"rows of sequence {recount.slot(part.slot).sequence}", actual)


class DrawsRule(Rule):
    """The rows whose logits are sampled."""

    name = "draws"
    says = (
        "A row of logits has one reader: logits are requested only in the last row of a sequence's inputs, for its "
        "next token, and exactly the requested ones are sampled, each with its index."
    )
    source = "docs/runner-semantics.md, Batch"
    hears = (e.BatchPlanned, e.BatchDecoded)

    def see(self, record: e.Record) -> Iterator[Violation]:
        """Check the requested draws, and those that were made."""
        match record.event:
            case e.BatchPlanned(parts=parts):
                numbers = [part.sequence for part in parts]
                if len(set(numbers)) != len(numbers):
                    yield self.violation(record.n, "one part a sequence", f"parts of {sorted(numbers)}")
                for part in parts:
                    yield from self._part(record.n, part, self.recount.request(part.sequence))
            case e.BatchDecoded() as decoded if self.recount.in_flight is not None:
                done = self.recount.in_flight.parts if decoded.code == e.DONE else ()
                drawn = [(part.sequence, part.draw) for part in done if part.draw is not None]
                pooled = [part.sequence for part in done if part.pools]
                actual = (
                    [(one.sequence, one.index) for one in decoded.samples],
                    [one.sequence for one in decoded.vectors],
                )
                if (drawn, pooled) != actual:
                    pairs = (drawn, pooled), actual
                    expected, made = (f"tokens (sequence, index) {one} and vectors of {two}" for one, two in pairs)
                    yield self.violation(record.n, expected, made, first=self.recount.planned_at)
            case _:
                pass

    def _part(self, n: int, part: e.Part, request: RecountedRequest) -> Iterator[Violation]:
        is_last = part.position + len(part.inputs) == len(request.inputs)
        due = request.wants
        if isinstance(due, e.Draw):
            due = e.Draw(request.n_sampled) if is_last else None
        if part.wants != due:
            yield self.violation(n, f"sequence {part.sequence} wants {wanted(due)}", f"it wants {wanted(part.wants)}")


class PositionsRule(Rule):
    """The positions of rows."""

    name = "positions"
    says = (
        "The rows of a sequence follow its cells: none is left out, and none is evaluated twice unless it was removed "
        "in between; each row is the sequence's input at that position, and no useful cell is removed."
    )
    source = "docs/runner-semantics.md, Slots and prefix reuse"
    hears = (e.BatchPlanned,)

    def see(self, record: e.Record) -> Iterator[Violation]:
        """Check a plan."""
        plan = record.event
        if not isinstance(plan, e.BatchPlanned):
            return
        for trim in plan.trims:
            useful = self.recount.slot(trim.slot).useful
            if trim.length < useful:
                yield self.violation(
                    record.n, f"the first {useful} cells of slot {trim.slot} kept", f"trimmed to {trim.length}"
                )
        lengths = apply_operations({number: self._length(number) for number in plan.slots}, plan, _n_left)
        for part in plan.parts:
            yield from self._part(record.n, part, lengths[part.slot])

    def _length(self, number: int) -> int | None:
        """Return the number of a slot's cells in use; None where it is unknown."""
        slot = self.recount.slot(number)
        return len(slot.cells) if slot.known else None

    def _part(self, n: int, part: e.Part, length: int | None) -> Iterator[Violation]:
        useful = self.recount.slot(part.slot).useful
        if not part.position == length == useful:
            known = "an unknown number of" if length is None else str(length)
            expected = f"slot {part.slot} at position {length}" if length == useful else f"{useful} cells of use"
            yield self.violation(n, expected, f"position {part.position}, {known} cells in slot {part.slot}")
        end = part.position + len(part.inputs)
        mine = tuple(self.recount.request(part.sequence).inputs[max(part.position, 0) : end])
        if mine != part.inputs:
            expected = f"of sequence {part.sequence} at {part.position}: {inputs(mine)}"
            yield self.violation(n, expected, inputs(part.inputs))


class CellsRule(Rule):
    """The engine's reports of its cells."""

    name = "cells"
    says = (
        "After each batch the engine reports the cells that the plan makes: all rows if the batch was done, none if "
        "there was no room or the batch was invalid, and otherwise as many as it reached; a pooled text leaves none."
    )
    source = "docs/runner-semantics.md, Slots and prefix reuse"
    hears = (e.BatchDecoded,)

    def see(self, record: e.Record) -> Iterator[Violation]:
        """Check the reported positions."""
        decoded, plan = record.event, self.recount.in_flight
        if not isinstance(decoded, e.BatchDecoded) or plan is None:
            return
        if decoded.code == e.INVALID and not decoded.positions:
            return  # The engine refused it.
        reported = dict(decoded.positions)
        if [part.slot for part in plan.parts] != [slot for slot, _ in decoded.positions]:
            expected = f"positions of slots {[part.slot for part in plan.parts]}"
            actual = f"of {[slot for slot, _ in decoded.positions]}"
            yield self.violation(record.n, expected, actual, first=self.recount.planned_at)
        for part in plan.parts:
            low, high = _last_positions(part, decoded.code)
            last = reported.get(part.slot)
            if last is not None and not low <= last <= high:
                due = f"position {low}" if low == high else f"position {low} to {high}"
                expected = f"slot {part.slot} at {due}"
                yield self.violation(record.n, expected, f"position {last}", first=self.recount.planned_at)


def _key(one: Input, *, uncut: bool) -> e.BatchKey:
    return e.BatchKey(kind=kind_of(one), uncut=uncut)


def _n_left(n_cells: int | None, removed: slice) -> int | None:
    """Return the number of cells that are left; None where it is unknown."""
    if n_cells is None:
        return 0 if removed == slice(0, None) else None
    return n_without(n_cells, removed)


def _last_positions(part: e.Part, code: int) -> tuple[int, int]:
    """Return the lowest and the highest position that the last cell of a part's slot can have after a batch."""
    none, every = part.position - 1, part.position + len(part.inputs) - 1
    if part.pools or code in {e.NO_ROOM, e.INVALID}:
        return none, none
    return (every, every) if code == e.DONE else (none, every)


class TurnsRule(Rule):
    """The sequences that a batch leaves out."""

    name = "turns"
    says = (
        "Every sequence whose next inputs have a batch's key is in the batch, and the keys take turns: while a "
        "sequence waits for its key, no other key has two batches (counted anew when the context is new). Pooled texts "
        "go first come, first served. While any sequence has inputs, a batch is planned."
    )
    source = "docs/runner-semantics.md, Batch"
    hears = (e.BatchPlanned, e.CellsLost)

    def __init__(self, recount: Recount) -> None:
        super().__init__(recount)
        self._missed: dict[int, tuple[e.BatchKey, ...]] = {}
        """The keys of the batches in a row that have left out each sequence with inputs."""

    def see(self, record: e.Record) -> Iterator[Violation]:
        """Check which sequences a batch leaves out."""
        plan = record.event
        if isinstance(plan, e.CellsLost):
            # A sequence that waited for a token may begin with a row of numbers now, so it waits for another batch.
            self._missed = {}
        if not isinstance(plan, e.BatchPlanned) or not plan.parts or not plan.parts[0].inputs:
            return
        there = {part.sequence for part in plan.parts}
        before, self._missed = self._missed, {}
        for slot in self.recount.slots:
            if slot.sequence is None or slot.sequence in there:
                continue
            request = self.recount.request(slot.sequence)
            if request.ended or request.wants is None or not request.inputs:
                continue
            following = request.inputs[min(slot.useful, len(request.inputs) - 1)]
            waits_for = _key(following, uncut=isinstance(request.wants, e.Pool))
            missed = before.get(request.number, ())
            if waits_for == plan.key:
                if not plan.key.uncut:
                    yield self._left_out(record.n, request, "which has inputs of this key")
                elif request.number < max(there):
                    yield self._left_out(record.n, request, "which came first")
                continue
            self._missed[request.number] = (*missed, plan.key)
            if plan.key in missed:
                yield self._left_out(record.n, request, f"which missed {len(missed)} before, one of this key")

    def settle(self) -> Iterator[Violation]:
        """Check that no sequence waits for a batch that is not planned."""
        recount = self.recount
        if recount.in_flight is None and not recount.halted:
            ready = [slot.sequence for slot in recount.slots if self._is_ready(slot.sequence)]
            if ready:
                yield self.violation(recount.n, f"a batch with {sequences([one or 0 for one in ready])}", "none")

    def _is_ready(self, number: int | None) -> bool:
        return number is not None and self.recount.is_live(number) and self.recount.request(number).wants is not None

    def _left_out(self, n: int, request: RecountedRequest, why: str) -> Violation:
        return self.violation(n, f"sequence {request.number} in the batch, {why}", "it is not")


class AbortsRule(Rule):
    """The batches that are ended early."""

    name = "aborts"
    says = (
        "When a sequence ends that has several rows in the batch in flight, the batch is ended early, once; but of "
        "two batches in a row that have rows of other sequences too, one is completed."
    )
    source = "docs/runner-semantics.md, Cancelling"
    hears = (e.SequenceFinished, e.AbortRequested)

    def __init__(self, recount: Recount) -> None:
        super().__init__(recount)
        self._owed: tuple[int, int] | None = None
        """The record of an end, and the batch that has to end early because of it."""

    def see(self, record: e.Record) -> Iterator[Violation]:
        """Check an end and the abort that follows from it."""
        match record.event:
            case e.SequenceFinished(sequence=number):
                if self._is_due(number):
                    plan = self.recount.in_flight
                    self._owed = record.n, plan.batch if plan is not None else 0
            case e.AbortRequested(batch=batch, sequence=number):
                self._owed = None
                plan = self.recount.in_flight
                if not self._is_due(number) or self.recount.is_live(number) or plan is None or plan.batch != batch:
                    expected = "a batch ended for a prefill of an ended sequence, once, not again with others"
                    yield self.violation(record.n, expected, f"of batch {batch} for sequence {number}")
            case _:
                pass

    def settle(self) -> Iterator[Violation]:
        """Check that no prefill is still computed for an ended sequence."""
        if self._owed is not None and self.recount.in_flight is not None and not self.recount.halted:
            n, batch = self._owed
            yield self.violation(n, f"an early end of batch {batch}", "none")
        self._owed = None

    def _is_due(self, number: int) -> bool:
        """Return whether a batch with rows of this sequence has to end early if the sequence has ended."""
        plan = self.recount.in_flight
        if plan is None or self.recount.aborting:
            return False
        rows = [len(part.inputs) for part in plan.parts if part.sequence == number]
        return bool(rows) and rows[0] > 1 and not (self.recount.aborted and len(plan.parts) > len(rows))
