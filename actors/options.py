"""What a caller may ask of a request: ollama's names, defaults and bounds (docs/runner-semantics.md section 1)."""

import math
from collections.abc import Callable, Iterable
from typing import Any, TypedDict

from attrs import Attribute, field, frozen

from reenact.actors.errors import InvalidRequest
from reenact.actors.limits import MAX_INTEGER, MAX_STOP_BYTES, MAX_STOPS


class RequestOptions(TypedDict, total=False):
    """The options of a request as keyword arguments; `Options` says what each means."""

    seed: int | None
    num_predict: int
    stop: Iterable[str]
    temperature: float
    top_k: int
    top_p: float
    min_p: float


_MAX_SHOWN = 80

_Validator = Callable[[Any, "Attribute[Any]", Any], None]


def _whole(low: int, high: int) -> _Validator:
    def check(_: object, attribute: "Attribute[Any]", value: object) -> None:
        if type(value) is not int:
            raise InvalidRequest(attribute.name, f"expected a whole number, got {_shown(value)}")
        if not low <= value <= high:
            raise InvalidRequest(attribute.name, f"expected {low} to {high}, got {_shown(value)}")

    return check


def _number(low: float, high: float) -> _Validator:
    def check(_: object, attribute: "Attribute[Any]", value: object) -> None:
        if type(value) is not float:
            raise InvalidRequest(attribute.name, f"expected a number, got {_shown(value)}")
        if not (math.isfinite(value) and low <= value <= high):
            raise InvalidRequest(attribute.name, f"expected {low:g} to {high:g}, got {value:g}")

    return check


def _stops(_: object, attribute: "Attribute[Any]", value: object) -> None:
    if not isinstance(value, tuple) or not all(type(stop) is str for stop in value):
        raise InvalidRequest(attribute.name, f"expected a list of strings, got {_shown(value)}")
    if len(value) > MAX_STOPS:
        raise InvalidRequest(attribute.name, f"expected at most {MAX_STOPS} stop strings, got {len(value)}")
    for stop in value:
        if not stop:
            raise InvalidRequest(attribute.name, "a stop string is empty: it would end every text before it begins")
        if len(utf8(attribute.name, stop)) > MAX_STOP_BYTES:
            raise InvalidRequest(attribute.name, f"a stop string is longer than {MAX_STOP_BYTES} bytes")


def _as_float(value: object) -> object:
    if type(value) is not int or abs(value) > MAX_INTEGER:
        return value
    return float(value)


def _shown(value: object) -> str:
    """Return a value as it may stand in an error: neither of any length nor too large to be written."""
    if type(value) is int and abs(value) > MAX_INTEGER:
        return "a number beyond 2^53"
    shown = repr(value)
    return shown if len(shown) <= _MAX_SHOWN else shown[:_MAX_SHOWN] + "…"


def _as_tuple(value: object) -> object:
    # A string is iterable too, but stop="abc" for "a", "b", "c" is nobody's intention.
    return tuple(value) if isinstance(value, Iterable) and not isinstance(value, str | bytes) else value


@frozen(kw_only=True)
class Options:
    """How a sequence generates.

    Raises:
        InvalidRequest: A value of the wrong type or out of bounds; it names the field.
    """

    seed: int = field(validator=_whole(0, MAX_INTEGER))
    """What the draws are keyed by, with the token's index. Always recorded, also when the caller gave none."""
    num_predict: int = field(default=-1, validator=_whole(-1, MAX_INTEGER))
    """Tokens to sample at most; -1 for as many as the context holds."""
    stop: tuple[str, ...] = field(default=(), converter=_as_tuple, validator=_stops)
    """Strings that end the text before them."""
    temperature: float = field(default=0.8, converter=_as_float, validator=_number(0, 100))
    """Divides the logits before the draw; 0 takes the likeliest token."""
    top_k: int = field(default=40, validator=_whole(0, MAX_INTEGER))
    """Draw from so many likeliest tokens; 0 for all."""
    top_p: float = field(default=0.9, converter=_as_float, validator=_number(0, 1))
    """Draw from the likeliest tokens that have this probability together."""
    min_p: float = field(default=0.0, converter=_as_float, validator=_number(0, 1))
    """Draw from tokens at least this probable, relative to the likeliest."""


OPTION_NAMES = tuple(RequestOptions.__annotations__)


def options_of(asked: RequestOptions, *, seed: Callable[[], int]) -> Options:
    """Return the options a caller asked for, with a seed from ``seed()`` where he gave none.

    Raises:
        InvalidRequest: An unknown name, a wrong type or a value out of bounds.
    """
    for name in asked:
        if name not in OPTION_NAMES:
            raise InvalidRequest(name, f"there is no such option; there are {', '.join(OPTION_NAMES)}")
    given: dict[str, Any] = dict(asked)
    if given.get("seed") is None:
        given["seed"] = seed()
    return Options(**given)


def utf8(field_name: str, text: str) -> bytes:
    """Return ``text`` as UTF-8.

    Raises:
        InvalidRequest: It holds a lone surrogate, which no UTF-8 stands for.
    """
    try:
        return text.encode()
    except UnicodeEncodeError as error:
        raise InvalidRequest(field_name, f"a lone surrogate at character {error.start} is not text") from None
