"""The routing table against the types and the actors that must agree with it."""

import inspect
from typing import get_args

import pytest

from reenact.actors import batcher, sequence
from reenact.actors import events as e
from reenact.actors.routing import EVENT_TYPES, ROUTES, Origin, Role

ACTORS = {Role.BATCHER: batcher, Role.SEQUENCE: sequence, Role.EVERY_SEQUENCE: sequence}


def test_every_event_is_routed_once() -> None:
    """Every type of event has a row, and a name that no other has."""
    assert set(get_args(e.Event)) == set(ROUTES)
    assert len(ROUTES) == len(EVENT_TYPES)


def test_origins_agree_with_the_types() -> None:
    """What the table calls given is what the kernel may be given."""
    assert set(get_args(e.GivenEvent)) == {kind for kind, route in ROUTES.items() if route.origin is Origin.GIVEN}


@pytest.mark.parametrize("kind", ROUTES, ids=lambda kind: kind.__name__)
def test_owner_and_receivers_know_the_event(kind: type[e.Event]) -> None:
    """An owner evolves by it, and each receiver decides on it: neither falls through to a refusal."""
    route = ROUTES[kind]
    if route.owner is not Role.SESSION and kind is not e.RequestReceived:
        assert f"e.{kind.__name__}(" in inspect.getsource(ACTORS[route.owner].evolve)
    for role in route.receivers:
        assert f"e.{kind.__name__}(" in inspect.getsource(ACTORS[role].decide)
