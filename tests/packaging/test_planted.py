"""The table of planted bugs against the program; and some of them, others in every run, are found."""

import subprocess
import sys
from pathlib import Path
from random import Random

import pytest

from tests.helpers.properties import FRESH_SEED, FRESH_SEED_NAME
from tests.mutants.bugs.__main__ import BUGS, properties
from tests.mutants.bugs.blind import BLIND
from tests.mutants.change import Planted, found
from tests.mutants.rules.table import RULES


def by_name(bug: Planted) -> str:
    """Return what a test of this bug is called."""
    return bug.name


def test_there_are_enough() -> None:
    """There are 40 bugs at least, ten of them planted by somebody who had not seen the property tests."""
    assert 40 <= len(BUGS)
    assert 10 <= len(BLIND)
    assert set(BLIND) < set(BUGS)


def test_bugs_have_names_of_their_own() -> None:
    """A name says which bug is planted, and is no rule's."""
    names = [change.name for change in (*RULES, *BUGS)]
    assert sorted(set(names)) == sorted(names)


@pytest.mark.parametrize("bug", BUGS, ids=by_name)
def test_what_a_bug_replaces_is_there(bug: Planted) -> None:
    """The function that is replaced exists, is the core's or the shell's, and can be replaced."""
    _, _, original = found(bug.target)
    assert bug.target.startswith(("reenact.actors.", "reenact.runtime."))
    assert isinstance(original, property) or callable(original)
    assert bug.says.endswith(".")


def test_the_property_tests_are_there(root: Path) -> None:
    """Every test that may find a bug is in a file that exists, and none is a unit test."""
    paths = {node.partition("::")[0] for node in properties(None)}
    assert [] == [path for path in paths if not (root / path).is_file()]
    assert {"properties", "simulation", "check"} == {Path(path).parent.name for path in paths}


@pytest.mark.parametrize("n_bugs", [1, pytest.param(7, marks=pytest.mark.long)])
def test_some_bugs_are_found(root: Path, n_bugs: int) -> None:
    """A few bugs are planted, and property tests find each of them; `make mutants` plants all."""
    some = [bug.name for bug in Random(FRESH_SEED).sample(BUGS, n_bugs)]  # noqa: S311  # nothing is secret here
    command = (sys.executable, "-m", "tests.mutants.bugs", "--at-once", *some)
    done = subprocess.run(command, check=False, capture_output=True, text=True, cwd=root)
    assert 0 == done.returncode, f"{FRESH_SEED_NAME}={FRESH_SEED}\n{done.stdout}\n{done.stderr}"
