"""What every test shares: the seed of this run's fresh properties, shown in the header."""

from tests.support import FRESH_SEED, FRESH_SEED_NAME


def pytest_report_header() -> str:
    """Say which seed the fresh examples have and how to run them again."""
    return f"properties: fixed examples, and fresh ones by {FRESH_SEED_NAME}={FRESH_SEED} (set it to run them again)"
