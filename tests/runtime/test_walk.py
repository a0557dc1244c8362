"""How far a reader of the code has to go for one token."""

import re
from pathlib import Path

from tests.helpers.paths import ROOT
from tests.helpers.walk import printed, walk_of_a_token

MOST_FILES = 23


def test_a_token_takes_the_way_that_the_architecture_prints(tmp_path: Path) -> None:
    """The files and functions of one token are the ones in ARCHITECTURE.md; the files are no more than they were."""
    walk = walk_of_a_token(tmp_path / "log.jsonl")
    page = re.search(r"one token:\n\n```\n(.*?)```", (ROOT / "ARCHITECTURE.md").read_text("utf-8"), re.DOTALL)
    assert page is not None
    lines = [line.split() for line in re.sub(r"\n +", " ", page[1]).splitlines()]
    assert {file: set(names) for file, *names in lines} == {file: set(names) for file, names in walk.items()}, printed(
        walk
    )
    assert len(walk) <= MOST_FILES
