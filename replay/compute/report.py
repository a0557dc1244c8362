"""The result of an execution, and its report of at most 25 lines, from what happened to what to do.

The rule that holds here: the first row that differs comes first, then the first token, because tokens follow from rows;
then the possible causes, and the command that shows the place.
"""

from collections.abc import Callable, Iterator
from shlex import quote
from typing import TYPE_CHECKING, Any, Final

import attrs
from attrs import evolve as changed
from attrs import frozen

from reenact.actors import events as e
from reenact.actors.errors import description
from reenact.replay.compute.execution import ExecutedRow, Step
from reenact.replay.compute.machine import MachineDifference
from reenact.replay.render.events import operation_phrase, phrase
from reenact.replay.render.values import count, piece, plain, seconds, sequences

if TYPE_CHECKING:
    from reenact.runtime.llama.matcher import Weights

_MAX_WIDTH: Final = 150
"""The most characters of one line; a plan of many sequences is cut."""

_MAX_OPERATIONS: Final = 4
_MAX_DIFFERENCES: Final = 4
_INDENT: Final = 27


@frozen(kw_only=True)
class Best:
    """One of the likeliest tokens of a row."""

    token: int
    piece: bytes
    logit: float

    def __str__(self) -> str:
        return f"{piece(self.piece)} {self.logit:.4f}"


@frozen(kw_only=True)
class RowSpot:
    """The facts about the first row that differs."""

    row: ExecutedRow
    planned: e.BatchPlanned | None
    """The batch; None for a sequence that is executed alone."""
    best: tuple[Best, ...]
    """The likeliest tokens by the new row, likeliest first; empty for a vector."""
    logits: "Weights | None"
    """The new row."""
    operations: tuple[tuple[int, e.Operation], ...]
    """The operations on its cells since the last equal row of its slot, each with the number of its batch."""


@frozen(kw_only=True)
class Cause:
    """The cause of a differing re-execution, as far as it is known."""

    name: str
    """The cause in a few words, also for programs."""
    reason: str
    shown: bool
    """Whether an experiment reproduced the recorded values; otherwise this is the likeliest of several causes."""


EDITED_BESIDE: Final = Cause(
    name="an edited record",
    reason="the checksum is equal, and the probabilities or values that follow from the same numbers are not",
    shown=True,
)
"""The cause for a row whose numbers are the same while its other recorded values are not."""


@frozen(kw_only=True)
class Computed:
    """The result of an execution."""

    tokens_only: bool
    n_rows: int
    """How many rows of logits, and vectors, were compared by their bits."""
    n_tokens: int
    n_rows_differ: int
    n_tokens_differ: int
    n_unchecked: int
    """How many rows have no checksum in the log."""
    n_outcomes_differ: int
    """How many batches ended with another code, or with other cells."""
    differing: tuple[int, ...]
    """The sequences of which a row or a token differs."""
    first_row: RowSpot | None
    first_token: ExecutedRow | None
    """The first token that differs."""
    first_outcome: Step | None
    """The first batch with another outcome."""
    differences: tuple[MachineDifference, ...]
    """The fields of the header that differ here."""
    forced: bool
    seconds: float
    """The time spent in the engine."""
    alone: tuple[int, ...] = ()
    """The sequences that were executed one by one, each in an empty context; empty if the whole log was executed."""
    cause: Cause | None = None

    def because(self, search: Callable[[], Cause]) -> "Computed":
        """Return the result with its cause; if the search fails, the cause reports that and the result is kept."""
        try:
            cause = search()
        except Exception as error:  # noqa: BLE001  # a failed search must not hide the difference
            cause = Cause(name="unknown", reason=f"the search for it failed: {description(error)}", shown=False)
        return changed(self, cause=cause)

    @property
    def same(self) -> bool:
        """Whether everything that was compared is equal."""
        return not (self.n_rows_differ or self.n_tokens_differ or self.n_outcomes_differ)

    @property
    def first_n(self) -> int:
        """The number of the first record that differs; -1 if none does."""
        row = None if self.first_row is None else self.first_row.row
        return min((one.n for one in (row, self.first_token, self.first_outcome) if one is not None), default=-1)

    @property
    def tier(self) -> str:
        """The name of the comparison."""
        tier = "tokens" if self.tokens_only else "compute"
        return f"{tier}{', alone' if self.alone else ''}{', forced' if self.forced else ''}"

    @property
    def compared(self) -> str:
        """The things that were compared, in words."""
        tokens = f"{count(self.n_tokens, 'token')}"
        rows = tokens if self.tokens_only else f"{self._rows(self.n_rows)} and {tokens}"
        return f"{rows} of {self._whom} alone" if self.alone else rows

    def _rows(self, number: int) -> str:
        """Return a number of rows, or of vectors, in words: a model either generates or pools."""
        return count(number, "row") + " of logits" if self.n_tokens else count(number, "vector")

    @property
    def notes(self) -> list[str]:
        """The things that were not compared, with the reasons."""
        notes = []
        if self.n_unchecked and not self.tokens_only:
            notes.append(f"{count(self.n_unchecked, 'row')} not compared: the log has no checksum")
        return notes

    @property
    def _whom(self) -> str:
        return sequences(self.alone) if len(self.alone) == 1 else count(len(self.alone), "sequence")

    @property
    def difference(self) -> str:
        """The difference, in words."""
        parts = [] if self.tokens_only else [f"{self.n_rows_differ:,} of {self._rows(self.n_rows)}"]
        parts.append(f"{self.n_tokens_differ:,} of {count(self.n_tokens, 'token')}")
        if self.n_outcomes_differ:
            parts.append(count(self.n_outcomes_differ, "outcome"))
        alone = f" with {self._whom} alone, in {len(self.differing):,} of them" if self.alone else ""
        return f"{' and '.join(parts)} differ{alone}"

    def as_json(self) -> dict[str, Any]:
        """Return the result as ``replay run --json`` prints it."""
        return {
            "rows_compared": self.n_rows,
            "rows_differing": self.n_rows_differ,
            "rows_without_checksum": self.n_unchecked,
            "tokens_compared": self.n_tokens,
            "tokens_differing": self.n_tokens_differ,
            "outcomes_differing": self.n_outcomes_differ,
            "alone": self.alone,
            "sequences_differing": self.differing,
            "forced": self.forced,
            "seconds": round(self.seconds, 3),
            "header": [attrs.asdict(difference) for difference in self.differences],
            "first_row": self.first_row and _row_as_json(self.first_row.row),
            "first_token": self.first_token and _row_as_json(self.first_token),
            "cause": self.cause and attrs.asdict(self.cause),
        }

    def figures(self, recorded_seconds: float) -> list[tuple[str, str]]:
        """Return the time that the execution took, beside that of the recorded session, for people."""
        compares = self.seconds and not self.alone
        faster = f", {recorded_seconds / self.seconds:.2f} times the recorded speed" if compares else ""
        return [("executed again in", f"{seconds(self.seconds)}{faster}")]

    def lines(self, path: str) -> Iterator[str]:
        """Return the report, without the line of the verdict."""
        if self.first_outcome is not None:
            yield from _named("first differing outcome", _outcome(self.first_outcome))
        if self.first_row is not None:
            yield from self._about_row(self.first_row)
        if self.first_token is not None:
            yield from _named("first differing token", *_token(self.first_token))
        # Differences that decide results come first.
        shown = sorted(self.differences, key=lambda one: not one.decides)[:_MAX_DIFFERENCES]
        if shown:
            more = len(self.differences) - len(shown)
            yield from _named("environment", *map(str, shown), *([f"and {more} more"] if more else []))
        if self.cause is not None:
            name = "cause" if self.cause.shown else "likely cause"
            yield from _named(name, self.cause.name, plain(self.cause.reason), whole=True)
        first = self.first_n
        yield from _named("to look there", f"replay show {quote(path)} {max(first - 3, 0)}-{first + 1}", whole=True)

    def _about_row(self, spot: RowSpot) -> Iterator[str]:
        row = spot.row
        what = _where(row.part)
        yield from _named(
            "first differing row",
            f"record {row.n:,}, batch {row.batch:,}: {what}",
            f"checksum {_checksum(row.recorded)} in the log, {_checksum(row.replayed)} here"
            + ("; its other recorded values differ" if row.same_checksum else ""),
        )
        if spot.best:
            yield from _named("likeliest tokens here", ", ".join(map(str, spot.best)))
        if spot.planned is None:
            return
        yield from _named("its batch", phrase(spot.planned))
        done = [f"batch {batch:,}: {operation_phrase(operation)}" for batch, operation in spot.operations]
        more = len(done) - _MAX_OPERATIONS
        yield from _named(
            "operations on its cells",
            *(done[-_MAX_OPERATIONS:] or ["none since the last equal row of its slot"]),
            *([f"and {more} before these"] if more > 0 else []),
        )


def _named(name: str, *lines: str, whole: bool = False) -> Iterator[str]:
    for i, line in enumerate(lines):
        cut = line if whole or len(line) <= _MAX_WIDTH else f"{line[: _MAX_WIDTH - 1]}…"
        yield f"  {name if i == 0 else '':<{_INDENT - 2}}{cut}".rstrip()


def _where(part: e.Part) -> str:
    drawn = "its vector" if part.draw is None else f"token {part.draw:,}"
    last = part.position + len(part.inputs) - 1
    return f"{drawn} of sequence {part.sequence}, drawn at position {last:,} in slot {part.slot}"


def _checksum(outcome: e.Outcome | None) -> str:
    checksum = outcome.crc32 if isinstance(outcome, e.Vector) else outcome and outcome.logits_crc32
    return "none" if checksum is None else f"{checksum:08x}"


def _token(row: ExecutedRow) -> tuple[str, str]:
    where = f"record {row.n:,}, batch {row.batch:,}: {_where(row.part)}"
    return where, f"{_drawn(row.recorded)} in the log, {_drawn(row.replayed)} here"


def _drawn(outcome: e.Outcome | None) -> str:
    if not isinstance(outcome, e.Sample):
        return "none"
    if outcome.fault is not None:
        return f"none ({outcome.fault})"
    return f"{'EOG' if outcome.eog else piece(outcome.piece)} (id {outcome.token})"


def _outcome(step: Step) -> str:
    one, other = step.recorded, step.replayed
    codes = f"code {one.code} in the log, {other.code} here"
    cells = f"last positions {list(one.positions)} in the log, {list(other.positions)} here"
    return f"record {step.n:,}, batch {one.batch:,}: {codes if one.code != other.code else cells}"


def _row_as_json(row: ExecutedRow) -> dict[str, Any]:
    return {
        "n": row.n,
        "batch": row.batch,
        "sequence": row.part.sequence,
        "draw": row.part.draw,
        "recorded": outcome_as_json(row.recorded),
        "replayed": outcome_as_json(row.replayed),
    }


def outcome_as_json(outcome: e.Outcome | None) -> dict[str, Any] | None:
    """Return the outcome of a row as plain values."""
    match outcome:
        case e.Sample():
            text = outcome.piece.decode(errors="replace")
            fields = {"token": outcome.token, "piece": text, "eog": outcome.eog, "fault": outcome.fault}
            return {**fields, "logits_crc32": outcome.logits_crc32}
        case e.Vector():
            return {"crc32": outcome.crc32}
        case None:
            return None
