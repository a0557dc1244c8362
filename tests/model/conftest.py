"""Which tests of this folder are `long`: all that `tests.model.claims` does not name."""

from pathlib import Path

import pytest

from tests.model.claims import CLAIMS

FOLDER = Path(__file__).parent


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark a real model's tests that stand for no claim; marks are looked at after this."""
    named = {name for names in CLAIMS.values() for name in names}
    for item in items:
        name = item.nodeid.rpartition("/")[2]
        if item.path.parent == FOLDER and item.get_closest_marker("model") and name not in named:
            item.add_marker(pytest.mark.long)
