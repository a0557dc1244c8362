"""Writes single values for people: texts, lists of inputs, names and numbers.

The rules that hold here:

* Every value is written on one line. Invisible characters are escaped where the line is printed.
* Long values are cut, with their length.
"""

from collections.abc import Collection
from typing import Final

from reenact.actors.batch import BatchKey, Draw, Pool, Wants
from reenact.actors.errors import Failure
from reenact.actors.inputs import Input, Row, rows_of

_MAX_ITEMS: Final = 8
"""How many items of a list are shown; the rest are counted."""

_MAX_DIGEST: Final = 8
"""How many digits of a row's digest are shown."""

_MAX_TEXT: Final = 80
"""How many characters of a text are shown; a terminal's width."""


def text(value: str) -> str:
    """Return a text with its spaces and newlines visible, cut if it is long."""
    if len(value) <= _MAX_TEXT:
        return repr(value)
    return f"{value[:_MAX_TEXT]!r}… ({len(value):,} characters)"


def piece(value: bytes) -> str:
    """Return bytes as text if they are text, and as bytes otherwise."""
    try:
        return text(value.decode())
    except UnicodeDecodeError:
        return repr(value)


def plain(value: str) -> str:
    """Return a text unchanged if all of it is printable, and with its escapes otherwise."""
    return value if value.isprintable() else repr(value)


def named(request_id: str | None) -> str:
    """Return a request's name in parentheses, to follow its number; empty if it has none."""
    return "" if request_id is None else f" ({plain(request_id)})"


def failure(failed: Failure) -> str:
    """Return a failure in words."""
    where = f"{failed.field}: " if failed.field else ""
    return plain(f"{failed.kind}: {where}{failed.reason}")


def count(number: int, noun: str) -> str:
    """Return a number with its noun, in the plural where that is due."""
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def inputs(items: Collection[Input]) -> str:
    """Return inputs as a list with its length: tokens by their ids, rows by the beginnings of their digests."""
    noun = "input" if rows_of(items) else "token"
    return f"{count(len(items), noun)} {_list([_input(one) for one in items])}"


def _input(one: Input) -> str:
    return f"row {one.digest[:_MAX_DIGEST]}…" if isinstance(one, Row) else str(one)


def key(value: BatchKey) -> str:
    """Return the kind of rows that a batch holds, such as "tokens" or "uncut tokens"."""
    return ("uncut " if value.uncut else "") + ("tokens" if value.kind == "token" else "rows of numbers")


def wanted(wants: Wants) -> str:
    """Return the phrase for the purpose of rows."""
    match wants:
        case Draw(index=index):
            return f"token {index}"
        case Pool():
            return "a vector"
        case None:
            return "nothing"


def vector(values: Collection[float]) -> str:
    """Return a vector by its length and its first values."""
    return f"{count(len(values), 'value')} {_list([f'{value:.4g}' for value in values])}"


def _list(items: list[str]) -> str:
    return f"[{', '.join(items[:_MAX_ITEMS])}{', …' if len(items) > _MAX_ITEMS else ''}]"


def sequences(numbers: Collection[int]) -> str:
    """Return the names of sequences, ascending; three neighbours or more as a range."""
    return f"sequence{'' if len(numbers) == 1 else 's'} {_ranges(numbers)}"


def _ranges(numbers: Collection[int]) -> str:
    runs: list[list[int]] = []
    for number in sorted(numbers):
        if runs and number == runs[-1][-1] + 1:
            runs[-1].append(number)
        else:
            runs.append([number])
    return ", ".join(f"{run[0]}-{run[-1]}" if run[2:] else ", ".join(map(str, run)) for run in runs)


def seconds(value: float) -> str:
    """Return a time in the unit in which it is easiest to read."""
    return f"{value * 1e3:.3g} ms" if value < 0.9995 else f"{value:,.2f} s"  # noqa: PLR2004  # what rounds to 1e+03 ms
