"""The command ``replay``: its output and its exit codes.

The rules that hold here:

* The requested output goes to standard output; everything else is one line on standard error.
* Exit codes: 0 done, same or holds, 1 diverged or violated, 2 usage or a file that cannot be read, 3 corrupt, 4 not
  comparable or nothing there, 5 a fault of this program, 130 Ctrl-C. An error's class has its code.
* Nothing is loaded at the start that an answer may not need: ``replay --version`` loads neither rich nor the codec.
"""

import argparse
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Final

from reenact.actors.errors import (
    EngineBroken,
    InternalError,
    InvalidRequest,
    LogBroken,
    LogCorrupt,
    ReenactError,
    description,
)
from reenact.replay.cli.arguments import parsed
from reenact.runtime.terminal import flush, prepare, print_json, printer, tell, to_nowhere

if TYPE_CHECKING:
    from reenact.replay.check.report import Checked
    from reenact.replay.extract.report import Extracted
    from reenact.replay.fork.report import Forked
    from reenact.replay.look.diff import Comparison
    from reenact.replay.redact.report import Redacted
    from reenact.replay.repair.report import Repaired
    from reenact.replay.shrink.shrink import Shrunk
    from reenact.replay.shrink.to_test import KeptTest
    from reenact.replay.verdict import Verdict

_FOLLOW_EVERY: Final = 0.2
"""The seconds between two looks at a log that is followed: soon enough for eyes, and no load."""


class _Usage(Exception):
    """A usage error in the arguments."""


def main(argv: list[str] | None = None) -> int:
    """Run the command and return its exit code."""
    prepare()
    path, args = "arguments", None
    try:
        args = parsed(sys.argv[1:] if argv is None else argv)
        path = args.log if isinstance(args.log, str) else (args.log or [path])[0]
        code = _COMMANDS[args.command](args)
        flush()
    except BrokenPipeError:
        to_nowhere(sys.stdout)
        return 0
    except KeyboardInterrupt:
        return 130
    except _Usage as error:
        command = f"replay {args.command}" if args is not None else "replay"
        tell(command, f"{error} (see {command} --help)")
        return 2
    except Exception as error:  # noqa: BLE001  # the last one to see it: no traceback reaches a user
        return _failed(path, error)
    return code


def _failed(path: str, error: Exception) -> int:
    """Report an error in one line, and return its exit code."""
    match error:
        case OSError():
            return _report(f"{error.filename or path}: {error.strerror or error}", 2)
        case InvalidRequest():
            return _report(f"--{error.field.replace('_', '-')}: {error.reason}", error.exit_code)
        case EngineBroken() | LogBroken():
            return _report(
                str(error), error.exit_code
            )  # The message names the file itself: the model, or a log that is written.
        case LogCorrupt():
            return _report(f"{path}: corrupt: {error}", error.exit_code)
        case ReenactError() if not isinstance(error, InternalError):
            return _report(f"{path}: {error}", error.exit_code)
        case _:
            return _report(f"{path}: {InternalError(description(error))}", InternalError.exit_code)


def _report(message: str, code: int = 0) -> int:
    """Print a line on standard error, after everything that is on standard output already."""
    try:
        sys.stdout.flush()
    except OSError:
        to_nowhere(sys.stdout)
    tell("replay", message)
    return code


# ---------------------------------------------------------------- commands


def _replayer(args: argparse.Namespace) -> Callable[[str], "Verdict"]:
    """Return the function that replays a log in the way that was asked for."""
    computes = args.compute or args.alone or args.model is not None or args.only is not None
    for name in ("force", "tokens", "keep_logits"):
        if getattr(args, name) and not computes:
            raise _Usage(f"--{name.replace('_', '-')} applies to executing a log again: add --model FILE or --compute")
    if not computes:
        from reenact.replay.decide.tier import replay_log

        return replay_log
    if args.keep_logits is not None and (args.tokens or len(args.log) > 1):
        raise _Usage("--keep-logits writes the first differing row of one log: give it one log, and no --tokens")
    if args.compute and args.model is not None:
        raise _Usage("--compute takes the recorded file: give it or --model, not both")
    if args.alone and args.only is not None:
        raise _Usage("--alone executes every sequence: give it or --only, not both")
    from reenact.replay.compute.alone import all_alone, alone_log
    from reenact.replay.compute.machine import save_row
    from reenact.replay.compute.tier import ComputeOptions, compute_log
    from reenact.replay.render.progress import progress

    def replay(path: str) -> "Verdict":
        with progress() as show:
            asked = ComputeOptions(model=args.model, force=args.force, tokens_only=args.tokens, on_progress=show)
            if args.only is not None:
                verdict = alone_log(path, args.only, asked)
            else:
                verdict = all_alone(path, asked) if args.alone else compute_log(path, asked)
        spot = verdict.computed and verdict.computed.first_row
        if args.keep_logits is not None and spot and spot.logits is not None:
            try:
                save_row(args.keep_logits, spot.logits)
                _report(f"{args.keep_logits}: the logits of record {spot.row.n:,}, sequence {spot.row.part.sequence}")
            except OSError as error:
                _report(f"{args.keep_logits}: {error.strerror}")  # The report is still to come.
        return verdict

    return replay


def _run(args: argparse.Namespace) -> int:
    return _judge_each(args, _replayer(args))


def _check(args: argparse.Namespace) -> int:
    from attrs import evolve as changed

    from reenact.replay.check.condition import condition_of
    from reenact.replay.check.report import check_log, rule_lines
    from reenact.replay.check.rules import RULES

    if args.list:
        show = printer(sys.stdout)
        for line in rule_lines():
            show(line)
        return 0
    names = [name for name in args.rules.split(",") if name]
    unknown = next((name for name in names if name not in RULES), None)
    if unknown is not None:
        return _report(f"--rules: there is no rule {unknown!r}; replay check --list names them", 2)
    if not args.log:
        raise _Usage("the following arguments are required: LOG, or --list")
    return _judge_each(args, lambda path: changed(check_log(path, names or None), condition=condition_of(path)))


def _judge_each(args: argparse.Namespace, judge: Callable[[str], "Verdict | Checked"]) -> int:
    """Print the verdict on each log, and return the worst exit code."""
    from reenact.replay.verdict import worse

    worst = 0
    show = printer(sys.stdout)
    for path in args.log:
        try:
            verdict = judge(path)
            worst = worse(worst, verdict.exit_code)
            report = verdict.as_json() if args.json else verdict.lines()
        except Exception as error:  # noqa: BLE001  # one log's fault does not keep the others from their verdict
            worst = worse(worst, _failed(path, error))
            continue
        try:
            if isinstance(report, dict):
                print_json(report)
                continue
            if path is not args.log[0]:
                show([])
            for i, line in enumerate(report):
                show([(line, ("bold red" if verdict.exit_code else "bold green") if i == 0 else "")])
            flush()
        except BrokenPipeError:
            to_nowhere(sys.stdout)  # The exit code is still to come.
    return worst


def _show(args: argparse.Namespace) -> int:
    from time import sleep

    from reenact.replay.look.show import Selection, show_records
    from reenact.runtime.log.reader import LogFile

    if args.follow and (args.records or args.at):
        raise _Usage("--follow goes on to the end of the log: give it no N and no --at")
    if args.at and args.records:
        raise _Usage("records are chosen by number or by time: give N or --at, not both")

    def pause() -> None:
        flush()
        sleep(_FOLLOW_EVERY)

    first, last = args.records or (0, None)
    selection = Selection(first=first, last=last, only=args.only, at=args.at)
    with LogFile(args.log) as log:
        notes = show_records(log, selection, printer(sys.stdout), pause=pause if args.follow else None)
    for note in notes:
        _report(f"{args.log}: {note}")
    return 0


def _state(args: argparse.Namespace) -> int:
    from reenact.replay.fold import moment_at
    from reenact.replay.look.state import page
    from reenact.replay.render.progress import progress
    from reenact.runtime.log.reader import LogFile

    with LogFile(args.log) as log, progress("reading") as show_progress:
        moment, corrupt = moment_at(log, args.n, lambda fraction: show_progress("reading", fraction))
    show = printer(sys.stdout)
    for line in page(moment):
        show(line)
    if corrupt is not None:
        raise corrupt
    return 0


def _texts(args: argparse.Namespace) -> int:
    from reenact.replay.look.texts import lines_of, texts_of
    from reenact.runtime.log.reader import LogFile

    with LogFile(args.log) as log:
        texts, corrupt = texts_of(log)
    if args.json:
        print_json([one.as_json() for one in texts.all()])
    else:
        show = printer(sys.stdout, as_is=True)
        for one in texts.all():
            for line in lines_of(one):
                show(line)
    if corrupt is not None:
        raise corrupt
    for note in texts.end(log.torn):
        _report(f"{args.log}: {note}")
    return 0


def _fork(args: argparse.Namespace) -> int:
    from reenact.actors.options import CHANGEABLE
    from reenact.replay.fork.fork import fork_log
    from reenact.replay.render.progress import progress

    changes = {name: getattr(args, name) for name in CHANGEABLE if getattr(args, name) is not None}
    with _interrupted(Path(args.out), "closed, with all live sequences cancelled"), progress() as show:
        forked = fork_log(
            args.log,
            args.at,
            out=args.out,
            model=args.model,
            only=args.only,
            changes=changes,
            force=args.force,
            on_progress=show,
        )
    return _print(forked, args)


def _repair(args: argparse.Namespace) -> int:
    from reenact.replay.render.progress import progress
    from reenact.replay.repair.repair import repair_log

    with progress("reading the log") as show:
        repaired = repair_log(args.log, out=args.out, on_progress=show)
    return _print(repaired, args)


def _extract(args: argparse.Namespace) -> int:
    from reenact.replay.extract.extract import extract_log
    from reenact.replay.render.progress import progress

    with progress("reading the log") as show:
        extracted = extract_log(args.log, args.only, out=args.out, on_progress=show)
    return _print(extracted, args)


def _redact(args: argparse.Namespace) -> int:
    from reenact.replay.redact.redact import redact_log, secret_of
    from reenact.replay.render.progress import progress

    secret = None if args.key_file is None else secret_of(args.key_file)
    with progress("redacting the log") as show:
        redacted = redact_log(args.log, out=args.out, secret=secret, on_progress=show)
    return _print(redacted, args)


def _diff(args: argparse.Namespace) -> int:
    from reenact.replay.look.diff import compared
    from reenact.replay.look.history import read_log

    logs = []
    for path in (args.log, args.other):
        try:
            logs.append(read_log(path))
        except Exception as error:  # noqa: BLE001  # the message must name the log of the two that failed
            return _failed(path, error)
    comparison = compared(*logs)
    _print(comparison, args)
    for log in logs:
        if log.corrupt is not None:
            return _failed(log.path, log.corrupt)
    return comparison.exit_code


def _shrink(args: argparse.Namespace) -> int:
    from reenact.replay.render.progress import progress
    from reenact.replay.shrink.shrink import LIMIT, shrink_log
    from reenact.runtime.log.compressed import split_name

    _check_rule(args.rule)
    log = Path(args.log)
    stem, ending = split_name(log)
    out = log.with_name(f"{stem}-small{ending}") if args.out is None else Path(args.out)
    with _interrupted(out, "the smallest session so far; more can be left out"), progress("reading the log") as show:
        shrunk = shrink_log(
            log,
            out=out,
            rule=args.rule,
            diverges=args.diverges,
            seconds=LIMIT if args.limit is None else args.limit,
            on_progress=show,
        )
    return _print(shrunk, args)


@contextmanager
def _interrupted(out: Path, what: str) -> Iterator[None]:
    """After Ctrl-C, report the log that was left behind."""
    there_before = out.exists()
    try:
        yield
    except KeyboardInterrupt:
        if not there_before and out.exists():
            _report(f"interrupted; {out}: {what}")
        raise


def _to_test(args: argparse.Namespace) -> int:
    from reenact.replay.shrink.to_test import keep_log

    _check_rule(args.rule)
    return _print(keep_log(args.log, out=args.out, rule=args.rule), args)


def _check_rule(name: str | None) -> None:
    from reenact.replay.check.rules import RULES

    if name is not None and name not in RULES:
        raise _Usage(f"--rule: there is no rule {name!r}; replay check --list names them")


def _print(
    outcome: "Comparison | Extracted | Forked | KeptTest | Redacted | Repaired | Shrunk", args: argparse.Namespace
) -> int:
    """Print the outcome of a command."""
    if args.json:
        print_json(outcome.as_json())
        return 0
    show = printer(sys.stdout)
    for line in outcome.lines():
        show(line)
    return 0


_COMMANDS: Final[dict[str, Callable[[argparse.Namespace], int]]] = {
    "run": _run,
    "check": _check,
    "show": _show,
    "state": _state,
    "texts": _texts,
    "fork": _fork,
    "extract": _extract,
    "redact": _redact,
    "repair": _repair,
    "diff": _diff,
    "shrink": _shrink,
    "to-test": _to_test,
}

if __name__ == "__main__":
    sys.exit(main())
