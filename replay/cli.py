"""The command ``replay``: its output and its exit codes.

The rules that hold here:

* What was asked for goes to standard output; everything else is one line on standard error.
* Exit codes: 0 done or same, 1 diverged, 2 usage or a file that cannot be read, 3 corrupt, 4 not comparable or nothing
  there, 5 a fault of this program. An error gets its code in one place, `_failed`.
* Nothing is loaded at the start that an answer may not need: ``replay --version`` loads neither rich nor the codec.
"""

import argparse
import io
import os
import sys
from collections.abc import Callable
from typing import Final

from reenact.actors.errors import InternalError, LogCorrupt, LogNotComparable, description
from reenact.replay.arguments import parsed

_FOLLOW_EVERY: Final = 0.2
"""Seconds between two looks at a log that is followed: soon enough for eyes, and no load."""


class _Usage(Exception):
    """The arguments cannot be."""


def main(argv: list[str] | None = None) -> int:
    """Run the command and return its exit code."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")  # A log can hold what a terminal's encoding cannot.
    args = parsed(sys.argv[1:] if argv is None else argv)
    try:
        code = _COMMANDS[args.command](args)
        sys.stdout.flush()
    except BrokenPipeError:
        _close_stdout()
        return 0
    except KeyboardInterrupt:
        return 130
    except Exception as error:  # noqa: BLE001  # the last one to see it: no traceback reaches a user
        return _failed(args.log if isinstance(args.log, str) else args.log[0], error)
    return code


def _failed(path: str, error: Exception) -> int:
    """Say in one line what went wrong, and return the exit code for it."""
    from reenact.replay.fold import NotInLog

    if isinstance(error, _Usage):
        return _say(str(error), 2)
    if isinstance(error, OSError):
        return _say(f"{path}: {error.strerror or error}", 2)
    if isinstance(error, NotInLog):
        return _say(f"{path}: {error}", 2)
    if isinstance(error, LogCorrupt):
        return _say(f"{path}: corrupt: {error}", 3)
    if isinstance(error, LogNotComparable):
        return _say(f"{path}: {error}", 4)
    return _say(f"{path}: {InternalError(description(error))}", 5)


def _say(message: str, code: int = 0) -> int:
    """Print a line on standard error, behind what is on standard output already."""
    try:
        sys.stdout.flush()
    except BrokenPipeError:
        _close_stdout()
    print("replay:", " ".join(message.splitlines()), file=sys.stderr)
    return code


def _close_stdout() -> None:
    """Let what is still to be written go nowhere: the reader of the pipe has left."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


# ---------------------------------------------------------------- commands


def _run(args: argparse.Namespace) -> int:
    import json

    from reenact.replay.decide import replay_log
    from reenact.replay.terminal import shower
    from reenact.replay.verdict import worse

    worst = 0
    show = shower(sys.stdout)
    for path in args.log:
        try:
            verdict = replay_log(path)
            worst = worse(worst, verdict.exit_code)
            lines = [json.dumps(verdict.as_json())] if args.json else verdict.lines()
        except Exception as error:  # noqa: BLE001  # one log's fault does not keep the others from their verdict
            worst = worse(worst, _failed(path, error))
            continue
        try:
            if path is not args.log[0] and not args.json:
                show([])
            for i, line in enumerate(lines):
                show([(line, ("bold red" if verdict.exit_code else "bold green") if i == 0 and not args.json else "")])
            sys.stdout.flush()
        except BrokenPipeError:
            _close_stdout()  # The exit code is still to come.
    return worst


def _show(args: argparse.Namespace) -> int:
    from time import sleep

    from reenact.replay.show import Selection, show_records
    from reenact.replay.terminal import shower
    from reenact.runtime.journal import LogFile

    if args.follow and (args.records or args.at):
        raise _Usage("--follow goes on to the end of the log: give it no N and no --at")
    if args.at and args.records:
        raise _Usage("records are chosen by number or by time: give N or --at, not both")

    def pause() -> None:
        sys.stdout.flush()
        sleep(_FOLLOW_EVERY)

    first, last = args.records or (0, None)
    selection = Selection(first=first, last=last, only=args.only, at=args.at)
    with LogFile(args.log) as log:
        notes = show_records(log, selection, shower(sys.stdout), pause=pause if args.follow else None)
    for note in notes:
        _say(f"{args.log}: {note}")
    return 0


def _state(args: argparse.Namespace) -> int:
    from reenact.replay.fold import moment_at
    from reenact.replay.state import page
    from reenact.replay.terminal import shower
    from reenact.runtime.journal import LogFile

    with LogFile(args.log) as log:
        moment, corrupt = moment_at(log, args.n)
    show = shower(sys.stdout)
    for line in page(moment):
        show(line)
    if corrupt is not None:
        raise corrupt
    return 0


def _texts(args: argparse.Namespace) -> int:
    import json

    from reenact.replay.terminal import shower
    from reenact.replay.texts import lines_of, texts_of
    from reenact.runtime.journal import LogFile

    with LogFile(args.log) as log:
        texts, corrupt = texts_of(log)
    if args.json:
        print(json.dumps([told.as_json() for told in texts.all()]))
    else:
        show = shower(sys.stdout)
        for told in texts.all():
            for line in lines_of(told):
                show(line)
    if corrupt is not None:
        raise corrupt
    for note in texts.end(log.torn):
        _say(f"{args.log}: {note}")
    return 0


_COMMANDS: Final[dict[str, Callable[[argparse.Namespace], int]]] = {
    "run": _run,
    "show": _show,
    "state": _state,
    "texts": _texts,
}

if __name__ == "__main__":
    sys.exit(main())
