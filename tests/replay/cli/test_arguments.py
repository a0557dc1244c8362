"""The arguments of both commands, given too few, too many and none."""

import argparse
from collections.abc import Iterator

import pytest

from reenact.replay.cli import arguments
from reenact.replay.cli import main as cli
from reenact.runtime.cli import main as reenact

Captured = pytest.CaptureFixture[str]


def parsers() -> Iterator[argparse.ArgumentParser]:
    """Yield the parsers of ``replay`` and ``reenact`` and of all their commands."""
    for parser in (arguments._parsers()[0], reenact._parser()):
        yield parser
        for action in parser._actions:
            if isinstance(action, argparse._SubParsersAction):
                yield from action.choices.values()


COMMANDS = sorted(parser.prog.split() for parser in parsers() if " " in parser.prog)


def left(argv: list[str]) -> tuple[str, str | int | None]:
    """Parse arguments; return why the program ended, or that it goes on."""
    try:
        if argv[0] == "replay":
            arguments.parsed(argv[1:])
        else:
            reenact._parser().parse_args(argv[1:])
    except SystemExit as error:
        return "ended", error.code
    return "goes on", None


@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
def test_help(capsys: Captured, command: list[str]) -> None:
    """Every command's help is printed."""
    assert ("ended", 0) == left([*command, "--help"])
    assert f"usage: {' '.join(command)} " in capsys.readouterr().out


@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
@pytest.mark.parametrize("given", [[], ["a"], ["a"] * 9, ["-"], ["--"], ["--nothing"], ["a", "--nothing", "b"]])
def test_wrong_numbers(capsys: Captured, command: list[str], given: list[str]) -> None:
    """Whatever number of arguments a command is given, it goes on, or it says what is wrong in one line."""
    how, code = left([*command, *given])
    assert (how, code) in {("goes on", None), ("ended", 2)}
    printed = capsys.readouterr()
    assert ("", int(how == "ended")) == (printed.out, printed.err.count("\n"))


@pytest.mark.parametrize(
    ("argv", "told"),
    [
        (["diff", "a"], "replay diff: the following arguments are required: OTHER (see replay diff --help)\n"),
        (["check"], "replay check: the following arguments are required: LOG, or --list (see replay check --help)\n"),
        (
            ["run", "a", "--alone", "--only", "1"],
            "replay run: --alone executes every sequence: give it or --only, not both (see replay run --help)\n",
        ),
    ],
)
def test_usage_errors_look_alike(capsys: Captured, argv: list[str], told: str) -> None:
    """Wherever it is found, an error names the command, what is missing or wrong, and where help is."""
    try:
        code: object = cli.main(argv)
    except SystemExit as error:
        code = error.code
    assert (2, ("", told)) == (code, tuple(capsys.readouterr()))


@pytest.mark.parametrize("argv", [[], ["nothing"], ["--nothing"], ["a", "b"]], ids=" ".join)
def test_no_command(capsys: Captured, argv: list[str]) -> None:
    """Without a command, or with one that does not exist, both commands end with one line and exit code 2."""
    for program in ("replay", "reenact"):
        assert ("ended", 2) == left([program, *argv])
        assert 1 == capsys.readouterr().err.count("\n")


@pytest.mark.parametrize("given", [[], ["a"], ["a", "b", "c"]], ids=len)
def test_diff_wants_two_logs(capsys: Captured, given: list[str]) -> None:
    """``replay diff`` says that it needs two logs."""
    with pytest.raises(SystemExit, match="2"):
        cli.main(["diff", *given])
    assert capsys.readouterr().err.startswith("replay diff: ")


def test_a_metavar_is_one_word() -> None:
    """No argument is called by several words: where they are missing, argparse cannot say so on any Python."""
    assert [] == [
        f"{parser.prog} {action.dest}"
        for parser in parsers()
        for action in parser._actions
        if isinstance(action.metavar, tuple)
    ]
