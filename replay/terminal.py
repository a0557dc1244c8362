"""Where lines go: in colour to a terminal, plain to a pipe.

The rules that hold here:

* A line is never wrapped or cut: in a pipe, one line is one line, so that ``grep`` works.
* rich is loaded only where there is a terminal to colour: it costs more to load than most answers take.
* ``NO_COLOR`` (https://no-color.org) and a dumb terminal get the plain form too.
"""

import os
from collections.abc import Callable
from typing import TextIO

Spans = list[tuple[str, str]]
"""A line: texts, each with a style in rich's words or an empty one."""

Show = Callable[[Spans], None]


def is_coloured(stream: TextIO) -> bool:
    """Return whether lines on ``stream`` are shown in colour."""
    return stream.isatty() and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"


def shower(stream: TextIO) -> Show:
    """Return what shows a line on ``stream``."""
    if is_coloured(stream):
        return _coloured(stream)

    def show(line: Spans) -> None:
        stream.write("".join(text for text, _ in line) + "\n")

    return show


def _coloured(stream: TextIO) -> Show:
    from rich.console import Console
    from rich.text import Text

    console = Console(file=stream, highlight=False)

    def show(line: Spans) -> None:
        console.print(Text.assemble(*line), soft_wrap=True)

    return show
