"""A log held against the rules, and how that is told.

The rules that hold here:

* Bytes first: a log with a wrong byte anywhere is corrupt, and no rule is held against it.
* The first violations are told one a line, each with the command that shows the spot; the rest are counted.
* A log that ends early, because its session crashed or still runs, owes nothing.
"""

import os
from collections.abc import Callable, Collection, Iterable, Iterator
from typing import Any, Final, Literal

from attrs import asdict, frozen

from reenact.actors import events as e
from reenact.actors.errors import LogCorrupt, LogNotComparable, ReenactError, description
from reenact.replay.check.rule import Violation
from reenact.replay.check.runner import RULES, Checks
from reenact.replay.facts import Play, facts_of
from reenact.replay.render.endings import not_closed, torn
from reenact.replay.render.values import count
from reenact.replay.shrink.patience import Patience
from reenact.replay.verdict import EXIT_CODES
from reenact.runtime.log.reader import LogFile, entries
from reenact.runtime.terminal import Spans, visible

MAX_SHOWN: Final = 20
"""Violations of a log that are told; what comes after the first wrong record mostly follows from it."""

Outcome = Literal["holds", "violated", "unreadable", "corrupt", "not comparable"]


@frozen(kw_only=True)
class Checked:
    """What came out of a check of a log."""

    path: str
    """The log, as it was named."""
    outcome: Outcome
    rules: tuple[str, ...]
    """The names of the rules."""
    n_records: int = 0
    n_violations: int = 0
    violations: tuple[Violation, ...] = ()
    """The first of them, in the order of the records."""
    notes: tuple[str, ...] = ()
    """What else there is to know; why, where no rule was held against it."""
    error: Exception | None = None
    """Why none was."""

    @property
    def exit_code(self) -> int:
        """The exit code of ``replay check`` for this log."""
        if self.outcome == "holds":
            return 0
        return 1 if self.outcome == "violated" else EXIT_CODES[self.outcome]

    def raise_for_violation(self) -> None:
        """Return if the rules hold.

        Raises:
            RuleViolation: One does not.
            LogCorrupt: The log's bytes are not what was written.
            LogNotComparable: There is no record, or it is too new.
            OSError: It cannot be opened.
        """
        if self.violations:
            raise RuleViolation(self)
        if self.error is not None:
            raise self.error

    def as_json(self) -> dict[str, Any]:
        """Return what ``replay check --json`` prints."""
        return {
            "verdict": self.outcome,
            "rules": self.rules,
            "records": self.n_records,
            "notes": self.notes,
            "n_violations": self.n_violations,
            "violations": [asdict(violation) for violation in self.violations],
        }

    def lines(self) -> list[str]:
        """Return what ``replay check`` prints: the outcome first, then the notes, then the violations."""
        checked = f"{count(len(self.rules), 'rule')}, {count(self.n_records, 'record')}"
        match self.outcome:
            case "holds":
                head = f"holds: {self.path}: {checked}"
            case "violated":
                head = f"violated: {self.path}: {count(self.n_violations, 'violation')}; {checked}"
            case _:
                return [f"{self.outcome}: {self.path}: {'; '.join(self.notes)}"]
        wide = max((len(violation.rule) for violation in self.violations), default=0)
        lines = [head, *self.notes, *(self._line(violation, wide) for violation in self.violations)]
        n_more = self.n_violations - len(self.violations)
        return lines + ([f"  and {n_more:,} more"] if n_more else [])

    def _line(self, violation: Violation, wide: int) -> str:
        values = f"expected {violation.expected}, actual {violation.actual}"
        spot = f"{violation.first}-{violation.n}"
        return f"  {violation.rule:<{wide}}  record {violation.n:,}: {values}  replay show {self.path} {spot}"


class RuleViolation(ReenactError):
    """A session does not keep a rule.

    Attributes:
        checked: All that was found.
    """

    def __init__(self, checked: Checked) -> None:
        super().__init__(checked)
        self.checked = checked

    def __str__(self) -> str:
        return "\n".join(map(visible, self.checked.lines()))


def check_log(path: str | os.PathLike[str], rules: Collection[str] | None = None) -> Checked:
    """Hold a log against the rules; needs no model, and runs no actor.

    Args:
        path: The log of any session, also of one that crashed, still runs, or was forked.
        rules: The names of the rules, as in `reenact.replay.check.runner.RULES`; None for all.

    Returns:
        What came out. Whatever the file holds, and also if there is none, this does not raise.

    Raises:
        KeyError: There is no rule of such a name.
    """
    checking = _Checking(os.fspath(path), Checks(rules, os.fspath(path)))
    return checking.guarded(path, lambda log: ((entry.record, entry.t) for entry in entries(log)))


def check_facts(
    path: str | os.PathLike[str], rules: Collection[str] | None = None, patience: Patience | None = None
) -> Checked:
    """Hold what today's actors make of a log's facts against the rules; needs no model.

    The records of the log are not asked. Where today's actors plan other batches than it has, what became of a batch is
    told of theirs (`reenact.replay.facts`).

    Args:
        path: The log of any session.
        rules: The names of the rules; None for all.
        patience: How long that may take; None for as long as it does.

    Returns:
        What came out; violations name the records that the actors make now. This does not raise for what the file
        holds.

    Raises:
        KeyError: There is no rule of such a name.
    """
    within = (patience or Patience()).within

    def made(log: LogFile) -> Iterator[tuple[e.Record, int]]:
        for played in within(Play(facts_of(within(entries(log)))).run()):
            if played.error is not None:
                raise LogNotComparable(f"today's actors cannot take a fact: {description(played.error)}")
            yield from ((record, played.t) for record in played.records)

    return _Checking(os.fspath(path), Checks(rules)).guarded(path, made)


class _Checking:
    """One run over one log."""

    def __init__(self, path: str, checks: Checks) -> None:
        self._path = path
        self._checks = checks
        self._n_records = self._n_violations = 0
        self._violations: list[Violation] = []
        self._closed = False

    def guarded(
        self, path: str | os.PathLike[str], records: Callable[[LogFile], Iterable[tuple[e.Record, int]]]
    ) -> Checked:
        """Check what is made of a log, and say why where that cannot be."""
        try:
            with LogFile(path) as log:
                for _ in log:
                    pass
                return self._run(records(log), log)
        except OSError as error:
            return self._told("unreadable", error.strerror or str(error), error=error)
        except (LogCorrupt, LogNotComparable) as error:
            outcome: Outcome = "corrupt" if isinstance(error, LogCorrupt) else "not comparable"
            return self._told(outcome, str(error), error=error)

    def _run(self, records: Iterable[tuple[e.Record, int]], log: LogFile) -> Checked:
        """Check all records."""
        for record, t in records:
            found = self._checks.add(record, t)
            self._n_records += 1
            self._n_violations += len(found)
            self._violations += found[: MAX_SHOWN - len(self._violations)]
            self._closed = isinstance(record.event, e.SessionClosed)
        if not self._n_records:
            raise LogNotComparable("there is no record in it")
        notes = [*([] if self._closed else [not_closed(self._n_records - 1)]), *torn(log.torn)]
        return self._told("violated" if self._n_violations else "holds", *notes)

    def _told(self, outcome: Outcome, *notes: str, error: Exception | None = None) -> Checked:
        """Return what came out until now."""
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
    """Return what ``replay check --list`` prints: each rule's name, what must hold, and where that is written."""
    wide = max(map(len, RULES))
    return [
        [(f"{name:<{wide}}", "bold"), (f"  {rule.says}", ""), (f" [{rule.source}]", "dim")]
        for name, rule in RULES.items()
    ]
