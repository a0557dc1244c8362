"""Reads the body of a request as JSON, and its fields by a table.

The rules that hold here:

* A field is done, refused or ignored. The table has a check for each field that is done; a field that would change the
  answer but is not supported is refused by its name; all others are ignored.
* null means "not given", for every field.
* The content type does not matter, because ``curl -d`` sends JSON as a form.
"""

from collections.abc import Callable, Mapping
from contextlib import aclosing
from typing import Any, Final

import orjson
import trio
from attrs import frozen
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request

from reenact.actors.errors import InvalidRequest, shown

MAX_BODY_BYTES: Final = 2**24
"""The most bytes of a body: several of the longest prompts. The whole body is held in memory."""

BODY_SECONDS: Final = 30.0
"""The seconds in which a body must arrive: enough for the longest one over a slow line, and no more."""

Check = Callable[[str, Any], Any]
"""Returns the value of a field as it is meant; raises `InvalidRequest` with the field's name."""


@frozen(kw_only=True)
class Refusal:
    """A field that would change the answer but is not supported."""

    reason: str
    but: tuple[object, ...] = ()
    """The values that change nothing, besides empty ones."""


@frozen(kw_only=True)
class Table:
    """The treatment of each field of an endpoint's body."""

    done: Mapping[str, Check]
    refused: Mapping[str, Refusal]

    def read(self, body: Mapping[str, Any]) -> dict[str, Any]:
        """Return the fields that are done, checked.

        Raises:
            InvalidRequest: A field has the wrong type, or is refused.
        """
        for name, refusal in self.refused.items():
            value = body.get(name)
            if value and not any(value is one or value == one != True for one in refusal.but):  # noqa: E712  # 1 == True
                raise InvalidRequest(name, refusal.reason)
        given = ((name, body.get(name)) for name in self.done)
        return {name: self.done[name](name, value) for name, value in given if value is not None}


async def body_of(request: Request) -> dict[str, Any]:
    """Return the JSON object that is a request's body.

    Raises:
        InvalidRequest: The body is not a JSON object.
        HTTPException: The body did not arrive in time, or is too long.
    """
    with trio.move_on_after(BODY_SECONDS) as scope:
        raw = bytearray()
        try:
            async with aclosing(request.stream()) as coming:
                async for part in coming:
                    raw += part
                    if len(raw) > MAX_BODY_BYTES:
                        raise HTTPException(413, f"the body has more than {MAX_BODY_BYTES:,} bytes")
        except ClientDisconnect:
            raise HTTPException(400, "the body is incomplete") from None
    if scope.cancelled_caught:
        raise HTTPException(408, f"the body did not arrive within {BODY_SECONDS:g} seconds")
    if not raw.strip():
        raise InvalidRequest("body", "it is missing: send a JSON object")
    try:
        body = orjson.loads(raw)
    except orjson.JSONDecodeError as error:
        raise InvalidRequest("body", f"it is not JSON: {error.msg} at character {error.pos}") from None
    if not isinstance(body, dict):
        raise InvalidRequest("body", f"expected a JSON object, got {_kind(body)}")
    return body


def text(name: str, value: object) -> str:
    """Check a text."""
    if not isinstance(value, str):
        raise _wrong(name, "a string", value)
    return value


def flag(name: str, value: object) -> bool:
    """Check true or false."""
    if not isinstance(value, bool):
        raise _wrong(name, "true or false", value)
    return value


def whole(name: str, value: object) -> int:
    """Check a whole number, which may be written as 40.0."""
    if isinstance(value, float) and value.is_integer():
        return int(value)
    if type(value) is not int:
        raise _wrong(name, "a whole number", value)
    return value


def number(name: str, value: object) -> float:
    """Check a number, which may be written as 1."""
    if type(value) not in {int, float}:
        raise _wrong(name, "a number", value)
    return float(value)  # type: ignore[arg-type]  # it is one of them


def texts(name: str, value: object) -> list[str]:
    """Check a list of texts; one text is a list of one."""
    if isinstance(value, str):
        return [value]
    if not isinstance(value, list) or not all(isinstance(one, str) for one in value):
        raise _wrong(name, "a string or a list of strings", value)
    return value


def mapping(name: str, value: object) -> dict[str, Any]:
    """Check an object."""
    if not isinstance(value, dict):
        raise _wrong(name, "an object", value)
    return value


def listed(name: str, value: object) -> list[Any]:
    """Check a list."""
    if not isinstance(value, list):
        raise _wrong(name, "a list", value)
    return value


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
    return {None: "null", True: "true", False: "false"}.get(value) or shown(value)  # type: ignore[call-overload]
