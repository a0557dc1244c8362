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
from reenact.actors.errors import Failure
from reenact.actors.header import DeterminismFacts
from reenact.actors.inputs import Row
from reenact.actors.options import Options
from reenact.actors.routing import EVENT_TYPES, ROUTES, Origin
from reenact.replay.redact.decisions import DECISIONS, decided, difference
from reenact.replay.redact.facts import LEFT_OUT, Redaction
from reenact.replay.redact.hashes import ByBeginning, Key
from reenact.replay.redact.redact import redact_log
from tests.helpers.paths import GOLDEN
from tests.replay import logs

PAGE: Final = Path(__file__).parents[3] / "docs" / "redacted-logs.md"

NOTHING: Final = (None, "", (), 0, LEFT_OUT)
"""The values in place of what is left out, but for a vector's."""

SAME: Final = (None, -1, "json", ())
"""Values that a hash does not replace, because there is nothing to hide in them."""

DECIDED_ANEW: Final = ("ActorFailed.error", "Failure.reason")
"""Messages that today's actors make themselves, in records that follow from redacted facts."""

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


def obeys(before: e.Event, after: e.Event) -> None:
    """Check that what is kept is equal, what is hashed is another value, and what is left out is gone."""
    for name, decision, one, other in pairs(before, after):
        match decision:
            case "kept" if name == "SessionOpened.policies":
                assert {**one, "logits_hash": "none"} == other
            case "kept" if not has(type(one)) and not isinstance(one, tuple) and name != "SessionOpened.redacted":
                assert one == other, name
            case "hashed" if one not in SAME and not (isinstance(one, str | bytes) and len(one) <= SHORT):
                assert one != other, name
            case "left out" if name in {"Vector.values", "EmbeddingComputed.embedding"}:
                assert set(other) <= {0.0, 1.0}, name
            case "left out" if name not in DECIDED_ANEW or ROUTES[type(before)].origin is Origin.GIVEN:
                assert other in NOTHING, name
            case _:
                pass


@pytest.mark.parametrize("golden", sorted(GOLDEN.glob("*.jsonl")), ids=lambda path: path.stem)
def test_the_redaction_follows_them(golden: Path, tmp_path: Path) -> None:
    """In a redacted log each record has its number, time and cause, and its fields are as decided."""
    out = tmp_path / "redacted.jsonl"
    redact_log(golden, out=out, secret=b"0123456789abcdef")
    for before, after in zip(logs.read(golden), logs.read(out), strict=True):
        assert (before.record.n, before.t, before.record.cause) == (after.record.n, after.t, after.record.cause)
        obeys(before.record.event, after.record.event)


OPTIONS: Final = Options(seed=7, stop=("stop me",), grammar='root ::= "secret"', logprobs=True, top_logprobs=1)

LIKELY: Final = e.Likely(token=12, piece=b" likely", logprob=-0.5)

FACTS: Final = (
    e.RequestReceived(
        sequence=1,
        request_id="my request",
        prompt="my prompt",
        options=OPTIONS,
        embedding=False,
        continues=1,
        said=((0, 2),),
        left_out=3,
        traceparent=f"00-{'1' * 32}-{'2' * 16}-01",
    ),
    e.RequestRefused(
        request_id="my request", failure=Failure(kind="invalid_request", field="prompt", reason="not 'my prompt'")
    ),
    e.PromptTokenized(sequence=1, inputs=(1, 2, Row("3" * 64)), bos_added=True, grammar='root ::= "secret"'),
    e.TokenizeFailed(sequence=1, error="cannot tokenize 'my prompt'"),
    e.EngineFailed(error="cannot evaluate 'my prompt'"),
    e.SequenceForked(sequence=1, options=changed(OPTIONS, grammar=None, format='{"type": "object"}')),
    e.BatchDecoded(
        batch=0,
        code=0,
        samples=(
            e.Sample(
                sequence=1,
                index=0,
                token=11,
                piece=b" piece",
                reason="because of 'my prompt'",
                logits_crc32=13,
                logprob=-0.25,
                top=(LIKELY,),
            ),
        ),
        vectors=(e.Vector(sequence=2, values=(0.25, 0.5), crc32=14, reason="because of 'my prompt'"),),
        positions=((0, 2),),
    ),
)
"""Facts of which each field has a value."""


@pytest.mark.parametrize("fact", FACTS, ids=lambda fact: type(fact).__name__)
def test_each_fact_follows_them(fact: e.GivenEvent) -> None:
    """A fact with a value in each field is redacted as decided, field by field."""
    redaction = Redaction(ByBeginning(Key(b"key")))
    obeys(fact, redaction.redacted(fact, []))


def test_all_facts_that_change_are_among_them() -> None:
    """A fact of which something is hashed or left out is in the test above; the session's own are in golden logs."""
    given = {kind for kind, route in ROUTES.items() if route.origin is Origin.GIVEN}
    inside = {kind: {inner for one in get_type_hints(kind).values() for inner in classes_in(one)} for kind in given}
    change = {
        kind
        for kind in given
        if any(set(DECISIONS[one].values()) - {"kept"} for one in {kind, *inside[kind]} if fields(one))
    }
    assert {type(fact) for fact in FACTS} == change - {e.SessionClosed}


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
