"""Folds the counts and times of a session from its records.

The rules that hold here:

* Everything follows from the events and from the time of each in the log. So a runtime's statistics and the figures
  that a replay prints are the same.
* Times are whole nanoseconds of the session's clock. The figures of a distribution come from buckets that are at most
  an eighth apart, so the cost does not grow with the session.
"""

from bisect import bisect_left
from itertools import accumulate
from typing import Final

from attrs import Factory, define, frozen

from reenact.actors import events as e
from reenact.actors.batch import apply_operations, n_without

_STEPS: Final = 8
"""The count of buckets for each doubling: a value is exact to an eighth."""

TIME_BOUNDS: Final = (
    *(0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5),
    *(1.0, 2.5, 5.0, 10.0, 25.0, 50.0, 100.0, 250.0),
)
"""The seconds for which `Statistics` counts the times that are at most as long."""
_BOUNDS: Final = tuple(round(bound * 1e9) for bound in TIME_BOUNDS)


@frozen(kw_only=True)
class Distribution:
    """A few figures for many values; times are in seconds."""

    count: int = 0
    mean: float = 0.0
    median: float = 0.0
    p95: float = 0.0
    """The value that 95 of 100 do not exceed. Like the median it is exact to an eighth, and never too small."""
    maximum: float = 0.0


@define
class Histogram:
    """Whole numbers from 0 on, in buckets."""

    count: int = 0
    total: int = 0
    maximum: int = 0
    buckets: dict[int, int] = Factory(dict)
    """The count of values for each upper bound, above the bound of the previous bucket."""

    def add(self, value: int) -> None:
        """Count a value."""
        self.count += 1
        self.total += value
        self.maximum = max(self.maximum, value)
        upper = bucket(value)
        self.buckets[upper] = self.buckets.get(upper, 0) + 1

    def distribution(self, unit: float = 1.0) -> Distribution:
        """Return the figures, in units of ``unit``."""
        if not self.count:
            return Distribution()
        return Distribution(
            count=self.count,
            mean=self.total / self.count / unit,
            median=self._quantile(50) / unit,
            p95=self._quantile(95) / unit,
            maximum=self.maximum / unit,
        )

    def _quantile(self, percent: int) -> int:
        left = -(-self.count * percent // 100)
        for upper in sorted(self.buckets):
            left -= self.buckets[upper]
            if left <= 0:
                return min(upper, self.maximum)
        return self.maximum


@define
class TimeHistogram(Histogram):
    """Times in nanoseconds, which are also counted between the bounds of `TIME_BOUNDS`."""

    between: list[int] = Factory(lambda: [0] * len(_BOUNDS))

    def add(self, value: int) -> None:
        """Count a time."""
        Histogram.add(self, value)
        if value <= _BOUNDS[-1]:
            self.between[bisect_left(_BOUNDS, value)] += 1

    def at_most(self) -> tuple[int, ...]:
        """Return the count of times that are at most each bound."""
        return tuple(accumulate(self.between))


def bucket(value: int) -> int:
    """Return the largest value that is counted together with ``value``."""
    shift = max(value.bit_length() - _STEPS.bit_length(), 0)
    return ((value >> shift) + 1 << shift) - 1


@define(kw_only=True)
class Timeline:
    """The times of one request's events, in nanoseconds, and its counts."""

    received: int
    assigned: int | None = None
    """The time at which it got its first slot."""
    first_token: int | None = None
    last_token: int | None = None
    finished: int | None = None
    n_prompt: int = 0
    """The count of inputs of its prompt, with those that were left out."""
    n_cached: int = 0
    """The count of these inputs that were in cells when it got its first slot."""
    n_truncated: int = 0
    """The count of inputs of its prompt that were left out."""
    n_shifts: int = 0
    n_preempted: int = 0


@frozen(kw_only=True)
class Times:
    """The durations of a request, in seconds; None for a stage that it did not reach."""

    queued: float | None
    """The time from its arrival to its slot, tokenizing included."""
    prefill: float | None
    """The time from its slot to its first sampled token."""
    first_token: float | None
    """The time from its arrival to its first sampled token."""
    generation: float | None
    """The time from its first sampled token to its last."""
    total: float


@frozen(kw_only=True)
class Statistics:
    """The figures of a session at one moment."""

    n_slots: int = 0
    n_active: int = 0
    """The count of sequences that have a slot."""
    n_waiting: int = 0
    """The count of requests that wait for a slot, preempted ones included."""
    n_requests: int = 0
    """The count of received requests, including those that have ended."""
    n_refused: int = 0
    """The count of requests that never had a number, because they were impossible."""
    n_finished: int = 0
    """The count of requests that have ended, for any reason."""
    ends: dict[e.FinishReason, int] = Factory(dict)
    """The count of these for each reason that occurred."""
    n_cells: int = 0
    """The count of cells of all slots."""
    n_used_cells: int = 0
    """The count of cells that hold inputs, including those of sequences that have ended."""
    n_batches: int = 0
    """The count of decoded batches."""
    n_rows: int = 0
    """The count of planned rows."""
    n_sampled: int = 0
    """The count of sampled tokens."""
    n_prompt: int = 0
    """The count of inputs of all prompts that got a slot, including those that were left out."""
    n_cached: int = 0
    """The count of these inputs that were in cells already."""
    n_truncated: int = 0
    """The count of inputs of prompts that were left out."""
    n_forks: int = 0
    n_shifts: int = 0
    n_preempted: int = 0
    """The count of slots that were lost to a higher priority, or because a reader was paused for too long."""
    n_aborted: int = 0
    """The count of batches that ended early, because one of their requests was cancelled."""
    n_records: int = 0
    queue_time: Distribution = Distribution()
    first_token_time: Distribution = Distribution()
    inter_token_time: Distribution = Distribution()
    """The time between two tokens of one sequence, including pauses of its reader."""
    decode_time: Distribution = Distribution()
    """The time from the plan of a batch to its outcome."""
    queue_at_most: tuple[int, ...] = (0,) * len(TIME_BOUNDS)
    """The count of queue times that are at most each of `TIME_BOUNDS`."""
    first_token_at_most: tuple[int, ...] = (0,) * len(TIME_BOUNDS)
    """The same for `first_token_time`."""
    inter_token_at_most: tuple[int, ...] = (0,) * len(TIME_BOUNDS)
    """The same for `inter_token_time`."""
    rows_per_batch: Distribution = Distribution()
    """The count of rows in each planned batch."""
    sequences_per_batch: Distribution = Distribution()
    """The count of sequences in each planned batch."""


@define(kw_only=True)
class SessionCounts:
    """The running counts; `Statistics` explains each."""

    requests: int = 0
    refused: int = 0
    finished: int = 0
    batches: int = 0
    rows: int = 0
    sampled: int = 0
    prompt: int = 0
    cached: int = 0
    truncated: int = 0
    forks: int = 0
    shifts: int = 0
    preempted: int = 0
    aborted: int = 0


class Metrics:
    """The fold, which takes every record in order."""

    def __init__(self) -> None:
        self.n_records = 0
        self.timelines: dict[int, Timeline] = {}
        """The timelines of the requests that have not ended, or that ended after the last request came."""
        self._ended: list[int] = []
        self._n_slots = 0
        self._n_cells = 0
        self._cells: dict[int, int] = {}
        """The count of used cells of each slot."""
        self._plan: e.BatchPlanned | None = None
        """The batch in flight."""
        self._planned = 0
        """The time at which it was planned."""
        self._ends: dict[e.FinishReason, int] = {}
        self._active: set[int] = set()
        self._waiting: set[int] = set()
        self._counts = SessionCounts()
        self._queue, self._first, self._between = TimeHistogram(), TimeHistogram(), TimeHistogram()
        self._decode = Histogram()
        self._rows, self._parts = Histogram(), Histogram()

    def add(self, event: e.Event, t: int) -> None:
        """Add one record's event.

        Args:
            event: The event.
            t: Nanoseconds since the session opened.
        """
        self.n_records += 1
        match event:
            case e.SessionOpened():
                self._n_slots = event.context.n_slots
                self._n_cells = event.context.n_ctx_seq * event.context.n_slots
                self._cells = dict.fromkeys(range(event.context.n_slots), 0)
            case e.RequestReceived():
                self._begin(event, t)
            case e.RequestRefused():
                self._counts.refused += 1
            case e.BatchPlanned():
                self._plan, self._planned = event, t
                n_rows = sum(len(part.inputs) for part in event.parts)
                self._counts.rows += n_rows
                self._rows.add(n_rows)
                self._parts.add(len(event.parts))
            case e.BatchDecoded():
                self._came_back(event, t)
                self._decoded(event, t)
            case e.SequenceFinished():
                self._counts.finished += 1
                self._ends[event.finish_reason] = self._ends.get(event.finish_reason, 0) + 1
                self._waiting.discard(event.sequence)
                self._active.discard(event.sequence)
                self.timelines[event.sequence].finished = t
                self._ended.append(event.sequence)
            case _:
                self._of_scheduling(event, t)

    def _begin(self, event: e.RequestReceived, t: int) -> None:
        # A reader of these figures reads them before the next request comes.
        for number in self._ended:
            del self.timelines[number]
        self._ended.clear()
        self._counts.requests += 1
        self.timelines[event.sequence] = Timeline(received=t)

    def _came_back(self, event: e.BatchDecoded, t: int) -> None:
        plan, self._plan = self._plan, None
        if plan is None:
            return
        self._decode.add(t - self._planned)
        if event.positions:  # Otherwise the engine refused the batch, and changed no cells.
            self._cells = apply_operations(self._cells, plan, n_without)
            self._cells |= {slot: last + 1 for slot, last in event.positions}

    def _decoded(self, event: e.BatchDecoded, t: int) -> None:
        self._counts.batches += 1
        self._counts.aborted += event.code == e.ABORTED
        for sample in event.samples:
            if sample.fault is not None:
                continue
            self._counts.sampled += 1
            timeline = self.timelines.get(sample.sequence)
            if timeline is None or timeline.finished is not None:
                continue
            if timeline.last_token is None:
                timeline.first_token = t
                self._first.add(t - timeline.received)
            else:
                self._between.add(t - timeline.last_token)
            timeline.last_token = t

    def _of_scheduling(self, event: e.Event, t: int) -> None:
        match event:
            case e.RequestQueued():
                self._waiting.add(event.sequence)
            case e.SlotAssigned():
                self._waiting.discard(event.sequence)
                self._active.add(event.sequence)
                self._counts.forks += event.source is not None
                timeline = self.timelines[event.sequence]
                if timeline.assigned is None:
                    timeline.assigned = t
                    timeline.n_cached = event.reused
                    self._counts.prompt += timeline.n_prompt
                    self._counts.cached += event.reused
                    self._queue.add(t - timeline.received)
            case e.SequencePreempted() | e.SlotYielded():
                self._active.discard(event.sequence)
                self._waiting.add(event.sequence)
                self._counts.preempted += 1
                self.timelines[event.sequence].n_preempted += 1
            case e.PromptTruncated():
                self._counts.truncated += event.discard
                self.timelines[event.sequence].n_truncated = event.discard
            case e.CellsLost():
                self._cells = dict.fromkeys(self._cells, 0)
            case e.ContextShifted():
                self._counts.shifts += 1
                self.timelines[event.sequence].n_shifts += 1
            case e.InputQueued(wants=e.Pool() | e.Draw(index=0)):
                timeline = self.timelines[event.sequence]
                timeline.n_prompt = len(event.inputs) + timeline.n_truncated
            case _:
                pass

    def statistics(self) -> Statistics:
        """Return the figures so far."""
        counts = self._counts
        return Statistics(
            n_slots=self._n_slots,
            n_active=len(self._active),
            n_waiting=len(self._waiting),
            n_requests=counts.requests,
            n_refused=counts.refused,
            n_finished=counts.finished,
            ends=dict(self._ends),
            n_cells=self._n_cells,
            n_used_cells=sum(self._cells.values()),
            n_batches=counts.batches,
            n_rows=counts.rows,
            n_sampled=counts.sampled,
            n_prompt=counts.prompt,
            n_cached=counts.cached,
            n_truncated=counts.truncated,
            n_forks=counts.forks,
            n_shifts=counts.shifts,
            n_preempted=counts.preempted,
            n_aborted=counts.aborted,
            n_records=self.n_records,
            queue_time=self._queue.distribution(1e9),
            first_token_time=self._first.distribution(1e9),
            inter_token_time=self._between.distribution(1e9),
            decode_time=self._decode.distribution(1e9),
            queue_at_most=self._queue.at_most(),
            first_token_at_most=self._first.at_most(),
            inter_token_at_most=self._between.at_most(),
            rows_per_batch=self._rows.distribution(),
            sequences_per_batch=self._parts.distribution(),
        )


def times(timeline: Timeline, now: int) -> Times:
    """Return the durations of a request, up to ``now`` if it has not ended."""

    def between(start: int | None, end: int | None) -> float | None:
        return None if start is None or end is None else (end - start) / 1e9

    end = now if timeline.finished is None else timeline.finished
    return Times(
        queued=between(timeline.received, timeline.assigned),
        prefill=between(timeline.assigned, timeline.first_token),
        first_token=between(timeline.received, timeline.first_token),
        generation=between(timeline.first_token, timeline.last_token),
        total=(end - timeline.received) / 1e9,
    )
