"""The file in which the soak keeps what is done, so that it goes on where it was.

The rules that hold here:

* A line is a session: its seed and its figures. It is written whole when the session is over; what a write that did
  not finish left is cut off.
* The first line is a digest of the code under test. To figures of other code nothing is added.
"""

import json
import os
from hashlib import sha256
from pathlib import Path
from typing import Any, Final

from attrs import asdict

from tests.helpers.paths import ROOT
from tests.measure.soak_figures import Figures

UNDER_TEST: Final = (
    "actors/*.py",
    "replay/check/**/*.py",
    "replay/testing/liveness.py",
    "replay/testing/strategies.py",
    "replay/testing/kernel.py",
    "tests/measure/soak_figures.py",
    "tests/measure/soak_session.py",
)
"""What a session's course, and what is found in it, depend on."""


class OtherCode(Exception):
    """The file holds figures of other code."""


def fingerprint() -> str:
    """Return a digest of the code under test."""
    digest = sha256()
    for path in sorted(path for pattern in UNDER_TEST for path in ROOT.glob(pattern)):
        digest.update(f"{path.relative_to(ROOT)}\n".encode() + path.read_bytes())
    return digest.hexdigest()[:16]


class State:
    """What is done.

    Args:
        path: The file; it is made where there is none.
        anew: Forget what it holds.

    Raises:
        OtherCode: It holds figures of other code.
    """

    def __init__(self, path: Path, *, anew: bool = False) -> None:
        self.path = path
        self.figures = Figures()
        self.seeds: set[int] = set()
        """Of the sessions that are over."""
        ours = fingerprint()
        whole = b"" if anew or not path.exists() else path.read_bytes()
        whole = whole[: whole.rfind(b"\n") + 1]
        head, *lines = whole.splitlines() or [b"{}"]
        try:
            theirs = json.loads(head).get("code", ours)
        except ValueError:
            theirs = "none of ours"
        if theirs != ours:
            raise OtherCode(f"{path} holds figures of other code ({theirs}; this is {ours}): --anew forgets them")
        for line in lines:
            self._count(**json.loads(line))
        if whole:
            os.truncate(path, len(whole))
        else:
            path.write_bytes(_line(code=ours))

    def add(self, seed: int, figures: Figures) -> None:
        """Take a session that is over."""
        self._count(seed, **asdict(figures))
        file = os.open(self.path, os.O_WRONLY | os.O_APPEND)
        try:
            os.write(file, _line(seed=seed, **asdict(figures)))
        finally:
            os.close(file)

    def _count(self, seed: int, **figures: Any) -> None:
        self.figures += Figures(**figures)
        self.seeds.add(seed)


def _line(**values: Any) -> bytes:
    return json.dumps(values, separators=(",", ":")).encode() + b"\n"
