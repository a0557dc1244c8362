"""Checks that no value fits two branches of a ``oneOf``.

The rules that hold here:

* Branches exclude each other by types, constants, bounds of numbers, or a property that all of their objects require. A
  schema that excludes values in any other way is taken to allow all values of its type.
* Apart from sorting, the time is linear in the count of schemas, constants and names, which is bounded.
"""

from collections.abc import Iterable, Iterator, Mapping
from itertools import pairwise
from typing import Any, Final

from attrs import define, field

from reenact.runtime.grammar.json_text import Shape
from reenact.runtime.grammar.ranges import Bound

MAX_LOOKED: Final = 50_000
"""The most schemas, constants and names in all branches of a schema together: they take a quarter of a second."""

_WHOLE: Final = ("array", "boolean", "null", "number", "object", "string")
_End = tuple[Any, ...]
"""An end of a range of values: their type, and 0 for below all, 1 with a value, or 2 for above all."""
_Span = tuple[_End, _End]


class TooManyError(Exception):
    """The branches have too many schemas, constants and names."""


@define
class Branches:
    """Compares branches."""

    targets: Mapping[str, Shape]
    """The shape that each ``$ref`` leads to."""
    _left: int = field(default=MAX_LOOKED, init=False)

    def exclude(self, branches: Iterable[Shape]) -> bool:
        """Return whether no value fits two of them.

        Raises:
            TooManyError: They are too many.
        """
        shapes = [self._plain(branch) for branch in branches]
        objects = [held for shape in shapes if (held := [one for one in shape if _may_be_object(one)])]
        return self._apart(shapes, but="object") and (len(objects) < 2 or self._differ(objects))  # noqa: PLR2004

    def _plain(self, shape: Shape) -> list[Shape]:
        """Return the shapes that references and alternatives lead to."""
        plain, seen, todo = list[Shape](), set[str](), [shape]
        while todo:
            one = todo.pop()
            self._left -= 1 + len(one.get("required", ())) + len(one.get("enum", ()))
            if self._left < 0:
                raise TooManyError
            if "anyOf" in one:
                todo.extend(one["anyOf"])
            elif "$ref" not in one:
                plain.append(one)
            elif one["$ref"] not in seen:
                seen.add(one["$ref"])
                todo.append(self.targets[one["$ref"]])
        return plain

    def _differ(self, objects: list[list[Shape]]) -> bool:
        """Return whether the branches' objects exclude each other by a property that all of them require."""
        for name in sorted(set.intersection(*(set(one.get("required", ())) for held in objects for one in held))):
            shapes = [[plain for one in held for plain in self._plain(one["properties"][name])] for held in objects]
            if self._apart(shapes):
                return True
        return False

    def _apart(self, shapes: list[list[Shape]], but: str = "") -> bool:
        """Return whether no value fits two of the branches, without values of the type ``but``."""
        spans = list[_Span]()
        for shape in shapes:
            spans += _joined([span for one in shape for span in _spans(one) if span[0][0] != but])
        return all(one[1] < another[0] for one, another in pairwise(sorted(spans)))


def _may_be_object(shape: Shape) -> bool:
    return any(span[0][0] == "object" for span in _spans(shape))


def _spans(shape: Shape) -> Iterator[_Span]:
    """Yield the ranges of a shape's values."""
    kind = shape.get("type")
    if "enum" in shape:
        for value in shape["enum"]:
            yield _of_constant(value)
    elif kind is None or "untyped" in shape:
        for each in _WHOLE:
            yield (each, 0), (each, 2)
    elif kind in {"integer", "number"}:
        low, high = shape.get("low"), shape.get("high")
        yield _end(low, 0), _end(high, 2)
    else:
        yield (kind, 0), (kind, 2)


def _end(bound: Bound | int | None, none: int) -> _End:
    """Return the end that a bound gives to numbers; a decimal counts as the double that a validator compares."""
    if bound is None:
        return "number", none
    return "number", 1, bound if isinstance(bound, int) else float(bound.value)


def _of_constant(value: object) -> _Span:
    """Return the values that equal a constant, for a list or an object all of its type. 1 equals 1.0, but not true."""
    match value:
        case bool():
            end: _End = ("boolean", 1, value)
        case int() | float():
            end = ("number", 1, value)
        case str():
            end = ("string", 1, value)
        case None:
            return ("null", 0), ("null", 2)
        case _:
            kind = "object" if isinstance(value, dict) else "array"
            return (kind, 0), (kind, 2)
    return end, end


def _joined(spans: list[_Span]) -> list[_Span]:
    """Return spans in order, and join those that overlap."""
    joined = list[_Span]()
    for low, high in sorted(spans):
        if joined and low <= joined[-1][1]:
            joined[-1] = (joined[-1][0], max(joined[-1][1], high))
        else:
            joined.append((low, high))
    return joined
