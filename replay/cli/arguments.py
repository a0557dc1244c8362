"""The arguments of ``replay``: names, help, examples, and usage errors.

The rule that holds here: an error in the arguments is one line on standard error, and exit code 2.
"""

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from reenact.actors.options import CHANGEABLE, about
from reenact.runtime.terminal import Parser, add_option, print_block

if TYPE_CHECKING:
    from reenact.replay.look.show import At

_EXIT_CODES = """\
exit codes:
  0  done; of run: same, of check: holds     3  corrupt
  1  diverged, violated                      4  not comparable, or nothing there
  2  usage, or a file that cannot be read    5  a fault of this program
                                           130  Ctrl-C"""


class _Parser(Parser):
    """A parser that keeps the layout of the help texts below."""

    def __init__(self, *, prog: str, description: str, **more: Any) -> None:  # noqa: ANN401  # argparse's own
        formatter = argparse.RawDescriptionHelpFormatter
        super().__init__(prog=prog, description=description, formatter_class=formatter, allow_abbrev=False, **more)


class _Version(argparse.Action):
    """Prints the version, which is looked up only then."""

    def __call__(self, parser: argparse.ArgumentParser, *_: object) -> NoReturn:
        from importlib.metadata import version

        print_block(f"replay (reenact) {version('reenact')}\n")
        parser.exit()


def parsed(argv: list[str]) -> argparse.Namespace:
    """Return the arguments: ``command`` is the command's name, ``log`` the log or the logs.

    A usage error, ``--help`` and ``--version`` end the program.
    """
    parser, commands = _parsers()
    if argv and argv[0] in commands:
        # This bypasses `parser`, because the positional arguments of a command may come anywhere among its options.
        return commands[argv[0]].parse_intermixed_args(argv[1:])
    return parser.parse_args(argv)


def _parsers() -> tuple[_Parser, dict[str, _Parser]]:
    """Return the parser of ``replay`` and those of its commands."""
    parser = _Parser(
        prog="replay",
        description="Look into the log of a session, and run its decisions again.",
        epilog=f"example: replay run session.jsonl\n\n{_EXIT_CODES}",
    )
    parser.add_argument("--version", action=_Version, nargs=0, help="print the version and exit")
    commands = parser.add_subparsers(metavar="COMMAND", required=True)

    run = _command(commands, "run", "run the actors on a log's facts again and compare what they decide")
    _arguments_of_run(run)

    check = _command(
        commands, "check", "check a log against the rules that every session keeps, and print the violations"
    )
    _arguments_of_check(check)

    show = _command(commands, "show", "print records for people, one a line")
    _arguments_of_show(show)

    state = _command(commands, "state", "print the state of every actor at a record, and what each sequence waits for")
    state.add_argument("log", metavar="LOG")
    state.add_argument("n", nargs="?", type=_number, metavar="N", help="the record (default: the last one)")
    state.epilog = (
        "'since record n (0.030 s)' is the time up to the record that is shown, and not up to now.\n\n"
        "example: it hangs\n  replay state session.jsonl"
    )

    texts = _command(commands, "texts", "print each sequence's prompt, text and finish reason")
    texts.add_argument("log", metavar="LOG")
    texts.add_argument("--json", action="store_true", help="print one JSON array")
    texts.epilog = "example: replay texts session.jsonl --json | jq -r '.[].text'"

    fork = _command(commands, "fork", "let a session go on from before a record, with other options, on its model")
    _arguments_of_fork(fork)

    repair = _command(commands, "repair", "copy the valid records of a damaged or torn log into a new one")
    _arguments_of_repair(repair)

    extract = _command(commands, "extract", "keep one request of a log, alone, in a log of its own")
    _arguments_of_extract(extract)

    redact = _command(commands, "redact", "replace the texts and tokens of a log, so that its decisions still replay")
    _arguments_of_redact(redact)

    diff = _command(commands, "diff", "print where two logs differ: sequence by sequence, token by token")
    diff.add_argument("log", metavar="LOG")
    diff.add_argument("other", metavar="OTHER", help="another log; sequences are matched by request_id or number")
    diff.add_argument("--json", action="store_true", help="print one JSON object")
    diff.epilog = "exit code 0: same, 1: different\n\nexample: replay diff session.jsonl child.jsonl"

    shrink = _command(commands, "shrink", "make a log smaller while its fault stays")
    _arguments_of_shrink(shrink)

    to_test = _command(commands, "to-test", "keep a log as a pytest file that tests for its fault")
    _arguments_of_to_test(to_test)

    return parser, dict(commands.choices)


def _arguments_of_run(run: _Parser) -> None:
    run.add_argument("log", nargs="+", metavar="LOG", help="with several, the exit code is the worst")
    run.add_argument("--json", action="store_true", help="print one JSON object a log, each on a line")
    computing = run.add_argument_group(
        "executing it again", "every operation on cells, every decode and every draw, compared to the last bit"
    )
    computing.add_argument(
        "--model", type=Path, metavar="MODEL", help="execute the log again on this model: a file or a name"
    )
    computing.add_argument(
        "--compute", action="store_true", help="the same on the recorded model, if it is still there"
    )
    computing.add_argument("--only", metavar="ID", help="one sequence, by number or request_id, alone in a context")
    computing.add_argument("--alone", action="store_true", help="every sequence, one after the other, each alone")
    computing.add_argument("--tokens", action="store_true", help="compare tokens only: the log is of another machine")
    computing.add_argument("--force", action="store_true", help="compare although model, build or context differ")
    computing.add_argument("--keep-logits", type=Path, metavar="FILE.npy", help="write the first row that differs")
    run.epilog = (
        "examples:\n  replay run logs/*.jsonl --json\n  replay run session.jsonl --model model.gguf\n"
        f"  replay run session.jsonl --compute --only chat-7\n\n{_EXIT_CODES}"
    )


def _arguments_of_check(check: _Parser) -> None:
    check.add_argument("log", nargs="*", metavar="LOG", help="with several, the exit code is the worst")
    check.add_argument(
        "--rules",
        nargs="?",
        const="",
        default="",
        metavar="NAME,NAME...",
        help="one rule or several; all of them without a name",
    )
    check.add_argument("--list", action="store_true", help="print all rules, each as a sentence")
    check.add_argument("--json", action="store_true", help="print one JSON object a log, each on a line")
    check.epilog = (
        "It also says whether the bytes are sound, torn or damaged, and whether the log can be decided (replay run),\n"
        "computed (replay run --compute) and resumed (reenact resume).\n\n"
        "Names follow --rules: to check all rules, put it after the logs, or leave it out.\n\n"
        "examples:\n  replay check session.jsonl\n  replay check logs/*.jsonl --rules positions,cells\n\n"
        f"{_EXIT_CODES}"
    )


def _arguments_of_fork(fork: _Parser) -> None:
    fork.add_argument("log", metavar="LOG")
    fork.add_argument("--at", type=_number, required=True, metavar="N", help="the first record to leave out")
    fork.add_argument("-o", "--out", required=True, metavar="CHILD", help="the log to write; it must not exist")
    fork.add_argument("--only", metavar="ID", help="the sequence whose options change (default: all)")
    fork.add_argument("--model", type=Path, metavar="MODEL", help="a file or a name (default: the recorded model)")
    fork.add_argument("--force", action="store_true", help="go on although build, machine or parameters differ")
    fork.add_argument("--json", action="store_true", help="print one JSON object")
    options = fork.add_argument_group("options that may change", "each in place of the request's own")
    for name in CHANGEABLE:
        add_option(options, name, about(name).help)
    fork.epilog = (
        "Text generated before the cut is evaluated, not generated again; requests that came later are left out.\n\n"
        "example:\n  replay fork session.jsonl --at 812 --only chat-7 --temperature 0.2 -o child.jsonl\n"
        "  replay diff session.jsonl child.jsonl"
    )


def _add_new_log(parser: _Parser) -> None:
    """Add the arguments of a command that makes a log of another one."""
    parser.add_argument("log", metavar="LOG")
    parser.add_argument("-o", "--out", required=True, metavar="NEW", help="the log to write; it must not exist")
    parser.add_argument("--json", action="store_true", help="print one JSON object")


def _arguments_of_repair(repair: _Parser) -> None:
    _add_new_log(repair)
    repair.epilog = (
        "NEW has all records before the first byte that is not what was written, and is compressed if its name ends\n"
        "in .zst. LOG stays as it is.\n\n"
        "examples:\n  replay repair session.jsonl.zst -o repaired.jsonl.zst\n"
        f"  replay repair session.jsonl.zst -o plain.jsonl\n\n{_EXIT_CODES}"
    )


def _arguments_of_extract(extract: _Parser) -> None:
    _add_new_log(extract)
    extract.add_argument("--only", metavar="ID", required=True, help="the sequence, by its number or request_id")
    extract.epilog = (
        "The new log holds the prompt and the text of that request, and nothing of any other. Where results do not\n"
        "depend on the schedule, it replays, and computes to the same bits.\n\n"
        "example:\n  replay extract session.jsonl --only chat-7 -o chat-7.jsonl\n"
        f"  replay run chat-7.jsonl --compute\n\n{_EXIT_CODES}"
    )


def _arguments_of_redact(redact: _Parser) -> None:
    _add_new_log(redact)
    redact.add_argument(
        "--key-file", metavar="FILE", help="a secret of 16 bytes or more, for equal hashes in several logs"
    )
    redact.epilog = (
        "Prompts, texts, tokens, names of requests, grammars and error messages are replaced or left out; checksums,\n"
        "probabilities and vectors are left out. Counts, lengths of pieces, times, options and the machine stay. The\n"
        "key is random without --key-file, and is in neither log.\n\n"
        f"example:\n  replay redact session.jsonl -o report.jsonl\n  replay run report.jsonl\n\n{_EXIT_CODES}"
    )


def _arguments_of_shrink(shrink: _Parser) -> None:
    shrink.add_argument("log", metavar="LOG")
    wrong = shrink.add_mutually_exclusive_group()
    wrong.add_argument("--rule", metavar="NAME", help="the rule of replay check that must stay broken")
    wrong.add_argument("--diverges", action="store_true", help="keep a record that today's actors decide differently")
    shrink.add_argument(
        "-o", "--out", metavar="SMALL", help="the log to write, which must not exist (default: LOG-small)"
    )
    shrink.add_argument(
        "--limit",
        type=_seconds,
        metavar="SECONDS",
        help="the time limit, including reading; the smallest session so far is written then (default: 60)",
    )
    shrink.add_argument("--json", action="store_true", help="print one JSON object")
    shrink.epilog = (
        "Requests are left out and shortened, and happen again on today's actors. Without --rule or --diverges the\n"
        "fault is found first. Ctrl-C writes the smallest session so far.\n\n"
        "example:\n  replay shrink session.jsonl --rule text\n  replay to-test session-small.jsonl\n\n"
        f"{_EXIT_CODES}"
    )


def _arguments_of_to_test(to_test: _Parser) -> None:
    to_test.add_argument("log", metavar="LOG")
    to_test.add_argument("--rule", metavar="NAME", help="the rule to test (default: the fault that is found)")
    to_test.add_argument("-o", "--out", metavar="TEST.py", help="a new file (default: test_LOG.py beside the log)")
    to_test.add_argument("--json", action="store_true", help="print one JSON object")
    to_test.epilog = (
        "The test fails until the bug is fixed. It passes if it is fixed already, or if the log has no fault.\n\n"
        f"example:\n  replay to-test session-small.jsonl -o tests/test_stop.py\n\n{_EXIT_CODES}"
    )


def _arguments_of_show(show: _Parser) -> None:
    show.add_argument("log", metavar="LOG")
    show.add_argument(
        "records", nargs="?", type=_records, metavar="N|N-M", help="one record with all its fields, or a range"
    )
    show.add_argument("--only", metavar="ID", help="a sequence, by its number or request_id, and its batches")
    show.add_argument("--at", type=_at, metavar="HH:MM[:SS]", help="the records of that minute or second, UTC")
    show.add_argument("--follow", action="store_true", help="go on as the log grows, until the session closes")
    show.epilog = (
        "A line is: number, seconds since the session opened, actor, event, and '<- n',\n"
        "the record from which it follows.\n\n"
        "examples:\n  replay show session.jsonl 40-60\n  replay show session.jsonl --only chat-7 | less\n"
        "  replay show session.jsonl --at 14:05\n  replay show session.jsonl --follow | grep finished"
    )


def _command(commands: "argparse._SubParsersAction[_Parser]", name: str, what: str) -> _Parser:
    parser = commands.add_parser(name, help=what, description=what[0].upper() + what[1:] + ".")
    parser.set_defaults(command=name)
    return parser


def _number(written: str) -> int:
    if not (written.isascii() and written.isdecimal()):
        raise argparse.ArgumentTypeError(f"expected the number of a record, from 0, got {written!r}")
    return int(written)


def _seconds(written: str) -> float:
    try:
        seconds = float(written)
    except ValueError:
        seconds = -1.0
    if not 0 <= seconds < float("inf"):
        raise argparse.ArgumentTypeError(f"expected a number from 0 on, got {written!r}")
    return seconds


def _records(written: str) -> tuple[int, int]:
    first, dash, last = written.partition("-")
    if not all(part.isascii() and part.isdecimal() for part in ([first, last] if dash else [first])):
        raise argparse.ArgumentTypeError(f"expected N or N-M, got {written!r}")
    chosen = int(first), int(last if dash else first)
    if chosen[0] > chosen[1]:
        raise argparse.ArgumentTypeError(f"{written} is no range: it ends before it begins")
    return chosen


def _at(written: str) -> "At":
    from reenact.replay.look.show import At

    try:
        return At.parse(written)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None
