"""What the tests of replay share."""

from pathlib import Path

import pytest
import trio
from trio.testing import MockClock

from tests.helpers.sessions import eventful_session


@pytest.fixture(scope="module")
def eventful(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Record the eventful session, once for each file of tests."""
    path = tmp_path_factory.mktemp("eventful") / "eventful.jsonl"
    trio.run(eventful_session, path, clock=MockClock(autojump_threshold=0))
    return path


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Return where a test's log is to be."""
    return tmp_path / "session.jsonl"


@pytest.fixture
def small(tmp_path: Path) -> Path:
    """Return where the smaller log is to be."""
    return tmp_path / "small.jsonl"
