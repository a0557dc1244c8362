"""Logs changed at random: a share of ``make measure-fuzz_logs``."""

import subprocess
import sys

import pytest

from tests.helpers.paths import ROOT
from tests.helpers.properties import FRESH_SEED


@pytest.mark.parametrize("seed", [0, 1000, 2000, FRESH_SEED % 10**9], ids=[0, 1000, 2000, "fresh"])
def test_every_log_has_a_verdict(seed: int) -> None:
    """Whatever was changed, each command ends with a typed error or none, in 2 seconds and 300 MB."""
    arguments = ("--seed", str(seed), "--logs", "40", "--processes", "1")
    done = subprocess.run(
        [sys.executable, "-m", "tests.measure.fuzz_logs", *arguments],
        capture_output=True,
        text=True,
        check=False,
        cwd=ROOT,
    )
    assert 0 == done.returncode, f"{' '.join(arguments)}\n{done.stdout}{done.stderr}"
