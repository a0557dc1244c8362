"""A pytest fixture for applications: a log that must replay the same when the test ends.

::

    async def test_answers(session_log):
        async with open_runtime(model, log=session_log) as runtime:
            ...
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@pytest.fixture
def session_log(tmp_path: Path) -> Iterator[Path]:
    """Yield a path for a session's log, and replay the log when the test ends; a divergence fails the test."""
    from reenact.replay.decide.tier import replay_log  # every run of pytest loads this plugin

    path = tmp_path / "session.jsonl"
    yield path
    if path.exists():
        replay_log(path).raise_for_divergence()
