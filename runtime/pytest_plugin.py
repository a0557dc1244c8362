"""Provides a pytest fixture for applications: a runtime without a model, whose session is replayed after the test.

::

    async def test_greets(scripted_runtime):
        async with scripted_runtime(["Hel", "lo"]) as runtime:
            assert (await runtime.complete("Hi")).text == "Hello"
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

import pytest

if TYPE_CHECKING:
    from contextlib import AbstractAsyncContextManager
    from pathlib import Path

    from reenact.runtime.engine.scripted import DrawsFrom, Faults, Scripts, Vectors
    from reenact.runtime.runtime import Runtime


class OpenScripted(Protocol):
    """The type of `scripted_runtime`: calls `open_runtime` with a `ScriptedEngine` and with the given settings."""

    def __call__(
        self,
        scripts: Scripts = (),
        *,
        draws_from: DrawsFrom = "script",
        faults: Faults | None = None,
        vectors: Vectors | None = None,
        batch_seconds: float = 0.0,
        chat_template: str = "",
        **settings: Any,
    ) -> AbstractAsyncContextManager[Runtime]:
        """Open the runtime, once in a test."""


@pytest.fixture
def scripted_runtime(session_log: Path) -> OpenScripted:
    """Open a runtime that plays scripts and records to ``session_log``, which must replay the same after the test."""
    from reenact.runtime.api import open_runtime  # late, because pytest always loads this plugin
    from reenact.runtime.engine.scripted import ScriptedEngine

    def open_scripted(
        scripts: Scripts = (),
        *,
        draws_from: DrawsFrom = "script",
        faults: Faults | None = None,
        vectors: Vectors | None = None,
        batch_seconds: float = 0.0,
        chat_template: str = "",
        **settings: Any,
    ) -> AbstractAsyncContextManager[Runtime]:
        engine = ScriptedEngine(
            scripts,
            draws_from=draws_from,
            faults=faults,
            vectors=vectors,
            batch_seconds=batch_seconds,
            chat_template=chat_template,
        )
        return open_runtime(engine, log=session_log, **settings)

    return open_scripted
