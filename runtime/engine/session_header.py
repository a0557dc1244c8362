"""Record 0 of a session: the engine's facts, this program's versions, and what its opener settled."""

import platform
from collections.abc import Mapping
from functools import cache
from importlib.metadata import version
from typing import Final

from attrs import fields

from reenact.actors.errors import InvalidRequest, LogNotComparable
from reenact.actors.events import SessionOpened, SessionResumed
from reenact.actors.header import DeterminismFacts, Durability, Limits, Parent
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
    durability: Durability = "process",
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
        durability: The durability of its log.
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
        durability=durability,
    )


def resumed_event(resumed_at: str) -> SessionResumed:
    """Return the fact that this process goes on with a session.

    Args:
        resumed_at: The wall clock, RFC 3339, UTC.
    """
    return SessionResumed(
        resumed_at=resumed_at,
        reenact=_reenact(),
        python=platform.python_version(),
        platform=platform.platform(),
    )


def check_same(header: SessionOpened, loaded: Loaded, limits: Limits) -> None:
    """Refuse to resume a session on anything else than that on which it was opened.

    Raises:
        InvalidRequest: The opener gave another model or setting; the error names it.
        LogNotComparable: The engine, the build or the machine is another one.
    """
    if (loaded.model.sha256, loaded.model.size) != (header.model.sha256, header.model.size):
        raise InvalidRequest("model", f"the session was opened with {header.model.name}, another file")
    for name in ("n_slots", "n_ctx", "n_batch", "n_threads"):
        theirs, ours = getattr(header.context, name), getattr(loaded.context, name)
        if theirs != ours:
            raise InvalidRequest(name, f"the session was opened with {theirs}, got {ours}")
    for one in fields(Limits):
        theirs, ours = getattr(header.limits, one.name), getattr(limits, one.name)
        if theirs != ours:
            raise InvalidRequest(one.name, f"the session was opened with {theirs}, got {ours}")
    pairs = {
        "the engine's build or machine": (header.engine, loaded.engine),
        "the engine's context": (header.context, loaded.context),
        "the determinism": (header.determinism.policy, loaded.determinism.policy),
    }
    for what, (then, now) in pairs.items():
        if then != now:
            raise LogNotComparable(f"{what} is not what the session was opened with: resume it there, or fork it")


@cache
def _reenact() -> str:
    """Return this program's version, which is read from a file."""
    return version("reenact")
