"""Checks rules on a session, record by record.

The rules that hold here:

* Checks read records and nothing else: those of any log, including a session that crashed or was forked, and those of a
  session that a test drives, one by one.
* Earlier records are counted once, for all rules (`reenact.replay.check.recount`).
* A rule that is not selected costs nothing, nor does a record of a kind that no rule checks.
"""

from collections.abc import Collection

from reenact.actors import events as e
from reenact.replay.check.recount import Recount
from reenact.replay.check.rule import Rule, Violation
from reenact.replay.check.rules import RULES


class Checks:
    """A set of rules to check on a session, record by record.

    Args:
        rules: The names of the rules; None for all.
        log: The path of the log, beside which the rows' file may be; None where the records come from no log.

    Raises:
        KeyError: A name is not that of a rule.
    """

    def __init__(self, rules: Collection[str] | None = None, log: str | None = None) -> None:
        self._recount = Recount(log)
        names = RULES if rules is None else dict.fromkeys(rules)
        if unknown := [name for name in names if name not in RULES]:
            raise KeyError(f"no rule is called {unknown[0]!r}")
        self._rules = [RULES[name](self._recount) for name in names]
        self._settling = [rule for rule in self._rules if type(rule).settle is not Rule.settle]
        self._hearing: dict[type[e.Event], list[Rule]] = {}
        for rule in self._rules:
            for kind in rule.hears:
                self._hearing.setdefault(kind, []).append(rule)
        self._settled = False
        """Whether the last fact's obligations were checked."""

    @property
    def names(self) -> tuple[str, ...]:
        """The names of the rules."""
        return tuple(rule.name for rule in self._rules)

    def add(self, record: e.Record, t: int) -> list[Violation]:
        """Check the next record, and return its violations and those of the fact that it ends.

        Args:
            record: The record.
            t: When it happened, in nanoseconds since the session opened.
        """
        violations: list[Violation] = []
        if record.cause is None and not self._settled:
            violations += self.end()
        self._settled = False
        self._recount.begin(record, t)
        for rule in self._hearing.get(type(record.event), ()):
            violations += rule.see(record)
        self._recount.add(record)
        return violations

    def end(self) -> list[Violation]:
        """Return the violations of the last fact's obligations, once all records that follow from it were added.

        A log can end within a fact, because the process died or still writes. Records missing there are no violation.
        """
        self._settled = True
        return [violation for rule in self._settling for violation in rule.settle()]
