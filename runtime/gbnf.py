"""Grammars in GBNF: what is wrong with one, found before llama.cpp sees it.

The rules that hold here:

* llama.cpp prints what is wrong with a grammar's text to stderr and says nothing in its log
  (``llama_grammar_parser::parse``), so all of that is found here. What passes here compiles there, but for a few
  cases of left recursion, which llama.cpp reports properly.
* Some grammars kill or hang the process. They are refused: groups nested too deeply (``parse_alternates`` recurses),
  a rule that begins with itself by way of one that may be empty (``llama_grammar_advance_stack`` never ends, because
  ``llama_grammar_detect_left_recursion`` sees only rules that are empty themselves), ``{5,2}`` (counts down from 2^64),
  rules whose beginnings multiply (both functions walk every path), copies that would fill the memory.
* Nothing is silently something else: llama.cpp takes ``{0,3000}`` for ``*``, a NUL for the end of the grammar, and
  ``[]`` for the empty text.

A grammar is a function of its text alone: tokens in angle brackets, which depend on the vocabulary, are refused.
"""

from collections import deque
from collections.abc import Iterator
from typing import Final

from attrs import define, field, frozen

MAX_DEPTH: Final = 100
"""Groups in groups. llama.cpp takes some 500 bytes of the thread's stack for each one."""

MAX_REPEAT: Final = 2000
"""``MAX_REPETITION_THRESHOLD``, which a repetition's count times the rules in what is repeated must not reach."""

MAX_ELEMENTS: Final = 200_000
"""Characters and references, once all repetitions are written out: some 2 MB."""

MAX_BEGINNINGS: Final = 10_000
"""Ways in which a rule can begin. llama.cpp keeps a stack for each, and walks them all for every token."""

_NO_TEXT: Final = frozenset((0, *range(0xD800, 0xE000)))
_SHOWN: Final = 40
_SPACE: Final = " \t"
_ESCAPES: Final = 'trn\\"[]-'
_HEX: Final = {"x": 2, "u": 4, "U": 8}


class GrammarError(Exception):
    """What is wrong with a grammar."""


@frozen
class _Text:
    """So many characters, each of which is one of some."""

    length: int


@frozen
class _Reference:
    name: str


@frozen
class _Group:
    alternatives: tuple[tuple["_Item", ...], ...]


@frozen
class _Repetition:
    item: "_Item"
    low: int
    high: int | None


_Item = _Text | _Reference | _Group | _Repetition


def check(grammar: str) -> None:
    """Look whether llama.cpp can compile a grammar and follow it.

    Raises:
        GrammarError: It cannot; the error says why.
    """
    if "\0" in grammar:
        raise GrammarError("it holds a NUL character, where llama.cpp would take it to end")
    rules = _Reader(grammar).read()
    if "root" not in rules:
        raise GrammarError("it has no rule 'root'")
    for name, body in rules.items():
        for other in _references(body):
            if other not in rules:
                raise GrammarError(f"rule {name!r} wants a rule {other!r}, which is not there")
    _check_beginnings(rules)


@define
class _Reader:
    """Reads a grammar as ``llama_grammar_parser`` does."""

    text: str
    at: int = 0
    depth: int = 0
    elements: int = 0
    names: set[str] = field(factory=set)
    made: int = 0
    """Rules that the parser would make up for groups and repetitions."""

    def read(self) -> dict[str, _Group]:
        rules: dict[str, _Group] = {}
        self._skip(lines=True)
        while self.at < len(self.text):
            name = self._name()
            self._skip(lines=False)
            if not self._take("::="):
                raise self._error("'::=' is missing")
            self._skip(lines=True)
            if name in rules:
                raise GrammarError(f"rule {name!r} is there twice")
            rules[name] = self._alternatives()
            if self.at < len(self.text) and self.text[self.at] not in "\r\n":
                raise self._error("what is that")
            self._skip(lines=True)
        return rules

    def _alternatives(self) -> _Group:
        alternatives = [self._sequence()]
        while self._take("|"):
            self._skip(lines=True)
            alternatives.append(self._sequence())
        return _Group(tuple(alternatives))

    def _sequence(self) -> tuple[_Item, ...]:
        items: list[_Item] = []
        size = weight = 0
        """Elements and rules that a repetition of the last item would copy."""
        while self.at < len(self.text):
            sign = self.text[self.at]
            if sign in "*+?{":
                if not size:
                    raise self._error("nothing is there to be repeated")
                low, high = self._count()
                weight *= high or low or 1
                if weight >= MAX_REPEAT:
                    raise self._error(f"a repetition comes to {weight} rules and must stay below {MAX_REPEAT}")
                size = size * max(low, 1) + 1
                self.made += 1 if high is None else high - low
                self._grow(size * (2 if high is None else high - low + 1))
                items.append(_Repetition(items.pop(), low, high))
                size = size if high is None or high > 0 else 0
            elif sign in '"[.(' or _is_word(sign):
                before = len(self.names) + self.made
                items.append(self._item(sign))
                made = len(self.names) + self.made - before
                size = items[-1].length if isinstance(items[-1], _Text) else 1
                weight = max(made, 1) if sign == "(" else 1
                self._grow(size)
            elif sign in "<!":
                raise self._error("tokens are not taken here; write their text in quotes")
            else:
                break
            self._skip(lines=self.depth > 0)
        return tuple(items)

    def _item(self, sign: str) -> _Item:
        if _is_word(sign):
            name = self._name()
            self.names.add(name)
            return _Reference(name)
        self.at += 1
        if sign == '"':
            codes = list(self._characters('"'))
            if any(code in _NO_TEXT for code in codes):
                raise self._error("no text holds a NUL or half a surrogate pair")
            return _Text(len(codes))
        if sign == "[":
            return self._class()
        if sign == "(":
            return self._group()
        return _Text(1)

    def _group(self) -> _Group:
        self.depth += 1
        self.made += 1
        if self.depth > MAX_DEPTH:
            raise self._error(f"more than {MAX_DEPTH} groups stand in each other")
        self._skip(lines=True)
        group = self._alternatives()
        if not self._take(")"):
            raise self._error("')' is missing")
        self.depth -= 1
        return group

    def _class(self) -> _Text:
        self._take("^")
        length = 0
        last: int | None = None
        for code in self._characters("]"):
            length += 1
            if last is not None and code < last:
                raise self._error("a range ends before it begins")
            last = None
            if self.text.startswith("-", self.at) and not self.text.startswith("-]", self.at):
                self.at += 1
                last = code
        if not length:
            raise self._error("a class of characters is empty")
        return _Text(1)

    def _characters(self, end: str) -> Iterator[int]:
        """Take characters as far as ``end``, and it too."""
        while not self._take(end):
            if self.at >= len(self.text):
                raise self._error(f"{end} is missing")
            yield self._character()

    def _character(self) -> int:
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
            raise self._error(f"\\{escape} wants {_HEX[escape]} hexadecimal digits")
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
        self.names.add(self.text[start : self.at])
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

    def _grow(self, elements: int) -> None:
        self.elements += elements
        if self.elements > MAX_ELEMENTS:
            raise self._error(f"it has more than {MAX_ELEMENTS:,} elements once its repetitions are written out")

    def _error(self, reason: str) -> GrammarError:
        line = self.text.count("\n", 0, self.at) + 1
        rest = self.text[self.at : self.at + _SHOWN].split("\n")[0]
        return GrammarError(f"line {line}: {reason}" + (f", at {rest!r}" if rest else ", at the end of the line"))


def _is_word(sign: str) -> bool:
    return sign == "-" or (sign.isascii() and sign.isalnum())


def _references(item: _Item) -> Iterator[str]:
    if isinstance(item, _Reference):
        yield item.name
    elif isinstance(item, _Repetition):
        yield from _references(item.item)
    elif isinstance(item, _Group):
        for alternative in item.alternatives:
            for one in alternative:
                yield from _references(one)


def _may_be_empty(item: _Item, empty: set[str]) -> bool:
    if isinstance(item, _Text):
        return item.length == 0
    if isinstance(item, _Reference):
        return item.name in empty
    if isinstance(item, _Repetition):
        return item.low == 0 or _may_be_empty(item.item, empty)
    return any(all(_may_be_empty(one, empty) for one in alternative) for alternative in item.alternatives)


def _empty_rules(rules: dict[str, _Group]) -> set[str]:
    """Return the rules that the empty text has the form of."""
    users: dict[str, set[str]] = {name: set() for name in rules}
    for name, body in rules.items():
        for other in _references(body):
            users[other].add(name)
    empty: set[str] = set()
    todo = deque(rules)
    while todo:
        name = todo.popleft()
        if name not in empty and _may_be_empty(rules[name], empty):
            empty.add(name)
            todo.extend(users[name])
    return empty


def _first(item: _Item, empty: set[str]) -> Iterator[str]:
    """Yield the rules that an item can begin with, once for each way."""
    if isinstance(item, _Reference):
        yield item.name
    elif isinstance(item, _Repetition):
        yield from _first(item.item, empty)
    elif isinstance(item, _Group):
        for alternative in item.alternatives:
            for one in alternative:
                yield from _first(one, empty)
                if not _may_be_empty(one, empty):
                    break


def _ways(item: _Item, empty: set[str], known: dict[str, int]) -> int:
    """Return in how many ways an item can begin."""
    if isinstance(item, _Text):
        return 1
    if isinstance(item, _Reference):
        return known[item.name]
    if isinstance(item, _Repetition):
        copies = (item.high or item.low) + 1 if _may_be_empty(item.item, empty) else 2
        return copies * _ways(item.item, empty, known)
    ways = 1
    for alternative in item.alternatives:
        for one in alternative:
            ways += _ways(one, empty, known)
            if not _may_be_empty(one, empty):
                break
    return ways


def _check_beginnings(rules: dict[str, _Group]) -> None:
    """Refuse rules that begin with themselves, and those that can begin in too many ways."""
    empty = _empty_rules(rules)
    begins = {name: set(_first(body, empty)) for name, body in rules.items()}
    users: dict[str, list[str]] = {name: [] for name in rules}
    for name, others in begins.items():
        for other in others:
            users[other].append(name)
    left = {name: len(others) for name, others in begins.items()}
    ready = deque(name for name, count in left.items() if not count)
    ways: dict[str, int] = {}
    while ready:
        name = ready.popleft()
        ways[name] = _ways(rules[name], empty, ways)
        if ways[name] > MAX_BEGINNINGS:
            raise GrammarError(f"rule {name!r} can begin in more than {MAX_BEGINNINGS:,} ways")
        for user in users[name]:
            left[user] -= 1
            if not left[user]:
                ready.append(user)
    if len(ways) < len(rules):
        raise GrammarError(f"left recursion: rule {_in_cycle(begins, ways)!r} can begin with itself")


def _in_cycle(begins: dict[str, set[str]], done: dict[str, int]) -> str:
    """Return a rule that begins with itself: every rule that is not ``done`` leads to one."""
    name = next(one for one in begins if one not in done)
    seen: set[str] = set()
    while name not in seen:
        seen.add(name)
        name = min(one for one in begins[name] if one not in done)
    return name
