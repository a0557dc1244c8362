"""Logs whose checksums are right and whose records no session wrote: each command has a verdict on them."""

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import pytest

from reenact.actors.limits import MAX_BATCH, MAX_INTEGER, MAX_PROMPT_NUMBERS, MAX_SLOTS, MOST_WAITING
from reenact.replay import check_facts, check_log, replay_log
from reenact.replay.cli.main import main
from reenact.runtime.log.line import sealed
from tests.helpers.models.tiny import tiny
from tests.helpers.sessions import read_fields, write_fields
from tests.replay import logs

Captured = pytest.CaptureFixture[str]

HOSTILE: Final[list[Any]] = [-7, 2**60, {"a": [1]}, None, 1.5, True, ["SessionOpened"]]


def write_raw(path: Path, bodies: list[bytes]) -> None:
    """Write lines, whatever they hold, with the checksums made right."""
    crc, data = 0, b""
    for body in bodies:
        line, crc = sealed(body, crc)
        data += line
    path.write_bytes(data)


def corrupted(path: Path, old: bytes, new: bytes) -> int:
    """Put other bytes into the first record of a short session that has the old ones; return its line."""
    write_fields(path, read_fields(logs.short(path)))
    line = next(i for i, raw in enumerate(path.read_bytes().splitlines(), 1) if old in raw)
    logs.rewritten(path, line, old, new)
    return line


@pytest.mark.parametrize("name", ["type", "actor", "n", "t", "cause"])
@pytest.mark.parametrize("value", HOSTILE, ids=str)
@pytest.mark.parametrize("n", [0, 1, 3])
def test_an_envelope_of_something_else(path: Path, name: str, value: object, n: int) -> None:
    """Whatever stands for a record's type, actor, number, time or cause, the log is corrupt from that line on."""
    import orjson

    logs.short(path)
    lines = read_fields(path)
    lines[n][name] = value
    write_raw(path, [orjson.dumps(fields) for fields in lines])
    verdict = replay_log(path)
    verdict.lines()
    # A number of the right type may be another record's, which the actors decide otherwise.
    may_be = {"diverged"} if type(value) is int and name in {"n", "t", "cause"} else set()
    assert verdict.verdict in {"corrupt", *may_be}
    assert "corrupt" == check_log(path).outcome


@pytest.mark.parametrize(
    ("old", "new"),
    [
        (b'"size":0', b'"size":9007199254740992'),
        (b'"n_threads":1', b'"n_threads":18446744073709551615'),
        (b'"sequence":1', b'"sequence":9007199254740993'),
        (b'"position":0', b'"position":-9007199254740993'),
    ],
)
def test_an_integer_beyond_what_a_log_may_hold(path: Path, old: bytes, new: bytes) -> None:
    """In a header, in a given record and in a derived one it makes the log corrupt, for every command."""
    line = corrupted(path, old, new)
    verdict = replay_log(path)
    assert ("corrupt", line) == (verdict.verdict, getattr(verdict.error, "line", None))
    assert "expected an integer below 2^53" in verdict.lines()[0]
    assert ["corrupt"] * 2 == [check_log(path).outcome, check_facts(path).outcome]


def test_what_is_too_deep(path: Path, capsys: Captured) -> None:
    """Arrays in arrays in a field that nobody knows are corrupt, and no command runs out of stack."""
    for depth in (20, 900, 5000):
        path.unlink(missing_ok=True)
        line = corrupted(path, b'"batch":0', b'"batch":0,"a":' + b"[" * depth + b"]" * depth)
        for command in ("run", "check", "show", "state", "texts"):
            assert 3 == main([command, str(path)])
        assert f"line {line}, " in capsys.readouterr().err


@pytest.mark.parametrize(
    ("old", "new"),
    [
        (b'"positions":[[0', b'"positions":[' + b"[0,0]," * 2**18 + b"[0"),
        (b'"parts":[', b'"trims":[' + b'{"slot":0,"length":1},' * MAX_SLOTS + b'{"slot":0,"length":1}],"parts":['),
    ],
    ids=["positions", "trims"],
)
def test_more_of_something_than_there_are_slots(path: Path, old: bytes, new: bytes) -> None:
    """What there is at most once for each slot is corrupt where there is more, before each of them is looked at."""
    line = corrupted(path, old, new)
    verdict = replay_log(path)
    assert ("corrupt", line) == (verdict.verdict, getattr(verdict.error, "line", None))
    assert f"more than {MAX_SLOTS} arrays or objects are in one array" in verdict.lines()[0]


@pytest.mark.parametrize(
    ("name", "value", "expected"),
    [
        ("n_slots", 2**31, f"1 to {MAX_SLOTS}"),
        ("n_slots", MAX_INTEGER, f"1 to {MAX_SLOTS}"),
        ("n_slots", 0, f"1 to {MAX_SLOTS}"),
        ("n_slots", -1, f"1 to {MAX_SLOTS}"),
        ("n_batch", 1, f"2 to {MAX_BATCH:,}"),
        ("n_batch", MAX_INTEGER, f"2 to {MAX_BATCH:,}"),
        ("n_ctx", 0, "1 to 1,073,741,568"),
        ("n_ctx", MAX_INTEGER, "1 to 1,073,741,568"),
        ("n_ctx_seq", -5, "1 to 1,073,741,824"),
        ("n_threads", 513, "1 to 512"),
        ("max_waiting", -1, f"0 to {MOST_WAITING:,}"),
        ("max_waiting", MAX_INTEGER, f"0 to {MOST_WAITING:,}"),
        ("max_reader_lag", 0, f"1 to {MAX_INTEGER:,}"),
    ],
)
def test_settings_that_no_session_has(path: Path, name: str, value: int, expected: str) -> None:
    """A header is held against the limits of `open_runtime` before anything is made as large as it says."""
    logs.short(path)
    lines = read_fields(path)
    lines[0]["limits" if name.startswith("max") else "context"][name] = value
    write_fields(path, lines)
    for judged in (replay_log(path), check_log(path), check_facts(path)):
        told = judged.lines()[0]
        assert told.startswith(f"corrupt: {path}: line 1, byte 0: SessionOpened")
        assert f"{name}: expected a whole number from {expected}, got {value}" in told


def test_texts_that_are_pooled_have_larger_batches(path: Path) -> None:
    """A batch holds a whole context where texts are pooled, also beyond what may be asked for otherwise."""
    session = logs.Session(path, n_slots=3, n_ctx=2**17, n_batch=2**17 + 1, pooling="mean")
    session.close()
    assert "holds" == check_log(path).outcome


def doubled(lines: list[Any], kind: str) -> None:
    """Let the last record of a kind stand twice, and number the rest anew."""
    n = max(n for n, fields in enumerate(lines) if fields["type"] == kind)
    lines.insert(n, dict(lines[n]))
    for fields in lines[n + 1 :]:
        fields["n"] += 1
        if fields.get("cause", 0) > n:
            fields["cause"] += 1


def of_another_slot(lines: list[Any]) -> None:
    """Let an outcome be of a slot that is not there."""
    decoded = next(fields for fields in lines if fields["type"] == "BatchDecoded")
    decoded["positions"][0][0] = 99


@pytest.mark.parametrize(
    "change",
    [
        lambda lines: doubled(lines, "BatchDecoded"),
        lambda lines: doubled(lines, "RequestReceived"),
        lambda lines: doubled(lines, "PromptTokenized"),
        lambda lines: doubled(lines, "BatchPlanned"),
        of_another_slot,
    ],
    ids=["decoded twice", "received twice", "tokenized twice", "planned twice", "another slot"],
)
def test_facts_that_could_never_be(
    path: Path, small: Path, capsys: Captured, change: Callable[[list[Any]], None]
) -> None:
    """What could never be does not happen again: what came before does and keeps the rules."""
    logs.short(path)
    lines = read_fields(path)
    change(lines)
    write_fields(path, lines)
    verdict = replay_log(path)
    assert verdict.first_divergence is not None
    assert "holds" == check_facts(path).outcome
    assert main(["shrink", str(path), "-o", str(small)]) in {0, 4}
    assert "bug in reenact" not in "".join(capsys.readouterr())


def replay(*arguments: object, stdout: Path | None = None, stdin: bytes = b"") -> subprocess.CompletedProcess[bytes]:
    """Run the command as its users do."""
    with (stdout or Path(os.devnull)).open("wb") as out:
        return subprocess.run(
            [sys.executable, "-m", "reenact.replay", *map(str, arguments)],
            input=stdin,
            stdout=out,
            stderr=subprocess.PIPE,
            check=False,
            timeout=20,
        )


@pytest.mark.parametrize("command", ["run", "check", "show", "state", "texts", "shrink", "to-test", "diff"])
@pytest.mark.parametrize("make", ["pipe", "folder", "device"])
def test_what_is_no_file(path: Path, capsys: Captured, command: str, make: str) -> None:
    """A pipe without a writer, a folder and a device without an end are no logs, and nothing waits for them."""
    log = {"pipe": path, "folder": path.parent, "device": Path("/dev/zero")}[make]
    if make == "pipe":
        os.mkfifo(path)
    more = [log] if command == "diff" else ["-o", path.parent / "x"] if command in {"shrink", "to-test"} else []
    assert 2 == main([command, *map(str, (log, *more))])
    told = "".join(capsys.readouterr())
    assert f"{log}: " in told
    assert ("Is a directory" if make == "folder" else "a log is read twice") in told


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="the system has no device that is always full")
def test_errors_that_cannot_be_written(path: Path) -> None:
    """Where an error cannot be told the exit code is the documented one all the same."""
    with Path("/dev/full").open("wb") as full:
        command = [sys.executable, "-m", "reenact.replay", "show", str(path)]
        assert 2 == subprocess.run(command, stderr=full, check=False, timeout=20).returncode


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="the system has no device that is always full")
@pytest.mark.parametrize("command", [["show", "LOG"], ["run", "LOG"], ["run", "LOG", "--json"], ["--version"]])
def test_output_that_cannot_be_written(path: Path, command: list[str]) -> None:
    """An output that is full is told in one line that names it, with exit code 2."""
    logs.short(path)
    done = replay(*[path if word == "LOG" else word for word in command], stdout=Path("/dev/full"))
    assert (2, b"replay: standard output: No space left on device\n") == (done.returncode, done.stderr)


def test_a_log_of_any_name(tmp_path: Path, capsys: Captured) -> None:
    """A log whose name is no UTF-8, and holds control characters, is read, told of and kept as a test."""
    log = Path(os.fsdecode(os.fsencode(tmp_path) + b"/a\xff\x9b\n.jsonl"))
    logs.short(log)
    for command in ("run", "check", "show", "state", "texts", "to-test"):
        assert 0 == main([command, str(log)])
    assert "a\\udcff\\udc9b\\n.jsonl" in capsys.readouterr().out
    assert {log, tmp_path / "test_a.py"} == set(tmp_path.iterdir())


def test_a_folder_that_cannot_be_written(path: Path, capsys: Captured) -> None:
    """Where no file can be made, the error names it."""
    logs.short(path)
    for command in ("shrink", "to-test"):
        assert 2 == main([command, str(path), "-o", str(path.parent / "nowhere" / "x.py")])
        assert "nowhere" in capsys.readouterr().err


def test_a_state_that_actors_cannot_go_on_from(path: Path, capsys: Captured, monkeypatch: pytest.MonkeyPatch) -> None:
    """A state from which the actors raise is shown by its line as corrupt where they are asked what goes next."""
    session = logs.Session(path, n_slots=1)
    session.request("one")
    session.request("two")
    session.journal.close()
    monkeypatch.setattr("reenact.actors.batcher.proceed", lambda _state: 1 // 0)
    assert 3 == main(["state", str(path)])
    assert "the actors cannot go on from the state after it: ZeroDivisionError" in capsys.readouterr().err


@pytest.mark.model
def test_numerics_that_llama_cpp_does_not_have(path: Path, tmp_path: Path, capsys: Captured) -> None:
    """A header's numerics that no build has are told in one line when the log is to be executed."""
    model = tiny(tmp_path / "tiny.gguf", n_positions=64)
    logs.short(path)
    lines = read_fields(path)
    lines[0]["context"]["numerics"] |= {"type_k": "f16", "type_v": "f16", "flash_attn": "x" * 1000}
    lines[0]["engine"]["name"] = "llama.cpp"
    write_fields(path, lines[:-1])  # The digest is of another header.
    assert 2 == main(["run", str(path), "--model", str(model), "--force"])
    assert "can be enabled or auto, and not 'xxxx" in "".join(capsys.readouterr())


@pytest.mark.parametrize(
    ("old", "new", "expected"),
    [
        (b'"prompt":"', b'"prompt":"' + b"y" * 2**20, "RequestReceived.prompt: it has more than 1,048,576 bytes"),
        (b'"request_id":null', b'"request_id":"%b"' % (b"y" * (2**20 + 1)), "RequestReceived.request_id: it has more"),
        (
            b'"inputs":[',
            b'"inputs":[' + b"7," * MAX_PROMPT_NUMBERS,
            "PromptTokenized.inputs: it has more than 4,19",
        ),
        (b'"prompt":"', b'"prompt":"' + b"y" * 2**25, "it has more than 16,777,216 bytes of text"),
        (b'"inputs":[', b'"inputs":[' + b"[]," * 2**22, "it has more than 8,388,608 values"),
    ],
    ids=["prompt", "request_id", "inputs", "text", "values"],
)
def test_a_log_holds_no_more_than_a_request_may(path: Path, old: bytes, new: bytes, expected: str) -> None:
    """What `open_runtime` would have refused makes a log corrupt, before anything is made of it."""
    line = corrupted(path, old, new)
    error = replay_log(path).error
    assert (line, True) == (getattr(error, "line", None), expected in str(error))
