"""The table of claims against the tests of this folder."""

import os
import subprocess
import sys

from tests.helpers.paths import ROOT
from tests.model.claims import CLAIMS


def test_every_test_of_a_claim_is_there() -> None:
    """Each name in the table is that of one test, which `make test` runs and `make test-all` does not run again."""
    names = [name for names in CLAIMS.values() for name in names]
    command = (sys.executable, "-m", "pytest", "--collect-only", "-q", "-m", "model and not long", "tests/model")
    environment = {name: value for name, value in os.environ.items() if name != "PYTEST_ADDOPTS"}
    done = subprocess.run(command, check=True, capture_output=True, text=True, cwd=ROOT, env=environment)
    found = [line.removeprefix("tests/model/") for line in done.stdout.splitlines() if "::" in line]
    assert sorted(names) == sorted(found)
