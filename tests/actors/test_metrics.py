"""What a session amounts to, folded from its records with a time beside each."""

import pytest

from reenact.actors import events as e
from reenact.actors.errors import Failure
from reenact.actors.metrics import (
    TIME_BOUNDS,
    Distribution,
    Histogram,
    Metrics,
    Statistics,
    TimeHistogram,
    Times,
    bucket,
    times,
)
from tests.helpers.driver import Driver

SHARED = 64

SECOND = 10**9


class Clock:
    """Folds a driver's records; each fact comes a second after the one before."""

    def __init__(self, driver: Driver) -> None:
        self.metrics = Metrics()
        self.t = 0
        for record in driver.records:
            if record.cause is None and not isinstance(record.event, e.SessionOpened):
                self.t += SECOND
            self.metrics.add(record.event, self.t)

    def times(self, sequence: int) -> Times:
        """Return how long a request took."""
        return times(self.metrics.timelines[sequence], self.t)


def test_the_times_of_a_request() -> None:
    """Queueing ends with the slot, the prefill with the first token sampled, generation with the last."""
    driver = Driver()
    driver.submit(b"a", b"b")
    driver.run()
    assert Times(queued=1.0, prefill=1.0, first_token=2.0, generation=2.0, total=4.0) == Clock(driver).times(1)


def test_the_times_of_a_request_that_waits() -> None:
    """What a request did not come to has no time; the total runs on until it ends."""
    driver = Driver(n_slots=1)
    driver.submit(b"a", b"b")
    driver.submit(b"c")
    driver.step()
    assert Times(queued=None, prefill=None, first_token=None, generation=None, total=2.0) == Clock(driver).times(2)


def test_a_request_that_ended_in_the_queue_waits_no_more() -> None:
    """A request that is cancelled before it has a slot is finished, and neither waits nor is active."""
    driver = Driver(n_slots=1)
    driver.submit(b"a", b"b")
    driver.cancel(driver.submit(b"c"))
    now = Clock(driver).metrics.statistics()
    assert (1, 0, 1) == (now.n_active, now.n_waiting, now.n_finished)


def test_the_total_of_a_request_stays() -> None:
    """Once a request has ended, no time is added to its total."""
    driver = Driver()
    driver.submit(b"a")
    driver.run()
    clock = Clock(driver)
    assert clock.times(1) == times(clock.metrics.timelines[1], clock.t + SECOND)


def test_what_is_counted() -> None:
    """Requests, batches, rows and tokens are counted as they come."""
    driver = Driver(n_slots=1)
    driver.submit(b"a", b"b")
    driver.submit(b"c")
    driver.step()
    now = Clock(driver).metrics.statistics()
    assert (1, 1, 1, 2, 0) == (now.n_slots, now.n_active, now.n_waiting, now.n_requests, now.n_finished)
    driver.run()
    end = Clock(driver).metrics.statistics()
    assert (0, 0, 2, 2) == (end.n_active, end.n_waiting, end.n_requests, end.n_finished)
    assert (5, 5 + 4, 5, 6) == (end.n_batches, end.n_rows, end.n_sampled, end.n_prompt)
    assert len(driver.records) == end.n_records
    assert Distribution(count=5, mean=9 / 5, median=1.0, p95=3.0, maximum=3.0) == end.rows_per_batch
    assert (2, 2, 3) == (end.queue_time.count, end.first_token_time.count, end.inter_token_time.count)
    assert (1.0, 1.0) == (end.inter_token_time.median, end.inter_token_time.maximum)
    assert ({"stop": 2}, 5) == (end.ends, end.decode_time.count)


def test_used_cells_are_counted() -> None:
    """Cells hold inputs until others take their place, also after the sequence has ended."""
    driver = Driver(n_slots=2, n_ctx=100)
    assert (200, 0) == cells_of(driver)
    driver.submit(b"a", b"b", prompt=5)
    driver.run()
    assert (200, 7) == cells_of(driver)
    driver.submit(b"c", prompt=range(50, 59))
    driver.run()
    assert (200, 7 + 10) == cells_of(driver)
    driver.submit(b"c", prompt=range(70, 72))
    driver.run()
    assert (200, 3 + 10) == cells_of(driver)


def test_lost_cells_are_not_used() -> None:
    """Where the engine has lost all cells, none of them holds an input."""
    driver = Driver(n_slots=2, n_ctx=100)
    driver.submit(b"a", prompt=5)
    driver.run()
    driver.give(e.CellsLost())
    assert (200, 0) == cells_of(driver)


def test_a_batch_without_a_plan_has_no_time() -> None:
    """An outcome is counted as a batch, and only one whose plan was recorded has a time and cells."""
    metrics = Metrics()
    metrics.add(e.BatchDecoded(batch=0, code=e.DONE, positions=((0, 2),)), SECOND)
    now = metrics.statistics()
    assert (1, 0, 0) == (now.n_batches, now.decode_time.count, now.n_used_cells)


def cells_of(driver: Driver) -> tuple[int, int]:
    """Return the counts of cells and of used cells."""
    found = Clock(driver).metrics.statistics()
    return found.n_cells, found.n_used_cells


@pytest.mark.parametrize(
    ("value", "first"), [(0, 0), (10**6, 0), (10**6 + 1, 1), (25 * 10**5, 1), (250 * SECOND, 16), (251 * SECOND, 17)]
)
def test_a_time_is_counted_up_to_each_bound(value: int, first: int) -> None:
    """A time counts at the first bound that it does not exceed, and at all after it."""
    histogram = TimeHistogram()
    histogram.add(value)
    assert tuple(i >= first for i in range(len(TIME_BOUNDS))) == histogram.at_most()


def test_reuse_is_counted() -> None:
    """What was in cells already is counted for the request and the session, and so are forks."""
    driver = Driver(n_ctx=200, n_batch=200)
    driver.submit(b"a", prompt=SHARED * 3)
    driver.run()
    driver.submit(prompt=range(100, 100 + SHARED + 1))
    driver.run()
    clock = Clock(driver)
    assert SHARED == clock.metrics.timelines[2].n_cached
    end = clock.metrics.statistics()
    assert (SHARED, 1, SHARED * 4 + 1) == (end.n_cached, end.n_forks, end.n_prompt)


def test_every_fork_is_counted() -> None:
    """Two requests that begin alike beside each other fork the same slot, and both count."""
    driver = Driver(n_slots=3, n_ctx=200, n_batch=200)
    driver.submit(b"a", prompt=SHARED * 3)
    driver.run()
    for last in range(2):
        driver.submit(b"a", b"b", prompt=(*range(100, 100 + SHARED), last))
    driver.run()
    end = Clock(driver).metrics.statistics()
    assert (2, 2 * SHARED) == (end.n_forks, end.n_cached)


def test_shifts_and_truncation_are_counted() -> None:
    """How much of a prompt was left out, and how often a context was shifted, is told by request and in all."""
    driver = Driver(n_ctx=8)
    driver.submit(*[b"a"] * 9, prompt=11, num_keep=3, num_predict=5)
    driver.run()
    clock = Clock(driver)
    assert (3, 2) == (clock.metrics.timelines[1].n_truncated, clock.metrics.timelines[1].n_shifts)
    end = clock.metrics.statistics()
    assert (3, 2) == (end.n_truncated, end.n_shifts)
    assert (11, 11) == (clock.metrics.timelines[1].n_prompt, end.n_prompt)


def test_every_truncation_is_counted() -> None:
    """What was left out of each prompt counts for the session."""
    driver = Driver(n_ctx=8)
    driver.submit(b"a", prompt=11)
    driver.submit(b"a", prompt=9)
    driver.run()
    assert 3 + 1 == Clock(driver).metrics.statistics().n_truncated


def test_preemption_is_counted() -> None:
    """A sequence that lost its slot waits again, and its times are those of the first slot."""
    driver = Driver(n_slots=1)
    driver.submit(*[b"a"] * 9)
    driver.step()
    driver.submit(b"x", b"y", priority=1)
    driver.step()
    clock = Clock(driver)
    now = clock.metrics.statistics()
    assert (1, 1, 1) == (now.n_active, now.n_waiting, now.n_preempted)
    driver.run()
    clock = Clock(driver)
    end = clock.metrics.statistics()
    assert (1, 2, 0) == (clock.metrics.timelines[1].n_preempted, end.queue_time.count, end.n_waiting)
    assert 1.0 == clock.times(1).queued


def test_every_preemption_is_counted() -> None:
    """A sequence that lost its slot twice is counted twice."""
    driver = Driver(n_slots=1)
    driver.submit(*[b"a"] * 9)
    for _ in range(2):
        number = driver.submit(b"x", priority=1)
        while not [event for event in driver.events(e.SequenceFinished) if event.sequence == number]:
            driver.step()
    clock = Clock(driver)
    assert (2, 2) == (clock.metrics.timelines[1].n_preempted, clock.metrics.statistics().n_preempted)


def test_an_abort_is_counted() -> None:
    """A batch that ended early is counted, and not one that was done before it could."""
    driver = Driver(n_batch=8)
    for outcome in (2, 0, 0):
        driver.cancel(driver.submit(prompt=40))
        driver.step(code=outcome)
    assert (3, 1) == (len(driver.events(e.AbortRequested)), Clock(driver).metrics.statistics().n_aborted)


def test_what_was_not_sampled_is_not_counted() -> None:
    """Where the logits hold a NaN there is no token, and a token of a sequence that has ended is no last one."""
    driver = Driver()
    driver.submit(b"a")
    driver.submit(b"b")
    driver.step()
    driver.cancel(2)
    driver.step(nan=frozenset({1}))
    clock = Clock(driver)
    assert 2 == clock.metrics.statistics().n_sampled
    assert 0.0 == clock.times(1).generation


def test_a_token_counts_behind_those_that_do_not() -> None:
    """After a NaN and after tokens of sequences that have ended, forgotten or not, a token of the batch is counted."""
    driver = Driver(n_slots=4)
    numbers = [driver.receive(b"a", b"b") for _ in range(4)]
    for number in reversed(numbers):
        driver.tokenize(number)
    driver.step()
    driver.cancel(2)
    driver.receive(b"c")
    driver.cancel(3)
    driver.step(nan=frozenset({1}))
    clock = Clock(driver)
    assert 4 + 3 == clock.metrics.statistics().n_sampled
    assert (4.0, 1) == (clock.times(4).generation, clock.metrics.statistics().inter_token_time.count)


def test_refused_requests_are_counted() -> None:
    """Each request that never had a number is counted, and as nothing else."""
    metrics = Metrics()
    for _ in range(2):
        metrics.add(e.RequestRefused(request_id=None, failure=Failure(kind="invalid_request", reason="so")), 0)
    assert Statistics(n_refused=2, n_records=2) == metrics.statistics()


def test_a_session_without_requests_has_no_figures() -> None:
    """Nothing has no mean."""
    assert Distribution() == Metrics().statistics().queue_time
    assert Statistics() == Metrics().statistics()


def test_who_ended_is_forgotten_when_the_next_one_comes() -> None:
    """Times of ended requests are kept until the next request: a session of any length costs no more."""
    driver = Driver()
    driver.submit(b"a")
    driver.run()
    assert [1] == list(Clock(driver).metrics.timelines)
    driver.submit(b"a")
    assert [2] == list(Clock(driver).metrics.timelines)


@pytest.mark.parametrize(("value", "upper"), [(0, 0), (1, 1), (15, 15), (16, 17), (17, 17), (18, 19), (32, 35)])
def test_buckets_are_an_eighth_apart(value: int, upper: int) -> None:
    """Values up to 15 are told exactly, larger ones to an eighth, and never too small."""
    assert upper == bucket(value)


def test_quantiles() -> None:
    """The median and the 95th of 100 values, exact to an eighth, and the mean and the maximum exactly."""
    histogram = Histogram()
    for value in range(1, 101):
        histogram.add(value)
    figures = histogram.distribution()
    assert (100, 50.5, 100.0) == (figures.count, figures.mean, figures.maximum)
    assert 50 <= figures.median <= 50 * 9 / 8
    assert 95 <= figures.p95 <= 100


@pytest.mark.parametrize(
    ("values", "median", "p95"),
    [
        ([1] * 50 + [3] * 50, 1, 3),
        ([1] * 499 + [3] * 501, 3, 3),
        ([1] * 95 + [3] * 5, 1, 1),
        ([1] * 94 + [3] * 6, 1, 3),
        ([3, 2, 1], 2, 3),
        ([16, 16], 16, 16),
    ],
)
def test_a_quantile_is_a_value_by_its_rank(values: list[int], median: int, p95: int) -> None:
    """A quantile is the first value that so many of all are not above, and it is not above the maximum."""
    histogram = Histogram()
    for value in values:
        histogram.add(value)
    figures = histogram.distribution()
    assert (median, p95, max(values)) == (figures.median, figures.p95, figures.maximum)


def test_figures_are_told_in_units() -> None:
    """Mean, quantiles and maximum are divided by the unit, and the count is not."""
    histogram = Histogram()
    for value in (4, 8, 12):
        histogram.add(value)
    assert Distribution(count=3, mean=2.0, median=2.0, p95=3.0, maximum=3.0) == histogram.distribution(4)


def test_times_are_told_in_seconds() -> None:
    """How long slots and tokens were waited for is told in seconds, and how many shared a batch as a number."""
    driver = Driver()
    driver.submit(b"a", b"b")
    driver.submit(b"c")
    driver.run()
    end = Clock(driver).metrics.statistics()
    first, upper = bucket(SECOND) / SECOND, bucket(3 * SECOND) / SECOND
    assert Distribution(count=2, mean=1.5, median=first, p95=2.0, maximum=2.0) == end.queue_time
    assert Distribution(count=2, mean=3.5, median=upper, p95=4.0, maximum=4.0) == end.first_token_time
    assert Distribution(count=3, mean=1.0, median=1.0, p95=1.0, maximum=1.0) == end.inter_token_time
    assert Distribution(count=3, mean=5 / 3, median=first, p95=3.0, maximum=3.0) == end.decode_time
    assert Distribution(count=3, mean=5 / 3, median=2.0, p95=2.0, maximum=2.0) == end.sequences_per_batch
    at = TIME_BOUNDS.index(1.0)
    counted = (end.queue_at_most, end.first_token_at_most, end.inter_token_at_most)
    assert [(0, 1, 2), (0, 0, 2), (0, 3, 3)] == [(counts[at - 1], counts[at], counts[-1]) for counts in counted]
