"""Events and states hold what they are declared to hold, whatever happens."""

from functools import cache
from types import NoneType, UnionType
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

import attrs

from reenact.actors import events as e
from reenact.actors import header, inputs
from tests.helpers.programs.playing import Player
from tests.helpers.programs.programs import GENERATING, POOLING, Program
from tests.helpers.properties import holds_for

hints = cache(get_type_hints)
PLAIN = {bool, int, float, str, bytes, NoneType}


def wrong(value: object, hint: Any) -> list[str]:
    """Return what in a value is not of its type; True is no number here, and 7 no float."""
    origin, choices = get_origin(hint), get_args(hint)
    if origin in {Union, UnionType}:
        return min((wrong(value, choice) for choice in choices), key=len)
    if origin is Literal:
        return [] if value in choices else [f"{value!r} is none of {choices}"]
    if origin is tuple and type(value) is tuple:
        of_each = [choices[0]] * len(value) if choices[-1] is Ellipsis else choices
        return [text for one, choice in zip(value, of_each, strict=True) for text in wrong(one, choice)]
    if origin is dict and type(value) is dict:
        return [text for one in value.values() for text in wrong(one, choices[1])]
    if type(value) is not (origin or hint):
        return [f"{value!r} is no {hint}"]
    return [] if hint in PLAIN else wrong_within(value)


def wrong_within(value: object) -> list[str]:
    """Return what is not of its type in an event or a state."""
    if isinstance(value, inputs.Inputs):
        return [text for one in value[:] for text in wrong(one, inputs.Input)]
    kind = type(value)
    if not attrs.has(kind):
        return []
    declared = hints(kind)
    fields = [field.name for field in attrs.fields(kind)]
    return [
        f"{kind.__name__}.{name}: {text}" for name in fields for text in wrong(getattr(value, name), declared[name])
    ]


def test_what_is_wrong_is_found() -> None:
    """Nothing instead of a boolean, a boolean instead of a number and a number in a list of texts are all found."""
    assert [] == wrong_within(e.SlotReleased(sequence=1, slot=0, length=3))
    assert ["SlotReleased.slot: False is no <class 'int'>"] == wrong_within(
        e.SlotReleased(sequence=1, slot=False, length=3)
    )
    none: Any = None
    assert [] != wrong_within(e.Part(sequence=1, slot=0, position=0, inputs=(1,), wants=0))  # type: ignore[arg-type]
    assert [] != wrong_within(e.Part(sequence=1, slot=0, position=0, inputs=("a",)))  # type: ignore[arg-type]
    assert [] != wrong_within(header.Parent(session=none, n=1))


@holds_for(examples=15, program=GENERATING)
def test_generating_sessions_hold_what_they_declare(program: Program) -> None:
    """In a session that generates every event, and every state after a fact, is of its declared types."""
    check(program)


@holds_for(examples=10, program=POOLING)
def test_pooling_sessions_hold_what_they_declare(program: Program) -> None:
    """So is every one in a session that pools."""
    check(program)


def check(program: Program) -> None:
    """Play a program, and look at all that it leaves."""
    found: list[str] = []
    result = Player(program).play(lambda session: found.extend(wrong_within(session.kernel.state)))
    for record in result.session.records:
        found += wrong_within(record.event)
    assert [] == found
