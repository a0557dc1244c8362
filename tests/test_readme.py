"""The README's examples run as they are printed."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

README = (Path(__file__).parents[1] / "README.md").read_text()
BLOCKS = re.findall(r"```python\n(.*?)```", README, re.DOTALL)


@pytest.mark.model
def test_the_application_and_its_replay_run(tmp_path: Path) -> None:
    """The application prints two texts, and the log that it wrote replays the same."""
    application, replay, _ = BLOCKS
    (tmp_path / "application.py").write_text(application)
    (tmp_path / "replays.py").write_text(replay)
    out = subprocess.run([sys.executable, "application.py"], cwd=tmp_path, check=True, capture_output=True, text=True)
    assert " length\n" in out.stdout
    assert "" == out.stderr
    subprocess.run([sys.executable, "replays.py"], cwd=tmp_path, check=True)


def test_the_test_passes(tmp_path: Path) -> None:
    """The test for an application passes where pytest finds the fixtures by itself."""
    (tmp_path / "test_example.py").write_text(BLOCKS[2])
    command = [sys.executable, "-m", "pytest", "-o", "trio_mode=true", "--rootdir", ".", "-q"]
    out = subprocess.run(command, cwd=tmp_path, check=False, capture_output=True, text=True)
    assert (0, True) == (out.returncode, "1 passed" in out.stdout), out.stdout
