"""The routing table against the types and the actors that must agree with it."""

import inspect
from typing import get_args

import pytest

from reenact.actors import batcher, sequence
from reenact.actors import events as e
from reenact.actors.errors import Failure
from reenact.actors.routing import EVENT_TYPES, ROUTES, Origin, Role, actor_of, sequences_of
from tests.helpers.header import opened

ACTORS = {Role.BATCHER: batcher, Role.SEQUENCE: sequence, Role.EVERY_SEQUENCE: sequence}


def part(sequence: int, slot: int) -> e.Part:
    """Return a row of a sequence."""
    return e.Part(sequence=sequence, slot=slot, position=0, inputs=(1,))


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


@pytest.mark.parametrize(
    ("event", "numbers"),
    [
        (opened(), ()),
        (e.SessionClosed(digest=""), ()),
        (e.ActorFailed(failed="batcher", error=""), ()),
        (e.EngineFailed(error=""), ()),
        (e.CellsLost(), ()),
        (e.CancelRequested(sequence=3), (3,)),
        (e.BatchPlanned(batch=0, copies=(), trims=(), shifts=(), parts=(part(5, 0), part(2, 1))), (2, 5)),
        (e.BatchFailed(batch=0, sequences=(2, 5), failure=Failure(kind="internal_error", reason="")), (2, 5)),
        (
            e.BatchDecoded(
                batch=0,
                code=0,
                samples=(e.Sample(sequence=5, index=0, token=1), e.Sample(sequence=2, index=0, token=1)),
                vectors=(e.Vector(sequence=3, values=(), crc32=0),),
                positions=(),
            ),
            (2, 3, 5),
        ),
    ],
    ids=lambda value: type(value).__name__,
)
def test_an_event_names_its_sequences(event: e.Event, numbers: tuple[int, ...]) -> None:
    """The sequences that an event names are told in ascending order."""
    assert numbers == sequences_of(event)


def test_an_event_has_an_actor() -> None:
    """The actor whose state an event changes is told by its name in the log."""
    assert "session" == actor_of(e.SessionClosed(digest=""))
    assert "batcher" == actor_of(e.InputQueued(sequence=3, inputs=(1,), wants=e.Draw(0)))
    assert "sequence-3" == actor_of(e.CancelRequested(sequence=3))
