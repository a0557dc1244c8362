"""Events to plain values and back."""

from pathlib import Path
from typing import Any

import pytest

from reenact.actors import events as e
from reenact.actors.inputs import Row
from reenact.actors.limits import MAX_LINE_TEXT, MAX_PROMPT_BYTES, MAX_STOP_BYTES, MAX_STOPS
from reenact.actors.options import OPTION_NAMES, Options
from reenact.actors.routing import EVENT_TYPES, ROUTES
from reenact.runtime.log.codec import UnreadableRecord, UnwritableRecord, decode, dumps, encode, loads, same
from tests.helpers.sessions import eventful_session, read_fields

EMITTED = e.TokenEmitted(sequence=3, index=0, token=5, text=" the")
DECODED = e.BatchDecoded(
    batch=0,
    code=0,
    samples=(
        e.Sample(sequence=1, index=0, token=5, piece=b"ab"),
        e.Sample(sequence=2, index=0, token=6, piece=b"\xf0\x9f", eog=True),
    ),
    vectors=(),
    positions=((0, 2), (1, 7)),
)
QUEUED = e.InputQueued(sequence=3, inputs=(7, Row("0a" * 32)), wants=e.Pool())


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
        e.SessionResumed(resumed_at="2026-11-28T08:00:00+00:00", reenact="0.1.0", python="3.11.7", platform="Linux"),
        e.EngineFailed(error="OSError: x"),
        e.ActorFailed(failed="batcher", error="KeyError: 'lost'"),
        e.EmbeddingComputed(sequence=1, embedding=(0.6, -0.8)),
        e.TokenizeFailed(sequence=1, error="OSError: x"),
        e.SequenceForked(sequence=1, options=Options(seed=1, stop=("</s>",))),
        e.CellsLost(),
    ]
    for event in rare:
        assert event == decode(fields_of(event)).event
    assert set(EVENT_TYPES) == {fields["type"] for fields in lines} | {ROUTES[type(event)].name for event in rare}


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


def test_an_input_is_a_token_or_a_row() -> None:
    """A token stands in the log as an integer, a row of numbers as its digest, one beside the other."""
    assert [7, "0a" * 32] == fields_of(QUEUED)["inputs"]
    assert QUEUED == decode(fields_of(QUEUED, 3)).event


@pytest.mark.parametrize(
    "wrong",
    ["7", 7.0, True, None, {}, [], [1], [0.5], "0A" * 32, "0a" * 31, "0a" * 33, "0g" * 32, "0a" * 32 + "\n", 2**53],
)
def test_what_is_no_input_is_refused(wrong: object) -> None:
    """A row is a SHA-256 in small hexadecimal digits; nothing else passes for a token or a row."""
    with pytest.raises(UnreadableRecord, match="inputs"):
        decode({**fields_of(QUEUED, 3), "inputs": [7, wrong]})


@pytest.mark.parametrize("value", [0.0, -0.0, 0.1, 5e-324, 1.7976931348623157e308, -1 / 3])
def test_numbers_come_back_to_the_last_bit(value: float) -> None:
    """A number with a point is read as the very one that was written."""
    vector = e.BatchDecoded(
        batch=0, code=0, samples=(), vectors=(e.Vector(sequence=1, values=(value,), crc32=0),), positions=()
    )
    read = decode(fields_of(vector)).event
    assert isinstance(read, e.BatchDecoded)
    assert value.hex() == read.vectors[0].values[0].hex()


def sampled(**change: object) -> dict[str, Any]:
    """Return a decoded batch whose one sample is changed."""
    return {**fields_of(DECODED), "samples": [{"sequence": 1, "index": 0, "token": 5, "piece": "ab", **change}]}


def test_likely_tokens_come_back() -> None:
    """A token's probability and the likeliest tokens are read back; without a request for them there are none."""
    likely = e.Likely(token=9, piece=b"\xf0", logprob=-0.25)
    sample = e.Sample(sequence=1, index=0, token=5, piece=b"ab", logprob=-1.5, top=(likely,))
    event = e.BatchDecoded(batch=0, code=0, samples=(sample,), vectors=(), positions=())
    assert event == decode(fields_of(event)).event
    assert {"sequence", "index", "token", "piece"} == set(fields_of(DECODED)["samples"][0])


@pytest.mark.parametrize("wrong", ["-1.5", -1, True, [-1.5]])
def test_an_optional_number_is_none_or_a_number(wrong: object) -> None:
    """A logprob is null or a number with a point."""
    assert decode(sampled(logprob=None)) != decode(sampled(logprob=-1.5))
    with pytest.raises(UnreadableRecord, match="logprob"):
        decode(sampled(logprob=wrong))


@pytest.mark.parametrize("wrong", ["NaN", "", True, 0, ["nan"]])
def test_one_of_a_few_words(wrong: object) -> None:
    """A field that holds one of a few words holds no other."""
    assert decode(sampled(fault="grammar")) != decode(sampled(fault="nan"))
    with pytest.raises(UnreadableRecord, match="fault"):
        decode(sampled(fault=wrong))


def test_what_is_wanted_of_rows_is_short() -> None:
    """A part names the token that is drawn from it, or that it is pooled, or nothing."""
    wanted: tuple[e.Wants, ...] = (e.Draw(7), e.Pool(), None)
    parts = tuple(
        e.Part(sequence=slot, slot=slot, position=0, inputs=(1,), wants=wants) for slot, wants in enumerate(wanted)
    )
    planned = e.BatchPlanned(
        batch=0,
        copies=(e.Copy(source=0, slot=1),),
        trims=(e.Trim(slot=0, length=3),),
        shifts=(e.Shift(slot=0, keep=1, discard=2),),
        parts=parts,
    )
    assert [7, "pool", "-"] == [part.get("wants", "-") for part in fields_of(planned)["parts"]]
    assert planned == decode(fields_of(planned, 3)).event


@pytest.mark.parametrize("wrong", [None, True, 7.0, "7", "draw", "vector", {}, {"draw": 7}])
def test_what_else_is_wanted_is_refused(wrong: object) -> None:
    """Inputs are queued for one token, by its index, or to be pooled, and for nothing else."""
    with pytest.raises(UnreadableRecord, match="wants"):
        decode({**fields_of(QUEUED), "wants": wrong})


REQUEST = e.RequestReceived(
    sequence=3, request_id=None, prompt="p", options=Options(seed=1), embedding=False, continues=None
)


def test_options_are_written_whole() -> None:
    """Options at their defaults stand in the log too: an old log keeps the defaults of its time."""
    assert {*OPTION_NAMES, "dimensions"} == set(fields_of(REQUEST)["options"])


@pytest.mark.parametrize("name", ["num_predict", "stop", "temperature", "top_k"])
def test_a_missing_option_is_named(name: str) -> None:
    """An option that is not there is refused, and not taken for today's default."""
    fields = fields_of(REQUEST)
    del fields["options"][name]
    with pytest.raises(UnreadableRecord, match=f"{name} is missing"):
        decode(fields)


def test_an_unknown_option_is_named() -> None:
    """An unknown option is refused."""
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
    """Options in a log that no caller can have asked for are refused."""
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
        (-0.0, -0.0, True),
        (0.0, -0.0, False),
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
        "AbortRequested ActorFailed BatchDecoded BatchFailed BatchPlanned CancelRequested CellsLost ContextShifted "
        "DeadlineExpired EmbeddingComputed EngineFailed EogSampled InputQueued InputsDropped "
        "PauseExpired PromptTokenized PromptTruncated ReaderPaused ReaderResumed RequestDisplaced RequestQueued "
        "RequestReceived RequestRefused RequestRejected RequestWithdrawn SequenceFinished SequenceForked "
        "SequencePaused SequencePreempted SequenceResumed SessionClosed SessionOpened SessionResumed "
        "SlotAssigned SlotReleased SlotYielded StopMatched TokenDropped TokenEmitted TokenizeFailed"
    )


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
def test_what_is_no_number_is_not_written(value: float) -> None:
    """NaN and infinity have no JSON; they are refused and not written as null."""
    event = e.EmbeddingComputed(sequence=1, embedding=(1.0, value))
    with pytest.raises(UnwritableRecord, match="not a number that a log may contain"):
        encode(e.Record(1, event, 0), 0)


def test_a_line_holds_the_longest_texts() -> None:
    """A prompt and a name as long as they may be are written and read, where JSON takes six bytes for a character."""
    text = "\0" * MAX_PROMPT_BYTES
    options = Options(seed=1, stop=("\0" * MAX_STOP_BYTES,) * MAX_STOPS)
    asked = e.RequestReceived(
        sequence=1, request_id=text, prompt=text, options=options, embedding=False, continues=None
    )
    assert asked == decode(loads(dumps(encode(e.Record(1, asked, None), 0)))).event


def test_a_text_that_no_line_holds_is_not_written() -> None:
    """What could not be read is not written: the error says whose it is."""
    failed = e.EngineFailed(error="x" * (MAX_LINE_TEXT + 100))
    with pytest.raises(UnwritableRecord, match="EngineFailed: it has more than 16,777,216 bytes of text"):
        dumps(encode(e.Record(1, failed, None), 0))
