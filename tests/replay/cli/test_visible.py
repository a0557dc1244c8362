"""What reaches people: nothing that a log, a path or an argument holds moves a cursor, hides or reorders anything."""

import io
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final
from unicodedata import category

import pytest

from reenact.replay.check.report import check_log
from reenact.replay.cli import main as cli
from reenact.runtime.log.codec import Fields
from reenact.runtime.terminal import print_json, printer, tell, visible, visible_lines
from tests.helpers.sessions import read_fields, write_fields

UNSEEN: Final = "".join(
    chr(code)
    for code in range(sys.maxunicode + 1)
    if category(chr(code)) in {"Cc", "Cf", "Cs", "Zl", "Zp"} and chr(code) != "\t"
)
"""Controls, formats, halves of characters and separators: what a reader cannot see."""
HOSTILE: Final = "\x00\x1b[31m\x07\r\n\x7f\x85\x9b7m\xad\u061c\u200b\u202e\u2028\u2066\ufeff\U000e0041[red]x[/]:smile:"
"""One of each kind that can stand in a log, and what rich takes for markup; short enough that nobody cuts it."""
COMMANDS: Final = (
    ["run"],
    ["run", "--json"],
    ["check"],
    ["check", "--json"],
    ["show"],
    ["show", "--only", "1"],
    ["show", "N"],
    ["state"],
    ["state", "N"],
    ["texts"],
    ["texts", "--json"],
    ["diff", "OTHER"],
    ["diff", "OTHER", "--json"],
    ["shrink", "-o", "OUT"],
    ["to-test", "-o", "OUT.py"],
    ["fork", "--at", "N", "-o", "OUT"],
)


class Terminal(io.StringIO):
    """A stream that looks like a terminal."""

    def isatty(self) -> bool:
        """Say so."""
        return True


def printed(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> str:
    """Run the command on a terminal and return what it prints there."""
    terminal = Terminal()
    monkeypatch.setattr(sys, "stdout", terminal)
    monkeypatch.setattr(sys, "stderr", terminal)
    try:
        cli.main(list(arguments))
    except SystemExit:
        pass
    finally:
        monkeypatch.undo()
    return terminal.getvalue()


def unseen(out: str) -> set[str]:
    """Return the characters of an output that may not be in it; colours and newlines may."""
    return {c for c in re.sub(r"\x1b\[[0-9;]*m|\x1b\[\?25[hl]|\x1b\[2K|\x1b\[1A|\r", "", out) if c in UNSEEN} - {"\n"}


def poisoned(fields: Fields) -> Iterator[Fields]:
    """Yield a record with each text in it made hostile, one after the other, and with each name."""
    yield from _poisoned(fields)
    yield {**fields, HOSTILE: 1}


def _poisoned(value: Any) -> Iterator[Any]:
    match value:
        case str():
            yield HOSTILE
        case dict():
            for name, item in value.items():
                for changed in _poisoned(item):
                    yield {**value, name: changed}
            yield {(HOSTILE if i == 0 else name): item for i, (name, item) in enumerate(value.items())}
        case list():
            for i, item in enumerate(value):
                for changed in _poisoned(item):
                    yield [*value[:i], changed, *value[i + 1 :]]
        case _:
            pass


def test_all_that_cannot_be_seen_is_escaped() -> None:
    """Every control, format, half character and separator is escaped, and so is what is of no width beside them."""
    more = "\u034f\u115f\u3164\uffa0\ufe00\U000e0100"
    assert [] == [c for c in UNSEEN + more if not re.fullmatch(r"\\([nrt]|x..|u.{4}|U.{8})", visible(c))]


def test_what_can_be_seen_stays() -> None:
    """Letters of all scripts, tabulators and emoji are as they are, and `visible_lines` keeps newlines too."""
    assert "a\tß漢字 e\u0301 ❤\ufe0f" == visible("a\tß漢字 e\u0301 ❤\ufe0f")
    assert "a\nb\\x1b" == visible_lines("a\nb\x1b")


@pytest.mark.parametrize("n_fields", [1, pytest.param(4, marks=pytest.mark.long)])
@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
def test_no_field_reaches_a_terminal_raw(
    eventful: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, command: list[str], n_fields: int
) -> None:
    """Whatever field of whatever record is hostile, its command escapes it, in errors too; and so with paths."""
    lines = read_fields(eventful)
    first = {str(fields["type"]): n for n, fields in reversed(list(enumerate(lines)))}
    log = tmp_path / "\x1b]0;\u202e.jsonl"
    out = tmp_path / "\x9bout"
    wrong: list[tuple[str, set[str]]] = []
    # A command that reads up to a record need not see all kinds with all fields: the first ones are short logs.
    # Each command begins with other fields, so that all have their turn.
    for turn, (kind, n) in enumerate(first.items(), COMMANDS.index(command)):
        changes = list(poisoned(lines[n]))
        step = max(1, len(changes) // n_fields)
        for fields in changes[turn % step :: step]:
            write_fields(log, [*lines[:n], fields, *lines[n + 1 : n + 12]])
            given = [
                {"N": str(n), "OTHER": str(eventful), "OUT": str(out), "OUT.py": f"{out}.py"}.get(a, a) for a in command
            ]
            if found := unseen(printed(monkeypatch, given[0], str(log), *given[1:])):
                wrong.append((kind, found))
            for left in tmp_path.iterdir():
                if left != log:
                    left.unlink()
    assert [] == wrong


@pytest.mark.parametrize(
    "arguments",
    [
        ["run", "LOG", HOSTILE],
        ["check", "LOG", "--rules", HOSTILE],
        ["show", "LOG", HOSTILE],
        ["show", "LOG", "--only", HOSTILE],
        ["show", "LOG", "--at", HOSTILE],
        ["state", "LOG", HOSTILE],
        ["texts", HOSTILE],
        ["diff", "LOG", HOSTILE],
        ["shrink", "LOG", "--rule", HOSTILE],
        ["shrink", "LOG", "-o", HOSTILE],
        ["to-test", "LOG", "-o", HOSTILE],
        ["fork", "LOG", "--at", "3", "-o", HOSTILE, "--model", HOSTILE],
        ["run", "LOG", "--model", HOSTILE],
        ["texts", "LOG", f"--{HOSTILE}"],
        [HOSTILE],
    ],
    ids=lambda arguments: " ".join(arguments).replace(HOSTILE, "HOSTILE"),
)
def test_no_argument_reaches_a_terminal_raw(
    eventful: Path, monkeypatch: pytest.MonkeyPatch, arguments: list[str]
) -> None:
    """What is wrong with an argument is told with the argument escaped, half characters too."""
    given = [
        str(eventful) if one == "LOG" else one.replace("\0", "") + "\udc9b" * (HOSTILE in one) for one in arguments
    ]
    assert set() == unseen(printed(monkeypatch, *given))


def test_a_violation_is_visible(eventful: Path, tmp_path: Path) -> None:
    """The error that a test of a user's raises tells what a log holds with its controls escaped."""
    log = tmp_path / "session.jsonl"
    lines = read_fields(eventful)
    n = next(n for n, fields in enumerate(lines) if fields["type"] == "TokenEmitted")
    write_fields(log, [*lines[:n], {**lines[n], "text": HOSTILE}, *lines[n + 1 :]])
    with pytest.raises(Exception, match="violated") as raised:
        check_log(log).raise_for_violation()
    assert set() == unseen(str(raised.value))


def test_texts_in_a_pipe_are_as_they_are(eventful: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """`replay texts` writes a text unchanged into a pipe."""
    log, pipe = tmp_path / "session.jsonl", io.StringIO()
    lines = read_fields(eventful)
    n = next(n for n, fields in enumerate(lines) if fields["type"] == "RequestReceived")
    hostile = HOSTILE.replace("\n", "")
    write_fields(log, [*lines[:n], {**lines[n], "prompt": hostile}, *lines[n + 1 :]])
    monkeypatch.setattr(sys, "stdout", pipe)
    cli.main(["texts", str(log)])
    assert f"  prompt | {hostile}\n" in pipe.getvalue()


def test_a_line_is_a_line() -> None:
    """A newline in what is shown or told ends no line."""
    stream = io.StringIO()
    printer(stream)([("a\nb", ""), ("\x85c", "bold")])
    assert "a\\nb\\x85c\n" == stream.getvalue()


def test_errors_are_told_on_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    """A message of several lines is told on one."""
    tell("replay", "a\n  b\x1b")
    assert "replay: a b\\x1b\n" == capsys.readouterr().err


def test_json_is_ascii(capsys: pytest.CaptureFixture[str]) -> None:
    """What is printed as JSON holds no character that a terminal could take for something else."""
    print_json({UNSEEN: HOSTILE})
    assert [] == [c for c in capsys.readouterr().out.rstrip("\n") if not " " <= c <= "~"]
