"""Defines the options of a request: ollama's names, defaults and bounds (docs/runner-semantics.md section 1)."""

import json
import re
from collections.abc import Callable, Iterable, Mapping
from itertools import islice
from typing import Any, Final, TypedDict

from attrs import Attribute, field, fields, frozen
from attrs.validators import optional

from reenact.actors.errors import InternalError, InvalidRequest, reading, shown
from reenact.actors.limits import (
    MAX_DEADLINE,
    MAX_GRAMMAR_BYTES,
    MAX_INTEGER,
    MAX_PROMPT_BYTES,
    MAX_STOP_BYTES,
    MAX_STOPS,
    MAX_TOP_LOGPROBS,
)


class RequestOptions(TypedDict, total=False):
    """The options of a request as keyword arguments; `Options` explains each."""

    seed: int | None
    num_predict: int
    num_keep: int
    stop: Iterable[str]
    temperature: float
    top_k: int
    top_p: float
    min_p: float
    typical_p: float
    repeat_last_n: int
    repeat_penalty: float
    presence_penalty: float
    frequency_penalty: float
    truncate: bool
    shift: bool
    format: str | Mapping[str, Any] | None
    grammar: str | None
    logprobs: bool
    top_logprobs: int
    priority: int
    deadline: float | None


_TRACEPARENT: Final = re.compile("(?!ff)[0-9a-f]{2}-(?!0{32})[0-9a-f]{32}-(?!0{16})[0-9a-f]{16}-[0-9a-f]{2}")
"""W3C Trace Context, section 3.2: there is no version ff, and zeros are no trace and no parent."""


@frozen
class Within:
    """The bounds of a number: a validator for a field."""

    low: int
    high: int
    whole: bool = True
    """Whether it is a whole number."""
    above: bool = False
    """Whether it must be more than ``low``."""

    def __call__(self, _: object, attribute: "Attribute[Any]", value: object) -> None:
        """Refuse a value of another type, or out of bounds.

        Raises:
            InvalidRequest: The value is wrong; the error names the field.
        """
        if self.whole:
            if type(value) is not int:
                raise InvalidRequest(attribute.name, f"expected a whole number, got {shown(value)}")
        elif type(value) is not float:
            raise InvalidRequest(attribute.name, f"expected a number, got {shown(value)}")
        if self.above and value == self.low:
            raise InvalidRequest(attribute.name, f"expected more than {self.low:,}")
        if not self.low <= value <= self.high:
            got = shown(value) if self.whole else f"{value:,}".removesuffix(".0")
            raise InvalidRequest(attribute.name, f"expected {self.low:,} to {self.high:,}, got {got}")


def yes_or_no(_: object, attribute: "Attribute[Any]", value: object) -> None:
    """Refuse a value that is not a bool: a validator for a field.

    Raises:
        InvalidRequest: The value is not a bool; the error names the field.
    """
    if type(value) is not bool:
        raise InvalidRequest(attribute.name, f"expected True or False, got {shown(value)}")


def _grammar(_: object, attribute: "Attribute[Any]", value: object) -> None:
    if type(value) is not str:
        raise InvalidRequest(attribute.name, f"expected a string, got {shown(value)}")
    if not value.strip():
        raise InvalidRequest(attribute.name, "it is empty: leave it out, or say what the text is to look like")
    if len(utf8(attribute.name, value)) > MAX_GRAMMAR_BYTES:
        raise InvalidRequest(attribute.name, f"it has more than {MAX_GRAMMAR_BYTES:,} bytes")


def _format(owner: object, attribute: "Attribute[Any]", value: object) -> None:
    if type(value) is not str:
        raise InvalidRequest(attribute.name, f'expected "json" or a JSON Schema, got {shown(value)}')
    _grammar(owner, attribute, value)
    if value == "json":
        return
    try:
        schema = json.loads(value)
    except (ValueError, RecursionError) as error:
        raise InvalidRequest(attribute.name, f'expected "json" or a JSON Schema: {error}') from None
    if not isinstance(schema, dict) or not schema:
        raise InvalidRequest(
            attribute.name, f'expected "json" or a JSON Schema with something in it, got {shown(value)}'
        )


def _stops(_: object, attribute: "Attribute[Any]", value: object) -> None:
    if not isinstance(value, tuple):
        raise InvalidRequest(attribute.name, f"expected a list of strings, got {shown(value)}")
    for stop in value:
        if type(stop) is not str:
            raise InvalidRequest(attribute.name, f"expected a list of strings, got {shown(stop)} in it")
    if len(value) > MAX_STOPS:
        raise InvalidRequest(attribute.name, f"expected at most {MAX_STOPS} stop strings")
    for stop in value:
        if not stop:
            raise InvalidRequest(attribute.name, "a stop string is empty: it would end every text before it begins")
        if len(utf8(attribute.name, stop)) > MAX_STOP_BYTES:
            raise InvalidRequest(attribute.name, f"a stop string is longer than {MAX_STOP_BYTES} bytes")


def _as_schema(value: object) -> object:
    """Return a schema as the text for the log, which keeps its order: the answer's properties have the same."""
    with reading("format"):
        if not isinstance(value, Mapping):
            return value
        try:
            return json.dumps(value, ensure_ascii=False, allow_nan=False)
        except (TypeError, ValueError, RecursionError) as error:
            raise InvalidRequest.because("format", "the schema is not JSON", error) from None


def _as_float(value: object) -> object:
    if type(value) is not int or abs(value) > MAX_INTEGER:
        return value
    return float(value)


def _as_tuple(value: object) -> object:
    with reading("stop"):
        # A string is iterable too, but stop="abc" is not meant as "a", "b", "c".
        if not isinstance(value, Iterable) or isinstance(value, str | bytes):
            return value
        return tuple(islice(value, MAX_STOPS + 1))  # It may be infinite.


@frozen(kw_only=True)
class About:
    """Facts about an option besides its type, default and bounds, for the commands and the replay."""

    help: str
    """The effect of the option, in one line."""
    fixed: str | None = None
    """The reason why it cannot change in a fork; None if it can."""
    tried: tuple[Any, ...] = ()
    """For an option that draws depend on: its usual values, and the default."""


def _about(help_text: str, *, fixed: str | None = None, tried: tuple[Any, ...] = ()) -> dict[str, About]:
    return {"about": About(help=help_text, fixed=fixed, tried=tried)}


@frozen(kw_only=True)
class Options:
    """The options of one request.

    Raises:
        InvalidRequest: A value has the wrong type or is out of bounds; the error names the field.
    """

    seed: int = field(
        validator=Within(0, MAX_INTEGER),
        metadata=_about("key of the draws; drawn and recorded if not given", tried=(*range(10), 42, 123, 1234)),
    )
    """The key of the draws, together with the token's index. It is recorded even if the caller gave none."""
    num_predict: int = field(
        default=-1,
        validator=Within(-1, MAX_INTEGER),
        metadata=_about("the most tokens to sample; -1 for ten times the context"),
    )
    """The most tokens to sample; -1 for ten times the context."""
    num_keep: int = field(
        default=4,
        validator=Within(-1, MAX_INTEGER),
        metadata=_about(
            "inputs at the beginning that are kept when the context is full; -1 for the whole prompt",
            fixed="it was applied when the prompt came",
        ),
    )
    """The count of inputs at the beginning that are kept when the context is full; -1 for the whole prompt."""
    stop: tuple[str, ...] = field(
        default=(),
        converter=_as_tuple,
        validator=_stops,
        metadata=_about("a string that ends the text before it; may be given several times"),
    )
    """Strings that end the text before them."""
    temperature: float = field(
        default=0.8,
        converter=_as_float,
        validator=Within(0, 100, whole=False),
        metadata=_about("divides the logits; 0 takes the likeliest token", tried=tuple(i / 20 for i in range(41))),
    )
    """Divides the logits before the draw; 0 takes the likeliest token."""
    top_k: int = field(
        default=40,
        validator=Within(0, MAX_INTEGER),
        metadata=_about("likeliest tokens to draw from; 0 for all", tried=(0, 1, 5, 10, 20, 30, 40, 50, 64, 100)),
    )
    """Draw from this many likeliest tokens; 0 for all."""
    top_p: float = field(
        default=0.9,
        converter=_as_float,
        validator=Within(0, 1, whole=False),
        metadata=_about(
            "draw from the likeliest tokens of this total probability", tried=(0.5, 0.7, 0.8, 0.9, 0.95, 1.0)
        ),
    )
    """Draw from the likeliest tokens of this total probability."""
    min_p: float = field(
        default=0.0,
        converter=_as_float,
        validator=Within(0, 1, whole=False),
        metadata=_about(
            "draw from tokens at least this probable, relative to the likeliest", tried=(0.0, 0.01, 0.05, 0.1, 0.2)
        ),
    )
    """Draw from tokens at least this probable, relative to the likeliest."""
    typical_p: float = field(
        default=1.0,
        converter=_as_float,
        validator=Within(0, 1, whole=False),
        metadata=_about("draw from the most typical tokens of this total probability", tried=(0.5, 0.9, 0.95, 1.0)),
    )
    """Draw from the most typical tokens of this total probability; 1 for all."""
    repeat_last_n: int = field(
        default=64,
        validator=Within(-1, MAX_INTEGER),
        metadata=_about(
            "count of last tokens that are penalized; 0 for none, -1 for a whole context", tried=(0, 64, -1)
        ),
    )
    """The count of last tokens, the prompt's included, that are penalized; 0 for none, -1 for ``n_ctx``."""
    repeat_penalty: float = field(
        default=1.0,
        converter=_as_float,
        validator=Within(0, 100, whole=False, above=True),
        metadata=_about("divides the logits of penalized tokens", tried=(1.0, 1.05, 1.1, 1.15, 1.2, 1.3, 1.5)),
    )
    """Divides the logits of penalized tokens; 1 changes nothing."""
    presence_penalty: float = field(
        default=0.0,
        converter=_as_float,
        validator=Within(-100, 100, whole=False),
        metadata=_about("subtracted from the logits of penalized tokens", tried=(0.0, 0.5, 1.0, 1.5)),
    )
    """Subtracted from the logit of each penalized token."""
    frequency_penalty: float = field(
        default=0.0,
        converter=_as_float,
        validator=Within(-100, 100, whole=False),
        metadata=_about("subtracted from such logits for each occurrence", tried=(0.0, 0.5, 1.0, 1.5)),
    )
    """Subtracted from the logit of each penalized token, once for each of its occurrences."""
    truncate: bool = field(
        default=True,
        validator=yes_or_no,
        metadata=_about(
            "shorten a prompt that is longer than the context; if not, it is an error",
            fixed="it affects only the prompt, which came before",
        ),
    )
    """Shorten a prompt that is longer than the context; if not, it is an error."""
    shift: bool = field(
        default=True,
        validator=yes_or_no,
        metadata=_about("drop inputs when the context is full, and continue; if not, end"),
    )
    """Drop inputs when the context is full, and continue; if not, the sequence ends with ``context_full``."""
    format: str | None = field(
        default=None,
        converter=_as_schema,
        validator=optional(_format),
        metadata=_about(
            "the form of the text: json, or a JSON Schema", fixed="the text so far may not have another form"
        ),
    )
    """The form of the text: "json", or a JSON Schema."""
    grammar: str | None = field(
        default=None,
        validator=optional(_grammar),
        metadata=_about("the form of the text as a GBNF grammar", fixed="the text so far may not have another form"),
    )
    """The form of the text as a grammar in GBNF, with a rule ``root``."""
    logprobs: bool = field(
        default=False, validator=yes_or_no, metadata=_about("print the log-probability of each token, in JSON")
    )
    """Return the logarithm of each token's probability."""
    top_logprobs: int = field(
        default=0, validator=Within(0, MAX_TOP_LOGPROBS), metadata=_about("likeliest tokens to print with each token")
    )
    """The count of likeliest tokens to return with each token."""
    priority: int = field(
        default=0,
        validator=Within(-MAX_INTEGER, MAX_INTEGER),
        metadata=_about("higher is admitted first", fixed="queue and slots are ordered by it already"),
    )
    """A higher priority is admitted first, and takes the slot of a lower one if none is free."""
    deadline: float | None = field(
        default=None,
        converter=_as_float,
        validator=optional(Within(0, MAX_DEADLINE, whole=False)),
        metadata=_about("seconds after which the text ends", fixed="a fork has no deadlines"),
    )
    """The seconds after which the sequence ends with its text so far. They count from the request, and include the
    check of its grammar and the wait in the queue."""
    dimensions: int | None = field(default=None, validator=optional(Within(1, MAX_INTEGER)))
    """The count of first values of an embedding to return; None for all."""

    def __attrs_post_init__(self) -> None:
        if self.format is not None and self.grammar is not None:
            raise InvalidRequest("grammar", "format is given too; a text can have the form of one")
        if self.top_logprobs and not self.logprobs:
            raise InvalidRequest("top_logprobs", "logprobs is required with it")


def about(name: str) -> About:
    """Return the facts about an option, by its name."""
    known: About = OPTIONS[name].metadata["about"]
    return known


OPTIONS: "Final[Mapping[str, Attribute[Any]]]" = {one.name: one for one in fields(Options) if "about" in one.metadata}
"""The options of a request, by name; `dimensions` is a separate argument."""

OPTION_NAMES: Final = tuple(OPTIONS)

DRAW_OPTIONS: Final = tuple(name for name in OPTIONS if about(name).tried)
"""The options that a draw depends on."""

CHANGEABLE: Final = tuple(name for name in OPTIONS if about(name).fixed is None)
"""The options that a fork may change."""


def option_bounds(name: str) -> Within:
    """Return the bounds of an option that is a number, by its name."""
    bounds = OPTIONS[name].validator
    if not isinstance(bounds, Within):
        raise InternalError(f"{name} has no bounds")
    return bounds


def options_of(asked: RequestOptions, *, seed: Callable[[], int]) -> Options:
    """Return the options that a caller gave, with a seed from ``seed()`` if the caller gave none.

    Raises:
        InvalidRequest: A name is unknown, or a value has a wrong type or is out of bounds.
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
        InvalidRequest: The text contains a lone surrogate, which UTF-8 cannot encode.
    """
    try:
        return text.encode()
    except UnicodeEncodeError as error:
        raise InvalidRequest(field_name, f"a lone surrogate at character {error.start} is not text") from None


def check_text(field_name: str, text: object) -> str:
    """Return the value if it is a text that is not longer than a prompt may be.

    Raises:
        InvalidRequest: The value is not such a text; the error names the field.
    """
    if type(text) is not str:
        raise InvalidRequest(field_name, f"expected a string, got {type(text).__name__}")
    if len(utf8(field_name, text)) > MAX_PROMPT_BYTES:
        raise too_long(field_name)
    return text


def check_traceparent(text: object) -> str:
    """Return the value if it is a ``traceparent`` of W3C Trace Context: version, trace, parent and flags.

    Raises:
        InvalidRequest: The value is not such a text.
    """
    if type(text) is not str or not _TRACEPARENT.fullmatch(text):
        raise InvalidRequest("traceparent", "expected 00-TRACE-PARENT-FLAGS, with 32, 16 and 2 hexadecimal digits")
    return text


def too_long(field_name: str) -> InvalidRequest:
    """Return the error for a text that is too long."""
    return InvalidRequest(field_name, f"it has more than {MAX_PROMPT_BYTES:,} bytes")
