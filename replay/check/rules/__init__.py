"""Lists the rules that every log must keep: each module has those about one thing, and `RULES` has all."""

from typing import Final

from reenact.replay.check.rule import Rule
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
