"""The values that lines of a log leave out, and the lines for which nothing gives them."""

from typing import Any

import pytest
from attrs import evolve

from reenact.actors import events as e
from reenact.actors.inputs import Row
from reenact.actors.options import Options
from reenact.runtime.log.codec import Fields, UnreadableRecord, decode, dumps, loads
from reenact.runtime.log.shorthand import MOST_ROWS, Shorthand
from tests.helpers.header import opened

HEADER = opened(n_slots=2, n_ctx=64, n_batch=8)
ASKED = e.RequestReceived(
    sequence=1, request_id=None, prompt="p", options=Options(seed=7, top_k=3), embedding=False, continues=None
)
PROMPT = e.PromptTokenized(sequence=1, inputs=(5, 6, Row("0a" * 32)), bos_added=False, grammar=None)
QUEUED = e.InputQueued(sequence=1, inputs=PROMPT.inputs, wants=e.Draw(0))
PLANNED = e.BatchPlanned(
    batch=0, parts=(e.Part(sequence=1, slot=1, position=0, inputs=PROMPT.inputs, wants=e.Draw(0)),)
)
DRAWN = e.Sample(sequence=1, index=0, token=9, piece=b" a", logits_crc32=77)
DECODED = e.BatchDecoded(batch=0, code=0, samples=(DRAWN,), positions=((1, 2),))
EMITTED = e.TokenEmitted(sequence=1, index=0, token=9, text=" a")
AGAIN = e.InputQueued(sequence=1, inputs=(9,), wants=e.Draw(1))
NEXT = e.BatchPlanned(batch=1, parts=(e.Part(sequence=1, slot=1, position=3, inputs=(9,), wants=e.Draw(1)),))
EVENTS: list[tuple[e.Event, int | None]] = [
    (HEADER, None),
    (ASKED, None),
    (e.RequestQueued(sequence=1, priority=0, n_ahead=0), 1),
    (PROMPT, None),
    (QUEUED, 3),
    (e.SlotAssigned(sequence=1, slot=1, reused=0, source=None), 3),
    (PLANNED, 3),
    (DECODED, None),
    (EMITTED, 7),
    (AGAIN, 7),
    (NEXT, 7),
]
RECORDS = [e.Record(n, event, cause) for n, (event, cause) in enumerate(EVENTS)]


def after(n: int) -> Shorthand:
    """Return the shorthand after the first records."""
    shorthand = Shorthand()
    for record in RECORDS[:n]:
        shorthand.short(record, 10)
        shorthand.note(record, 10)
    return shorthand


def short(n: int) -> Fields:
    """Return the line of a record after those before it."""
    return loads(dumps(after(n).short(RECORDS[n], 10)))


@pytest.mark.parametrize(
    ("n", "line"),
    [
        (4, {"n": 4, "type": "InputQueued", "sequence": 1}),
        (6, {"n": 6, "type": "BatchPlanned", "batch": 0, "parts": {"sequence": [1], "rows": [3]}}),
        (
            7,
            {
                "n": 7,
                "t": 10,
                "type": "BatchDecoded",
                "batch": 0,
                "samples": {"token": [9], "piece": [" a"], "logits_crc32": [77]},
            },
        ),
        (8, {"n": 8, "type": "TokenEmitted", "sequence": 1, "text": " a"}),
        (9, {"n": 9, "type": "InputQueued", "sequence": 1}),
        (10, {"n": 10, "type": "BatchPlanned", "batch": 1, "parts": {"sequence": [1]}}),
    ],
)
def test_the_lines_of_a_token(n: int, line: Fields) -> None:
    """Neither actor, time, cause, token nor inputs stand in a line where the lines before it give them."""
    assert line == short(n)
    assert RECORDS[n] == decode(after(n).whole(line))


def test_options_at_a_default_are_left_out() -> None:
    """Record 0 has the defaults, and a request the options that differ from them."""
    assert {"seed": 7, "top_k": 3} == short(1)["options"]
    assert 40 == short(0)["defaults"]["top_k"]
    other = after(0)
    other.whole({**short(0), "defaults": {**short(0)["defaults"], "top_p": 0.25}})
    read = decode(other.whole(short(1))).event
    assert isinstance(read, e.RequestReceived)
    assert 0.25 == read.options.top_p


def test_another_zero_is_no_default() -> None:
    """An option of -0.0 stays, although it equals a default of 0.0: a state's digest knows the two apart."""
    asked = e.Record(1, evolve(ASKED, options=Options(seed=7, frequency_penalty=-0.0)), None)
    assert "-0.0" == str(after(1).short(asked, 10)["options"]["frequency_penalty"])


@pytest.mark.parametrize("n", range(len(RECORDS)))
def test_a_line_may_leave_out_nothing(n: int) -> None:
    """What is in a line counts, also where the lines before it give something else."""
    read = after(n)
    whole = read.whole(short(n))
    assert whole == read.whole(whole)
    assert RECORDS[n] == decode(read.whole(whole))


@pytest.mark.parametrize(
    ("n", "change", "reason"),
    [
        (4, {"sequence": 2}, "inputs"),
        (8, {"sequence": 2}, "index"),
        (8, {"sequence": [1]}, "index"),
        (6, {"parts": {}}, "parts.sequence: expected a list"),
        (6, {"parts": {"sequence": 1}}, "parts.sequence: expected a list"),
        (6, {"parts": {"sequence": [1] * 257}}, "at most 256"),
        (6, {"parts": {"sequence": [2]}}, "sequence 2 has no such rows"),
        (6, {"parts": {"sequence": [[1]]}}, "no such rows"),
        (6, {"parts": {"sequence": [1], "rows": [4]}}, "no such rows"),
        (6, {"parts": {"sequence": [1], "rows": [-1]}}, "no such rows"),
        (6, {"parts": {"sequence": [1], "rows": [True]}}, "no such rows"),
        (6, {"parts": {"sequence": [1], "rows": [1, 1]}}, "parts.rows: expected a list of 1 values"),
        (6, {"parts": {"sequence": [1], "rows": 1}}, "parts.rows: expected a list of 1 values"),
        (6, {"parts": {"sequence": [1], "position": [-1]}}, "no such rows"),
        (6, {"parts": {"sequence": [1], "position": ["0"]}}, "no such rows"),
        (6, {"parts": {"sequence": [1], "pos": [0]}}, "no column 'pos'"),
        (6, {"parts": {"sequence": [1, 1], "rows": [1, 1]}}, "a sequence has two parts"),
        (6, {"parts": {"sequence": [1], "inputs": [7]}}, "inputs"),
        (6, {"parts": {"sequence": [1], "wants": [[]]}}, "wants"),
        (7, {"samples": {}}, "samples.token: expected a list"),
        (7, {"samples": {"token": [9, 9]}}, "not those of the plan"),
        (7, {"samples": {"token": [9], "piece": []}}, "samples.piece: expected a list of 1"),
        (7, {"samples": {"token": [9], "sequence": [1]}}, "index"),
        (7, {"samples": {"token": [9], "eog": [0]}}, "eog"),
        (7, {"samples": {"token": ["9"]}}, "token"),
        (7, {"samples": {"token": [9], "x": [9]}}, "no column 'x'"),
        (0, {"defaults": []}, "expected an object"),
        (0, {"defaults": {"stop": ["a"]}}, "expected a number"),
        (0, {"defaults": {"grammar": "a"}}, "expected a number"),
    ],
)
def test_what_nothing_gives_is_refused(n: int, change: dict[str, Any], reason: str) -> None:
    """A column that is unknown, too short or too long, and what no line before gives, is refused by its name."""
    with pytest.raises(UnreadableRecord, match=reason):
        decode(after(n).whole({**short(n), **change}))


def test_a_prompt_is_queued_in_short_once() -> None:
    """Lines that name nothing cannot make a sequence longer than the lines that do."""
    read = after(5)
    with pytest.raises(UnreadableRecord, match="inputs"):
        decode(read.whole(short(4)))
    read = after(10)
    with pytest.raises(UnreadableRecord, match="inputs"):
        decode(read.whole(short(9)))


def test_rows_are_left_out_within_bounds() -> None:
    """Where plans have had very many rows for the records there are, the next ones are written out, and read."""
    prompt = tuple(range(2**16))
    writer, reader = Shorthand(), Shorthand()
    part = e.Part(sequence=1, slot=0, position=0, inputs=prompt)
    records = [
        e.Record(0, HEADER, None),
        e.Record(1, e.PromptTokenized(sequence=1, inputs=prompt, bos_added=False, grammar=None), None),
        e.Record(2, e.InputQueued(sequence=1, inputs=prompt, wants=e.Draw(0)), 1),
        *(e.Record(3 + i, e.BatchPlanned(batch=i, parts=(part,)), 1) for i in range(6)),
    ]
    sizes = []
    for record in records:
        body = dumps(writer.short(record, 0))
        assert record == decode(reader.whole(loads(body)))
        writer.note(record, 0)
        reader.note(record, 0)
        sizes.append(len(body))
    assert sizes[3] < 200
    assert sizes[-1] > 2**16
    with pytest.raises(UnreadableRecord, match="too many rows"):
        reader.whole(
            {
                "n": 9,
                "type": "BatchPlanned",
                "batch": 6,
                "parts": {"sequence": [1], "position": [0], "rows": [MOST_ROWS**2]},
            }
        )
