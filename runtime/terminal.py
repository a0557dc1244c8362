"""Prints everything that the commands ``reenact`` and ``replay`` print.

The rules that hold here:

* Text from a log, a model, a file's name or an argument cannot move the cursor, ring the bell, set a colour, or hide or
  reorder other text, because `visible` escapes it. Only texts for a pipe are written unchanged.
* A line is never wrapped or cut: in a pipe, one line is one line, so that ``grep`` works.
* JSON is ASCII, so it contains no such characters either.
* rich is loaded only for a terminal with colours, because loading it takes longer than most answers.
* With ``NO_COLOR`` (https://no-color.org), and on a dumb terminal, the output is plain too.
"""

import argparse
import io
import json
import os
import re
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Final, NoReturn, TextIO

from reenact.actors.options import OPTIONS

if TYPE_CHECKING:
    from rich.progress import Progress

Spans = list[tuple[str, str]]
"""A line: texts, each with one of rich's styles or an empty one."""

Show = Callable[[Spans], None]

_UNSEEN: Final = re.compile(
    "["
    "\x00-\x08\x0a-\x1f\x7f-\x9f"  # control characters except the tab
    "\u00ad\u034f\u0600-\u0605\u061c\u06dd\u070f\u0890\u0891\u08e2"  # marks that are invisible, or drawn over others
    "\u115f\u1160\u17b4\u17b5\u180b-\u180f\u3164\uffa0"  # fillers and selectors without width
    "\u200b-\u200f\u2028-\u202e\u2060-\u206f\ufeff\ufff9-\ufffb"  # zero-width, direction, line separators
    "\ud800-\udfff"  # half a character; in file names a byte that is not UTF-8
    "\ufe00-\ufe0d"  # variation selectors, except those of text and of emoji
    "\U000110bd\U000110cd\U00013430-\U0001343f\U0001bca0-\U0001bca3\U0001d173-\U0001d17a"
    "\U000e0000-\U000e0fff"  # tags, and more selectors
    "]"
)
"""Characters that are invisible, or that change how others look."""


def visible(text: str) -> str:
    r"""Return a text on one line, with escapes (``\x1b``, ``\u202e``) in place of characters that cannot be seen."""
    return _UNSEEN.sub(lambda found: found.group().encode("unicode_escape").decode(), text)


def visible_lines(text: str) -> str:
    """Return a text with the same escapes, but with its newlines unchanged."""
    return "\n".join(map(visible, text.split("\n")))


def is_coloured(stream: TextIO) -> bool:
    """Return whether lines on ``stream`` are shown in colour."""
    return stream.isatty() and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"


def printer(stream: TextIO, *, as_is: bool = False) -> Show:
    """Return a function that prints a line on ``stream``.

    Args:
        stream: The stream.
        as_is: Write the characters unchanged if the stream is not a terminal.
    """
    if is_coloured(stream):
        return _coloured(stream)
    escaped = str if as_is and not stream.isatty() else visible

    def show(line: Spans) -> None:
        _write(stream, escaped("".join(text for text, _ in line)) + "\n")

    return show


def _coloured(stream: TextIO) -> Show:
    from rich.console import Console
    from rich.text import Text

    console = Console(file=stream, highlight=False)

    def show(line: Spans) -> None:
        console.print(Text.assemble(*((visible(text), style) for text, style in line)), soft_wrap=True)

    return show


def progress_bar(*, disable: bool) -> "Progress":
    """Return a bar on standard error, which disappears at the end of its block; descriptions are plain text."""
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn

    columns = (TextColumn("{task.description}", markup=False), BarColumn(), TaskProgressColumn(), TimeRemainingColumn())
    return Progress(*columns, console=Console(stderr=True), transient=True, disable=disable)


def prepare() -> None:
    """Make standard output and standard error accept every character, and discard output if they are closed."""
    sys.stdout = sys.stdout or _nowhere()
    sys.stderr = sys.stderr or _nowhere()
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")  # A terminal may know only ASCII.


def _nowhere() -> TextIO:
    return open(os.devnull, "w", encoding="utf-8")  # noqa: PTH123  # open until the program ends


def print_block(text: str) -> None:
    """Print lines on standard output: unchanged in a pipe, escaped by `visible` on a terminal."""
    _write(sys.stdout, visible_lines(text) if sys.stdout.isatty() else text)
    flush()


def print_json(value: object) -> None:
    """Print plain values as one line of JSON."""
    _write(sys.stdout, json.dumps(value) + "\n")
    flush()


def flush() -> None:
    """Flush standard output."""
    with _named():
        sys.stdout.flush()


def _write(stream: TextIO, text: str) -> None:
    with _named():
        stream.write(text)


@contextmanager
def _named() -> Iterator[None]:
    """Name standard output in its errors, instead of a file."""
    try:
        yield
    except OSError as error:
        error.filename = "standard output"
        raise


def to_nowhere(stream: TextIO) -> None:
    """Discard what is still to be written, because the reader of the pipe has gone, or the disk is full."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())


def tell(program: str, message: str) -> None:
    """Print a line on standard error; newlines in the message become spaces.

    If it cannot be written, only the exit code can report it.
    """
    try:
        sys.stderr.write(_message(program, message) + "\n")
        sys.stderr.flush()
    except OSError:
        to_nowhere(sys.stderr)


def tell_above(bar: "Progress", program: str, message: str) -> None:
    """Print a line above a progress bar; from any thread."""
    from rich.text import Text

    bar.console.print(Text(_message(program, message)), soft_wrap=True)


def _message(program: str, message: str) -> str:
    return visible(f"{program}: {' '.join(map(str.strip, message.splitlines()))}")


def argument(written: str) -> str:
    """Return an argument that is text; for argparse, which adds the argument's name to an error.

    Raises:
        argparse.ArgumentTypeError: Its bytes are not text in the encoding of the locale, with which Python reads them.
    """
    if written.isascii() or not any("\udc80" <= character <= "\udcff" for character in written):
        return written
    encoding = sys.getfilesystemencoding()
    cure = "" if encoding == "utf-8" else ": set LC_ALL=C.UTF-8 or PYTHONUTF8=1, if they are UTF-8"
    raise argparse.ArgumentTypeError(f"its bytes are not text in {encoding}, the encoding of the locale{cure}")


_KINDS: Final[dict[object, tuple[Callable[[str], object], str]]] = {
    int: (int, "N"),
    float: (float, "X"),
    float | None: (float, "X"),
    str | None: (argument, "TEXT"),
}
"""By the type of an option: the function that reads its argument, and the argument's name in the help."""


class Parser(argparse.ArgumentParser):
    """A parser of arguments that reports errors on one line."""

    def error(self, message: str) -> NoReturn:
        """Print the error in the arguments, and end the program."""
        tell(self.prog, f"{message} (see {self.prog} --help)")
        sys.exit(2)


def add_option(parser: argparse._ActionsContainer, name: str, meaning: str) -> None:
    """Add an option of a request under its own name; its value is None if it is not given.

    Args:
        parser: A parser, or a group of one.
        name: The option's name.
        meaning: The option's help.
    """
    flag, kind = f"--{name.replace('_', '-')}", OPTIONS[name].type
    if kind is bool:
        parser.add_argument(flag, action=argparse.BooleanOptionalAction, default=None, help=meaning)
    elif name == "stop":
        parser.add_argument(flag, action="append", type=argument, metavar="TEXT", help=meaning)
    else:
        convert, metavar = _KINDS[kind]
        parser.add_argument(flag, type=convert, metavar=metavar, help=meaning)
