from collections.abc import Callable
from pathlib import Path

import pytest

from reenact.actors.errors import LogCorrupt, LogNotComparable
from reenact.replay.look.diff import Comparison, compared, diff_logs
from reenact.replay.look.history import read_log
from reenact.runtime import ScriptedEngine, open_runtime
from reenact.runtime.log.codec import Fields
from tests.helpers.sessions import eventful_session, read_fields, write_fields
from tests.replay import logs

SCRIPTS = {"long": list("abcdefghijkl"), "short": ["x", "y", "z"], "tiny": ["q"]}


async def record(path: Path, *prompts: str, named: bool = True, n_slots: int = 2) -> Path:
    """Record a session of requests, one after the other."""
    async with open_runtime(ScriptedEngine(SCRIPTS), log=path, n_slots=n_slots, n_ctx=32) as runtime:
        for prompt in prompts:
            await runtime.complete(prompt, seed=7, request_id=f"the {prompt} one" if named else None)
    return path


@pytest.fixture
async def a(tmp_path: Path) -> Path:
    """Return a log of three sequences: 13, 4 and 2 tokens."""
    return await record(tmp_path / "a.jsonl", "long", "short", "tiny")


@pytest.fixture
def b(tmp_path: Path) -> Path:
    """Return where the other log is to be."""
    return tmp_path / "b.jsonl"


def edited(source: Path, target: Path, edit: Callable[[list[Fields]], object]) -> Path:
    """Write a log that is another one with a change."""
    lines = read_fields(source)
    edit(lines)
    write_fields(target, lines)
    return target


def samples(lines: list[Fields], sequence: int) -> list[Fields]:
    """Return all samples of a sequence, in order."""
    all_samples = [one for fields in lines if fields["type"] == "BatchDecoded" for one in fields.get("samples", ())]
    return [one for one in all_samples if one["sequence"] == sequence]


def the(lines: list[Fields], kind: str, sequence: int) -> Fields:
    """Return the only record of a type about a sequence."""
    (only,) = [fields for fields in lines if fields["type"] == kind and fields["sequence"] == sequence]
    return only


def drawn_in(path: Path, sequence: int, index: int) -> int:
    """Return the record that holds a token."""
    decoded = [fields for fields in read_fields(path) if fields["type"] == "BatchDecoded"]
    return int([fields["n"] for fields in decoded if samples([fields], sequence)][index])


def said(comparison: Comparison) -> list[str]:
    """Return all lines for people."""
    return ["".join(text for text, _ in line) for line in comparison.lines()]


def spots(comparison: Comparison) -> list[list[tuple[str, int | None]]]:
    """Return where each differing sequence parts."""
    return [[(spot.what, spot.index) for spot in found.spots] for found in comparison.differences]


async def test_equal_logs(tmp_path: Path, autojump_clock: object) -> None:
    """Two logs of one session are the same whatever happens in it, though opened at another time."""
    paths = tmp_path / "a.jsonl", tmp_path / "b.jsonl"
    await eventful_session(paths[0])
    again = edited(paths[0], paths[1], lambda lines: lines[0].update(session="other", opened_at="2026-01-01T00:00:00Z"))
    comparison = diff_logs(paths[0], again)
    n_samples = sum(len(fields.get("samples", ())) for fields in read_fields(again) if fields["type"] == "BatchDecoded")
    n_requests = sum(fields["type"] == "RequestReceived" for fields in read_fields(again))
    assert [f"same: {paths[0]} {paths[1]}: {n_requests} sequences, {n_samples} tokens compared, all equal"] == said(
        comparison
    )
    assert 0 == comparison.exit_code


async def test_another_order_of_arrival(a: Path, b: Path) -> None:
    """What a request_id names in both logs is one sequence, whenever it came."""
    comparison = diff_logs(a, await record(b, "tiny", "long", "short"))
    assert [f"same: {a} {b}: 3 sequences, 19 tokens compared, all equal"] == said(comparison)


async def test_without_request_ids(a: Path, b: Path) -> None:
    """Where there is no request_id, or twice the same, sequences with one number are compared."""
    comparison = diff_logs(a, await record(b, "long", "short", "tiny", named=False))
    assert (0, 3) == (comparison.exit_code, comparison.n_sequences)
    twice = await record(b.with_name("twice.jsonl"), "long", "tiny", "tiny")
    comparison = diff_logs(a, twice)
    assert [2] == [found.b.fact("RequestReceived", "sequence") for found in comparison.differences]
    assert [("request", None), ("input", 0), ("logits", 0), ("token", 0)] == spots(comparison)[0]


async def test_an_edited_token(a: Path, b: Path) -> None:
    """The first token that differs stands beside its neighbours, and the records that hold it are named."""
    edited(a, b, lambda lines: samples(lines, 1)[9].update(token=999, piece="\r?"))
    comparison = diff_logs(a, b)
    where = f"(record {drawn_in(a, 1, 9)} of A, {drawn_in(b, 1, 9)} of B)"
    assert [
        f"different: {a} {b}: 1 of 3 sequences; first at token 9 of sequence 1 (the long one) {where}",
        f"sequence 1 (the long one): token 9 {where}",
        "              A        B",
        "    token 6   263 'g'  263 'g'",
        "    token 7   264 'h'  264 'h'",
        "    token 8   265 'i'  265 'i'",
        r"  * token 9   266 'j'  999 '\r?'",
        "    token 10  267 'k'  267 'k'",
        "    token 11  268 'l'  268 'l'",
        "    token 12  256 EOG  256 EOG",
    ] == said(comparison)
    assert 1 == comparison.exit_code


async def test_as_json(a: Path, b: Path) -> None:
    """For machines there is the same, as plain values."""
    edited(a, b, lambda lines: samples(lines, 1)[9].update(token=999))
    records = drawn_in(a, 1, 9), drawn_in(b, 1, 9)
    assert {
        "verdict": "different",
        "logs": (str(a), str(b)),
        "notes": ([], []),
        "sequences": 3,
        "tokens": 19,
        "header": {},
        "only": ([], []),
        "differences": [
            {
                "sequence": (1, 1),
                "request_id": ("the long one", "the long one"),
                "spots": [{"what": "token", "index": 9, "records": records}],
                "request": {},
                "n_inputs": (4, 4),
                "end": {},
            }
        ],
    } == diff_logs(a, b).as_json()


async def test_an_edited_option(a: Path, b: Path) -> None:
    """Each option that differs is named with both values, and so is the prompt."""

    def edit(lines: list[Fields]) -> None:
        request = the(lines, "RequestReceived", 2)
        request["options"].update(seed=8, stop=["END"])
        request["prompt"] = "other"

    assert [
        '  * prompt        "short"  "other"',
        "  * options.seed  7        8",
        '  * options.stop  []       ["END"]',
    ] == said(diff_logs(a, edited(a, b, edit)))[3:]


async def test_the_options_of_a_fork(a: Path, b: Path) -> None:
    """Where a log was forked, the options that it goes on with count."""

    def edit(lines: list[Fields]) -> None:
        options = the(lines, "RequestReceived", 3)["options"] | {"seed": 8}
        lines[-1:] = [
            {"n": lines[-1]["n"], "t": lines[-1]["t"], "type": "SequenceForked", "actor": "sequence-3"}
            | {"sequence": 3, "options": options}
        ]

    comparison = diff_logs(a, edited(a, b, edit))
    n = the(read_fields(a), "RequestReceived", 3)["n"]
    forked = the(read_fields(b), "SequenceForked", 3)["n"]
    assert f"sequence 3 (the tiny one): the request (record {n} of A, {forked} of B)" == said(comparison)[2]
    assert {"options.seed": (7, 8)} == comparison.differences[0].request


async def test_edited_inputs(a: Path, b: Path) -> None:
    """Of the prompts' inputs one sees where they differ first, and how many there are."""

    def edit(lines: list[Fields]) -> None:
        the(lines, "PromptTokenized", 3)["inputs"][2:] = [1]

    assert (
        "  * inputs from 2  2 tokens [110, 121], 4 in all  1 token [1], 3 in all"
        == said(diff_logs(a, edited(a, b, edit)))[-1]
    )


async def test_another_end(a: Path, b: Path) -> None:
    """A sequence that ended in another way differs, and its error field by field."""
    failure = {"kind": "sequence_failed", "field": "", "reason": "why\x9b"}
    edited(a, b, lambda lines: the(lines, "SequenceFinished", 1).update(finish_reason="error", error=failure))
    assert [
        "                   A       B",
        '  * finish_reason  "stop"  "error"',
        '  * error.kind     -       "sequence_failed"',
        '  * error.field    -       ""',
        '  * error.reason   -       "why\x9b"',
    ] == said(diff_logs(a, b))[2:]


async def test_only_in_one_log(a: Path, b: Path) -> None:
    """Sequences that only one log has are listed, and make the logs different."""
    await record(b, "short")
    assert [f"different: {a} {b}: 0 of 1 sequence", "only in A: sequences 1, 3"] == said(diff_logs(a, b))
    assert [f"different: {b} {a}: 0 of 1 sequence", "only in B: sequences 1, 3"] == said(diff_logs(b, a))


async def test_header(a: Path, b: Path) -> None:
    """Fields of the headers that differ are listed by their paths, also where the logs are the same otherwise."""
    await record(b, "long", "short", "tiny", n_slots=3)
    comparison = diff_logs(a, b)
    assert [
        f"same: {a} {b}: 3 sequences, 19 tokens compared, all equal",
        "header",
        "                     A  B",
        "  * context.n_slots  2  3",
    ] == said(comparison)
    assert (0, {"context.n_slots": (2, 3)}) == (comparison.exit_code, comparison.header)


async def test_logits(a: Path, b: Path) -> None:
    """Logits that differ under equal tokens are a difference; of two rows the first one counts."""

    def edit(lines: list[Fields]) -> None:
        for sample in samples(lines, 2)[1:3]:
            sample["logits_crc32"] = 5

    comparison = diff_logs(a, edited(a, b, edit))
    crc32 = samples(read_fields(a), 2)[1]["logits_crc32"]
    where = f"(record {drawn_in(a, 2, 1)} of A, {drawn_in(b, 2, 1)} of B)"
    name = "sequence 2 (the short one)"
    assert [
        f"different: {a} {b}: 1 of 3 sequences; first at the logits of token 1 of {name} {where}",
        f"{name}: the logits of token 1 {where}",
        f"              {'A':<{len(str(crc32))}}  B",
        f"  * logits 1  {crc32}  5",
    ] == said(comparison)


async def test_logits_before_and_behind_a_token(a: Path, b: Path) -> None:
    """Logits up to the first token that differs are compared, and those behind it are not."""

    def behind(lines: list[Fields]) -> None:
        samples(lines, 2)[1]["token"] = 999
        samples(lines, 2)[2]["logits_crc32"] = 5

    def before(lines: list[Fields]) -> None:
        behind(lines)
        samples(lines, 2)[1]["logits_crc32"] = 5

    assert [[("token", 1)]] == spots(diff_logs(a, edited(a, b, behind)))
    assert [[("logits", 1), ("token", 1)]] == spots(diff_logs(a, edited(a, b, before)))


async def test_without_a_checksum(a: Path, b: Path) -> None:
    """Where one log holds no checksum of the logits there is nothing to compare."""

    def edit(lines: list[Fields]) -> None:
        del samples(lines, 1)[0]["logits_crc32"]
        samples(lines, 1)[1]["logits_crc32"] = 0

    assert 0 == diff_logs(a, edited(a, b, edit)).exit_code


async def test_the_first_of_many(tmp_path: Path) -> None:
    """The sequence that parts first comes first; three stand there in full, and the rest are counted."""
    prompts = ["short"] * 5

    def edit(lines: list[Fields]) -> None:
        for sequence in (5, 4, 3, 2):
            samples(lines, sequence)[0]["token"] = 999

    a = await record(tmp_path / "a.jsonl", *prompts, named=False)
    comparison = diff_logs(a, edited(a, tmp_path / "b.jsonl", edit))
    headings = [line for line in said(comparison) if line.startswith("sequence")]
    assert ["sequence 2", "sequence 3", "sequence 4"] == [line.partition(":")[0] for line in headings]
    assert "4 of 5 sequences; first at token 0 of sequence 2 (" in said(comparison)[0]
    assert "and 1 more" == said(comparison)[-1]


async def test_other_numbers(a: Path, b: Path) -> None:
    """A sequence that has another number in each log is named by both."""
    await record(b, "short", "long")
    edited(b, b, lambda lines: samples(lines, 1)[0].update(token=999))
    assert said(diff_logs(a, b))[2].startswith("sequence 2 of A, 1 of B (the short one): token 0 (")


async def test_a_long_value(a: Path, b: Path) -> None:
    """A value too long for a line is cut around the place where it differs."""
    long = "x" * 500
    edited(a, b, lambda lines: lines[0]["engine"].update(system_info=f"{long}two"))
    edited(a, a, lambda lines: lines[0]["engine"].update(system_info=f"{long}one"))
    line = said(diff_logs(a, b))[-1]
    assert (True, True, True) == ("one" in line, "two" in line, len(line) < 150)


async def test_a_torn_tail(a: Path, b: Path) -> None:
    """What a log that broke off does not hold differs, and its end is told."""
    at = drawn_in(a, 3, 1)
    lines = a.read_bytes().splitlines(keepends=True)
    b.write_bytes(b"".join(lines[:at]) + lines[at][:10])
    n_finished = the(read_fields(a), "SequenceFinished", 3)["n"]
    name, where = "sequence 3 (the tiny one)", f"(record {at} of A, none of B)"
    assert [
        f"different: {a} {b}: 1 of 3 sequences; first at token 1 of {name} {where}",
        f"{b}: record {at - 1} is the last one, and the session did not close: it still runs, or it crashed here",
        f"{b}: the last 10 bytes are a write that did not finish",
        f"{name}: token 1 {where}, the end (record {n_finished} of A, none of B)",
        "                   A        B",
        "    token 0        272 'q'  272 'q'",
        "  * token 1        256 EOG  -",
        '  * finish_reason  "stop"   -',
    ] == said(diff_logs(a, b))


async def test_a_corrupt_tail(a: Path, b: Path) -> None:
    """A log is compared up to the line that is corrupt, and why it is stands there."""
    b.write_bytes(a.read_bytes())
    logs.flipped(b, len(read_fields(a)))
    log = read_log(b)
    comparison = compared(read_log(a), log)
    assert log.corrupt is not None
    assert f"{b}: corrupt: {log.corrupt}" == said(comparison)[1]
    assert (0, 3) == (comparison.exit_code, comparison.n_sequences)


async def test_about_nobody(a: Path, b: Path) -> None:
    """A sample that no plan asked for is corrupt, whatever its checksum says."""
    edited(a, b, lambda lines: samples(lines, 1)[0].update(sequence=9))
    corrupt = read_log(b).corrupt
    assert corrupt is not None
    assert "there is no sequence 9 that it can be about" == corrupt.reason


async def test_nothing_to_compare(a: Path, b: Path) -> None:
    """A file that is not there, is empty, or whose first line is corrupt is an error, on either side."""
    with pytest.raises(FileNotFoundError):
        diff_logs(a, b)
    b.write_bytes(b"")
    with pytest.raises(LogNotComparable):
        diff_logs(a, b)
    b.write_bytes(a.read_bytes())
    with pytest.raises(LogCorrupt):
        diff_logs(logs.flipped(b, 1), a)


def test_embeddings(tmp_path: Path) -> None:
    """A vector that differs is a difference of the end."""

    def embedded(name: str, vector: tuple[float, ...]) -> Path:
        session = logs.Session(tmp_path / name, pooling="mean")
        session.request("text", embedding=True)
        session.decode(vector=vector)
        session.close()
        return session.path

    comparison = diff_logs(embedded("a.jsonl", (3.0, 4.0)), embedded("b.jsonl", (4.0, 3.0)))
    assert {"embedding": ([0.6, 0.8], [0.8, 0.6])} == comparison.differences[0].end
