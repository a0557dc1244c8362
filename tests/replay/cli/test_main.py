import json
import re
import subprocess
import sys
import time
from importlib.metadata import version
from pathlib import Path
from typing import NoReturn

import pytest
import zstandard

from reenact.replay.cli import main as cli
from reenact.replay.decide import tier
from tests.helpers.sessions import read_fields, write_fields
from tests.replay import logs

Captured = pytest.CaptureFixture[str]


def replay(capsys: Captured, *arguments: object) -> tuple[int, str, str]:
    """Run the command; return exit code, standard output and standard error."""
    try:
        code = cli.main([str(argument) for argument in arguments])
    except SystemExit as left:
        code = left.code if isinstance(left.code, int) else -1
    captured = capsys.readouterr()
    return code, captured.out, captured.err


def test_version(capsys: Captured) -> None:
    """The version is the distribution's."""
    assert (0, f"replay (reenact) {version('reenact')}\n", "") == replay(capsys, "--version")


@pytest.mark.parametrize("command", [[], ["run"], ["show"], ["state"], ["texts"]])
def test_help_has_an_example(capsys: Captured, command: list[str]) -> None:
    """Every command's help shows how it is used."""
    code, out, _ = replay(capsys, *command, "--help")
    assert 0 == code
    assert "example" in out
    assert " ".join(["replay", *command]) in out


def test_run(capsys: Captured, path: Path) -> None:
    """The first word of a run is its verdict."""
    code, out, err = replay(capsys, "run", logs.short(path))
    assert (0, "same:", "") == (code, out.split()[0], err)


def test_run_of_many_exits_with_the_worst(capsys: Captured, tmp_path: Path) -> None:
    """With many logs each has its verdict, on a line as JSON if so asked, and the exit code is the worst."""
    good, bad = logs.short(tmp_path / "good.jsonl"), logs.short(tmp_path / "bad.jsonl")
    logs.flipped(bad, 4)
    code, out, err = replay(capsys, "run", bad, tmp_path / "none.jsonl", good, "--json")
    verdicts = [json.loads(line) for line in out.splitlines()]
    assert (3, "") == (code, err)
    assert ["corrupt", "unreadable", "same"] == [verdict["verdict"] for verdict in verdicts]
    assert [
        ["verdict", "tier", "records", "decodes", "rows", "tokens", "notes", "first_divergence"],
    ] * 3 == [list(verdict) for verdict in verdicts]


def test_diverged(capsys: Captured, path: Path) -> None:
    """A derived record that is not what the actors decide is a divergence, and names the record."""
    logs.rewritten(logs.short(path), 5, b'"wants":0', b'"wants":1')
    code, out, _ = replay(capsys, "run", path)
    assert 1 == code
    assert f"diverged: {path}: at record 4" in out
    assert f"replay show {path} 3-4" in out


def test_a_fault_of_the_program(capsys: Captured, path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An unexpected exception is one line that asks for a report, and exit code 5; the other logs have their turn."""

    def broken(_: object) -> NoReturn:
        raise ZeroDivisionError("by\nzero")

    monkeypatch.setattr(tier, "replay_log", broken)
    code, out, err = replay(capsys, "run", logs.short(path), path)
    plea = "this is a bug in reenact: please report it and send the log"
    assert (5, "", f"replay: {path}: ZeroDivisionError: by zero ({plea})\n" * 2) == (code, out, err)


@pytest.mark.parametrize("command", ["show", "state", "texts"])
def test_errors_are_one_line(capsys: Captured, tmp_path: Path, command: str) -> None:
    """A file that is not there, a directory, an empty log and a newer log are each one line and an exit code."""
    empty, newer = tmp_path / "empty.jsonl", logs.short(tmp_path / "newer.jsonl")
    empty.touch()
    logs.rewritten(newer, 1, b'"format":2', b'"format":3')
    expected = {tmp_path / "none": 2, tmp_path: 2, empty: 4, newer: 4}
    for log, due in expected.items():
        code, out, err = replay(capsys, command, log)
        assert (due, "", 1) == (code, out, err.count("\n"))
        assert err.startswith(f"replay: {log}: ")


@pytest.mark.parametrize("command", ["show", "state", "texts"])
def test_corrupt(capsys: Captured, path: Path, command: str) -> None:
    """What came before a corrupt line is printed; the error names line and byte, and the exit code is 3."""
    logs.flipped(logs.short(path), 20)
    offset = sum(map(len, path.read_bytes().splitlines(keepends=True)[:19]))
    code, out, err = replay(capsys, command, path)
    assert 3 == code
    assert {"show": "    18  ", "state": "record 18, ", "texts": "  text   | Because it "}[command] in out
    assert 1 == err.count("\n")
    assert err.startswith(f"replay: {path}: corrupt: line 20, byte {offset:,}: ")


def test_show(capsys: Captured, path: Path) -> None:
    """In a pipe a record is a line, plain and whole."""
    code, out, err = replay(capsys, "show", logs.short(path), "0-37")
    assert (0, 38, "") == (code, out.count("\n"), err)
    assert "\x1b" not in out


@pytest.mark.parametrize(
    "arguments", [["LOG", "8-10", "--only", "1"], ["LOG", "--only", "1", "8-10"], ["--only", "1", "LOG", "8-10"]]
)
def test_a_range_stands_anywhere(capsys: Captured, path: Path, arguments: list[str]) -> None:
    """The range may stand before the options, behind them and among them."""
    logs.short(path)
    code, out, err = replay(capsys, "show", *[path if argument == "LOG" else argument for argument in arguments])
    assert (0, ["8", "9", "10"], "") == (code, [line.split()[0] for line in out.splitlines()], err)


def test_state_says_what_since_means(capsys: Captured) -> None:
    """The help of the state says up to when its times count."""
    assert "is the time up to the record that is shown" in replay(capsys, "state", "--help")[1]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["99"], "there is no record 99: the last one is record 37"),
        (["--only", "nobody"], "no request has the number or the request_id 'nobody'"),
    ],
)
def test_show_what_is_not_there(capsys: Captured, path: Path, arguments: list[str], said: str) -> None:
    """A record or a sequence that is not in the log is a usage error of one line."""
    assert (2, "", f"replay: {path}: {said}\n") == replay(capsys, "show", logs.short(path), *arguments)


def test_show_nothing_at(capsys: Captured, path: Path) -> None:
    """That nothing happened at a time is an answer, given on standard error."""
    code, out, err = replay(capsys, "show", logs.short(path), "--at", "11:30")
    assert (0, "") == (code, out)
    assert err.startswith(f"replay: {path}: nothing happened at 11:30 UTC: ")


@pytest.mark.parametrize(
    "arguments",
    [
        [],
        ["nonsense"],
        ["run"],
        ["show", "LOG", "5-3"],
        ["show", "LOG", "x"],
        ["show", "LOG", "--at", "25:00"],
        ["show", "LOG", "--follow", "3"],
        ["show", "LOG", "3", "--at", "10:00"],
        ["state", "LOG", "-1"],
        ["texts", "LOG", "--yaml"],
    ],
)
def test_usage(capsys: Captured, path: Path, arguments: list[str]) -> None:
    """A usage error is one line and exit code 2."""
    logs.short(path)
    code, out, err = replay(capsys, *[path if argument == "LOG" else argument for argument in arguments])
    assert (2, "", 1) == (code, out, err.count("\n"))


def test_follow_ends_with_the_session(capsys: Captured, path: Path) -> None:
    """Following a log whose session has closed ends at once."""
    code, out, _ = replay(capsys, "show", logs.short(path), "--follow")
    assert (0, 38) == (code, out.count("\n"))


def test_follow_until_interrupted(capsys: Captured, path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Ctrl-C ends the following with exit code 130 and no word."""

    def interrupted(_: float) -> NoReturn:
        raise KeyboardInterrupt

    monkeypatch.setattr(time, "sleep", interrupted)
    code, out, err = replay(capsys, "show", logs.crashed(path), "--follow")
    assert (130, 20, "") == (code, out.count("\n"), err)


def test_state(capsys: Captured, path: Path) -> None:
    """The state is that of the last record unless one is named."""
    logs.hanging(path)
    assert "record 18," == replay(capsys, "state", path)[1][:10]
    assert "record 7," == replay(capsys, "state", path, 7)[1][:9]


def test_texts_as_json(capsys: Captured, path: Path) -> None:
    """The texts are one JSON array."""
    code, out, _ = replay(capsys, "texts", logs.short(path), "--json")
    assert (0, [" röt"]) == (code, [told["text"] for told in json.loads(out)][1:])


def test_torn_tail(capsys: Captured, path: Path) -> None:
    """A torn tail is mentioned and no error."""
    logs.short(path)
    path.write_bytes(path.read_bytes()[:-20])
    for command in ("show", "texts", "state", "run"):
        code, out, err = replay(capsys, command, path)
        assert 0 == code
        assert "the session did not close: it still runs, or it crashed here" in out + err
        assert "the last 87 bytes are a write that did not finish" in out + err


@pytest.mark.parametrize(("command", "due"), [("show", 0), ("state", 0), ("texts", 0), ("run", 1)])
def test_closed_pipe(path: Path, command: str, due: int) -> None:
    """A reader that leaves the pipe ends the output quietly; a verdict keeps its exit code."""
    logs.rewritten(logs.short(path), 38, b'"digest":"', b'"digest":"0')
    with subprocess.Popen(
        [sys.executable, "-m", "reenact.replay", command, str(path)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    ) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.close()
        assert b"" == process.stderr.read()
    assert due == process.returncode


def test_nothing_heavy_is_loaded(path: Path) -> None:
    """Replaying a log loads neither trio nor llama_cpp, and in a pipe not even rich."""
    script = (
        "import sys; from reenact.replay.cli.main import main; main(sys.argv[1:]);"
        "print([name for name in ('trio', 'llama_cpp', 'rich', 'structlog', 'numpy') if name in sys.modules])"
    )
    for command in ("run", "show", "state", "texts"):
        done = subprocess.run(
            [sys.executable, "-c", script, command, str(logs.short(path))], check=True, capture_output=True, text=True
        )
        assert "[]" == done.stdout.splitlines()[-1]
        path.unlink()


@pytest.mark.parametrize("command", ["run", "check", "show", "state", "texts"])
def test_a_compressed_log(capsys: Captured, tmp_path: Path, command: str) -> None:
    """Each command prints of a compressed log what it prints of a plain one, but for the name and the length."""
    plain, packed = logs.short(tmp_path / "session.jsonl"), logs.short(tmp_path / "session.jsonl.zst")
    told = [replay(capsys, command, plain), replay(capsys, command, packed)]
    code, out, err = told[1]
    out = re.sub("(bytes of log per token +)[0-9]+", r"\1?", out.replace(packed.name, plain.name))
    assert (told[0][0], re.sub("(bytes of log per token +)[0-9]+", r"\1?", told[0][1]), told[0][2]) == (code, out, err)


def test_a_smaller_log_is_compressed_like_its_log(capsys: Captured, tmp_path: Path) -> None:
    """What is made of a compressed log has its name with an ending of the same kind, and is compressed too."""
    session = logs.Session(tmp_path / "session.jsonl.zst")
    session.request("one")
    session.decode({1: b"1"})
    session.journal.close()
    code, out, _ = replay(capsys, "to-test", session.path)
    assert (0, True) == (code, "test_session.py" in out)
    lines = read_fields(logs.short(tmp_path / "bad.jsonl"))
    lines[8]["text"] = "Become"
    write_fields(tmp_path / "bad.jsonl", lines)
    packed = tmp_path / "bad.jsonl.zst"
    packed.write_bytes(zstandard.ZstdCompressor().compress((tmp_path / "bad.jsonl").read_bytes()))
    code, out, _ = replay(capsys, "shrink", packed)
    small = tmp_path / "bad-small.jsonl.zst"
    assert (0, True) == (code, f"shrunk: {small}" in out)
    assert zstandard.FRAME_HEADER == small.read_bytes()[:4]
