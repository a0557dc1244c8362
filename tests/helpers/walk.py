"""The way of one token through the program, as it is seen from outside: which functions are entered, by their files."""

import sys
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import Any, Final

import trio

from reenact.runtime import ScriptedEngine, open_runtime
from tests.helpers.paths import ROOT

_FOLDERS: Final = tuple(f"{ROOT / name}/" for name in ("actors", "runtime"))
_WARM: Final = 50
"""Tokens before the one that is followed, so that nothing is made for the first time."""
_FOLLOWED: Final = 10
_ENGINE: Final = frozenset({"runtime/engine/scripted.py", "runtime/engine/protocol.py"})
"""The engine, which another one may stand for."""


def walk_of_a_token(log: Path) -> dict[str, list[str]]:
    """Return the functions that are entered for one token in the steady state, by their files, both in order.

    It is the token of one sequence on a scripted engine, from when its reader asks for it until the reader has it. Some
    tokens are followed, because trio's tasks take turns in any order. The engine's own files are left out.

    Args:
        log: A log to record meanwhile.
    """
    entered: dict[str, list[str]] = {}

    def note(frame: FrameType, what: str, _: Any) -> None:
        path = frame.f_code.co_filename
        name = frame.f_code.co_qualname
        if what == "call" and path.startswith(_FOLDERS) and "<" not in name:
            file = str(Path(path).relative_to(ROOT))
            if file not in _ENGINE and name not in entered.setdefault(file, []):
                entered[file].append(name)

    trio.run(_follow, log, note)
    return entered


async def _follow(log: Path, note: Callable[[FrameType, str, Any], None]) -> None:
    engine = ScriptedEngine({"Hi": [f" {i}" for i in range(2 * _WARM)]})
    async with (
        open_runtime(engine, log=log, n_slots=1, n_ctx=4 * _WARM) as runtime,
        runtime.stream("Hi", num_predict=2 * _WARM) as stream,
    ):
        for _ in range(_WARM):
            await anext(stream)
        before = sys.getprofile()
        sys.setprofile(note)
        try:
            for _ in range(_FOLLOWED):
                await anext(stream)
        finally:
            sys.setprofile(before)


def printed(walk: dict[str, list[str]]) -> str:
    """Return a walk as ARCHITECTURE.md prints it."""
    width = max(map(len, walk))
    lines: list[str] = []
    for file, names in walk.items():
        line = file.ljust(width)
        for name in names:
            if len(line) + 1 + len(name) > 120:
                lines.append(line)
                line = " " * width
            line += f" {name}"
        lines.append(line)
    return "\n".join(lines) + "\n"
