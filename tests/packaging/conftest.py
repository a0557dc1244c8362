"""The distribution as a user gets it: built once a session from a copy of the tree, installed once a session."""

import shutil
import subprocess
import sys
from pathlib import Path
from zipfile import ZipFile

import pytest

from tests.helpers.paths import ROOT

FOLDERS = ("actors", "replay", "runtime")


@pytest.fixture(scope="session")
def root() -> Path:
    """Return the root of the checkout."""
    return ROOT


@pytest.fixture(scope="session")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Build an sdist, and from that sdist a wheel, so that what one of them loses shows in the wheel.

    The tree is copied first: setuptools leaves a build/ behind, whose old modules get into the next wheel.
    """
    tree = tmp_path_factory.mktemp("tree")
    for file in ("LICENSE", "MANIFEST.in", "README.md", "pyproject.toml"):
        if (ROOT / file).exists():
            shutil.copy(ROOT / file, tree)
    for folder in FOLDERS:
        shutil.copytree(ROOT / folder, tree / folder, ignore=shutil.ignore_patterns("__pycache__"))
    made = tmp_path_factory.mktemp("made")
    _run(sys.executable, "-m", "build", "--no-isolation", "--outdir", str(made), str(tree))
    (built,) = made.glob("*.whl")
    return built


@pytest.fixture(scope="session")
def modules_of_wheel(wheel: Path) -> list[str]:
    """Return the paths of the wheel's files, its metadata apart."""
    with ZipFile(wheel) as archive:
        return sorted(name for name in archive.namelist() if ".dist-info/" not in name)


@pytest.fixture(scope="session")
def empty_environment(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the folder of the programs of an environment that has the wheel, what it asks for, and nothing else."""
    environment = tmp_path_factory.mktemp("empty") / "environment"
    _run(sys.executable, "-m", "venv", "--without-pip", str(environment))
    install = ("install", "--quiet", "--disable-pip-version-check", "--constraint", str(ROOT / "constraints.txt"))
    _run(sys.executable, "-m", "pip", "--python", str(environment / "bin" / "python"), *install, str(wheel))
    return environment / "bin"


def _run(*command: str) -> None:
    """Run a program, and show what it said where it failed."""
    done = subprocess.run(command, check=False, capture_output=True, text=True)
    assert 0 == done.returncode, f"{' '.join(command)}\n{done.stdout}\n{done.stderr}"
