"""The decision on each field of each event: there is one for every field, and the redaction and the page follow it."""

import re
from collections.abc import Iterator
from pathlib import Path
from types import UnionType
from typing import Any, Final, Literal, get_args, get_origin, get_type_hints

import pytest
from attrs import evolve as changed
from attrs import fields, has

from reenact.actors import events as e
from reenact.actors.header import DeterminismFacts
from reenact.actors.routing import EVENT_TYPES
from reenact.replay.redact.decisions import DECISIONS, decided, difference
from reenact.replay.redact.facts import LEFT_OUT
from reenact.replay.redact.redact import redact_log
from tests.helpers.paths import GOLDEN
from tests.replay import logs

PAGE: Final = Path(__file__).parents[3] / "docs" / "redacted-logs.md"

NOTHING: Final = (None, "", (), 0, LEFT_OUT)
"""The values in place of what is left out, but for a vector's."""

SAME: Final = (None, -1, "json", ())
"""Values that a hash does not replace, because there is nothing to hide in them."""

SHORT: Final = 3
"""Characters; the hash of so few may be equal by chance."""


def classes_in(kind: Any) -> Iterator[type]:
    """Return the attrs classes that a field's type names."""
    if isinstance(kind, type) and has(kind):
        yield kind
    elif isinstance(kind, UnionType) or get_origin(kind) not in {None, Literal}:
        for inner in get_args(kind):
            yield from classes_in(inner)


def reachable() -> set[type]:
    """Return the classes of all events, and of all values in them."""
    found: set[type] = set()
    left = list(EVENT_TYPES.values())
    while left:
        kind: Any = left.pop()
        if kind not in found:
            found.add(kind)
            hints = get_type_hints(kind)
            left += [inner for one in fields(kind) for inner in classes_in(hints[one.name])]
    return found


@pytest.mark.parametrize("kind", sorted(reachable(), key=str), ids=lambda kind: kind.__name__)
def test_every_field_has_a_decision(kind: type) -> None:
    """A field of an event, or of a value in one, is kept, hashed or left out; a new one needs a decision."""
    names = {one.name for one in fields(kind)}
    assert names == decided(kind).keys() == DECISIONS[kind].keys()


def test_there_are_no_decisions_on_other_classes() -> None:
    """What no event holds has no decision."""
    assert set() == DECISIONS.keys() - reachable()


def test_the_page_has_every_decision() -> None:
    """docs/redacted-logs.md has a row for each class, with the fields of each decision."""
    rows = re.findall(r"^\| `(\w+)` \| (.*) \| (.*) \| (.*) \|$", PAGE.read_text(), re.MULTILINE)
    on_page = {name: [sorted(re.findall(r"`(\w+)`", cell)) for cell in cells] for name, *cells in rows}
    expected = {
        kind.__name__: [
            sorted(name for name, made in decided(kind).items() if made == decision)
            for decision in ("kept", "hashed", "left out")
        ]
        for kind in DECISIONS
        if fields(kind)
    }
    assert expected == on_page


def pairs(one: Any, other: Any) -> Iterator[tuple[str, str, Any, Any]]:
    """Return of two values each field with its decision and both values, also of values in them."""
    if isinstance(one, tuple) and isinstance(other, tuple) and len(one) == len(other):
        for inner in zip(one, other, strict=True):
            yield from pairs(*inner)
    elif has(type(one)):
        for name, decision in decided(type(one)).items():
            values = getattr(one, name), getattr(other, name)
            yield f"{type(one).__name__}.{name}", decision, *values
            if decision == "kept":
                yield from pairs(*values)


@pytest.mark.parametrize("golden", sorted(GOLDEN.glob("*.jsonl")), ids=lambda path: path.stem)
def test_the_redaction_follows_them(golden: Path, tmp_path: Path) -> None:
    """In a redacted log what is kept is equal, what is hashed is another value, and what is left out is gone."""
    out = tmp_path / "redacted.jsonl"
    redact_log(golden, out=out, secret=b"0123456789abcdef")
    for before, after in zip(logs.read(golden), logs.read(out), strict=True):
        assert (before.record.n, before.t, before.record.cause) == (after.record.n, after.t, after.record.cause)
        for name, decision, one, other in pairs(before.record.event, after.record.event):
            match decision:
                case "kept" if name == "SessionOpened.policies":
                    assert {**one, "logits_hash": "none"} == other
                case "kept" if not has(type(one)) and not isinstance(one, tuple) and name != "SessionOpened.redacted":
                    assert one == other, name
                case "hashed" if one not in SAME and not (isinstance(one, str | bytes) and len(one) <= SHORT):
                    assert one != other, name
                case "left out":
                    assert other in NOTHING or name in {"Vector.values", "EmbeddingComputed.embedding"}, name
                    assert set(other) <= {0.0, 1.0} or name.endswith("reason") if isinstance(other, tuple) else True
                case _:
                    pass


def test_what_differs_is_named() -> None:
    """A difference is named by the path of its field; hashes differ only in their length."""
    emitted = e.TokenEmitted(sequence=1, index=0, token=7, text="word", held=b"<", held_by=(1,))
    assert None is difference(emitted, changed(emitted, token=9, text="abcd", held=b"x"))
    assert "text" == difference(emitted, changed(emitted, text="abc"))
    assert "held_by" == difference(emitted, changed(emitted, held_by=(1, 1)))
    assert "type" == difference(emitted, e.CellsLost())
    facts = DeterminismFacts(asked="auto", policy="recorded-schedule", reason="", probe={})
    assert "reason" == difference(facts, changed(facts, reason="another"))
    part = e.Part(sequence=1, slot=0, position=0, inputs=(1, 2))
    planned = e.BatchPlanned(batch=0, parts=(part,))
    assert "parts.slot" == difference(planned, changed(planned, parts=(changed(part, slot=1),)))
    assert None is difference(planned, changed(planned, parts=(changed(part, inputs=(8, 9)),)))
    assert "parts.inputs" == difference(planned, changed(planned, parts=(changed(part, inputs=(8,)),)))
    assert "parts" == difference(planned, changed(planned, parts=()))
