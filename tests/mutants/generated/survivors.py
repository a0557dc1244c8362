"""The mutants that no test kills, each with the reason: they stand in survivors.txt.

A paragraph there names one or more changes, each as a function and the lines that go and come, and below them,
indented, the reason why nobody can see them.
"""

from itertools import pairwise
from pathlib import Path
from typing import Final

from tests.mutants.generated.mutants import Change

TABLE: Final = Path(__file__).with_name("survivors.txt")


def explained(text: str) -> dict[Change, str]:
    """Return the reason for each change in the table."""
    reasons: dict[Change, str] = {}
    for paragraph in text.split("\n\n"):
        lines = [line for line in paragraph.splitlines() if line and not line.startswith("#")]
        reason = " ".join(line.strip() for line in lines if line.startswith("  "))
        for change in _changes([line for line in lines if not line.startswith("  ")]):
            if not reason:
                raise ValueError(f"no reason is given for\n{change}")
            reasons[change] = reason
    return reasons


def _changes(lines: list[str]) -> list[Change]:
    starts = [number for number, line in enumerate(lines) if line[:2] not in {"- ", "+ "}]
    blocks = [lines[start:end] for start, end in pairwise([*starts, len(lines)])]
    return [_change(block) for block in blocks]


def _change(block: list[str]) -> Change:
    function, _, which = block[0].partition(" #")
    return Change(function, _those(block, "- "), _those(block, "+ "), int(which or 1))


def _those(block: list[str], sign: str) -> tuple[str, ...]:
    return tuple(line.removeprefix(sign) for line in block if line.startswith(sign))
