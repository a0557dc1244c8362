"""Logs of earlier days replay the same."""

from pathlib import Path

import pytest

from reenact.replay import replay_log
from tests.helpers.sessions import read_fields
from tests.model.scenarios import SCENARIOS, SHOWS

FOLDER = Path(__file__).parent


@pytest.mark.parametrize("path", sorted(FOLDER.glob("*.jsonl")), ids=lambda path: path.stem)
def test_a_golden_log(path: Path) -> None:
    """Every derived record of a golden log is decided again as it stands there."""
    verdict = replay_log(path)
    assert ("same", ()) == (verdict.verdict, verdict.notes)


@pytest.mark.parametrize("name", SCENARIOS)
def test_what_a_golden_log_shows(name: str) -> None:
    """There is a golden log of each scenario, and it shows what the scenario is about."""
    assert SHOWS[name](read_fields(FOLDER / f"{name}.jsonl"))
