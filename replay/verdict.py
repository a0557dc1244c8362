"""The verdict of a replay, and its report."""

from typing import TYPE_CHECKING, Any, Final, Literal

from attrs import frozen

from reenact.replay.decide.figures import Tally
from reenact.replay.divergence import Divergence, ReplayDivergence

if TYPE_CHECKING:
    from reenact.replay.compute.report import Computed

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
class Verdict:
    """The outcome of `reenact.replay.replay_log`."""

    path: str
    """The log's path, as it was given."""
    verdict: Result
    tier: str = "decide"
    """The comparison: "decide", "compute" or "tokens", followed by ", alone" and ", forced" where that applies."""
    computed: "Computed | None" = None
    """The result of an execution on the model."""
    tally: Tally
    """The figures of the records that were compared."""
    first_divergence: Divergence | None = None
    notes: tuple[str, ...] = ()
    """Further remarks; if the verdict is neither "same" nor "diverged", the reason."""
    error: Exception | None = None
    """The error because of which the log could not be replayed."""

    @property
    def exit_code(self) -> int:
        """The exit code of ``replay run`` for this verdict."""
        return EXIT_CODES[self.verdict]

    def raise_for_divergence(self) -> None:
        """Return if the log replayed the same.

        Raises:
            ReplayDivergence: The log diverged; the error has both events.
            LogCorrupt: The log's bytes are not what was written.
            LogNotComparable: The log has nothing to compare, or its schema is too new.
            OSError: The log cannot be opened.
            ModelNotFound: Its model cannot be found.
        """
        if self.first_divergence is not None:
            raise ReplayDivergence(self.path, self.first_divergence)
        if self.error is not None:
            raise self.error

    def as_json(self) -> dict[str, Any]:
        """Return the verdict as ``replay run --json`` prints it."""
        return {
            "verdict": self.verdict,
            "tier": self.tier,
            "records": self.tally.statistics.n_records,
            "decodes": self.tally.statistics.n_batches,
            "rows": self.tally.statistics.n_rows,
            "tokens": self.tally.statistics.n_sampled,
            "notes": self.notes,
            "first_divergence": None if self.first_divergence is None else self.first_divergence.as_json(),
            **({} if self.computed is None else self.computed.as_json()),
        }

    def lines(self) -> list[str]:
        """Return the lines that ``replay run`` prints: the verdict, the notes, then the figures or the difference."""
        compared = f"{self.tally.derived:,} derived records compared"
        computed = self.computed
        notes = self.notes if computed is None else (*self.notes, *computed.notes)
        if computed is not None:
            compared = f"{self.tally.derived:,} derived records, {computed.compared} compared"
        match self.verdict:
            case "same":
                n_records = self.tally.statistics.n_records
                head = f"same: {self.path}: {compared}, all equal; {n_records:,} records ({self.tier} tier)"
            case "diverged" if computed is not None:
                head = f"diverged: {self.path}: {computed.difference}; all derived records are equal ({self.tier} tier)"
                return [head, *notes, *computed.lines(self.path)]
            case "diverged":
                n = self.first_divergence.n if self.first_divergence else 0
                equal = f"the {self.tally.derived:,} derived records before it are equal"
                head = f"diverged: {self.path}: at record {n:,}; {equal} ({self.tier} tier)"
            case _:
                # The log was read; the model was not.
                what = "the model for " if self.verdict == "unreadable" and self.tier == "compute" else ""
                return [f"{self.verdict}: {what}{self.path}: {'; '.join(self.notes)}"]
        if self.first_divergence is not None:
            return [head, *self.notes, *self.first_divergence.lines(self.path)]
        figures = self.tally.figures()
        if computed is not None:
            figures += computed.figures(self.tally.computing)
        wide = max(len(name) for name, _ in figures)
        return [head, *notes, "", *(f"  {name:<{wide}}  {value}" for name, value in figures)]
