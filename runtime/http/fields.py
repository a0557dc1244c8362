"""Reads the body of a request as JSON, and its fields by a table.

The rules that hold here:

* A field is done, refused or ignored. The table has a check for each field that is done; a field that would change the
  answer but is not supported is refused by its name; all others are ignored.
* null means "not given", for every field.
* A check has the JSON Schema of the values that it takes; the OpenAPI document is made of these.
* The content type does not matter, because ``curl -d`` sends JSON as a form.
"""

from collections.abc import Callable, Mapping
from contextlib import aclosing
from typing import Any, Final, Generic, TypeVar

import orjson
import trio
from attrs import field, frozen
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request

from reenact.actors.errors import InvalidRequest, shown
from reenact.actors.limits import MAX_STOP_BYTES, MAX_STOPS, MAX_TEXTS
from reenact.actors.options import option_bounds

MAX_BODY_BYTES: Final = 2**24
"""The most bytes of a body: several of the longest prompts. The whole body is held in memory."""

BODY_SECONDS: Final = 30.0
"""The seconds in which a body must arrive: enough for the longest one over a slow line, and no more."""

EMPTY: Final[tuple[object, ...]] = ("", [], {})
"""The values besides null that mean "not given" in ollama's API."""

_LONG_BODY: Final = 2**16
"""The bytes from which on a body is read in a thread; in less, reading takes a few milliseconds."""
_TOO_LONG: Final = f"the body has more than {MAX_BODY_BYTES:,} bytes"
_CURES: Final = {"model": ": GET /api/tags and GET /v1/models list the names"}

T = TypeVar("T")
Schema = Mapping[str, Any]
"""A JSON Schema."""


@frozen
class Check(Generic[T]):
    """Checks the value of a field."""

    _read: Callable[[str, Any], T]
    schema: Schema
    """The values that it takes; a limit that no schema can express is not in it."""

    def __call__(self, name: str, value: object) -> T:
        """Return a value as it is meant.

        Raises:
            InvalidRequest: It is wrong; the error has the field's name.
        """
        return self._read(name, value)


def takes(**schema: Any) -> Callable[[Callable[[str, Any], T]], Check[T]]:
    """Turn a function into a check.

    Args:
        schema: The JSON Schema of the values that it takes.
    """
    return lambda read: Check(read, schema)


@frozen(kw_only=True)
class Refusal:
    """A field that would change the answer but is not supported."""

    reason: str
    but: tuple[object, ...] = ()
    """The values that change nothing, besides false, 0 and empty ones."""

    def accepts(self, value: object) -> bool:
        """Return whether a value changes nothing."""
        return not value or any(value == one and isinstance(value, bool) == isinstance(one, bool) for one in self.but)

    @property
    def schema(self) -> Schema:
        """The values that change nothing."""
        return {"enum": [None, False, 0, *EMPTY, *self.but], "description": f"Not supported: {self.reason}."}


@frozen(kw_only=True)
class Table:
    """The treatment of each field of a body, or of an object in it."""

    done: Mapping[str, Check[Any]]
    refused: Mapping[str, Refusal] = field(factory=dict)
    required: tuple[str, ...] = ()
    absent: tuple[object, ...] = ()
    """The values besides null that mean "not given"."""

    def read(self, body: Mapping[str, Any], where: str = "") -> dict[str, Any]:
        """Return the fields that are done, checked.

        Args:
            body: The object.
            where: The beginning of a field's name in errors.

        Raises:
            InvalidRequest: A field has the wrong type, is refused, or is missing.
        """
        given = {name: value for name, value in body.items() if value is not None and value not in self.absent}
        for name, refusal in self.refused.items():
            if name in given and not refusal.accepts(given[name]):
                raise InvalidRequest(where + name, refusal.reason)
        found = {name: check(where + name, given[name]) for name, check in self.done.items() if name in given}
        for name in self.required:
            if name not in found:
                raise InvalidRequest(where + name, f"it is missing{_CURES.get(name, '')}")
        return found

    @property
    def schema(self) -> Schema:
        """The objects that it takes; other fields are ignored."""
        absent = {"enum": [None, *self.absent]}
        done = {
            name: {**check.schema, "not": absent} if name in self.required else {"anyOf": [check.schema, absent]}
            for name, check in self.done.items()
        }
        refused = {name: refusal.schema for name, refusal in self.refused.items()}
        return {"type": "object", "properties": done | refused, "required": list(self.required)}


async def read_body(request: Request, read: Callable[[dict[str, Any]], T]) -> T:
    """Read the JSON object that is a request's body, and return the result.

    Args:
        request: The request.
        read: Reads the object. For a long body, and for the schemas of tools, that takes long, so it is done in a
            thread: other requests go on meanwhile.

    Raises:
        InvalidRequest: The body is not a JSON object, or a field is wrong.
        HTTPException: The body did not arrive in time, is too long, or is encoded.
    """
    raw = await _raw_body(request)
    try:
        body = orjson.loads(raw)
    except orjson.JSONDecodeError as error:
        raise InvalidRequest("body", _fault(raw, error)) from None
    if not isinstance(body, dict):
        raise InvalidRequest("body", f"expected a JSON object, got {_kind(body)}")
    if len(raw) > _LONG_BODY or body.get("tools"):
        return await trio.to_thread.run_sync(read, body, abandon_on_cancel=True)
    return read(body)


async def _raw_body(request: Request) -> bytearray:
    _check_head(request.headers)
    with trio.move_on_after(BODY_SECONDS) as scope:
        raw = bytearray()
        try:
            async with aclosing(request.stream()) as coming:
                async for part in coming:
                    raw += part
                    if len(raw) > MAX_BODY_BYTES:
                        raise HTTPException(413, _TOO_LONG)
        except ClientDisconnect:
            raise HTTPException(400, "the body is incomplete") from None
    if scope.cancelled_caught:
        raise HTTPException(408, f"the body did not arrive within {BODY_SECONDS:g} seconds")
    if not raw.strip():
        raise InvalidRequest("body", "it is missing: send a JSON object")
    return raw


def _check_head(headers: Mapping[str, str]) -> None:
    """Refuse a body by its head, before it is sent."""
    length, encoding = headers.get("content-length", ""), headers.get("content-encoding", "identity")
    if length.isdecimal() and int(length) > MAX_BODY_BYTES:
        raise HTTPException(413, _TOO_LONG)
    if encoding.strip().lower() != "identity":
        raise HTTPException(415, f"the content-encoding {shown(encoding)} is not supported: send the body without one")


def _fault(raw: bytearray, error: orjson.JSONDecodeError) -> str:
    """Return the reason why a body cannot be read."""
    try:
        raw.decode()
    except UnicodeDecodeError as wrong:
        return f"it is not UTF-8, at byte {wrong.start:,}"
    return f"it is not JSON: {error.msg} at character {error.pos}"


@takes(type="string")
def text(name: str, value: object) -> str:
    """Check a text."""
    if not isinstance(value, str):
        raise _wrong(name, "a string", value)
    return value


@takes(type="boolean")
def flag(name: str, value: object) -> bool:
    """Check true or false."""
    if not isinstance(value, bool):
        raise _wrong(name, "true or false", value)
    return value


@takes(type="integer")
def whole(name: str, value: object) -> int:
    """Check a whole number, which may be written as 40.0."""
    if isinstance(value, float) and value.is_integer():
        return int(value)
    if type(value) is not int:
        raise _wrong(name, "a whole number", value)
    return value


@takes(type="number")
def number(name: str, value: object) -> float:
    """Check a number, which may be written as 1."""
    if type(value) not in {int, float}:
        raise _wrong(name, "a number", value)
    return float(value)  # type: ignore[arg-type]  # it is one of them


@takes(anyOf=[{"type": "string"}, {"type": "array", "items": {"type": "string"}}])
def texts(name: str, value: object) -> list[str]:
    """Check a list of texts; one text is a list of one."""
    if isinstance(value, str):
        return [value]
    if not isinstance(value, list):
        raise _wrong(name, "a string or a list of strings", value)
    for i, one in enumerate(value):
        if not isinstance(one, str):
            raise _wrong(f"{name}[{i}]", "a string", one)
    return value


@takes(
    anyOf=[{"type": "string"}, {"type": "array", "items": {"type": "string"}, "maxItems": MAX_STOPS}],
    description=f"Each has at most {MAX_STOP_BYTES:,} bytes in UTF-8.",
)
def stops(name: str, value: object) -> list[str]:
    """Check stop strings, and leave out empty ones."""
    if isinstance(value, list) and len(value) > MAX_STOPS:
        raise InvalidRequest(name, f"expected at most {MAX_STOPS} stop strings")
    return [stop for stop in texts(name, value) if stop]


@takes(type="object")
def mapping(name: str, value: object) -> dict[str, Any]:
    """Check an object."""
    if not isinstance(value, dict):
        raise _wrong(name, "an object", value)
    return value


@takes(type="array")
def listed(name: str, value: object) -> list[Any]:
    """Check a list."""
    if not isinstance(value, list):
        raise _wrong(name, "a list", value)
    return value


def nested(table: Table) -> Check[dict[str, Any]]:
    """Return the check of an object with fields of its own."""
    return Check(lambda name, value: table.read(mapping(name, value), f"{name}."), table.schema)


def each(check: Check[T]) -> Check[list[T]]:
    """Return the check of a list, which checks each of its values."""

    def read(name: str, value: object) -> list[T]:
        if len(given := listed(name, value)) > MAX_TEXTS:
            raise InvalidRequest(name, f"there are more than {MAX_TEXTS:,}")
        return [check(f"{name}[{i}]", one) for i, one in enumerate(given)]

    return Check(read, {"type": "array", "items": check.schema, "maxItems": MAX_TEXTS})


def filled(check: Check[T]) -> Check[T]:
    """Return a check that takes no empty value."""

    def read(name: str, value: object) -> T:
        if value in EMPTY:
            raise InvalidRequest(name, "it is empty")
        return check(name, value)

    return Check(read, {"allOf": [check.schema, {"not": {"enum": list(EMPTY)}}]})


def one_of(*values: str) -> Check[str]:
    """Return the check of a text that is one of a few."""

    def read(name: str, value: object) -> str:
        if not isinstance(value, str) or value not in values:
            raise InvalidRequest(name, f"expected {' or '.join(map(repr, values))}")
        return value

    return Check(read, {"enum": list(values)})


def within(low: int, high: int) -> Check[int]:
    """Return the check of a whole number with bounds."""

    def read(name: str, value: object) -> int:
        if not low <= (taken := whole(name, value)) <= high:
            raise InvalidRequest(name, f"expected {low:,} to {high:,}")
        return taken

    return Check(read, {**whole.schema, "minimum": low, "maximum": high})


def option(name: str) -> Check[Any]:
    """Return the check of an option of a request; the runtime refuses a number out of bounds, and records that."""
    bounds = option_bounds(name)
    check: Check[Any] = whole if bounds.whole else number
    least = "exclusiveMinimum" if bounds.above else "minimum"
    return Check(check, {**check.schema, least: bounds.low, "maximum": bounds.high})


def below_zero(check: Check[T], meaning: Any) -> Check[T]:
    """Return a check for which every whole number below 0 has one meaning."""

    def read(name: str, value: object) -> T:
        negative = whole(name, value) < 0
        return meaning if negative else check(name, value)

    return Check(read, {name: bound for name, bound in check.schema.items() if name != "minimum"})


def _wrong(name: str, expected: str, value: object) -> InvalidRequest:
    return InvalidRequest(name, f"expected {expected}, got {_kind(value)}")


def _kind(value: object) -> str:
    """Return a value, or its kind if it may be long, in JSON's terms."""
    if isinstance(value, dict):
        return "an object"
    if isinstance(value, list):
        return "a list"
    if isinstance(value, str):
        return "a string"
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    return shown(value)
