"""`replay check`: check a log against the rules and report the violations.

The rules that hold here:

* Bytes first: a log with a wrong byte anywhere is corrupt, and no rule is checked.
* The first violations are printed one a line, each with the command that shows the place; the rest are counted.
* A log that ends early, because its session crashed or still runs, owes nothing.
"""

import os
from collections.abc import Callable, Collection, Iterable, Iterator
from typing import Any, Final, Literal

from attrs import asdict, frozen

from reenact.actors import events as e
from reenact.actors.errors import LogCorrupt, LogNotComparable, ReenactError, description
from reenact.replay.check.condition import Condition
from reenact.replay.check.rule import Violation
from reenact.replay.check.rules import RULES
from reenact.replay.check.runner import Checks
from reenact.replay.facts import Play, facts_of
from reenact.replay.render.endings import end_notes
from reenact.replay.render.values import count
from reenact.replay.shrink.patience import Patience
from reenact.replay.verdict import EXIT_CODES
from reenact.runtime.log.reader import LogFile, entries
from reenact.runtime.terminal import Spans, visible

MAX_SHOWN: Final = 20
"""How many violations of a log are printed; most of the rest follow from the first wrong record."""

Outcome = Literal["holds", "violated", "unreadable", "corrupt", "not comparable"]


@frozen(kw_only=True)
class Checked:
    """The result of a check of one log."""

    path: str
    """The log's path, as it was given."""
    outcome: Outcome
    rules: tuple[str, ...]
    """The names of the rules that were checked."""
    n_records: int = 0
    n_violations: int = 0
    violations: tuple[Violation, ...] = ()
    """The first violations, in the order of the records."""
    notes: tuple[str, ...] = ()
    """Further remarks; where no rule was checked, the reason."""
    error: Exception | None = None
    """The error because of which no rule was checked."""
    condition: Condition | None = None
    """The condition of the log; None if it was not looked for."""

    @property
    def exit_code(self) -> int:
        """The exit code of ``replay check`` for this log."""
        if self.outcome == "holds":
            return 0
        return 1 if self.outcome == "violated" else EXIT_CODES[self.outcome]

    def raise_for_violation(self) -> None:
        """Return if the rules hold.

        Raises:
            RuleViolation: A rule does not hold.
            LogCorrupt: The log's bytes are not what was written.
            LogNotComparable: The log has no record, or its schema is too new.
            OSError: The log cannot be opened.
        """
        if self.violations:
            raise RuleViolation(self)
        if self.error is not None:
            raise self.error

    def as_json(self) -> dict[str, Any]:
        """Return the object that ``replay check --json`` prints."""
        return {
            "verdict": self.outcome,
            "rules": self.rules,
            "records": self.n_records,
            "notes": self.notes,
            "n_violations": self.n_violations,
            "violations": [asdict(violation) for violation in self.violations],
            **({} if self.condition is None else self.condition.as_json()),
        }

    def lines(self) -> list[str]:
        """Return the lines that ``replay check`` prints: outcome, notes, condition and violations."""
        condition = [] if self.condition is None else self.condition.lines()
        checked = f"{count(len(self.rules), 'rule')}, {count(self.n_records, 'record')}"
        match self.outcome:
            case "holds":
                head = f"holds: {self.path}: {checked}"
            case "violated":
                head = f"violated: {self.path}: {count(self.n_violations, 'violation')}; {checked}"
            case _:
                return [f"{self.outcome}: {self.path}: {'; '.join(self.notes)}", *condition]
        wide = max((len(violation.rule) for violation in self.violations), default=0)
        lines = [head, *self.notes, *condition, *(self._line(violation, wide) for violation in self.violations)]
        n_more = self.n_violations - len(self.violations)
        return lines + ([f"  and {n_more:,} more"] if n_more else [])

    def _line(self, violation: Violation, wide: int) -> str:
        values = f"expected {violation.expected}, actual {violation.actual}"
        spot = f"{violation.first}-{violation.n}"
        return f"  {violation.rule:<{wide}}  record {violation.n:,}: {values}  replay show {self.path} {spot}"


class RuleViolation(ReenactError):
    """A session violates a rule.

    Attributes:
        checked: The result of the whole check.
    """

    def __init__(self, checked: Checked) -> None:
        super().__init__(checked)
        self.checked = checked

    def __str__(self) -> str:
        return "\n".join(map(visible, self.checked.lines()))


def check_log(path: str | os.PathLike[str], rules: Collection[str] | None = None) -> Checked:
    """Check a log against the rules; this needs no model and runs no actor.

    Args:
        path: The log of any session, including one that crashed, still runs, or was forked.
        rules: The names of the rules, as in `reenact.replay.check.rules.RULES`; None for all.

    Returns:
        The result. This never raises for the content of the file, nor for a file that is missing.

    Raises:
        KeyError: A name is not that of a rule.
    """
    checking = _Checking(os.fspath(path), Checks(rules, os.fspath(path)))
    return checking.guarded(path, lambda log: ((entry.record, entry.t) for entry in entries(log)))


def check_facts(
    path: str | os.PathLike[str], rules: Collection[str] | None = None, patience: Patience | None = None
) -> Checked:
    """Check the records that today's actors make of a log's facts against the rules; this needs no model.

    The log's own derived records are ignored. Where today's actors plan other batches than the log has, the outcomes
    of batches are adapted to their plans (`reenact.replay.facts`).

    Args:
        path: The log of any session.
        rules: The names of the rules; None for all.
        patience: The limit on how long this may take; None for no limit.

    Returns:
        The result; violations name the records that the actors make now. This never raises for the content of the file.

    Raises:
        KeyError: A name is not that of a rule.
    """
    within = (patience or Patience()).within

    def made(log: LogFile) -> Iterator[tuple[e.Record, int]]:
        for played in within(Play(facts_of(within(entries(log)))).run()):
            if played.error is not None:
                raise LogNotComparable(f"today's actors cannot take a fact: {description(played.error)}")
            yield from ((record, played.t) for record in played.records)

    return _Checking(os.fspath(path), Checks(rules)).guarded(path, made)


class _Checking:
    """One check of one log."""

    def __init__(self, path: str, checks: Checks) -> None:
        self._path = path
        self._checks = checks
        self._n_records = self._n_violations = 0
        self._violations: list[Violation] = []
        self._closed = False

    def guarded(
        self, path: str | os.PathLike[str], records: Callable[[LogFile], Iterable[tuple[e.Record, int]]]
    ) -> Checked:
        """Check the records made from a log; where that is impossible, return a result with the reason."""
        try:
            with LogFile(path) as log:
                for _ in log:
                    pass
                return self._run(records(log), log)
        except OSError as error:
            return self._result("unreadable", error.strerror or str(error), error=error)
        except (LogCorrupt, LogNotComparable) as error:
            outcome: Outcome = "corrupt" if isinstance(error, LogCorrupt) else "not comparable"
            return self._result(outcome, str(error), error=error)

    def _run(self, records: Iterable[tuple[e.Record, int]], log: LogFile) -> Checked:
        """Check all records."""
        for record, t in records:
            found = self._checks.add(record, t)
            self._n_records += 1
            self._n_violations += len(found)
            self._violations += found[: MAX_SHOWN - len(self._violations)]
            self._closed = isinstance(record.event, e.SessionClosed)
        notes = end_notes(self._n_records, closed=self._closed, n_torn=log.torn)
        return self._result("violated" if self._n_violations else "holds", *notes)

    def _result(self, outcome: Outcome, *notes: str, error: Exception | None = None) -> Checked:
        """Return the result so far."""
        return Checked(
            path=self._path,
            outcome=outcome,
            rules=self._checks.names,
            n_records=self._n_records,
            n_violations=self._n_violations,
            violations=tuple(self._violations),
            notes=notes,
            error=error,
        )


def rule_lines() -> list[Spans]:
    """Return the lines that ``replay check --list`` prints: each rule's name, its statement and its source."""
    wide = max(map(len, RULES))
    return [
        [(f"{name:<{wide}}", "bold"), (f"  {rule.says}", ""), (f" [{rule.source}]", "dim")]
        for name, rule in RULES.items()
    ]
