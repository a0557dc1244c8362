"""Provides the values that come from outside: the wall clock, a session id, a seed.

All three enter the log as given facts. Tests and simulations replace them. The time since the session's start comes
from trio instead, which has a virtual clock of its own.
"""

import secrets
from collections.abc import Callable
from datetime import UTC, datetime

from attrs import frozen


def _wall_clock() -> datetime:
    return datetime.now(UTC)


def _session() -> str:
    return secrets.token_hex(8)


def _seed() -> int:
    return secrets.randbits(32)


@frozen(kw_only=True)
class Sources:
    """The outside world as functions."""

    wall_clock: Callable[[], datetime] = _wall_clock
    session: Callable[[], str] = _session
    seed: Callable[[], int] = _seed
