"""Record 0 of a session: the engine's facts, this program's versions, and what its opener settled."""

import platform
from collections.abc import Mapping
from functools import cache
from importlib.metadata import version
from typing import Final

from reenact.actors.events import SessionOpened
from reenact.actors.header import DeterminismFacts, Limits, Parent
from reenact.runtime.engine.protocol import Loaded
from reenact.runtime.log.codec import FORMAT, SCHEMA

_NO_RULES: Final[Mapping[str, int]] = {}


def session_header(
    loaded: Loaded,
    *,
    session: str,
    opened_at: str,
    limits: Limits,
    policies: Mapping[str, str],
    rules: Mapping[str, int] = _NO_RULES,
    determinism: DeterminismFacts | None = None,
    parent: Parent | None = None,
) -> SessionOpened:
    """Return the header of a session of this program.

    Args:
        loaded: The facts that the engine reports.
        session: The session's id.
        opened_at: The wall clock, RFC 3339, UTC.
        limits: The limits that its opener set.
        policies: The core's, by name; the engine's come with them.
        rules: Flags of rules.
        determinism: The policy and its reason; None for those that the engine reports.
        parent: The session that it is forked from.
    """
    return SessionOpened(
        format=FORMAT,
        schema=SCHEMA,
        session=session,
        opened_at=opened_at,
        reenact=_reenact(),
        python=platform.python_version(),
        platform=platform.platform(),
        engine=loaded.engine,
        model=loaded.model,
        context=loaded.context,
        limits=limits,
        policies={**policies, **loaded.policies},
        rules=dict(rules),
        determinism=determinism or loaded.determinism,
        parent=parent,
    )


@cache
def _reenact() -> str:
    """Return this program's version, which is read from a file."""
    return version("reenact")
