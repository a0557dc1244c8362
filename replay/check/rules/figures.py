"""Rules of the values folded from a session: its statistics, its state, and the digest that closes its log.

The rule that holds here: where the log has the same information twice, a figure is counted from other records than
`actors/metrics.py` counts, so that the two results check each other. For example, the sampled tokens are counted from
the records of their effects.
"""

from bisect import bisect_right
from collections import Counter
from collections.abc import Iterator
from typing import Final, get_args

from attrs import Factory, define, fields
from attrs import evolve as changed

from reenact.actors import events as e
from reenact.actors.errors import description
from reenact.actors.kernel import Kernel
from reenact.actors.metrics import TIME_BOUNDS, Distribution, Metrics, SessionCounts, Statistics
from reenact.replay.check.recount import Recount
from reenact.replay.check.rule import Rule, Violation
from reenact.runtime.log.codec import SCHEMA

_EVERYTHING: Final = (*get_args(e.GivenEvent), *get_args(e.DerivedEvent))

_ROUNDED: Final = 1.125
"""A reported median is at most an eighth above the exact one, and never below it."""

_EXACT: Final = 1e-9
"""The largest relative difference between two means that were computed in different orders."""

_UNITS: Final = {
    "queue_time": 1e9,
    "first_token_time": 1e9,
    "inter_token_time": 1e9,
    "decode_time": 1e9,
    "rows_per_batch": 1.0,
    "sequences_per_batch": 1.0,
}
"""The figures that summarize many values, each with its unit."""

_AT_MOST: Final = {
    "queue_time": "queue_at_most",
    "first_token_time": "first_token_at_most",
    "inter_token_time": "inter_token_at_most",
}
"""The figures that count the values of another up to each bound."""


@define
class Since:
    """The times of one request's milestones, in nanoseconds."""

    received: int
    assigned: int | None = None
    last_token: int | None = None


@define
class Values:
    """A collection of values, each of them kept."""

    unit: float
    all: list[int] = Factory(list)
    total: int = 0
    largest: int = 0

    def add(self, value: int) -> None:
        """Count a value."""
        self.all.append(value)
        self.total += value
        self.largest = max(self.largest, value)

    def at_most(self) -> tuple[int, ...]:
        """Return the count of times that are at most each of `TIME_BOUNDS`."""
        values = sorted(self.all)
        return tuple(bisect_right(values, round(bound * self.unit)) for bound in TIME_BOUNDS)

    def misfit(self, reported: Distribution, *, wholly: bool) -> str | None:
        """Return the correct figures if the given ones are wrong; None if they are right.

        Args:
            reported: The figures.
            wholly: Check the percentiles too, for which all values are sorted.
        """
        n = len(self.all)
        mean, largest = (self.total / n / self.unit, self.largest / self.unit) if n else (0.0, 0.0)
        if reported.count != n or not _close(mean, reported.mean) or not _close(largest, reported.maximum):
            return f"count {n}, mean {mean:.9g}, maximum {largest:.9g}"
        if not wholly or not n:
            return None
        values = sorted(self.all)
        for percent, figure in ((50, reported.median), (95, reported.p95)):
            exact = values[-(-n * percent // 100) - 1] / self.unit
            if not exact * (1 - _EXACT) <= figure <= exact * _ROUNDED * (1 + _EXACT):
                return f"{percent} of 100 at most {exact:.9g}"
        return None


def _close(one: float, other: float) -> bool:
    return abs(one - other) <= abs(one) * _EXACT


class StatisticsRule(Rule):
    """The statistics of a session."""

    name = "statistics"
    says = "Whenever a request has ended, the statistics folded from the records equal their recount."
    source = "docs/runner-semantics.md, Result"
    hears = _EVERYTHING

    def __init__(self, recount: Recount) -> None:
        super().__init__(recount)
        self._metrics = Metrics()
        self._counts = SessionCounts()
        self._values = {name: Values(unit) for name, unit in _UNITS.items()}
        self._since: dict[int, Since] = {}
        self._planned = 0
        """The time of the last plan."""
        self._ends: Counter[e.FinishReason] = Counter()
        self._ended: list[int] = []
        """The requests that ended in this fact."""
        self._lost = False
        """Whether nothing can be compared any more."""

    def see(self, record: e.Record) -> Iterator[Violation]:
        """Count a record in both ways."""
        if self._lost:
            return
        try:
            self._metrics.add(record.event, self.recount.now)
        except KeyError as error:
            self._lost = True
            yield self.violation(record.n, "a record that the statistics can take", description(error))
            return
        self._count(record.event, self.recount.now)
        if isinstance(record.event, e.SessionClosed):
            yield from self._compared(record.n, wholly=True)

    def settle(self) -> Iterator[Violation]:
        """Compare both counts if a request ended."""
        if self._ended and not self._lost:
            yield from self._compared(self.recount.n, wholly=False)
        for number in self._ended:
            self._since.pop(number, None)
        self._ended.clear()

    def _count(self, event: e.Event, t: int) -> None:
        counts, values = self._counts, self._values
        match event:
            case e.TokenEmitted() | e.StopMatched() | e.EogSampled():
                counts.sampled += 1
                since = self._since.setdefault(event.sequence, Since(t))
                name = "first_token_time" if since.last_token is None else "inter_token_time"
                values[name].add(t - (since.received if since.last_token is None else since.last_token))
                since.last_token = t
            case e.BatchPlanned():
                n_rows = sum(len(part.inputs) for part in event.parts)
                self._planned = t
                counts.batches += 1
                counts.rows += n_rows
                counts.forks += len(event.copies)
                values["rows_per_batch"].add(n_rows)
                values["sequences_per_batch"].add(len(event.parts))
            case e.BatchDecoded():
                counts.aborted += event.code == e.ABORTED
                values["decode_time"].add(t - self._planned)
            case e.TokenDropped():
                counts.sampled += 1
            case e.RequestReceived():
                self._since[event.sequence] = Since(t)
            case e.SequenceFinished():
                self._ended.append(event.sequence)
                self._ends[event.finish_reason] += 1
            case e.SlotAssigned():
                self._assigned(event, t)
            case e.EngineFailed() | e.CellsLost():
                counts.batches -= self.recount.in_flight is not None  # It never came back.
            case _:
                self._count_seldom(event)

    def _count_seldom(self, event: e.Event) -> None:
        match event:
            case e.RequestQueued() | e.RequestRejected():
                self._counts.requests += 1
            case e.RequestRefused():
                self._counts.refused += 1
            case e.PromptTruncated():
                request = self.recount.request(event.sequence)
                self._counts.truncated += len(request.prompt or ()) - request.n_ctx
            case e.InputsDropped():
                self._counts.shifts += 1
            case e.SequencePreempted() | e.SlotYielded():
                self._counts.preempted += 1
            case _:
                pass

    def _assigned(self, event: e.SlotAssigned, t: int) -> None:
        since = self._since.setdefault(event.sequence, Since(t))
        if since.assigned is None:
            since.assigned = t
            self._counts.prompt += len(self.recount.request(event.sequence).prompt or ())
            self._counts.cached += event.reused
            self._values["queue_time"].add(t - since.received)

    def _compared(self, n: int, *, wholly: bool) -> Iterator[Violation]:
        if self.recount.failed:
            return  # No record contains what an actor that raised still owed.
        reported, recount, counts = self._metrics.statistics(), self.recount, self._counts
        header = recount.header
        live = [request for request in recount.requests.values() if not request.ended]
        due = changed(
            reported,
            n_active=sum(request.slot is not None for request in live),
            n_waiting=sum(request.waits for request in live),
            n_requests=counts.requests,
            n_refused=counts.refused,
            n_finished=recount.n_requests - len(live),
            ends=dict(self._ends),
            n_cells=0 if header is None else header.context.n_ctx_seq * header.context.n_slots,
            n_used_cells=self._used_cells(reported),
            n_batches=counts.batches - (recount.in_flight is not None),
            n_rows=counts.rows,
            n_sampled=counts.sampled,
            n_prompt=counts.prompt,
            n_cached=counts.cached,
            n_truncated=counts.truncated,
            n_forks=counts.forks,
            n_shifts=counts.shifts,
            n_preempted=counts.preempted,
            n_aborted=counts.aborted,
            n_records=n + 1,
        )
        for figure in fields(Statistics):
            expected, actual = getattr(due, figure.name), getattr(reported, figure.name)
            if actual != expected:
                self._lost = True
                yield self.violation(n, f"{figure.name} {expected}", f"{figure.name} {actual}")
        for name, values in self._values.items():
            correct = values.misfit(getattr(reported, name), wholly=wholly)
            if correct is not None:
                self._lost = True
                yield self.violation(n, f"{name}: {correct}", str(getattr(reported, name)))
        for name, counted in _AT_MOST.items() if wholly else ():
            expected, actual = self._values[name].at_most(), getattr(reported, counted)
            if actual != expected:
                self._lost = True
                yield self.violation(n, f"{counted} {expected}", f"{counted} {actual}")

    def _used_cells(self, reported: Statistics) -> int:
        """Return the count of used cells; the reported one if the content of some cells is unknown."""
        slots = self.recount.slots
        return sum(len(slot.cells) for slot in slots) if all(slot.known for slot in slots) else reported.n_used_cells


class DigestRule(Rule):
    """The state folded from the records."""

    name = "digest"
    says = (
        "The state folded from the records equals their recount: the sequence in each slot and its useful cells, the "
        "waiting requests, and the batch in flight; and its digest is the one in SessionClosed."
    )
    source = "ARCHITECTURE.md, sections 2 and 4"
    hears = _EVERYTHING

    def __init__(self, recount: Recount) -> None:
        super().__init__(recount)
        self._kernel = Kernel()
        self._lost = False
        """Whether nothing can be folded any more."""

    def see(self, record: e.Record) -> Iterator[Violation]:
        """Fold a record, and compare the digest."""
        header = self.recount.header
        if self._lost:
            return
        if isinstance(record.event, e.SessionClosed) and header is not None and header.schema == SCHEMA:
            digest = self._kernel.digest()
            if digest != record.event.digest:
                yield self.violation(record.n, f"digest {digest}", f"digest {record.event.digest}")
        try:
            self._kernel.fold(record)
        except Exception as error:  # noqa: BLE001  # whatever the actors raise, the fault is in the log
            self._lost = True
            yield self.violation(record.n, "a record that the state can take", description(error))

    def settle(self) -> Iterator[Violation]:
        """Compare the folded state with the recount."""
        batcher, recount = self._kernel.state.batcher, self.recount
        if self._lost or batcher is None or recount.halted:
            return
        folded = [(slot.sequence, None if slot.sequence is None else len(slot.cells)) for slot in batcher.slots]
        counted = [(slot.sequence, None if slot.sequence is None else slot.useful) for slot in recount.slots]
        waiting = [request.number for request in recount.waiting]
        due = counted, waiting, recount.in_flight is not None
        actual = folded, [work.sequence for work in batcher.waiting], batcher.in_flight is not None
        if due != actual:
            yield self.violation(recount.n, _known(*due), _known(*actual))


def _known(slots: list[tuple[int | None, int | None]], waiting: list[int], in_flight: bool) -> str:  # noqa: FBT001
    return f"(sequence, cells) {slots}, waiting {waiting}, {'a' if in_flight else 'no'} batch in flight"
