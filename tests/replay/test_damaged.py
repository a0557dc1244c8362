"""Logs changed at random: a share of ``make measure-fuzz_logs``."""

import subprocess
import sys

import pytest

from tests.helpers.paths import ROOT
from tests.helpers.properties import FRESH_SEED


@pytest.mark.parametrize("n_logs", [12, pytest.param(160, marks=pytest.mark.long)])
@pytest.mark.parametrize("seed", [0, FRESH_SEED % 10**9], ids=["fixed", "fresh"])
def test_every_log_has_a_verdict(seed: int, n_logs: int) -> None:
    """Whatever was changed, each command ends with a typed error or none, in 2 seconds and 300 MB."""
    arguments = ("--seed", str(seed), "--logs", str(n_logs), "--processes", "1")
    done = subprocess.run(
        [sys.executable, "-m", "tests.measure.fuzz_logs", *arguments],
        capture_output=True,
        text=True,
        check=False,
        cwd=ROOT,
    )
    assert 0 == done.returncode, f"{' '.join(arguments)}\n{done.stdout}{done.stderr}"
