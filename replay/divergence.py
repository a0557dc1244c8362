"""The first difference between a log and today's actors, and its report."""

from attrs import frozen

from reenact.actors.errors import ReenactError
from reenact.runtime.log.codec import Fields, same, written
from reenact.runtime.terminal import visible

_NOTHING = "today's actors decide nothing more here: only a given record can follow"

_WIDTH = 60
"""The most characters of one value that are shown; longer ones are cut around the difference."""


@frozen(kw_only=True)
class Divergence:
    """The first record that differs.

    ``expected`` is the log's record, ``actual`` that of today's actors; None where there is no such record.
    """

    n: int
    expected: Fields | None
    actual: Fields | None
    note: str = ""
    """The reason why there is no actual record, where that is not plain."""

    @property
    def cause(self) -> int | None:
        """The record from which this one follows, by the actors' account or else the log's."""
        side = self.actual or self.expected or {}
        cause = side.get("cause")
        return cause if isinstance(cause, int) else None

    def as_json(self) -> Fields:
        """Return the divergence as plain values."""
        return {"n": self.n, "cause": self.cause, "expected": self.expected, "actual": self.actual}

    def lines(self, log: str) -> list[str]:
        """Return the report: both sides field by field, the cause, and the command that shows the place."""
        names = list(dict.fromkeys([*(self.expected or {}), *(self.actual or {})]))
        rows = [("", "expected (the log)", "actual (this code)")]
        for name in names:
            one, other = _shown(self.expected, name), _shown(self.actual, name)
            differs = one != other or not _equal(self.expected, self.actual, name)
            if differs or name in {"n", "type", "actor", "sequence"}:
                one, other = elided(one, other)
                rows.append((("* " if differs else "  ") + name, one, other))
        wide = [max(len(row[i]) for row in rows) for i in range(2)]
        table = [f"  {a:<{wide[0]}}  {b:<{wide[1]}}  {c}".rstrip() for a, b, c in rows]
        if self.actual is None:
            table.append(f"  {self.note or _NOTHING}")
        first = self.n if self.cause is None else self.cause
        if self.cause is not None:
            table.append(f"  follows from record {self.cause}")
        return [*table, f"  replay show {log} {min(first, self.n)}-{self.n}"]


class ReplayDivergence(ReenactError):
    """A log does not replay the same.

    Attributes:
        path: The log.
        divergence: The first record that differs, with both events.
    """

    def __init__(self, path: str, divergence: Divergence) -> None:
        super().__init__(path, divergence)
        self.path = path
        self.divergence = divergence

    def __str__(self) -> str:
        lines = [f"{self.path} diverged at record {self.divergence.n}", *self.divergence.lines(self.path)]
        return "\n".join(map(visible, lines))


def _shown(side: Fields | None, name: str) -> str:
    return written(side[name]) if side is not None and name in side else "-"


def _equal(one: Fields | None, other: Fields | None, name: str) -> bool:
    return one is not None and other is not None and name in one and name in other and same(one[name], other[name])


def elided(one: str, other: str) -> tuple[str, str]:
    """Cut two values to the width of a column, around the first place where they differ."""
    if max(len(one), len(other)) <= _WIDTH:
        return one, other
    at = next((i for i, (a, b) in enumerate(zip(one, other, strict=False)) if a != b), min(len(one), len(other)))
    start = max(0, at - _WIDTH // 2)
    return _cut(one, start), _cut(other, start)


def _cut(value: str, start: int) -> str:
    piece = value[start : start + _WIDTH]
    return ("…" if start and piece else "") + piece + ("…" if start + _WIDTH < len(value) else "")
