"""Provides strings that track which of their characters come from messages.

A template is a program: it trims, slices, upper-cases, compares and encodes its arguments. `Marked` is a string for
it. Every question that a template can ask (its length, its beginning, whether it equals another) is answered for the
plain text, and code in C that joins strings (``join``, ``%``, ``json.dumps``) carries the marks along, because they are
characters of the string: two halves of surrogate pairs, which no text in UTF-8 can contain.

The rule that holds here: a character of a message never passes for one of the template. If a method does not reveal
which part of a string its result is, all of the result counts as a message's. If marks would be lost it raises.
"""

import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import cached_property, wraps
from typing import Any, Final, Self, SupportsIndex

OPEN: Final = "\ud800"
CLOSE: Final = "\ud801"
"""The marks around the characters of a message."""

_MARKS: Final = re.compile(f"[{OPEN}{CLOSE}]")
_WORD: Final = re.compile(r"[\w-]+")

SAID: Final = re.compile(rb"\x01+")
"""A run of characters of messages, in `Marked.said`."""

_OWN: Final = b"\0"
_SAID: Final = b"\1"

_ASKING: Final = (
    *("count", "endswith", "find", "index", "isalnum", "isalpha", "isascii", "isdecimal", "isdigit"),
    *("isidentifier", "islower", "isnumeric", "isprintable", "isspace", "istitle", "isupper", "rfind", "rindex"),
    *("startswith", "__contains__", "__eq__", "__ge__", "__gt__", "__le__", "__lt__", "__ne__"),
)
"""Methods that return no string."""

_CHANGING: Final = (
    *("capitalize", "casefold", "center", "expandtabs", "ljust", "lower", "rjust", "swapcase", "title", "translate"),
    *("upper", "zfill"),
)
"""Methods whose result is no part of the string."""


class Marked(str):  # noqa: SLOT000  # it caches its properties
    """A string with marks in it."""

    @cached_property
    def plain(self) -> str:
        """The text without marks."""
        return _MARKS.sub("", self)

    @cached_property
    def said(self) -> bytes:
        """For each character of the text 1 if it comes from a message, else 0."""
        depth, runs = 0, []
        for start, run in zip((None, *_MARKS.findall(self)), _MARKS.split(self), strict=True):
            depth += (start == OPEN) - (start == CLOSE)
            runs.append((_SAID if depth > 0 else _OWN) * len(run))
        return b"".join(runs)

    def __str__(self) -> Self:
        return self

    def __hash__(self) -> int:
        return hash(self.plain)

    def __len__(self) -> int:
        return len(self.plain)

    def __bool__(self) -> bool:
        return bool(self.plain)

    def __iter__(self) -> Iterator[Self]:
        return (type(self)(_marked(one, bytes([said]))) for one, said in zip(self.plain, self.said, strict=True))

    def __getitem__(self, key: SupportsIndex | slice) -> Self:
        plain, said = self.plain, self.said
        if isinstance(key, slice):
            return type(self)(_marked(plain[key], said[key]))
        place = range(len(plain))[key]
        return type(self)(_marked(plain[place], said[place : place + 1]))

    def __add__(self, other: str) -> Self:
        return type(self)(str.__add__(self, other))

    def __radd__(self, other: str) -> Self:
        return type(self)(str.__add__(other, self))

    def __mul__(self, times: SupportsIndex) -> Self:
        return type(self)(str.__mul__(self, times))

    __rmul__ = __mul__

    def __mod__(self, values: object) -> Self:
        return type(self)(str.__mod__(self, values))

    def encode(self, *_args: object, **_names: object) -> bytes:
        """Refuse: bytes contain no marks, so text decoded from them again would have lost its origin."""
        raise ValueError("marks are not encoded")

    def lstrip(self, chars: str | None = None, /) -> Self:
        """Leave out characters at the beginning."""
        return self[len(self) - len(self.plain.lstrip(_plain(chars))) :]

    def rstrip(self, chars: str | None = None, /) -> Self:
        """Leave out characters at the end."""
        return self[: len(self.plain.rstrip(_plain(chars)))]

    def strip(self, chars: str | None = None, /) -> Self:
        """Leave out characters at both ends."""
        return self.lstrip(chars).rstrip(chars)

    def removeprefix(self, prefix: str, /) -> Self:
        """Leave out a beginning."""
        return self[len(self) - len(self.plain.removeprefix(_plain(prefix))) :]

    def removesuffix(self, suffix: str, /) -> Self:
        """Leave out an end."""
        return self[: len(self.plain.removesuffix(_plain(suffix)))]

    def split(self, sep: str | None = None, maxsplit: SupportsIndex = -1) -> list[Self]:  # type: ignore[override]
        """Return the parts between separators."""
        return self._parts(self.plain.split(_plain(sep), maxsplit), _plain(sep))

    def rsplit(self, sep: str | None = None, maxsplit: SupportsIndex = -1) -> list[Self]:  # type: ignore[override]
        """Return the parts between separators, split from the right."""
        return self._parts(self.plain.rsplit(_plain(sep), maxsplit), _plain(sep))

    def splitlines(self, keepends: bool = False) -> list[Self]:  # type: ignore[override]  # noqa: FBT001, FBT002  # str's
        """Return the lines."""
        lines = self._parts(self.plain.splitlines(keepends=True), "")
        return lines if keepends else [line[: len(line.plain.splitlines()[0])] for line in lines]

    def partition(self, sep: str, /) -> tuple[Self, Self, Self]:
        """Return the text before a separator, the separator, and the text after it."""
        before, between, behind = self._parts(self.plain.partition(_plain(sep)), "")
        return before, between, behind

    def rpartition(self, sep: str, /) -> tuple[Self, Self, Self]:
        """Return the text before the last separator, the separator, and the text after it."""
        before, between, behind = self._parts(self.plain.rpartition(_plain(sep)), "")
        return before, between, behind

    def replace(self, old: str, new: str, count: SupportsIndex = -1, /) -> Self:
        """Replace each occurrence of a text by another one."""
        if not old:
            return self._changed(self.plain.replace(old, _plain(new), count))
        return type(self)(str.join(new, self.split(old, count)))

    def join(self, parts: Iterable[str], /) -> Self:
        """Join strings with this one between them."""
        return type(self)(str.join(self, parts))

    def _parts(self, parts: Iterable[str], sep: str | None) -> list[Self]:
        """Return consecutive parts of the text, marked; ``sep`` lies between them, None for any whitespace."""
        plain, said, start, found = self.plain, self.said, 0, []
        for part in parts:
            if sep is None:
                start = plain.index(part, start)
            end = start + len(part)
            found.append(type(self)(_marked(part, said[start:end])))
            start = end + len(sep or "")
        return found

    def _changed(self, text: str) -> Self:
        """Return a text that was made from this one, marked."""
        said = self.said
        if len(text) != len(said):
            said = (_SAID if any(said) else _OWN) * len(text)
        return type(self)(_marked(text, said))


def _asking(name: str) -> Callable[..., Any]:
    ask = getattr(str, name)

    def method(self: Marked, *args: object) -> object:
        return ask(self.plain, *map(_plain, args))

    return method


def _changing(name: str) -> Callable[..., Any]:
    change = getattr(str, name)

    def method(self: Marked, *args: object) -> Marked:
        return self._changed(change(self.plain, *map(_plain, args)))  # a method of the class

    return method


for _name in _ASKING:
    setattr(Marked, _name, _asking(_name))
for _name in _CHANGING:
    setattr(Marked, _name, _changing(_name))


def _plain(value: Any) -> Any:
    """Return an argument as ``str``'s own methods need it."""
    if isinstance(value, Marked):
        return value.plain
    return tuple(map(_plain, value)) if isinstance(value, tuple) else value


def _marked(text: str, said: bytes) -> str:
    """Return a text with marks around the characters that come from messages."""
    runs, end = [], 0
    for run in SAID.finditer(said):
        runs += [text[end : run.start()], OPEN, text[run.start() : run.end()], CLOSE]
        end = run.end()
    return "".join([*runs, text[end:]])


def noticed(value: Any) -> Any:
    """Return a string as `Marked` if it contains a mark."""
    return Marked(value) if type(value) is str and OPEN in value else value


def of_a_message(call: Callable[..., Any]) -> Callable[..., Any]:
    """Wrap a filter so that what it makes from a message's text alone counts as a message's."""

    @wraps(call)
    def calling(*args: Any, **named: Any) -> Any:
        value = next((one for one in args if isinstance(one, str)), None)
        if not isinstance(value, Marked) or 0 in value.said:
            return noticed(call(*args, **named))
        expected = call(*map(_plain, args), **{name: _plain(one) for name, one in named.items()})
        found = noticed(call(*args, **named))
        if not isinstance(expected, str) or (isinstance(found, Marked) and found.plain == expected):
            return found
        return marked(expected)

    return calling


def marked(value: Any) -> Any:
    """Return a value of a message with all of its text marked, at any depth."""
    match value:
        case str():
            return Marked(f"{OPEN}{value}{CLOSE}") if value else value
        case Mapping():
            return {marked(key): marked(item) for key, item in value.items()}
        case list() | tuple():
            return [marked(item) for item in value]
        case _:
            return value


def marked_message(message: Mapping[str, Any]) -> dict[str, Any]:
    """Return a message with its text marked.

    A role that is one word does not count as text: templates make markers from it (``<|user|>``).
    """
    return {
        name: item if name == "role" and isinstance(item, str) and _WORD.fullmatch(item) else marked(item)
        for name, item in message.items()
    }
