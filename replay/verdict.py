"""What comes out of a replay: the verdict, what was compared, and how both are told."""

from typing import Any, Final, Literal

from attrs import evolve, frozen

from reenact.actors import events as e
from reenact.replay.divergence import Divergence, ReplayDivergence

Result = Literal["same", "diverged", "unreadable", "corrupt", "not comparable"]

EXIT_CODES: Final[dict[Result, int]] = {
    "same": 0,
    "diverged": 1,
    "unreadable": 2,
    "corrupt": 3,
    "not comparable": 4,
}


_FROM_BEST_TO_WORST: Final = (0, 4, 2, 1, 3, 5)


def worse(one: int, other: int) -> int:
    """Return the worse of two exit codes: not comparable, no file, diverged, corrupt, our own fault, in this order."""
    return max(one, other, key=_FROM_BEST_TO_WORST.index)


@frozen(kw_only=True)
class Tally:
    """A session in numbers, counted from its records."""

    records: int = 0
    derived: int = 0
    """Derived records that were compared and equal."""
    sequences: int = 0
    finished: int = 0
    decodes: int = 0
    rows: int = 0
    """Rows decoded."""
    parts: int = 0
    """Sequences in the batches decoded, added up."""
    max_rows: int = 0
    """Rows of the largest batch."""
    tokens: int = 0
    """Tokens sampled."""
    planned_at: int | None = None
    """Nanoseconds from the session's start to its first plan."""
    decoded_at: int = 0
    """Nanoseconds from the session's start to its last outcome."""
    n_bytes: int = 0
    plan: e.BatchPlanned | None = None
    """The last batch planned; it counts when its outcome comes."""

    def add(self, event: e.Event, t: int, *, derived: bool, n_bytes: int) -> "Tally":
        """Count one more record: its event, when it happened, where it comes from, how long its line is."""
        tally = evolve(self, records=self.records + 1, derived=self.derived + derived, n_bytes=self.n_bytes + n_bytes)
        match event:
            case e.RequestReceived():
                return evolve(tally, sequences=self.sequences + 1)
            case e.SequenceFinished():
                return evolve(tally, finished=self.finished + 1)
            case e.BatchPlanned():
                return evolve(tally, plan=event, planned_at=t if self.planned_at is None else self.planned_at)
            case e.BatchDecoded():
                parts = () if self.plan is None else self.plan.parts
                rows = sum(len(part.tokens) for part in parts)
                return evolve(
                    tally,
                    decodes=self.decodes + 1,
                    rows=self.rows + rows,
                    parts=self.parts + len(parts),
                    max_rows=max(self.max_rows, rows),
                    tokens=self.tokens + sum(not sample.nan for sample in event.samples),
                    decoded_at=t,
                )
            case _:
                return tally

    def figures(self) -> list[tuple[str, str]]:
        """Return the session's figures with their names, for people."""
        seconds = (self.decoded_at - (self.planned_at or 0)) / 1e9
        per_batch = f"{self.rows / self.decodes:.1f} mean, {self.max_rows} max" if self.decodes else "-"
        return [
            ("sequences", f"{self.sequences:,} ({self.finished:,} finished)"),
            ("tokens", f"{self.tokens:,}"),
            ("steps", f"{self.decodes:,}"),
            ("rows per batch", per_batch),
            ("sequences per batch", f"{self.parts / self.decodes:.1f} mean" if self.decodes else "-"),
            ("tokens per second", f"{self.tokens / seconds:,.1f}" if seconds > 0 else "-"),
            ("bytes of log per token", f"{self.n_bytes / self.tokens:,.0f}" if self.tokens else "-"),
        ]


@frozen(kw_only=True)
class Verdict:
    """The outcome of `reenact.replay.replay_log`."""

    path: str
    """The log, as it was named."""
    verdict: Result
    tier: str = "decide"
    """How it was compared."""
    tally: Tally
    """What was gone through until then."""
    first_divergence: Divergence | None = None
    notes: tuple[str, ...] = ()
    """What else there is to know; why, where the verdict is neither "same" nor "diverged"."""
    error: Exception | None = None
    """Why the log could not be replayed."""

    @property
    def exit_code(self) -> int:
        """The exit code of ``replay run`` for this verdict."""
        return EXIT_CODES[self.verdict]

    def raise_for_divergence(self) -> None:
        """Return if the log replayed the same.

        Raises:
            ReplayDivergence: It did not; with both events.
            LogCorrupt: Its bytes are not what was written.
            LogNotComparable: There is nothing to compare, or it is too new.
            OSError: It cannot be opened.
        """
        if self.first_divergence is not None:
            raise ReplayDivergence(self.path, self.first_divergence)
        if self.error is not None:
            raise self.error

    def as_json(self) -> dict[str, Any]:
        """Return what ``replay run --json`` prints."""
        return {
            "verdict": self.verdict,
            "tier": self.tier,
            "records": self.tally.records,
            "decodes": self.tally.decodes,
            "rows": self.tally.rows,
            "tokens": self.tally.tokens,
            "first_divergence": None if self.first_divergence is None else self.first_divergence.as_json(),
        }

    def lines(self) -> list[str]:
        """Return what ``replay run`` prints: the verdict first, then the notes, then the figures or the difference."""
        compared = f"{self.tally.derived:,} derived records compared"
        match self.verdict:
            case "same":
                head = f"same: {self.path}: {compared}, all equal; {self.tally.records:,} records ({self.tier} tier)"
            case "diverged":
                n = self.first_divergence.n if self.first_divergence else 0
                equal = f"the {self.tally.derived:,} derived records before it are equal"
                head = f"diverged: {self.path}: at record {n:,}; {equal} ({self.tier} tier)"
            case _:
                return [f"{self.verdict}: {self.path}: {'; '.join(self.notes)}"]
        if self.first_divergence is not None:
            return [head, *self.notes, *self.first_divergence.lines(self.path)]
        figures = self.tally.figures()
        wide = max(len(name) for name, _ in figures)
        return [head, *self.notes, "", *(f"  {name:<{wide}}  {value}" for name, value in figures)]
