"""Events to plain values and back."""

from pathlib import Path
from typing import Any

import pytest

from reenact.actors import events as e
from reenact.actors.options import Options
from reenact.actors.routing import EVENT_TYPES
from reenact.runtime.codec import UnreadableRecord, UnwritableRecord, decode, dumps, encode, loads, same
from tests.sessions import eventful_session, read_fields

EMITTED = e.TokenEmitted(sequence=3, index=0, token=5, text=" the")
DECODED = e.BatchDecoded(
    batch=0,
    code=0,
    samples=(e.Sample(sequence=1, token=5, piece=b"ab"), e.Sample(sequence=2, token=6, piece=b"\xf0\x9f", eog=True)),
    positions=((0, 2), (1, 7)),
)


def fields_of(event: e.Event, cause: int | None = None) -> dict[str, Any]:
    """Return an event as plain values that went through JSON."""
    return loads(dumps(encode(e.Record(4, event, cause), 1000)))


def test_a_line_begins_with_its_envelope() -> None:
    """A reader sees number, time, type and actor first, in this order."""
    assert dumps(encode(e.Record(4, EMITTED, 3), 1000)).startswith(
        b'{"n":4,"t":1000,"type":"TokenEmitted","actor":"sequence-3","cause":3,"sequence":3,'
    )


def test_text_and_bytes_have_two_names() -> None:
    """A piece stands as text where it is UTF-8, and under another name in base64 where it is not."""
    one, other = fields_of(DECODED)["samples"]
    assert ("ab", None) == (one["piece"], one.get("piece_bytes"))
    assert (None, "8J8=") == (other.get("piece"), other["piece_bytes"])


async def test_every_event_comes_back(tmp_path: Path, autojump_clock: object) -> None:
    """Each record of the eventful session is read back equal, whatever its type."""
    path = tmp_path / "log.jsonl"
    await eventful_session(path)
    lines = read_fields(path)
    for fields in lines:
        record = decode(fields)
        assert same(fields, loads(dumps(encode(record, fields["t"]))))
    rare: list[e.Event] = [
        e.EngineFailed(error="OSError: x"),
        e.ActorFailed(failed="batcher", error="KeyError: 'lost'"),
        e.TokenizeFailed(sequence=1, error="OSError: x"),
    ]
    for event in rare:
        assert event == decode(fields_of(event)).event
    assert set(EVENT_TYPES) == {fields["type"] for fields in lines} | {"EngineFailed", "ActorFailed", "TokenizeFailed"}


@pytest.mark.parametrize("value", ["7", 7.0, True, None, [7], 2**53, -(2**53)])
def test_an_integer_is_an_integer(value: object) -> None:
    """Nothing that merely looks like an integer is read as one, and none beyond 2^53."""
    with pytest.raises(UnreadableRecord, match="index"):
        decode({**fields_of(EMITTED, 3), "index": value})


@pytest.mark.parametrize(
    ("change", "what"),
    [
        ({"text": 7}, "text"),
        ({"more": 1}, "more"),
        ({"held": "a", "held_bytes": "8J8="}, "twice"),
        ({"held_bytes": "!"}, "held"),
        ({"held_bytes": 7}, "expected str"),
        ({"type": "TokenEmittedd"}, "TokenEmittedd"),
        ({"type": 7}, "7"),
        ({"actor": "sequence-4"}, "sequence-3"),
        ({"n": "4"}, "expected int"),
        ({"t": 1.5}, "expected int"),
        ({"cause": "3"}, "expected int"),
    ],
)
def test_what_is_wrong_is_named(change: dict[str, object], what: str) -> None:
    """A value of the wrong type, an unknown or doubled field, an unknown type or actor: refused, and named."""
    with pytest.raises(UnreadableRecord, match=what):
        decode({**fields_of(EMITTED, 3), **change})


def test_a_missing_field_is_named() -> None:
    """A field that is not there is refused, unless its class leaves out what is at its default."""
    fields = fields_of(EMITTED, 3)
    del fields["token"]
    with pytest.raises(UnreadableRecord, match="token"):
        decode(fields)
    assert "held" not in fields


@pytest.mark.parametrize("wrong", [{}, "ab", 7, None, [["0", 2]], [[0]], [[0, 1, 2]]])
def test_an_array_is_an_array(wrong: object) -> None:
    """An object, a string or an array of another shape does not pass for a list of pairs."""
    with pytest.raises(UnreadableRecord, match="positions"):
        decode({**fields_of(DECODED), "positions": wrong})


REQUEST = e.RequestReceived(sequence=3, request_id=None, prompt="p", options=Options(seed=1))


def test_options_are_written_whole() -> None:
    """Options at their defaults stand in the log too: an old log keeps the defaults of its time."""
    options = {"seed", "num_predict", "stop", "temperature", "top_k", "top_p", "min_p"}
    assert options == set(fields_of(REQUEST)["options"])


@pytest.mark.parametrize("name", ["num_predict", "stop", "temperature", "top_k"])
def test_a_missing_option_is_named(name: str) -> None:
    """An option that is not there is refused, and not taken for today's default."""
    fields = fields_of(REQUEST)
    del fields["options"][name]
    with pytest.raises(UnreadableRecord, match=f"{name} is missing"):
        decode(fields)


def test_an_unknown_option_is_named() -> None:
    """An option that nobody knows is refused."""
    fields = fields_of(REQUEST)
    fields["options"]["top_q"] = 1
    with pytest.raises(UnreadableRecord, match="top_q"):
        decode(fields)


@pytest.mark.parametrize("value", [2**53, -(2**53), object(), float])
def test_what_no_log_may_hold_is_not_written(value: object) -> None:
    """An integer from 2^53 on, and what is no JSON, is refused where it is written."""
    with pytest.raises(UnwritableRecord, match="TokenEmitted"):
        dumps({"type": "TokenEmitted", "token": value})


def test_options_of_a_log_are_checked() -> None:
    """Options in a log that nobody can have asked for are refused."""
    fields = fields_of(REQUEST)
    fields["options"]["temperature"] = -1.0
    with pytest.raises(UnreadableRecord, match="temperature"):
        decode(fields)


@pytest.mark.parametrize("body", [b"", b"[]", b"7", b"nothing", b'{"n":NaN}', b'{"n":0', b"\xff"])
def test_what_is_no_object_is_refused(body: bytes) -> None:
    """A line that is not one JSON object is refused."""
    with pytest.raises(UnreadableRecord, match="not"):
        loads(body)


@pytest.mark.parametrize(
    ("one", "other", "expected"),
    [
        (7, 7, True),
        (7, 7.0, False),
        (1, True, False),
        ("a", "a", True),
        ([1, {"a": None}], [1, {"a": None}], True),
        ([1, 2], [1], False),
        ({"a": 1, "b": 2}, {"b": 2, "a": 1}, True),
        ({"a": 1}, {"a": 1, "b": 2}, False),
    ],
)
def test_equal_means_equal_in_type(one: object, other: object, expected: bool) -> None:
    """Values are compared with their types; the order of an object's members means nothing."""
    assert expected is same(one, other)


def test_names_in_the_log_are_pinned() -> None:
    """The names of events never change: old logs hold them."""
    assert " ".join(sorted(EVENT_TYPES)) == (
        "ActorFailed BatchDecoded BatchFailed BatchPlanned CancelRequested EngineFailed EogSampled InputQueued "
        "PromptTokenized ReaderPaused ReaderResumed RequestQueued RequestReceived RequestRejected RequestWithdrawn "
        "SequenceFinished SequencePaused SequenceResumed SessionClosed SessionOpened SlotAssigned SlotReleased "
        "StopMatched TokenDropped TokenEmitted TokenizeFailed"
    )
