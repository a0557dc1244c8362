"""Every scenario on its real model: its log shows what it is about, and replays the same."""

from pathlib import Path

import pytest

from tests.helpers.sessions import read_fields
from tests.model.scenarios import SCENARIOS, SHOWS

pytestmark = pytest.mark.model


@pytest.mark.parametrize("name", SCENARIOS)
async def test_a_scenario(session_log: Path, name: str) -> None:
    """What the scenario is about happens, and its log replays the same."""
    await SCENARIOS[name](session_log)
    assert SHOWS[name](read_fields(session_log))
