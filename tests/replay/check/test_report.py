"""The command ``replay check``: what it prints, and its exit codes."""

import json
import subprocess
import sys
from pathlib import Path
from typing import NoReturn

import pytest

from reenact.replay.check import report
from reenact.replay.check.rules import RULES
from reenact.replay.cli import main as cli
from tests.helpers.sessions import read_fields, write_fields
from tests.replay import logs

Captured = pytest.CaptureFixture[str]


SOUND = [
    "sound: it can be decided",
    "  not computed: nothing was computed: its engine is not llama.cpp",
    "  not resumed: its session was closed, so there is nothing to resume: record into another file",
]
"""The condition of a scripted session that closed."""


def holds(path: Path) -> str:
    """Return the report of such a session without a violation."""
    return "\n".join([f"holds: {path}: {len(RULES)} rules, 38 records", *SOUND, ""])


def check(capsys: Captured, *arguments: object) -> tuple[int, str, str]:
    """Run the command; return exit code, standard output and standard error."""
    try:
        code = cli.main(["check", *map(str, arguments)])
    except SystemExit as left:
        code = left.code if isinstance(left.code, int) else -1
    captured = capsys.readouterr()
    return code, captured.out, captured.err


def wrong(path: Path) -> Path:
    """Write a session whose engine reports a cell too many after batch 2, at record 20."""
    lines = read_fields(logs.short(path))
    assert ("BatchDecoded", 2) == (lines[20]["type"], lines[20]["batch"])
    lines[20]["positions"][0][1] += 1
    write_fields(path, lines)
    return path


def hopeless(path: Path) -> Path:
    """Write a session with 25 records that are wrong."""
    session = logs.Session(path, n_ctx=64)
    session.request("one", num_predict=25)
    while session.planned is not None:
        session.decode()
    session.close()
    lines = read_fields(path)
    for fields in lines:
        if fields["type"] == "TokenEmitted":
            fields["text"] = "a"
    write_fields(path, lines)
    return path


def test_a_log_that_holds(capsys: Captured, path: Path) -> None:
    """The first word is the outcome, and how many rules and records there are stands behind it."""
    logs.short(path)
    assert (0, holds(path), "") == check(capsys, path)


@pytest.mark.parametrize("arguments", [["--rules"], ["--rules", ""]])
def test_rules_without_a_name_are_all(capsys: Captured, path: Path, arguments: list[str]) -> None:
    """Behind the logs, --rules without a name stands for all rules."""
    logs.short(path)
    assert (0, holds(path), "") == check(capsys, path, *arguments)


def test_a_log_that_is_violated(capsys: Captured, path: Path) -> None:
    """A violation is one line: the rule, the record, the values, and the command that shows the spot."""
    code, out, err = check(capsys, wrong(path), "--rules", "cells,text")
    head = f"violated: {path}: 1 violation; 2 rules, 38 records"
    line = f"  cells  record 20: expected slot 0 at position 3, actual position 4  replay show {path} 19-20"
    assert (1, [head, *SOUND, line], "") == (code, out.splitlines(), err)


def test_the_spot_can_be_shown(capsys: Captured, path: Path) -> None:
    """The command that stands behind a violation shows the records up to the wrong one."""
    *_, command, log, records = check(capsys, wrong(path), "--rules=cells")[1].split()
    cli.main([command, log, records])
    assert [19, 20] == [int(line.split()[0]) for line in capsys.readouterr().out.splitlines()]


def test_the_first_violations_are_told(capsys: Captured, path: Path) -> None:
    """Of many violations the first are told, and the rest are counted."""
    code, out, _ = check(capsys, hopeless(path), "--rules", "text")
    lines = out.splitlines()
    assert (1, 25) == (code, len(lines))
    assert {"text"} == {line.split()[0] for line in lines[4:-1]}
    # Each token's text, and the whole.
    assert f"violated: {path}: 26 violations; 1 rule, {len(read_fields(path))} records" == lines[0]
    assert "  and 6 more" == lines[-1]


def test_many_logs(capsys: Captured, tmp_path: Path) -> None:
    """Each log has its outcome, on a line as JSON if so asked, and the exit code is the worst."""
    good, bad = logs.short(tmp_path / "good.jsonl"), wrong(tmp_path / "bad.jsonl")
    broken = logs.flipped(logs.short(tmp_path / "broken.jsonl"), 4)
    code, out, err = check(capsys, good, bad, broken, tmp_path / "none.jsonl", "--json", "--rules", "cells")
    told = [json.loads(line) for line in out.splitlines()]
    assert (3, "") == (code, err)
    assert ["holds", "violated", "corrupt", "unreadable"] == [one["verdict"] for one in told]
    names = ["verdict", "rules", "records", "notes", "n_violations", "violations", "bytes", "uses"]
    assert [names] * 4 == [list(one) for one in told]
    assert ["sound", "sound", "damaged", "unreadable"] == [one["bytes"] for one in told]
    assert [True, True, False, False] == [one["uses"]["decided"]["possible"] for one in told]
    assert {
        "rule": "cells",
        "n": 20,
        "first": 19,
        "expected": "slot 0 at position 3",
        "actual": "position 4",
    } == told[1]["violations"][0]


def test_what_cannot_be_checked(capsys: Captured, tmp_path: Path) -> None:
    """A file that is not there, an empty log, a corrupt one and a newer one have their own words and exit codes."""
    empty, newer = tmp_path / "empty.jsonl", logs.short(tmp_path / "newer.jsonl")
    empty.touch()
    logs.rewritten(newer, 1, b'"format":2', b'"format":3')
    broken = logs.flipped(logs.short(tmp_path / "broken.jsonl"), 4)
    elsewhere = logs.rewritten(logs.short(tmp_path / "elsewhere.jsonl"), 5, b'"n":4', b'"n":5')
    due = {
        tmp_path / "none": (2, "unreadable"),
        tmp_path: (2, "unreadable"),
        empty: (4, "not comparable"),
        newer: (4, "not comparable"),
        broken: (3, "corrupt"),
        elsewhere: (3, "corrupt"),
    }
    for log, (exit_code, word) in due.items():
        code, out, err = check(capsys, log)
        n_lines = 2 if word == "corrupt" else 1
        assert (exit_code, word, n_lines, "") == (code, out.partition(":")[0], out.count("\n"), err)


def test_a_session_that_crashed(capsys: Captured, path: Path) -> None:
    """A session that did not close, and a tail that is torn, are mentioned and no violation."""
    logs.short(path)
    path.write_bytes(path.read_bytes()[:-20])
    code, out, err = check(capsys, path)
    told = [
        f"holds: {path}: {len(RULES)} rules, 37 records",
        "record 36 is the last one, and the session did not close: it still runs, or it crashed here",
        "the last 87 bytes are a write that did not finish",
        "torn: it can be decided and resumed",
        SOUND[1],
    ]
    assert (0, told, "") == (code, out.splitlines(), err)


def test_the_rules_are_listed(capsys: Captured) -> None:
    """--list prints each rule with what must hold, and wants no log."""
    code, out, err = check(capsys, "--list")
    assert (0, list(RULES), "") == (code, [line.split()[0] for line in out.splitlines()], err)
    assert [] == [name for name, line in zip(RULES, out.splitlines(), strict=True) if RULES[name].says not in line]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ([], "the following arguments are required: LOG, or --list (see replay check --help)"),
        (["LOG", "--rules", "cells,cell"], "--rules: there is no rule 'cell'; replay check --list names them"),
        (["LOG", "--yaml"], "unrecognized arguments: --yaml (see replay check --help)"),
    ],
)
def test_usage(capsys: Captured, path: Path, arguments: list[str], said: str) -> None:
    """A usage error is one line and exit code 2."""
    logs.short(path)
    code, out, err = check(capsys, *[path if argument == "LOG" else argument for argument in arguments])
    assert (2, "", 1) == (code, out, err.count("\n"))
    assert said in err


def test_help_has_an_example(capsys: Captured) -> None:
    """The help shows how the command is used."""
    code, out, _ = check(capsys, "--help")
    assert (0, True) == (code, "examples:\n  replay check session.jsonl" in out)


def test_a_fault_of_the_program(capsys: Captured, path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An unexpected exception is one line that asks for a report, and exit code 5."""

    def broken(*_: object) -> NoReturn:
        raise ZeroDivisionError("by zero")

    monkeypatch.setattr(report, "check_log", broken)
    code, out, err = check(capsys, logs.short(path))
    plea = "this is a bug in reenact: please report it and send the log"
    assert (5, "", f"replay: {path}: ZeroDivisionError: by zero ({plea})\n") == (code, out, err)


def test_closed_pipe(path: Path) -> None:
    """A reader that leaves the pipe ends the output quietly, and the exit code stays."""
    with subprocess.Popen(
        [sys.executable, "-m", "reenact.replay", "check", str(wrong(path))],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    ) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.close()
        assert b"" == process.stderr.read()
    assert 1 == process.returncode


def test_nothing_heavy_is_loaded(path: Path) -> None:
    """Checking a log loads neither trio nor llama_cpp, and in a pipe not even rich."""
    script = (
        "import sys; from reenact.replay.cli.main import main; main(sys.argv[1:]);"
        "print([name for name in ('trio', 'llama_cpp', 'rich', 'structlog', 'numpy') if name in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", script, "check", str(logs.short(path))], check=True, capture_output=True, text=True
    )
    assert "[]" == done.stdout.splitlines()[-1]
