"""What holds in every log, whatever happened: the rules, and how they are run.

The rules that hold here:

* Checks read records, nothing else: those of a log of any kind, also of a session that crashed or was forked, and those
  of a session that a test drives, one by one.
* What was counted of the records before is counted once, for all rules (`reenact.replay.check.recount`).
* A rule that is not asked for costs nothing; neither does one for a record that it does not hear.
"""

from collections.abc import Collection
from typing import Final

from reenact.actors import events as e
from reenact.replay.check.recount import Recount
from reenact.replay.check.rule import Rule, Violation
from reenact.replay.check.rules.batches import AbortsRule, BatchesRule, CellsRule, DrawsRule, PositionsRule, TurnsRule
from reenact.replay.check.rules.figures import DigestRule, StatisticsRule
from reenact.replay.check.rules.numbers import NumbersRule
from reenact.replay.check.rules.sequences import InputsRule, ReadersRule, ShiftsRule, TokensRule, VectorsRule
from reenact.replay.check.rules.session import (
    ActorsRule,
    CancelsRule,
    EndsRule,
    FailuresRule,
    OverdueRule,
    ReasonsRule,
    RecordsRule,
)
from reenact.replay.check.rules.slots import KeptRule, PlacesRule, QueueRule, SlotsRule
from reenact.replay.check.rules.texts import StopsRule, TextRule

RULES: Final[dict[str, type[Rule]]] = {
    rule.name: rule
    for rule in (
        RecordsRule,
        EndsRule,
        ReasonsRule,
        FailuresRule,
        ActorsRule,
        CancelsRule,
        OverdueRule,
        QueueRule,
        PlacesRule,
        SlotsRule,
        KeptRule,
        InputsRule,
        NumbersRule,
        ShiftsRule,
        ReadersRule,
        BatchesRule,
        TurnsRule,
        PositionsRule,
        DrawsRule,
        CellsRule,
        AbortsRule,
        TokensRule,
        TextRule,
        StopsRule,
        VectorsRule,
        StatisticsRule,
        DigestRule,
    )
}
"""All rules by their names, in the order in which a request meets them."""


class Checks:
    """Rules that are held against a session, record by record.

    Args:
        rules: The names of those that are; None for all.
        log: The log that the records are of, beside which its rows may lie; None where they are of none.

    Raises:
        KeyError: There is no rule of such a name.
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
        """Whether it was looked at what the last fact owes."""

    @property
    def names(self) -> tuple[str, ...]:
        """The names of the rules."""
        return tuple(rule.name for rule in self._rules)

    def add(self, record: e.Record, t: int) -> list[Violation]:
        """Take the next record and return what the rules do not allow of it, or of the fact that it ends.

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
        """Return what the last fact owes, where all that follows from it was added.

        A log can end within a fact: the process died, or still writes. What is missing there is no violation.
        """
        self._settled = True
        return [violation for rule in self._settling for violation in rule.settle()]
