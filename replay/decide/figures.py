"""The figures of a session, which ``replay run`` prints below its verdict.

The rule that holds here: a session's statistics are counted in one place, `reenact.actors.metrics`, live and here. This
module adds only what a log alone has: the comparison, and its length.
"""

from attrs import Factory, frozen

from reenact.actors import events as e
from reenact.actors.metrics import Distribution, Metrics, Statistics
from reenact.replay.render.values import seconds


@frozen(kw_only=True)
class Tally:
    """The figures of a session, counted from its records."""

    statistics: Statistics = Factory(Statistics)
    """The runtime's own statistics after the last of these records."""
    derived: int = 0
    """How many derived records were compared and found equal."""
    n_bytes: int = 0
    """The length of the log's file in bytes."""
    total: float = 0.0
    """The seconds from the session's start to its last record."""
    computing: float = 0.0
    """The seconds from its first plan to the last outcome."""

    def figures(self) -> list[tuple[str, str]]:
        """Return the session's figures with their names, for people. Rare events are listed only if they happened."""
        of = self.statistics
        rows, parts = of.rows_per_batch, of.sequences_per_batch
        figures = [
            ("sequences", self._sequences()),
            ("prompt tokens", f"{of.n_prompt:,}" + (f" ({of.n_cached:,} of them cached)" if of.n_cached else "")),
            ("tokens", f"{of.n_sampled:,}"),
            ("steps", f"{of.n_batches:,}"),
            ("rows per batch", f"{rows.mean:.1f} mean, {rows.maximum:,.0f} max" if rows.count else "-"),
            ("sequences per batch", f"{parts.mean:.1f} mean, {parts.maximum:,.0f} max" if parts.count else "-"),
        ]
        seldom = [
            ("requests refused", of.n_refused),
            ("prompt tokens left out", of.n_truncated),
            ("context shifts", of.n_shifts),
            ("forks", of.n_forks),
            ("preemptions", of.n_preempted),
            ("aborted batches", of.n_aborted),
        ]
        figures += [(name, f"{number:,}") for name, number in seldom if number]
        return [
            *figures,
            ("time to first token", _spread(of.first_token_time)),
            ("time between tokens", _spread(of.inter_token_time)),
            ("tokens per second", f"{of.n_sampled / self.computing:,.1f}" if of.n_sampled and self.computing else "-"),
            ("session", seconds(self.total)),
            ("bytes of log per token", f"{self.n_bytes / of.n_sampled:,.0f}" if of.n_sampled else "-"),
        ]

    def _sequences(self) -> str:
        ended = [
            f"{number:,} {reason}" for reason, number in sorted(self.statistics.ends.items(), key=lambda end: -end[1])
        ]
        n_open = self.statistics.n_requests - self.statistics.n_finished
        ended += [f"{n_open:,} not finished"] if n_open else []
        return f"{self.statistics.n_requests:,}" + (f" ({', '.join(ended)})" if ended else "")


def _spread(times: Distribution) -> str:
    return f"{seconds(times.median)} median, {seconds(times.p95)} p95" if times.count else "-"


class Counting:
    """A tally that grows record by record."""

    def __init__(self) -> None:
        self._metrics = Metrics()
        self._derived, self._t = 0, 0
        self._planned_at: int | None = None
        self._decoded_at = 0

    @property
    def n_records(self) -> int:
        """How many records were added so far."""
        return self._metrics.n_records

    def add(self, event: e.Event, t: int, *, derived: bool) -> None:
        """Count one more record.

        Args:
            event: The record's event.
            t: Its time, in nanoseconds since the session opened.
            derived: Whether it is a derived record.
        """
        self._metrics.add(event, t)
        self._derived += derived
        self._t = t
        match event:
            case e.BatchPlanned() if self._planned_at is None:
                self._planned_at = t
            case e.BatchDecoded():
                self._decoded_at = t
            case _:
                pass

    def tally(self, n_bytes: int) -> Tally:
        """Return the figures so far.

        Args:
            n_bytes: The length of the log.
        """
        planned_at = self._decoded_at if self._planned_at is None else self._planned_at
        return Tally(
            statistics=self._metrics.statistics(),
            derived=self._derived,
            n_bytes=n_bytes,
            total=self._t / 1e9,
            computing=max(self._decoded_at - planned_at, 0) / 1e9,
        )
