"""What a header says of what was promised."""

import pytest

from reenact.actors.header import DeterminismFacts, Probed


@pytest.mark.parametrize(
    ("probe", "verdict"),
    [
        ({}, "not probed"),
        ({"one": "same"}, "same"),
        ({"one": "not tried"}, "not probed"),
        ({"one": "same", "other": "not tried"}, "not probed"),
        ({"one": "not tried", "other": "differs"}, "differs"),
        ({"one": "same", "other": "differs"}, "differs"),
    ],
)
def test_the_verdict_of_a_probe(probe: dict[str, Probed], verdict: str) -> None:
    """One way that differs is enough for "differs"; "same" needs that every way was tried, and one at least."""
    facts = DeterminismFacts(asked="auto", policy="schedule-independent", reason="", probe=probe)
    assert verdict == facts.verdict
