"""Checks JSON Schemas and turns them into grammars.

The rules that hold here:

* A schema is enforced as a whole or refused: the error names the place and what to do instead. Only notes for people
  (``title``, ``description`` and the like) are ignored.
* ``oneOf`` is handled as ``anyOf`` if no value fits two of its branches (`reenact.runtime.grammar.branches`).
* Nothing is fetched: a ``$ref`` is a JSON pointer into the schema itself, and may be recursive. A schema with an
  ``$id`` below the root is refused, because references within it would point into that schema.
* A schema is reduced to a *shape* of few keywords, from which `reenact.runtime.grammar.json_text` writes the grammar:
  each ``$ref`` gets a name, each type is separate, and bounds are numbers.
"""

import json
import math
import re
from collections.abc import Collection, Mapping
from decimal import Decimal
from graphlib import CycleError, TopologicalSorter
from typing import Any, Final
from urllib.parse import unquote

from attrs import define, field

from reenact.runtime.grammar.branches import Branches, TooManyError
from reenact.runtime.grammar.gbnf import MAX_REPEAT
from reenact.runtime.grammar.json_text import FORMATS, Shape, json_grammar
from reenact.runtime.grammar.patterns import PatternError, string_of
from reenact.runtime.grammar.ranges import MAX_DIGITS, Bound, numbers

MAX_DEPTH: Final = 64
"""The deepest nesting of schemas, also through ``$ref``, because reading them is recursive."""

_MAX_SHOWN: Final = 60
_OUT: Final = "leave it out and check the answer"
_NOTES: Final = frozenset(
    ("$schema", "$id", "$comment", "$defs", "definitions", "title", "description", "default", "example", "examples")
) | {"deprecated", "readOnly", "writeOnly", "discriminator"}
_DRAFT_4: Final = {"exclusiveMinimum": "minimum", "exclusiveMaximum": "maximum"}
_BOUNDS: Final = frozenset((*_DRAFT_4, *_DRAFT_4.values()))
_OF_TYPE: Final = {
    "object": frozenset(("properties", "required", "additionalProperties")),
    "array": frozenset(("items", "prefixItems", "minItems", "maxItems")),
    "string": frozenset(("minLength", "maxLength", "format", "pattern")),
    "integer": _BOUNDS,
    "number": _BOUNDS,
    "boolean": frozenset[str](),
    "null": frozenset[str](),
}
_PYTHONS: Final = {"object": dict, "array": list, "string": str, "integer": int, "boolean": bool, "null": type(None)}
_INSTEAD: Final = ("$ref", "anyOf", "oneOf", "allOf", "const", "enum")
_APART: Final = "use anyOf, or give the branches different types, or a required property with different constants"
_END: Final = 'require less, or allow {"type": "null"} there with anyOf'
_PREFIX: Final = (
    "with prefixItems there are exactly these items; leave items out, and let minItems and maxItems allow {}"
)
_POINT: Final = "give each schema a place in $defs, and write #/$defs/..."
_ID: Final = (
    "$id changes the meaning of the references below it, which cannot be enforced; leave it out, and write references"
    " from the root of the schema"
)
_NOTHING_IF_FALSE: Final = frozenset(("uniqueItems", "nullable", *_DRAFT_4))
_CURES: Final = {
    "nullable": 'use anyOf with {"type": "null"}',
    "$anchor": _POINT,
    "$dynamicAnchor": _POINT,
    "$dynamicRef": "use $ref",
    "$recursiveRef": "use $ref",
    "multipleOf": "use integer, or leave it out and check the answer",
}
_FORMAT: Final = f"use one of {', '.join(FORMATS)} without a length, or {_OUT}"
_MAX_DIGITS_OF_INTEGER: Final = 20


_HALF: Final = re.compile("[\ud800-\udfff]")


class SchemaError(Exception):
    """A schema is wrong or cannot be enforced; the error names the place."""


def grammar_of(schema: object) -> str:
    """Return the grammar, in GBNF, of the texts that fit a schema.

    Raises:
        SchemaError: It is not a schema, or cannot be enforced.
    """
    shape, targets = shape_of(schema, {})
    return json_grammar(shape, targets)


def shape_of(schema: object, targets: dict[str, Shape]) -> tuple[Shape, dict[str, Shape]]:
    """Return the shape of a schema, and the shapes that references lead to.

    Args:
        schema: The schema.
        targets: The shapes that references of other schemas lead to, if they go into the same grammar.

    Raises:
        SchemaError: It is not a schema, or cannot be enforced.
    """
    guard = _Guard(schema, dict(targets))
    root = guard.copy(schema, "$")
    guard.check(root)
    return root, guard.targets


def distinct(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Return an object of a schema that is given as text.

    Raises:
        SchemaError: It has a name twice, and readers differ in which one counts.
    """
    found = dict(pairs)
    if len(found) < len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in found if names.count(name) > 1)
        raise SchemaError(f"{_shown(twice)} appears twice in one object; leave one of them out")
    return found


@define
class _Guard:
    """Copies a schema as shapes, and refuses what cannot be enforced."""

    schema: object
    targets: dict[str, Shape] = field(factory=dict)
    """The shape that each ``$ref`` leads to, by its new name."""
    _places: dict[str, str] = field(factory=dict)
    """The new name of each place that a ``$ref`` leads to."""
    _choices: list[tuple[str, list[Shape]]] = field(factory=list)  # Each ``oneOf``: its place and its branches.
    _depth: int = 0

    def copy(self, schema: object, at: str) -> Shape:
        """Return the shape of a schema."""
        if schema is True:
            return {}
        if schema is False:
            raise SchemaError(f"at {at}: no value fits false; leave it out")
        if not isinstance(schema, Mapping):
            raise SchemaError(f"at {at}: expected a schema, got {_shown(schema)}")
        if "$id" in schema and at != "$":
            raise SchemaError(f"at {at}: {_ID}")
        given = {
            name: value
            for name, value in schema.items()
            if name not in _NOTES and not (value is False and name in _NOTHING_IF_FALSE)
        }
        self._depth += 1
        if self._depth > MAX_DEPTH:
            raise SchemaError(f"at {at}: schemas are nested more than {MAX_DEPTH} deep")
        found = next((name for name in _INSTEAD if name in given), None)
        copied = self._typed(given, at) if found is None else self._instead(found, given, at)
        self._depth -= 1
        return copied

    def check(self, root: Shape) -> None:
        """Refuse errors that can be found only once everything is copied."""
        self._check_references()
        self._check_ends(root)
        branches = Branches(self.targets)
        for at, shapes in self._choices:
            try:
                if branches.exclude(shapes):
                    continue
            except TooManyError:
                raise SchemaError(f"at {at}: the branches of oneOf are too large to be compared; use anyOf") from None
            raise SchemaError(f"at {at}: a value may fit two branches of oneOf; {_APART}")

    def _check_references(self) -> None:
        """Refuse a reference that leads to itself with nothing in between."""
        try:
            TopologicalSorter({name: _behind(shape) for name, shape in self.targets.items()}).prepare()
        except CycleError as error:
            at = next(at for at, name in self._places.items() if name in error.args[1])
            raise SchemaError(f"at {at}: it leads to itself without a property or an item in between") from None

    def _check_ends(self, root: Shape) -> None:
        """Refuse a schema that no finite value fits."""
        ending = set[str]()
        while new := {name for name, shape in self.targets.items() if name not in ending and _ends(shape, ending)}:
            ending |= new
        if not _ends(root, ending):
            at = next(at for at, name in self._places.items() if name not in ending)
            raise SchemaError(f"at {at}: each value contains another one, without end; {_END}")

    # ------------------------------------------------------------ without a type

    def _instead(self, name: str, given: Shape, at: str) -> Shape:
        """Copy a keyword that defines a schema by itself."""
        value, types = given[name], given.get("type") if name in {"const", "enum"} else None
        if others := sorted(set(given) - {name} - ({"type"} if types is not None else set())):
            raise SchemaError(
                f"at {at}: {name} and {others[0]} together cannot be enforced; {_CURES.get(others[0], _OUT)}"
            )
        if name == "$ref":
            return self._reference(value, at)
        if name != "const" and (not isinstance(value, list) or not value):
            raise SchemaError(f"at {at}: {name} must be a list that is not empty")
        if name in {"const", "enum"}:
            return _literals([value] if name == "const" else value, types, at)
        copies = [self.copy(one, f"{at}.{name}[{index}]") for index, one in enumerate(value)]
        if name == "allOf" and len(copies) > 1:
            raise SchemaError(f"at {at}: allOf of more than one schema cannot be enforced; merge them")
        if name == "oneOf":
            self._choices.append((at, copies))
        return copies[0] if len(copies) == 1 else {"anyOf": copies}

    def _reference(self, pointer: object, at: str) -> Shape:
        if not isinstance(pointer, str) or not (pointer == "#" or pointer.startswith("#/")):
            raise SchemaError(f"at {at}: $ref {_shown(pointer)} does not point into this schema; write #/$defs/...")
        keys = [unquote(step).replace("~1", "/").replace("~0", "~") for step in pointer.split("/")[1:]]
        place = "/".join(["$", *(key.replace("~", "~0").replace("/", "~1") for key in keys)])
        if place not in self._places:
            target: Any = self.schema
            for key in keys:
                if (found := _within(target, key)) is None:
                    raise SchemaError(f"at {at}: $ref {pointer!r}: there is no {key!r}")
                if target is not self.schema and isinstance(target, Mapping) and isinstance(target.get("$id"), str):
                    raise SchemaError(f"at {at}: $ref {pointer!r} leads through an $id: {_ID}")
                target = found[0]
            name = self._places[place] = f"ref{len(self.targets)}"  # No other rule has such a name.
            self.targets[name] = {}  # Reserves the name.
            self.targets[name] = self.copy(target, place)
        return {"$ref": self._places[place]}

    # ------------------------------------------------------------ by type

    def _typed(self, given: Shape, at: str) -> Shape:
        words = set(given) - {"type"}
        if not words and "type" not in given:
            return {}
        implied = [kind for kind, known in _OF_TYPE.items() if known & words and kind != "number"]
        types = _types(given["type"], at) if "type" in given else implied
        if len(implied) > 1 and "type" not in given:
            raise SchemaError(f"at {at}: {' and '.join(sorted(words))} belong to different types; name the type")
        if others := sorted(words.difference(*(_OF_TYPE[kind] for kind in types))):
            enforced = f"enforced for {' or '.join(types)}" if types else "enforced"
            raise SchemaError(f"at {at}: {others[0]} cannot be {enforced}; {_CURES.get(others[0], _OUT)}")
        by = {"object": self._object, "array": self._array, "string": _string, "integer": _integer, "number": _number}
        copies: list[Shape] = [
            by[kind](own, at) if (own := {word: given[word] for word in words & _OF_TYPE[kind]}) else {"type": kind}
            for kind in types
        ]
        if "type" not in given:
            copies[0]["untyped"] = True  # Values of other types fit too, which matters in a oneOf.
        return copies[0] if len(copies) == 1 else {"anyOf": copies}

    def _object(self, own: Shape, at: str) -> Shape:
        properties, required = own.get("properties", {}), own.get("required", [])
        more = own.get("additionalProperties", "properties" not in own)
        if not isinstance(properties, Mapping):
            raise SchemaError(f"at {at}: properties must be an object, got {_shown(properties)}")
        if not isinstance(required, list) or not all(isinstance(name, str) for name in required):
            raise SchemaError(f"at {at}: required must be a list of names, got {_shown(required)}")
        if missing := [name for name in required if name not in properties]:
            raise SchemaError(f"at {at}: {missing[0]!r} is required and not among the properties; list it there too")
        for name in properties:
            _check_text(name, at)
        if properties and not isinstance(more, bool):
            raise SchemaError(
                f"at {at}: properties and a schema as additionalProperties cannot both be enforced; {_OUT}"
            )
        if not properties and more is True:
            return {"type": "object"}
        copied = {
            "type": "object",
            "properties": {name: self.copy(one, f"{at}.{name}") for name, one in properties.items()},
            "required": required,
        }
        if not isinstance(more, bool):
            copied["additionalProperties"] = self.copy(more, f"{at}.additionalProperties")
        return copied

    def _array(self, own: Shape, at: str) -> Shape:
        low, high = _counts(own, "minItems", "maxItems", at)
        if (prefix := own.get("prefixItems")) is None:
            if isinstance(items := own.get("items", True), list):
                raise SchemaError(f"at {at}: a list as items is called prefixItems since draft 2020-12; write that")
            items = self.copy(items, f"{at}[]")
            return {"type": "array", "items": items, "minItems": low, "maxItems": high}
        if not isinstance(prefix, list) or not prefix:
            raise SchemaError(f"at {at}: prefixItems must be a list that is not empty, got {_shown(prefix)}")
        if not low <= len(prefix) <= (len(prefix) if high is None else high) or own.get("items", False) is not False:
            raise SchemaError(f"at {at}: {_PREFIX.format(len(prefix))}")
        return {"type": "array", "prefixItems": [self.copy(one, f"{at}[{i}]") for i, one in enumerate(prefix)]}


def _string(own: Shape, at: str) -> Shape:
    if "format" in own:
        if own["format"] not in FORMATS or len(own) > 1:
            raise SchemaError(f"at {at}: format {_shown(own['format'])} cannot be enforced; {_FORMAT}")
        return {"type": "string", "format": own["format"]}
    if "pattern" in own:
        if len(own) > 1:
            raise SchemaError(
                f"at {at}: pattern and a length together cannot be enforced; write the length as ^.{{1,9}}$"
            )
        if not isinstance(own["pattern"], str):
            raise SchemaError(f"at {at}: pattern must be a regular expression, got {_shown(own['pattern'])}")
        _check_text(own["pattern"], at)
        try:
            string_of(own["pattern"], "char")
        except PatternError as error:
            raise SchemaError(f"at {at}: the pattern cannot be enforced: {error}") from None
        return {"type": "string", "pattern": own["pattern"]}
    low, high = _counts(own, "minLength", "maxLength", at)
    return {"type": "string", "minLength": low, "maxLength": high}


def _bounds(own: Shape, at: str) -> tuple[Bound | None, Bound | None]:
    """Return the tightest bounds from below and from above."""
    found = {name: Bound(_decimal(value, name, at), not name.startswith("ex")) for name, value in own.items()}
    lows = [found[name] for name in ("minimum", "exclusiveMinimum") if name in found]
    highs = [found[name] for name in ("maximum", "exclusiveMaximum") if name in found]
    return (
        max(lows, key=lambda bound: (bound.value, not bound.included), default=None),
        min(highs, key=lambda bound: (bound.value, bound.included), default=None),
    )


def _decimal(value: object, name: str, at: str) -> Decimal:
    if isinstance(value, bool) and name in _DRAFT_4:
        raise SchemaError(f"at {at}: {name} is itself a number since draft 6; write it in place of {_DRAFT_4[name]}")
    if type(value) is not int and (type(value) is not float or not math.isfinite(value)):
        raise SchemaError(f"at {at}: {name} must be a number, got {_shown(value)}")
    # A fraction counts as the decimal that was written, a whole number as the double that integers are compared with.
    return Decimal(value) if value % 1 == 0 else Decimal(repr(value))


def _integer(own: Shape, at: str) -> Shape:
    below, above = _bounds(own, at)
    low = None if below is None else math.ceil(below.value)
    high = None if above is None else math.floor(above.value)
    if below is not None and not below.included and low == below.value:
        low = math.floor(below.value) + 1
    if above is not None and not above.included and high == above.value:
        high = math.ceil(above.value) - 1
    if any(end is not None and len(str(abs(end))) > _MAX_DIGITS_OF_INTEGER for end in (low, high)):
        raise SchemaError(f"at {at}: a bound has more than {_MAX_DIGITS_OF_INTEGER} digits; {_OUT}")
    if low is not None and high is not None and high < low:
        raise SchemaError(f"at {at}: no whole number is at least {low} and at most {high}")
    return {"type": "integer", "low": low, "high": high}


def _number(own: Shape, at: str) -> Shape:
    low, high = _bounds(own, at)
    ends = [end for end in (low, high) if end is not None]
    if max(len(str(abs(end.whole))) for end in ends) + max(len(end.fraction) for end in ends) > MAX_DIGITS:
        raise SchemaError(f"at {at}: the bounds have more than {MAX_DIGITS} digits together; {_OUT}")
    if numbers(low, high) is None:
        raise SchemaError(f"at {at}: no number of up to {MAX_DIGITS} digits lies between these bounds; {_OUT}")
    return {"type": "number", "low": low, "high": high}


def _literals(values: list[Any], types: object, at: str) -> Shape:
    try:
        texts = list(dict.fromkeys(json.dumps(value, ensure_ascii=False, allow_nan=False) for value in values))
    except ValueError as error:  # json.loads takes NaN
        raise SchemaError(f"at {at}: {error}") from None
    for text in texts:
        _check_text(text, at)
    kinds = list(_OF_TYPE) if types is None else _types(types, at)
    for value in values:
        if not any(_is_of(value, kind) for kind in kinds):
            raise SchemaError(f"at {at}: {_shown(value)} is not of the type {_shown(types)}")
    return {"enum": [json.loads(text) for text in texts]}


def _behind(shape: Shape) -> list[str]:
    """Return the references that a shape leads to without a property or an item in between."""
    found, todo = list[str](), [shape]
    while todo:
        one = todo.pop()
        todo.extend(one.get("anyOf", ()))
        if "$ref" in one:
            found.append(one["$ref"])
    return found


def _ends(shape: Shape, ending: Collection[str]) -> bool:
    """Return whether a shape has a finite value, given that these references have one."""
    match shape:
        case {"$ref": name}:
            return name in ending
        case {"anyOf": shapes}:
            return any(_ends(one, ending) for one in shapes)
        case {"properties": properties, "required": required}:
            return all(_ends(properties[name], ending) for name in required)
        case {"prefixItems": shapes}:
            return all(_ends(one, ending) for one in shapes)
        case {"items": items, "minItems": low}:
            return low == 0 or _ends(items, ending)
        case _:
            return True


def _within(target: object, key: str) -> tuple[Any] | None:
    """Return the value that a step of a JSON pointer leads to, in a tuple; None if there is none."""
    if isinstance(target, list) and re.fullmatch("0|[1-9][0-9]{0,5}", key) and int(key) < len(target):
        return (target[int(key)],)
    return (target[key],) if isinstance(target, Mapping) and key in target else None


def _check_text(text: str, at: str) -> None:
    if half := _HALF.search(text):
        raise SchemaError(f"at {at}: \\u{ord(half[0]):x} is half a surrogate pair; write the whole character")


def _types(types: object, at: str) -> list[str]:
    names: list[Any] = types if isinstance(types, list) and types else [types]
    for name in names:
        if not isinstance(name, str) or name not in _OF_TYPE:
            raise SchemaError(f"at {at}: there is no type {_shown(name)}; there are {', '.join(_OF_TYPE)}")
    return list(dict.fromkeys(names))


def _counts(own: Shape, least: str, most: str, at: str) -> tuple[int, int | None]:
    low, high = own.get(least, 0), own.get(most)
    for name, value in ((least, low), (most, high)):
        if name in own and (type(value) is not int or not 0 <= value < MAX_REPEAT):
            raise SchemaError(f"at {at}: {name} must be a whole number below {MAX_REPEAT}, got {_shown(value)}; {_OUT}")
    if high is not None and high < low:
        raise SchemaError(f"at {at}: {least} {low} is more than {most} {high}")
    return low, high


def _is_of(value: object, name: str) -> bool:
    """Return whether a JSON value is of a type."""
    if name == "number" or isinstance(value, bool):
        return name == ("boolean" if isinstance(value, bool) else "number") and isinstance(value, int | float)
    return isinstance(value, _PYTHONS[name])


def _shown(value: object) -> str:
    shown = json.dumps(value, ensure_ascii=False, default=repr)
    return shown if len(shown) <= _MAX_SHOWN else shown[:_MAX_SHOWN] + "…"
