"""The page docs/from-a-bug-to-a-test.md runs as it is printed, in a copy of the tree."""

import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Final

import pytest

from tests.helpers.paths import ROOT

PAGE: Final = (ROOT / "docs" / "from-a-bug-to-a-test.md").read_text()
FOLDERS: Final = (".typing", "actors", "runtime", "replay", "tests")


def commands() -> list[tuple[str, list[str]]]:
    """Return each command with the lines that it prints."""
    told: list[tuple[str, list[str]]] = []
    for block in re.findall(r"```\n(.*?)```", PAGE, re.DOTALL):
        for line in block.splitlines():
            if line.startswith("$ "):
                told.append((line.removeprefix("$ "), []))
            else:
                told[-1][1].append(line)
    return told


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """Make a copy of the tree, with what stands on the path in a virtual environment."""
    for folder in FOLDERS:
        shutil.copytree(ROOT / folder, tmp_path / folder, symlinks=True, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    (tmp_path / "bin").mkdir()
    modules = {"python": "", "replay": "-m reenact.replay.cli.main", "pytest": "-m pytest -p no:cacheprovider"}
    for name, module in modules.items():
        script = tmp_path / "bin" / name
        script.write_text(f'#!/bin/sh\nexec {shlex.quote(sys.executable)} {module} "$@"\n')
        script.chmod(0o755)
    return tmp_path


@pytest.mark.parametrize("n_commands", [3, pytest.param(9, marks=pytest.mark.long)])
def test_the_page_runs_as_it_is_printed(tree: Path, n_commands: int) -> None:
    """Each command prints the lines that stand under it, in this order, with others perhaps between them."""
    paths = os.pathsep.join([str(tree / "bin"), os.environ["PATH"]])
    here = os.pathsep.join([str(tree / ".typing"), str(tree)])
    environment = {**os.environ, "PATH": paths, "PYTHONPATH": here, "PYTHONDONTWRITEBYTECODE": "1", "COLUMNS": "80"}
    told = commands()
    assert 9 == len(told)
    for command, lines in told[:n_commands]:
        asked = ["sh", "-c", command]
        ran = subprocess.run(asked, cwd=tree, env=environment, check=False, capture_output=True, text=True)
        printed = iter(ran.stdout.splitlines())
        for line in lines:
            begins = line.partition("…")[0]
            assert any(other.startswith(begins) for other in printed), (
                f"{command}: {line!r} in\n{ran.stdout}{ran.stderr}"
            )
