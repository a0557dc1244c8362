"""Reads grammars in GBNF.

The rules that hold here:

* A grammar means the same as to llama.cpp, or it is refused with the number of the line. What llama.cpp silently takes
  for something else is refused: ``{0,3000}`` is ``*`` to it, a NUL ends the grammar, and ``[]`` and ``[^]`` are the
  empty text.
* Characters are those of Unicode: none is beyond 10FFFF, none is half a surrogate pair, and none is NUL.
* The nesting of groups and the counts of repetitions are bounded here; `reenact.runtime.grammar.automaton` bounds the
  size of repetitions that are written out.

A grammar is a function of its text alone: tokens in angle brackets, which depend on the vocabulary, are refused.
`reenact.runtime.grammar.soundness` checks that its rules make sense.
"""

import sys
from collections import deque
from collections.abc import Iterable, Iterator
from typing import Final

from attrs import define, frozen

MAX_DEPTH: Final = 100
"""The deepest nesting of groups, because the reader is recursive."""

MAX_REPEAT: Final = 2000
"""A repetition's count must be below it, as in llama.cpp."""

Ranges = tuple[tuple[int, int], ...]
"""Ranges of characters by their first and last code points, ascending and disjoint."""

ALL: Final[Ranges] = ((0x1, 0xD7FF), (0xE000, 0x10FFFF))
"""All characters that a text may contain."""

_SHOWN: Final = 40
_SPACE: Final = " \t"
_ESCAPES: Final = 'trn\\"[]-'
_HEX: Final = {"x": 2, "u": 4, "U": 8}


class GrammarError(Exception):
    """A grammar is wrong, or cannot be followed."""


@frozen
class Text:
    """A sequence of characters."""

    codes: tuple[int, ...]


@frozen
class Class:
    """Any one of several characters."""

    ranges: Ranges


@frozen
class Reference:
    """A reference to a rule by its name."""

    name: str


@frozen
class Group:
    """Any one of several sequences."""

    alternatives: tuple[tuple["Item", ...], ...]


@frozen
class Repetition:
    """An item that is repeated from ``low`` to ``high`` times, or without end."""

    item: "Item"
    low: int
    high: int | None


Item = Text | Class | Reference | Group | Repetition


def read(grammar: str) -> dict[str, Group]:
    """Return a grammar's rules by their names.

    Raises:
        GrammarError: It is not a grammar; the error names the line.
    """
    if "\0" in grammar:
        raise GrammarError("it contains a NUL character, which llama.cpp would take for its end")
    return _Reader(grammar).read()


@define
class _Reader:
    """Reads a grammar as ``llama_grammar_parser`` does."""

    text: str
    at: int = 0
    depth: int = 0

    def read(self) -> dict[str, Group]:
        rules: dict[str, Group] = {}
        self._skip(lines=True)
        while self.at < len(self.text):
            name = self._name()
            self._skip(lines=False)
            if not self._take("::="):
                raise self._error("'::=' is missing")
            self._skip(lines=True)
            if name in rules:
                raise GrammarError(f"rule {name!r} is defined twice")
            rules[name] = self._alternatives()
            if self.at < len(self.text) and self.text[self.at] not in "\r\n":
                raise self._error("unexpected text")
            self._skip(lines=True)
        return rules

    def _alternatives(self) -> Group:
        alternatives = [self._sequence()]
        while self._take("|"):
            self._skip(lines=True)
            alternatives.append(self._sequence())
        return Group(tuple(alternatives))

    def _sequence(self) -> tuple[Item, ...]:
        items: list[Item] = []
        while self.at < len(self.text):
            sign = self.text[self.at]
            if sign in "*+?{":
                if not items or _is_nothing(items[-1]):
                    raise self._error("there is nothing to repeat")
                if isinstance(last := items[-1], Repetition) and isinstance(last.item, Repetition):
                    raise self._error("more than two repetitions follow each other")
                items.append(Repetition(items.pop(), *self._count()))
            elif sign in '"[.(' or _is_word(sign):
                items.append(self._item(sign))
            elif sign in "<!":
                raise self._error("tokens are not supported; write their text in quotes")
            else:
                break
            self._skip(lines=self.depth > 0)
        return tuple(items)

    def _item(self, sign: str) -> Item:
        if _is_word(sign):
            return Reference(self._name())
        self.at += 1
        if sign == '"':
            return Text(tuple(self._characters('"')))
        if sign == "[":
            return self._class()
        if sign == "(":
            return self._group()
        return Class(ALL)

    def _group(self) -> Group:
        self.depth += 1
        if self.depth > MAX_DEPTH:
            raise self._error(f"groups are nested more than {MAX_DEPTH} deep")
        self._skip(lines=True)
        group = self._alternatives()
        if not self._take(")"):
            raise self._error("')' is missing")
        self.depth -= 1
        return group

    def _class(self) -> Class:
        negated = self._take("^")
        found: list[tuple[int, int]] = []
        for low in self._characters("]"):
            high = low
            if self.text.startswith("-", self.at) and not self.text.startswith("-]", self.at):
                self.at += 1
                if self.at >= len(self.text):
                    raise self._error("] is missing")
                high = self._character(nul=True)
            if high < low:
                raise self._error("a range ends before it begins")
            found.append((low, high))
        ranges = without(ALL, found) if negated else without(ALL, without(((0, 0x10FFFF),), found))
        if not found or not ranges:
            raise self._error("a class of characters is empty (any character is .)")
        return Class(ranges)

    def _characters(self, end: str) -> Iterator[int]:
        """Take characters up to and including ``end``."""
        while not self._take(end):
            if self.at >= len(self.text):
                raise self._error(f"{end} is missing")
            yield self._character(nul=end == "]")

    def _character(self, *, nul: bool) -> int:
        """Take a character; NUL is allowed only in a class, where it adds nothing."""
        code = self._code()
        if code > sys.maxunicode:
            raise self._error("there is no character beyond \\U0010FFFF")
        if 0xD800 <= code <= 0xDFFF or (code == 0 and not nul):  # noqa: PLR2004  # the surrogates
            raise self._error("no text contains a NUL or half a surrogate pair")
        return code

    def _code(self) -> int:
        self.at += 1
        if self.text[self.at - 1] != "\\":
            return ord(self.text[self.at - 1])
        escape = self.text[self.at : self.at + 1]
        self.at += 1
        if escape and escape in _ESCAPES:
            return ord({"t": "\t", "r": "\r", "n": "\n"}.get(escape, escape))
        if escape not in _HEX:
            raise self._error(f"\\{escape} is no escape")
        digits = self.text[self.at : self.at + _HEX[escape]]
        self.at += len(digits)
        if len(digits) < _HEX[escape] or not all(digit in "0123456789abcdefABCDEF" for digit in digits):
            raise self._error(f"\\{escape} needs {_HEX[escape]} hexadecimal digits")
        return int(digits, 16)

    def _count(self) -> tuple[int, int | None]:
        sign = self.text[self.at]
        self.at += 1
        if sign != "{":
            return {"*": (0, None), "+": (1, None), "?": (0, 1)}[sign]
        low = self._number()
        high: int | None = low
        if self._take(","):
            self._skip(lines=self.depth > 0)
            high = None if self.text.startswith("}", self.at) else self._number()
        if not self._take("}"):
            raise self._error("'}' is missing")
        if high is not None and high < low:
            raise self._error(f"{{{low},{high}}} ends before it begins")
        return low, high

    def _number(self) -> int:
        self._skip(lines=self.depth > 0)
        start = self.at
        while self.at < len(self.text) and self.text[self.at] in "0123456789":
            self.at += 1
        digits = self.text[start : self.at]
        if not digits:
            raise self._error("a number is missing")
        if len(digits) > len(str(MAX_REPEAT)) or int(digits) >= MAX_REPEAT:
            raise self._error(f"a repetition must stay below {MAX_REPEAT}")
        self._skip(lines=self.depth > 0)
        return int(digits)

    def _name(self) -> str:
        start = self.at
        while self.at < len(self.text) and _is_word(self.text[self.at]):
            self.at += 1
        if start == self.at:
            raise self._error("the name of a rule is missing (letters, digits and -)")
        return self.text[start : self.at]

    def _take(self, text: str) -> bool:
        if not self.text.startswith(text, self.at):
            return False
        self.at += len(text)
        return True

    def _skip(self, *, lines: bool) -> None:
        """Skip spaces and comments, and line ends too if ``lines``."""
        while self.at < len(self.text) and self.text[self.at] in (_SPACE + "#\r\n" if lines else _SPACE + "#"):
            if self._take("#"):
                while self.at < len(self.text) and self.text[self.at] not in "\r\n":
                    self.at += 1
            else:
                self.at += 1

    def _error(self, reason: str) -> GrammarError:
        line = self.text.count("\n", 0, self.at) + 1
        rest = self.text[self.at : self.at + _SHOWN].split("\n")[0]
        return GrammarError(f"line {line}: {reason}" + (f", at {rest!r}" if rest else ", at the end of the line"))


def without(ranges: Iterable[tuple[int, int]], others: Iterable[tuple[int, int]]) -> Ranges:
    """Return the part of ``ranges``, which must be ascending and disjoint, that is not in ``others``."""
    rest: list[tuple[int, int]] = []
    holes = deque(_joined(others))
    for begin, end in ranges:
        at = begin
        while holes and holes[0][0] <= end:
            low, high = holes[0]
            if low > at:
                rest.append((at, low - 1))
            at = max(at, high + 1)
            if high > end:
                break
            holes.popleft()
        if at <= end:
            rest.append((at, end))
    return tuple(rest)


def _joined(ranges: Iterable[tuple[int, int]]) -> Iterator[tuple[int, int]]:
    """Yield ranges in ascending order, and join those that touch."""
    last: tuple[int, int] | None = None
    for low, high in sorted(ranges):
        if last is not None and low <= last[1] + 1:
            last = (last[0], max(last[1], high))
            continue
        if last is not None:
            yield last
        last = (low, high)
    if last is not None:
        yield last


def _is_nothing(item: Item) -> bool:
    """Return whether an item is empty, so that there is nothing to repeat."""
    return item == Text(()) or (isinstance(item, Repetition) and item.high == 0)


def _is_word(sign: str) -> bool:
    return sign == "-" or (sign.isascii() and sign.isalnum())
