"""What every test shares: the seed of fresh properties, shown in the header, and what is broken on purpose."""

import os
import signal

import pytest

from reenact.runtime.user_cache import FOLDER_NAME
from tests.helpers.properties import FRESH_SEED, FRESH_SEED_NAME
from tests.mutants.change import BREAK_NAME

if os.environ.get(BREAK_NAME):
    # Before any test is imported, so that the names it imports are the broken ones.
    from tests.mutants.bugs.blind import BLIND
    from tests.mutants.bugs.table import PLANTED
    from tests.mutants.change import break_asked_for
    from tests.mutants.rules.table import RULES

    break_asked_for((*RULES, *PLANTED, *BLIND))


def pytest_report_header() -> list[str]:
    """Say which seed the fresh examples have and how to run them again; and what is broken on purpose."""
    seed = f"properties: fixed examples, and fresh ones by {FRESH_SEED_NAME}={FRESH_SEED} (set it to run them again)"
    broken = os.environ.get(BREAK_NAME)
    return [seed, *([f"broken on purpose: {broken}"] if broken else [])]


def pytest_configure(config: pytest.Config) -> None:
    """Keep what is kept apart from the user's; let Ctrl-C work, also where the shell that started us ignores it."""
    cache = getattr(config, "cache", None)  # There is none with -p no:cacheprovider.
    if cache is not None:
        os.environ[FOLDER_NAME] = str(cache.mkdir("reenact"))
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)
