"""A recount of a log's records, made independently of the actors: requests, slots and their cells.

The rules that hold here:

* The recount decides nothing and uses no state and no rule of the actors: only the content of the records.
* Records are taken at face value and never raise; rules report what is impossible (`reenact.replay.check.rule`).
* A slot has two lengths. ``cells`` are the inputs that the engine was instructed to evaluate and reported as
  evaluated; ``useful`` is how many of them the session treats as the beginning of its sequence's inputs.
* The effect of a batch that the engine refused, or that failed, is unknown; so are the cells of its slots.
"""

from bisect import insort
from collections.abc import Iterator
from typing import Final

from attrs import Factory, define

from reenact.actors import events as e
from reenact.actors.inputs import Input
from reenact.actors.limits import NUM_PREDICT_CONTEXTS
from reenact.actors.options import Options
from reenact.actors.routing import BATCHER

_NOBODY: Final = Options(seed=0)
"""The options of a request that never came."""


@define(kw_only=True)
class RecountedRequest:
    """One request."""

    number: int
    options: Options = _NOBODY
    embedding: bool = False
    n_ctx: int = 0
    """The most inputs that it may have; for an embedding no more than fit into one batch."""
    prompt: tuple[Input, ...] | None = None
    """The prompt's inputs, as tokenized."""
    bos_added: bool = False
    waits: bool = False
    """Whether it waits for a slot."""
    slot: int | None = None
    preempted: bool = False
    """Whether it had a slot before and waits for one again."""
    inputs: list[Input] = Factory(list)
    """All its inputs, evaluated or not."""
    wants: e.Wants = None
    """The purpose of the last of them: a draw, a pool or nothing."""
    n_sampled: int = 0
    last_token: int | None = None
    reader_paused: bool = False
    paused: bool = False
    ended: bool = False

    @property
    def kept_back(self) -> bool:
        """Whether it had something to evaluate but has nothing now, because its reader has paused."""
        return bool(self.inputs) and self.wants is None

    @property
    def turn(self) -> tuple[int, int]:
        """The key by which waiting requests are ordered: a higher priority first, then the earlier request."""
        return -self.options.priority, self.number

    @property
    def keep(self) -> int:
        """The number of inputs that are never dropped: ``num_keep`` and BOS, but never a whole context."""
        n_prompt = len(self.prompt or ())
        whole = self.embedding or self.options.num_keep < 0
        return min(n_prompt if whole else self.options.num_keep + self.bos_added, self.n_ctx - 1)

    @property
    def limit(self) -> int:
        """The most tokens that it samples."""
        asked = self.options.num_predict
        return asked if asked >= 0 else NUM_PREDICT_CONTEXTS * self.n_ctx


def _turn(request: RecountedRequest) -> tuple[int, int]:
    return request.turn


@define(kw_only=True)
class RecountedSlot:
    """One slot and the content of its cells."""

    sequence: int | None = None
    cells: list[Input] = Factory(list)
    """The inputs in the engine's cells; empty where they are unknown."""
    known: bool = True
    useful: int = 0
    pure: int | None = None
    """How many of the engine's cells were never moved; None for all."""
    unmoved: int | None = None
    """The same for the sequence's inputs, including moves that the engine has not made yet."""
    gap: tuple[int, int] | None = None
    """How many cells come before those that are to be discarded, and how many are discarded."""

    def forget(self) -> None:
        """Treat the content of the cells as unknown."""
        self.cells, self.known, self.useful, self.pure, self.unmoved, self.gap = [], False, 0, None, None, None

    def leave(self) -> None:
        """Take the slot from its sequence; the cells stay."""
        self.sequence, self.useful, self.unmoved, self.gap = None, 0, None, None

    def trim(self, length: int) -> None:
        """Remove the cells from ``length`` on."""
        del self.cells[length:]
        self.known = self.known or length == 0
        if self.pure is not None and length <= self.pure:
            self.pure = None


class Recount:
    """A running recount; pass it every record in order."""

    def __init__(self, log: str | None = None) -> None:
        self.log = log
        """The path of the log that the records come from; None where they come from no log."""
        self.header: e.SessionOpened | None = None
        self.closed = False
        self.requests: dict[int, RecountedRequest] = {}
        """The requests that have not ended, and those that ended in the last fact."""
        self.n_requests = 0
        self.waiting: list[RecountedRequest] = []
        """The waiting requests, in the order of their turns."""
        self.slots: list[RecountedSlot] = []
        self.copies: list[e.Copy] = []
        """The copies of slots that the next batch has to make."""
        self.plan: e.BatchPlanned | None = None
        """The last planned batch."""
        self.planned_at = 0
        """The number of the record that planned it."""
        self.in_flight: e.BatchPlanned | None = None
        self.aborting = False
        """Whether the last planned batch is to end early."""
        self.aborted = False
        """Whether the last batch that came back ended early."""
        self.broken = False
        """Whether the engine failed."""
        self.failed: set[str] = set()
        """The names of the actors that raised."""
        self.n = -1
        """The number of the last counted record."""
        self.before = 0
        """When the last counted record happened, in nanoseconds since the session opened."""
        self.now = 0
        """When the next record to be counted happened."""
        self.first = 0
        """The number of the given record that began the current fact."""
        self.fact: list[e.Event] = []
        """The event of that record and of all records that followed from it."""
        self.just_ended: list[RecountedRequest] = []
        """The requests that ended in this fact."""

    # ------------------------------------------------------------ for the rules

    @property
    def halted(self) -> bool:
        """Whether nothing is planned any more because the engine failed or the Batcher raised."""
        return self.broken or BATCHER in self.failed

    def request(self, number: int) -> RecountedRequest:
        """Return a request; an empty one that has ended where no live request has this number."""
        return self.requests.get(number) or RecountedRequest(number=number, ended=True)

    def is_live(self, number: int) -> bool:
        """Return whether a request was received and has not ended."""
        request = self.requests.get(number)
        return request is not None and not request.ended

    def slot(self, number: int) -> RecountedSlot:
        """Return a slot; an empty one where no slot has this number."""
        return self.slots[number] if 0 <= number < len(self.slots) else RecountedSlot()

    def content(self, number: int) -> RecountedSlot:
        """Return the slot whose content this slot will have once all copies are made."""
        for copy in reversed(self.copies):
            if copy.slot == number:
                number = copy.source
        return self.slot(number)

    def cause(self, record: e.Record) -> e.Event | None:
        """Return the event that caused a record, if it belongs to the same fact."""
        at = -1 if record.cause is None else record.cause - self.first
        return self.fact[at] if 0 <= at < len(self.fact) else None

    @property
    def in_turn(self) -> Iterator[RecountedRequest]:
        """The requests that get the next slots, in order; one whose reader has paused is passed over."""
        return (one for one in self.waiting if not one.kept_back)

    def may_wait(self, request: RecountedRequest) -> bool:
        """Return whether a request with a slot is still evaluating a prompt that begins like this one's."""
        for slot in self.slots:
            other = self.request(slot.sequence or 0)
            if not other.ended and other.wants == e.Draw(0):
                n_useful = min(common(other.inputs, request.inputs), len(request.inputs) - 1)
                if slot.useful < n_useful:
                    return True
        return False

    # ------------------------------------------------------------ records

    def begin(self, record: e.Record, t: int) -> None:
        """Advance to the next record; `add` counts it."""
        self.before, self.now = self.now, t
        if record.cause is None:
            self.first = record.n
            self.fact.clear()
            for request in self.just_ended:
                self.requests.pop(request.number, None)
                self._leaves(request.number)
            self.just_ended.clear()

    def add(self, record: e.Record) -> None:
        """Count a record."""
        self.n = record.n
        event = record.event
        self.fact.append(event)
        match event:
            case e.TokenEmitted() | e.StopMatched() | e.EogSampled():
                request = self.request(event.sequence)
                request.n_sampled, request.last_token = event.index + 1, event.token
            case e.InputQueued():
                request = self.request(event.sequence)
                request.inputs += event.inputs
                request.wants, request.paused = event.wants, False
            case e.BatchPlanned():
                self.plan, self.in_flight, self.planned_at, self.aborting = event, event, record.n, False
                self.copies = []
                for slot in self.slots:
                    slot.gap = None
            case e.BatchDecoded():
                self._decoded(event)
            case _:
                self._add_other(event)

    def _add_other(self, event: e.Event) -> None:
        match event:
            case e.SequenceFinished():
                request = self.request(event.sequence)
                request.ended = True
                self.just_ended.append(request)
            case e.SlotAssigned() | e.SequencePreempted() | e.SlotYielded() | e.SlotReleased() | e.CellsLost():
                self._add_of_slots(event)
            case e.InputsDropped():
                self._dropped(event)
            case e.RequestQueued():
                self._waits(self.request(event.sequence))
            case e.RequestWithdrawn() | e.RequestDisplaced():
                self._leaves(event.sequence)
                self.request(event.sequence).waits = False
            case e.AbortRequested():
                self.aborting = True
            case e.EngineFailed():
                self.broken, self.in_flight = True, None
            case e.SessionOpened():
                self.header = event
                self.slots = [RecountedSlot() for _ in range(event.context.n_slots)]
            case e.SessionClosed():
                self.closed = True
            case e.ActorFailed():
                self.failed.add(event.failed)
            case _:
                self._add_of_requests(event)

    def _add_of_requests(self, event: e.Event) -> None:
        match event:
            case e.RequestReceived() if self.header is not None:
                context = self.header.context
                n_ctx = min(context.n_ctx, context.n_batch) if event.embedding else context.n_ctx
                self.requests[event.sequence] = RecountedRequest(
                    number=event.sequence, options=event.options, embedding=event.embedding, n_ctx=n_ctx
                )
                self.n_requests = max(self.n_requests, event.sequence)
            case e.PromptTokenized():
                request = self.request(event.sequence)
                request.prompt, request.bos_added = event.inputs, event.bos_added
            case e.SequenceForked():
                self.request(event.sequence).options = event.options
                self.waiting.sort(key=_turn)  # It may have another priority.
            case e.ReaderPaused() | e.ReaderResumed():
                self.request(event.sequence).reader_paused = isinstance(event, e.ReaderPaused)
            case e.SequencePaused() | e.SequenceResumed():
                self.request(event.sequence).paused = isinstance(event, e.SequencePaused)
            case _:
                pass

    def _waits(self, request: RecountedRequest) -> None:
        request.waits, request.slot = True, None
        insort(self.waiting, request, key=_turn)

    def _leaves(self, number: int) -> None:
        self.waiting = [one for one in self.waiting if one.number != number]

    # ------------------------------------------------------------ slots and cells

    def _add_of_slots(
        self, event: e.SlotAssigned | e.SequencePreempted | e.SlotYielded | e.SlotReleased | e.CellsLost
    ) -> None:
        match event:
            case e.SlotAssigned():
                request, slot = self.request(event.sequence), self.slot(event.slot)
                self._leaves(event.sequence)
                request.waits, request.preempted, request.slot = False, False, event.slot
                slot.leave()
                slot.sequence, slot.useful = event.sequence, event.reused
                if event.source is not None:
                    self.copies.append(e.Copy(source=event.source, slot=event.slot))
            case e.SequencePreempted() | e.SlotYielded():
                request = self.request(event.sequence)
                request.preempted = True
                self._waits(request)
                self.slot(event.slot).leave()
            case e.SlotReleased():
                self.request(event.sequence).slot = None
                self.slot(event.slot).leave()
            case e.CellsLost():
                self.in_flight, self.aborting, self.copies = None, False, []
                for slot in self.slots:
                    slot.forget()
                    slot.known = True

    def _dropped(self, event: e.InputsDropped) -> None:
        request = self.request(event.sequence)
        behind = event.keep + event.discard
        del request.inputs[event.keep : behind]
        if request.slot is None:
            return
        slot = self.slot(request.slot)
        if self.header is not None and self.header.context.shift == "move" and slot.useful >= behind:
            slot.useful -= event.discard
            slot.gap = event.keep, event.discard
            slot.unmoved = event.keep if slot.unmoved is None else min(event.keep, slot.unmoved)
        else:
            slot.useful = min(slot.useful, event.keep)

    def _decoded(self, event: e.BatchDecoded) -> None:
        plan, self.in_flight = self.in_flight, None
        self.aborted = event.code == e.ABORTED
        if plan is None:
            return
        if not event.positions:
            for number in (*(part.slot for part in plan.parts), *(one.slot for one in plan.operations)):
                self.slot(number).forget()
            return
        self._operate(plan)
        last = dict(event.positions)
        for part in plan.parts:
            self._evaluated(part, last.get(part.slot), event.code)

    def _operate(self, plan: e.BatchPlanned) -> None:
        """Apply the plan's copies, trims and shifts to the cells."""
        for copy in plan.copies:
            source, slot = self.slot(copy.source), self.slot(copy.slot)
            slot.cells, slot.known, slot.pure = list(source.cells), source.known, source.pure
        for trim in plan.trims:
            self.slot(trim.slot).trim(max(trim.length, 0))
        for shift in plan.shifts:
            slot = self.slot(shift.slot)
            del slot.cells[max(shift.keep, 0) : max(shift.keep, 0) + max(shift.discard, 0)]
            slot.pure = shift.keep if slot.pure is None else min(shift.keep, slot.pure)

    def _evaluated(self, part: e.Part, last: int | None, code: int) -> None:
        """Put a part's rows into the cells that the engine reports."""
        slot, request = self.slot(part.slot), self.request(part.sequence)
        start = max(part.position, 0)
        if code not in {e.DONE, e.ABORTED} or last is None or not start - 1 <= last < start + len(part.inputs):
            slot.forget()
            return
        slot.cells[start:] = part.inputs[: last + 1 - start]
        if slot.sequence != part.sequence:
            return  # It ended while the batch was in flight.
        if part.pools:
            slot.useful, request.wants = 0, None if code == e.DONE else request.wants
        elif code == e.DONE and part.draw is not None:
            slot.useful, request.wants = last + 1, None
        else:
            # The logits of an aborted decode are gone, so one input at least is evaluated again.
            slot.useful = min(last + 1, len(request.inputs) - 1)


def common(one: list[Input], other: list[Input]) -> int:
    """Return the length of the common beginning of two lists of inputs."""
    differing = (i for i, (a, b) in enumerate(zip(one, other, strict=False)) if a != b)
    return next(differing, min(len(one), len(other)))
