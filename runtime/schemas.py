"""JSON Schemas as grammars: a guard around llama-cpp-python's converter, ``llama_cpp.llama_grammar.SchemaConverter``.

The rules that hold here:

* A schema is kept or refused: whatever the converter would pass over, get wrong or never come back from is an error
  that names the place. Only notes for people (``title``, ``description`` and the like) are left out.
* Every text that a grammar allows fits its schema, but not the reverse: the properties come in the schema's order, and
  none that it does not list; at most one space stands where JSON allows white space, because small models loop in more.
* ``oneOf`` is kept as ``anyOf`` is, where types, constants or one required property show that no value fits two.
* The converter is handed a copy that says the same in words that it gets right: each ``$ref`` under a name that nothing
  else has, each type by itself, a small range of integers as an ``enum``.
* What is wrong in the converter itself `_Converter` corrects, and nothing else. tests/runtime/test_draws.py shows for
  each correction that the library is wrong there, so that it can go when that is mended.
* Nothing is fetched: a ``$ref`` is a JSON pointer into the schema itself, and may recur.
"""

# The library's converter has no types.
# mypy: allow-untyped-calls

import json
from collections.abc import Mapping
from typing import Any, Final
from urllib.parse import unquote

from attrs import define, field

from reenact.runtime.gbnf import MAX_REPEAT
from reenact.runtime.library import llama_grammar

MAX_DEPTH: Final = 64
"""Schemas in schemas, also by way of ``$ref``: the converter recurs."""

MAX_RANGE: Final = 1000
"""Integers between a minimum and a maximum, which become an ``enum``: llama.cpp has no better way."""

_MAX_SHOWN: Final = 60
_OUT: Final = "leave it out and check the answer"
_NOTES: Final = frozenset(
    ("$schema", "$id", "$comment", "$defs", "definitions", "title", "description", "default", "example", "examples")
) | {"deprecated", "readOnly", "writeOnly", "discriminator"}
_BOUNDS: Final = frozenset(("minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum"))
_OF_TYPE: Final = {
    "object": frozenset(("properties", "required", "additionalProperties")),
    "array": frozenset(("items", "prefixItems", "minItems", "maxItems")),
    "string": frozenset(("minLength", "maxLength", "format")),
    "integer": _BOUNDS,
    "number": _BOUNDS,
    "boolean": frozenset[str](),
    "null": frozenset[str](),
}
_PYTHONS: Final = {"object": dict, "array": list, "string": str, "integer": int, "boolean": bool, "null": type(None)}
_INSTEAD: Final = ("$ref", "anyOf", "oneOf", "allOf", "const", "enum")
_APART: Final = "use anyOf, or give the branches different types, or a required property with different constants"
_RANGE: Final = (
    f"give both ends, at most {MAX_RANGE} apart; or minimum 0 or 1 alone; or leave the bound out and check the answer"
)
_CURES: Final = {"nullable": 'use anyOf with {"type": "null"}'}
_FORMATS: Final = ("date", "time", "date-time", "uuid")
_FORMAT: Final = f"use one of {', '.join(_FORMATS)} without a length, or {_OUT}"
_FOURTH: Final = '("0" [48] | [2468] [048] | [13579] [26])'
_DATE: Final = (  # A day that exists, from the year 1 on (RFC 3339, section 5.7 and appendix C).
    '("000" [1-9] | "00" [1-9] [0-9] | "0" [1-9] [0-9]{2} | [1-9] [0-9]{3}) "-"'
    ' (("0" [13578] | "1" [02]) "-" ("0" [1-9] | [12] [0-9] | "3" [01])'
    ' | ("0" [469] | "11") "-" ("0" [1-9] | [12] [0-9] | "30")'
    ' | "02-" ("0" [1-9] | "1" [0-9] | "2" [0-8]))'
    f' | ([0-9]{{2}} {_FOURTH} | {_FOURTH} "00") "-02-29"'
)
_FROM: Final = {  # What is at least so much, without -0.
    ("integer", 0): '("0" | [1-9] [0-9]{0,15}) space',
    ("integer", 1): "[1-9] [0-9]{0,15} space",
    ("number", 0): '("0" | [1-9] [0-9]{0,15}) ("." [0-9]{1,16})? ([eE] [-+]? [0-9]{1,2})? space',
}

_Schema = dict[str, Any]


class SchemaError(Exception):
    """What is wrong with a schema, and where."""


def grammar_of(schema: object) -> str:
    """Return the grammar, in GBNF, of the texts that fit a schema.

    Raises:
        SchemaError: It is no schema, or one that is not kept.
    """
    guard = _Guard(schema)
    root = guard.copy(schema, "$")
    guard.check()
    converter = _Converter(guard.targets)
    converter.visit(root, "")
    return str(converter.format_grammar()) + "\n"


class _Converter(llama_grammar.SchemaConverter):
    """The library's converter without its mistakes."""

    def __init__(self, targets: Mapping[str, _Schema]) -> None:
        super().__init__(prop_order={}, allow_fetch=False, dotall=False, raw_pattern=False)
        self._refs = dict(targets)

    def _format_literal(self, literal: str) -> str:
        """Escape backslashes too, and write what is not ASCII as itself; a literal is a JSON value here."""
        text = json.dumps(json.loads(literal), ensure_ascii=False)
        return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'

    def _add_primitive(self, name: str, rule: llama_grammar.BuiltinRule) -> str:
        """Let no raw control characters into strings, and no escaped surrogates: an escape is one character."""
        if name == "char":
            code = "([0-9abcefABCEF] [0-9a-fA-F] | [dD] [0-7]) [0-9a-fA-F]{2}"
            rule = llama_grammar.BuiltinRule(rf'[^"\\\x7F\x00-\x1F] | "\\" (["\\/bfnrt] | "u" {code})')
        if name == "date":
            rule = llama_grammar.BuiltinRule(_DATE)
        return str(super()._add_primitive(name, rule))

    def visit(self, schema: _Schema, name: str) -> str:
        """Take ``{}`` for anything and not for an object, and write counts as counts, not as groups in groups."""
        rule = name or "root"
        kind, value = schema.get("type"), llama_grammar.PRIMITIVE_RULES["value"]
        if not schema:
            return str(self._add_rule(rule, self._add_primitive("value", value)))
        if "minimum" in schema:
            return str(self._add_rule(rule, _FROM[schema["type"], schema["minimum"]]))
        if kind == "string" and "format" not in schema and len(schema) > 1:
            char = self._add_primitive("char", llama_grammar.PRIMITIVE_RULES["char"])
            body = f'"\\"" {char}{_times(schema["minLength"], schema["maxLength"])} "\\"" space'
            return str(self._add_rule(rule, body))
        if kind == "array" and "items" in schema:
            low, high = schema["minItems"], schema["maxItems"]
            body = ""
            if high != 0:
                item = self.visit(schema["items"], f"{name}-item")
                body = f'{item} ("," space {item}){_times(max(low - 1, 0), None if high is None else high - 1)}'
            return str(self._add_rule(rule, f'"[" space {body if low else f"({body})?" if body else ""} "]" space'))
        return str(super().visit(schema, name))

    def _build_object_rule(
        self, properties: list[tuple[str, _Schema]], required: set[str], name: str, additional_properties: object
    ) -> str:
        """Keep the order, which the library does among the required ones and then among the others.

        No rule that is made here has a name that another rule could have: all begin or go on with a dash.
        """
        if not properties:
            return str(super()._build_object_rule(properties, required, name, additional_properties))
        first, following = '""', ""
        """What may stand from here on, where nothing stands before and where something does."""
        for title, schema in reversed(properties):
            rule = f"{name}-{title}"
            key = self._format_literal(json.dumps(title))
            member = self._add_rule(f"{rule}-kv", f'{key} space ":" space {self.visit(schema, rule)}')
            if title in required:
                first, following = f"{member} {following}", f'"," space {member} {following}'
            else:
                first, following = f"{member} {following} | {first}", f'( "," space {member} )? {following}'
            first = self._add_rule(f"{rule}-first", first)
            following = self._add_rule(f"{rule}-rest", following)
        return f'"{{" space {first} "}}" space'


def _times(low: int, high: int | None) -> str:
    return "{" + f"{low},{'' if high is None else high}" + "}"


@define
class _Guard:
    """Copies a schema for the converter, and refuses what it would not keep."""

    schema: object
    targets: dict[str, _Schema] = field(factory=dict)
    """What each ``$ref`` leads to, by its new name."""
    _names: dict[str, str] = field(factory=dict)
    _choices: list[tuple[str, list[_Schema]]] = field(factory=list)  # Each ``oneOf``: where, and its branches.
    _depth: int = 0

    def copy(self, schema: object, at: str) -> _Schema:
        """Return what says the same as ``schema`` in words that the converter gets right."""
        if schema is True:
            return {}
        if not isinstance(schema, Mapping):
            raise SchemaError(f"at {at}: expected a schema, got {_shown(schema)}")
        if "$id" in schema and at != "$":
            cure = "leave it out, and write references from the root of the schema"
            raise SchemaError(f"at {at}: $id changes what the references below it mean, which cannot be kept; {cure}")
        given = {name: value for name, value in schema.items() if name not in _NOTES}
        self._depth += 1
        if self._depth > MAX_DEPTH:
            raise SchemaError(f"at {at}: more than {MAX_DEPTH} schemas stand in each other")
        found = next((name for name in _INSTEAD if name in given), None)
        copied = self._typed(given, at) if found is None else self._instead(found, given, at)
        self._depth -= 1
        return copied

    def check(self) -> None:
        """Refuse what only shows once everything is copied."""
        for pointer, name in self._names.items():
            if name in self._plain(self.targets[name])[1]:
                raise SchemaError(f"at ${pointer[1:]}: it leads to itself with no property and no item in between")
        for at, branches in self._choices:
            if not self._exclude([self._plain(branch)[0] for branch in branches]):
                raise SchemaError(f"at {at}: a value may fit two branches of oneOf; {_APART}")

    def _plain(self, copied: _Schema) -> tuple[list[_Schema], set[str]]:
        """Return the copies that are behind references and alternatives, and these references."""
        plain, seen, todo = list[_Schema](), set[str](), [copied]
        while todo:
            one = todo.pop()
            if "anyOf" in one:
                todo.extend(one["anyOf"])
            elif "$ref" not in one:
                plain.append(one)
            elif one["$ref"] not in seen:
                seen.add(one["$ref"])
                todo.append(self.targets[one["$ref"]])
        return plain, seen

    def _exclude(self, shapes: list[list[_Schema]]) -> bool:
        """Return whether no value fits two of them, as far as types, constants and a required property show."""
        for kind in _OF_TYPE:
            held = [some for shape in shapes if (some := [one for one in shape if kind in _kinds(one)])]
            constant = all(_constants(one) is not None for some in held for one in some)
            if len(held) > 1 and not constant and (kind != "object" or not self._differ(held)):
                return False
        return _disjoint(shapes)

    def _differ(self, objects: list[list[_Schema]]) -> bool:
        """Return whether the objects of each branch have constants of their own in a property that all require."""
        for name in set.intersection(*(set(one.get("required", ())) for some in objects for one in some)):
            shapes = [[one for each in some for one in self._plain(each["properties"][name])[0]] for some in objects]
            if _disjoint(shapes) and all(_constants(one) is not None for shape in shapes for one in shape):
                return True
        return False

    # ------------------------------------------------------------ without a type

    def _instead(self, name: str, given: _Schema, at: str) -> _Schema:
        """Copy a keyword that says everything by itself."""
        value, types = given[name], given.get("type") if name in {"const", "enum"} else None
        if others := sorted(set(given) - {name} - ({"type"} if types is not None else set())):
            raise SchemaError(f"at {at}: {name} and {others[0]} together cannot be kept; {_CURES.get(others[0], _OUT)}")
        if name == "$ref":
            return self._reference(value, at)
        if name != "const" and (not isinstance(value, list) or not value):
            raise SchemaError(f"at {at}: {name} wants a list with something in it")
        if name in {"const", "enum"}:
            return _literals([value] if name == "const" else value, types, at)
        copies = [self.copy(one, f"{at}.{name}[{index}]") for index, one in enumerate(value)]
        if name == "allOf" and len(copies) > 1:
            raise SchemaError(f"at {at}: allOf of more than one schema cannot be kept; merge them")
        if name == "oneOf":
            self._choices.append((at, copies))
        return copies[0] if len(copies) == 1 else {"anyOf": copies}

    def _reference(self, pointer: object, at: str) -> _Schema:
        if not isinstance(pointer, str) or not (pointer == "#" or pointer.startswith("#/")):
            raise SchemaError(f"at {at}: $ref {_shown(pointer)} does not point into this schema; write #/$defs/...")
        if pointer not in self._names:
            target: Any = self.schema
            for step in pointer.split("/")[1:]:
                key = unquote(step).replace("~1", "/").replace("~0", "~")
                if isinstance(target, list):
                    target = {str(index): one for index, one in enumerate(target)}
                if not isinstance(target, Mapping) or key not in target:
                    raise SchemaError(f"at {at}: $ref {pointer!r}: there is no {key!r}")
                target = target[key]
            name = self._names[pointer] = f"ref{len(self._names)}"  # No other rule is called so.
            self.targets[name] = self.copy(target, f"${pointer[1:]}")
        return {"$ref": self._names[pointer]}

    # ------------------------------------------------------------ by type

    def _typed(self, given: _Schema, at: str) -> _Schema:
        words = set(given) - {"type"}
        if not words and "type" not in given:
            return {}
        implied = [kind for kind, known in _OF_TYPE.items() if known & words and kind != "number"]
        types = _types(given["type"], at) if "type" in given else implied
        if len(implied) > 1 and "type" not in given:
            raise SchemaError(f"at {at}: {' and '.join(sorted(words))} are of unequal types; name the type")
        if others := sorted(words.difference(*(_OF_TYPE[kind] for kind in types))):
            kept = f"kept for {' or '.join(types)}" if types else "kept"
            raise SchemaError(f"at {at}: {others[0]} cannot be {kept}; {_CURES.get(others[0], _OUT)}")
        by = {"object": self._object, "array": self._array, "string": _string, "integer": _integer, "number": _number}
        copies: list[_Schema] = [
            by[kind](own, at) if (own := {word: given[word] for word in words & _OF_TYPE[kind]}) else {"type": kind}
            for kind in types
        ]
        if "type" not in given:
            copies[0]["untyped"] = True  # What is of another type fits too, which tells in a oneOf.
        return copies[0] if len(copies) == 1 else {"anyOf": copies}

    def _object(self, own: _Schema, at: str) -> _Schema:
        properties, required = own.get("properties", {}), own.get("required", [])
        more = own.get("additionalProperties", "properties" not in own)
        if not isinstance(properties, Mapping):
            raise SchemaError(f"at {at}: properties wants an object, got {_shown(properties)}")
        if not isinstance(required, list) or not all(isinstance(name, str) for name in required):
            raise SchemaError(f"at {at}: required wants a list of names, got {_shown(required)}")
        if missing := [name for name in required if name not in properties]:
            raise SchemaError(f"at {at}: {missing[0]!r} is required and not among the properties; list it there too")
        if properties and not isinstance(more, bool):
            raise SchemaError(f"at {at}: properties and a schema as additionalProperties cannot both be kept; {_OUT}")
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

    def _array(self, own: _Schema, at: str) -> _Schema:
        low, high = _counts(own, "minItems", "maxItems", at)
        if (prefix := own.get("prefixItems")) is None:
            items = self.copy(own.get("items", True), f"{at}[]")
            return {"type": "array", "items": items, "minItems": low, "maxItems": high}
        if not isinstance(prefix, list) or not prefix:
            raise SchemaError(f"at {at}: prefixItems wants a list with something in it, got {_shown(prefix)}")
        if low not in {0, len(prefix)} or high not in {None, len(prefix)} or own.get("items", False) is not False:
            raise SchemaError(f"at {at}: with prefixItems there are exactly these items; leave other words out")
        return {"type": "array", "prefixItems": [self.copy(one, f"{at}[{i}]") for i, one in enumerate(prefix)]}


def _string(own: _Schema, at: str) -> _Schema:
    if "format" not in own:
        low, high = _counts(own, "minLength", "maxLength", at)
        return {"type": "string", "minLength": low, "maxLength": high}
    if own["format"] not in _FORMATS or len(own) > 1:
        raise SchemaError(f"at {at}: format {_shown(own['format'])} cannot be kept; {_FORMAT}")
    return {"type": "string", "format": own["format"]}


def _integer(own: _Schema, at: str) -> _Schema:
    for name, bound in own.items():
        if type(bound) is not int:
            raise SchemaError(f"at {at}: {name} wants a whole number, got {_shown(bound)}")
    lows = [own[name] + step for name, step in (("minimum", 0), ("exclusiveMinimum", 1)) if name in own]
    highs = [own[name] - step for name, step in (("maximum", 0), ("exclusiveMaximum", 1)) if name in own]
    if not highs and max(lows) in {0, 1}:
        return {"type": "integer", "minimum": max(lows)}
    if not lows or not highs or min(highs) - max(lows) > MAX_RANGE:
        raise SchemaError(f"at {at}: these bounds cannot be kept; {_RANGE}")
    if min(highs) < max(lows):
        raise SchemaError(f"at {at}: no whole number is at least {max(lows)} and at most {min(highs)}")
    return {"enum": list(range(max(lows), min(highs) + 1))}


def _number(own: _Schema, at: str) -> _Schema:
    if own != {"minimum": 0} or isinstance(own["minimum"], bool):
        raise SchemaError(f"at {at}: of a number no bound but minimum 0 can be kept; {_OUT}")
    return {"type": "number", "minimum": 0}


def _literals(values: list[Any], types: object, at: str) -> _Schema:
    try:
        texts = list(dict.fromkeys(json.dumps(value, allow_nan=False) for value in values))
    except ValueError as error:  # json.loads takes NaN
        raise SchemaError(f"at {at}: {error}") from None
    for value in values if types is not None else ():
        if not any(_is_of(value, kind) for kind in _types(types, at)):
            raise SchemaError(f"at {at}: {_shown(value)} is not of the type {_shown(types)}")
    return {"enum": [json.loads(text) for text in texts]}


def _constants(copied: _Schema) -> list[Any] | None:
    values = None if "untyped" in copied else copied.get("enum")
    return None if values is None or any(isinstance(value, list | dict) for value in values) else values


def _kinds(copied: _Schema) -> set[str]:
    """Return the types of what may fit a schema, which are all where it does not say; an integer is a number too."""
    if (values := _constants(copied)) is not None:
        return {kind for kind in _OF_TYPE if any(_is_of(value, kind) for value in values)}
    kinds = {copied["type"]} if "type" in copied and "untyped" not in copied else set(_OF_TYPE)
    return kinds | {"number"} if "integer" in kinds else kinds


def _disjoint(shapes: list[list[_Schema]]) -> bool:
    """Return whether no constant of one shape equals one of another: 1 equals 1.0, and ``true`` neither."""
    each = [{(isinstance(v, bool), v) for one in shape for v in _constants(one) or ()} for shape in shapes]
    return sum(map(len, each)) == len(set[tuple[bool, Any]]().union(*each))


def _types(types: object, at: str) -> list[str]:
    names: list[Any] = types if isinstance(types, list) and types else [types]
    for name in names:
        if not isinstance(name, str) or name not in _OF_TYPE:
            raise SchemaError(f"at {at}: there is no type {_shown(name)}; there are {', '.join(_OF_TYPE)}")
    return names


def _counts(own: _Schema, least: str, most: str, at: str) -> tuple[int, int | None]:
    low, high = own.get(least, 0), own.get(most)
    for name, value in ((least, low), (most, high)):
        if name in own and (type(value) is not int or not 0 <= value < MAX_REPEAT):
            raise SchemaError(f"at {at}: {name} wants a whole number below {MAX_REPEAT}, got {_shown(value)}; {_OUT}")
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
