"""Writes grammars of JSON texts from schemas that `reenact.runtime.grammar.json_schema` has checked.

The rules that hold here:

* Every text of a grammar fits its schema, but some texts that fit are excluded: the properties come in the schema's
  order, and only those that it lists; at most one space is written where JSON allows white space, because small models
  loop in more.
* An escape in a string is one character, and never half a surrogate pair; control characters are always escaped.
* Every date exists, with February 29 in leap years only. Times and offsets are those of RFC 3339 without leap seconds,
  because few days have one.
"""

import json
import re
from collections.abc import Mapping
from decimal import Decimal
from itertools import count
from typing import Any, Final

from reenact.runtime.grammar.patterns import string_of
from reenact.runtime.grammar.ranges import Bound, integers, numbers

Shape = dict[str, Any]
"""A checked schema, reduced to few keywords; `reenact.runtime.grammar.json_schema` makes it."""

_MAX_TITLE: Final = 20
_MAX_STEM: Final = 40
"""The last characters of a hint that a rule's name keeps, so that names deep in a schema do not grow."""
_MAX_LENGTH: Final = 16
"""The most digits of a whole number without a bound."""
_WHOLE: Final = '("0" | [1-9] [0-9]{0,15})'
_POSITIVE: Final = f'{_WHOLE} ("." [0-9]{{1,16}})? ([eE] [-+]? [0-9]{{1,2}})?'
_HEX_CODE: Final = "([0-9abcefABCEF] [0-9a-fA-F] | [dD] [0-7]) [0-9a-fA-F]{2}"
_FOURTH: Final = '("0" [48] | [2468] [048] | [13579] [26])'
_LEAP: Final = f'([0-9]{{2}} {_FOURTH} | {_FOURTH} "00")'
_YEAR: Final = '([0-9]{3} [1-9] | [0-9]{2} [1-9] "0" | [0-9] [1-9] "00" | [1-9] "000")'
_LONG: Final = '("0" [13578] | "1" [02]) "-" ("0" [1-9] | [12] [0-9] | "3" [01])'
_SHORT: Final = '("0" [469] | "11") "-" ("0" [1-9] | [12] [0-9] | "30")'
_FEBRUARY: Final = '"02-" ("0" [1-9] | "1" [0-9] | "2" [0-8])'
_HOURS: Final = '([01] [0-9] | "2" [0-3]) ":" [0-5] [0-9]'
_HEX: Final = "[0-9a-fA-F]"

# A rule's body, and the rules that it names.
_PRIMITIVES: Final[dict[str, tuple[str, tuple[str, ...]]]] = {
    "space": ('" "?', ()),
    "boolean": ('("true" | "false") space', ("space",)),
    "null": ('"null" space', ("space",)),
    "integer": (f'"-"? {_WHOLE} space', ("space",)),
    "number": (f'"-"? {_POSITIVE} space', ("space",)),
    "char": (rf'[^"\\\x7F\x00-\x1F] | "\\" (["\\/bfnrt] | "u" {_HEX_CODE})', ()),
    "string": (r'"\"" char* "\"" space', ("char", "space")),
    "array": ('"[" space (value ("," space value)*)? "]" space', ("value", "space")),
    "object": (
        '"{" space (string ":" space value ("," space string ":" space value)*)? "}" space',
        ("string", "value", "space"),
    ),
    "value": (
        "object | array | string | number | boolean | null",
        ("object", "array", "string", "number", "boolean", "null"),
    ),
    "day": (f'{_YEAR} "-" ({_LONG} | {_SHORT} | {_FEBRUARY}) | {_LEAP} "-02-29"', ()),
    "moment": (f'{_HOURS} ":" [0-5] [0-9] ("." [0-9]{{1,6}})? ("Z" | [+-] {_HOURS})', ()),
    "date": (r'"\"" day "\"" space', ("day", "space")),
    "time": (r'"\"" moment "\"" space', ("moment", "space")),
    "date-time": (r'"\"" day "T" moment "\"" space', ("day", "moment", "space")),
    "uuid": (rf'"\"" {_HEX}{{8}} ("-" {_HEX}{{4}}){{3}} "-" {_HEX}{{12}} "\"" space', ("space",)),
}
FORMATS: Final = ("date", "time", "date-time", "uuid")


def json_grammar(root: Shape, targets: Mapping[str, Shape]) -> str:
    """Return the grammar of a shape's texts, in GBNF.

    Args:
        root: The shape.
        targets: The shapes that references lead to, by their names: ``ref0``, ``ref1`` and so on.
    """
    writer = _Writer()
    writer.write("root", root)
    for name, shape in targets.items():
        writer.write(name, shape)
    return "".join(f"{name} ::= {body}\n" for name, body in writer.rules.items())


class _Writer:
    """Collects rules."""

    def __init__(self) -> None:
        self.rules: dict[str, str] = {}
        self._numbers: dict[str, count[int]] = {}
        """The next number for each stem of a name."""

    def write(self, name: str, shape: Shape) -> None:
        """Write the rule of this name."""
        self.rules[name] = ""  # Reserves the name.
        self.rules[name] = self._body(shape, name)

    def _rule(self, shape: Shape, hint: str) -> str:
        """Return the name of a shape's rule; a new rule is named after ``hint``."""
        if "$ref" in shape:
            return str(shape["$ref"])
        if not set(shape) - {"type", "untyped"}:
            return self._primitive(shape.get("type", "value"))
        name = self._named(hint)
        self.write(name, shape)
        return name

    def _named(self, hint: str) -> str:
        """Return an unused name. It has a dash, unlike the names of references and most of ``_PRIMITIVES``."""
        stem = re.sub("[^a-zA-Z0-9-]+", "-", hint)[-_MAX_STEM:]
        numbers = self._numbers.setdefault(stem, count())
        return next(name for number in numbers if (name := f"{stem}-{number}" if number else stem) not in self.rules)

    def _primitive(self, name: str) -> str:
        if name not in self.rules:
            body, others = _PRIMITIVES[name]
            self.rules[name] = body
            for other in others:
                self._primitive(other)
        return name

    def _body(self, shape: Shape, name: str) -> str:
        self._primitive("space")
        match shape:
            case {"anyOf": shapes}:
                return " | ".join(self._rule(one, f"{name}-{i}") for i, one in enumerate(shapes))
            case {"enum": values}:
                return f"({' | '.join(_literal(value) for value in values)}) space"
            case {"properties": {}, "additionalProperties": values} if not shape["properties"]:
                value = self._rule(values, f"{name}-value")
                member = f'{self._primitive("string")} ":" space {value}'
                return f'"{{" space ({member} ("," space {member})*)? "}}" space'
            case {"properties": properties, "required": required}:
                return self._object(properties, set(required), name)
            case {"prefixItems": shapes}:
                items = ' "," space '.join(self._rule(one, f"{name}-{i}") for i, one in enumerate(shapes))
                return f'"[" space {items} "]" space'
            case {"items": items, "minItems": low, "maxItems": high}:
                return self._array(items, low, high, name)
            case {"pattern": pattern}:
                return f'"\\"" {string_of(pattern, self._primitive("char"))} "\\"" space'
            case {"format": form}:
                return self._primitive(form)
            case {"minLength": low, "maxLength": high}:
                return f'"\\"" {self._primitive("char")}{_times(low, high)} "\\"" space'
            case {"type": "integer", "low": low, "high": high}:
                return f"{integers(*_whole_ends(low, high))} space"
            case {"type": "number", "low": low, "high": high}:
                positive = high is None and low == Bound(Decimal(0))
                return f"{_POSITIVE if positive else numbers(low, high)} space"
            case _:
                return self._rule(shape, name)

    def _array(self, items: Shape, low: int, high: int | None, name: str) -> str:
        if high == 0:
            return '"[" space "]" space'
        item = self._rule(items, f"{name}-item")
        body = f'{item} ("," space {item}){_times(max(low - 1, 0), None if high is None else high - 1)}'
        return f'"[" space {body if low else f"({body})?"} "]" space'

    def _object(self, properties: Mapping[str, Shape], required: set[str], name: str) -> str:
        """Return an object whose properties come in this order; those that are not required may be left out.

        Each property has two rules for the rest of the object from there on, one if no property came before and one if
        some did. So the grammar's length is proportional to the schema's, however many properties may be left out.
        """
        first = following = '""'
        for title, shape in reversed(list(properties.items())):
            stem = f"{name}-{title[:_MAX_TITLE]}"
            member = f'{_literal(title)} space ":" space {self._rule(shape, f"{stem}-value")}'
            own = self._named(stem)
            self.rules[own] = member
            if title in required:
                first, following = f"{own} {following}", f'"," space {own} {following}'
            else:
                first, following = f"{own} {following} | {first}", f'("," space {own})? {following}'
            first, following = (self._kept(f"{stem}-first", first), self._kept(f"{stem}-rest", following))
        return f'"{{" space {first} "}}" space'

    def _kept(self, hint: str, body: str) -> str:
        name = self._named(hint)
        self.rules[name] = body
        return name


def _literal(value: object) -> str:
    """Return GBNF for a JSON value; characters beyond ASCII are not escaped."""
    text = json.dumps(value, ensure_ascii=False)
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'


def _times(low: int, high: int | None) -> str:
    return "{" + f"{low},{'' if high is None else high}" + "}"


def _whole_ends(low: int | None, high: int | None) -> tuple[int, int]:
    """Return both ends of a range of whole numbers; an open end allows at least all numbers of 16 digits."""
    length = max([_MAX_LENGTH, *(len(str(abs(end))) for end in (low, high) if end is not None)])
    most = 10**length - 1
    return -most if low is None else low, most if high is None else high
