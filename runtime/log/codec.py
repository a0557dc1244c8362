"""Converts records to and from plain values, and plain values to and from JSON.

These are the values of a line that leaves out nothing; `reenact.runtime.log.shorthand` makes it short.

The rules that hold here:

* The envelope comes first, in this order: ``n``, ``t``, ``type``, ``actor``, and for a derived event ``cause``.
* Reading is strict: no unknown field, no missing one, no ``"7"``, ``7.0`` or ``true`` for 7, no integer from 2^53 on.
* Bytes are written as text under the field's name if they are UTF-8, and else in base64 under ``NAME_bytes``.
* A value that equals its default is left out only in the classes of `_SPARSE`: those that make up most of a log, and
  those with a field that older logs lack.
"""

import math
import re
from base64 import b64decode, b64encode
from collections.abc import Callable, Iterator
from typing import Any, Final, TypeVar, get_args, get_origin

import attrs
import orjson
from cattrs import Converter, transform_error
from cattrs.errors import BaseValidationError
from cattrs.gen import make_dict_structure_fn, make_dict_unstructure_fn
from cattrs.v import format_exception

from reenact.actors import events as e
from reenact.actors.errors import InvalidRequest, shown
from reenact.actors.header import Limits, Parent
from reenact.actors.inputs import Input, Inputs, Row
from reenact.actors.limits import MAX_INTEGER, MAX_LINE_TEXT, MAX_LINE_VALUES, MAX_SLOTS
from reenact.actors.routing import EVENT_TYPES, ROUTES, actor_of

FORMAT: Final = 2
"""The version of the lines: envelope, checksum, encoding. A log of a newer format is refused."""

SCHEMA: Final = 6
"""The version of the events, and of the states whose digest closes a log."""

OLDEST_FORMAT: Final = 2
"""The oldest format that can be read; `reenact.runtime.log.upcasters` has the oldest schema."""

ENVELOPE: Final = ("n", "t", "type", "actor", "cause")

_MAX_DEPTH: Final = 16
"""The deepest nesting of arrays and objects; a record needs five."""

_LONG_NUMBER: Final = re.compile(rb"[0-9]{16}")
"""An integer from 2^53 on has at least 16 digits."""

_DIGEST: Final = re.compile(r"[0-9a-f]{64}")
"""A SHA-256, in place of a row of numbers."""

_ENVELOPE_TYPES: Final = {"n": int, "t": int, "type": str, "actor": str}
"""The types of the envelope's fields; ``cause``, if there is one, is an integer too."""

_SPARSE: Final = (
    e.BatchPlanned,
    e.BatchKey,
    e.BatchDecoded,
    e.Part,
    e.Sample,
    e.Vector,
    e.TokenEmitted,
    e.RequestReceived,
    e.SessionOpened,
    e.SessionResumed,
    Limits,
    Parent,
)

Fields = dict[str, Any]
T = TypeVar("T")


class UnwritableRecord(ValueError):
    """A record has a value that no log may contain."""


class UnreadableRecord(ValueError):
    """A line has the right checksum but contains no event that this program knows."""


def encode(record: e.Record, t: int) -> Fields:
    """Return a record as plain values, all of them.

    Args:
        record: The record.
        t: The time in nanoseconds since the session opened.
    """
    event = record.event
    envelope: Fields = {"n": record.n, "t": t, "type": ROUTES[type(event)].name, "actor": actor_of(event)}
    if record.cause is not None:
        envelope["cause"] = record.cause
    envelope.update(payload(event))
    return envelope


def plain(record: e.Record, t: int) -> Fields:
    """Return a record as plain values, as they are read from JSON."""
    return loads(dumps(encode(record, t)))


def payload(value: object) -> Fields:
    """Return an event, or another value of an attrs class, as plain values.

    Raises:
        UnwritableRecord: It has a number that no log may contain.
    """
    fields: Fields = _converter.unstructure(value)
    return fields


def structured(kind: type[T], fields: Fields) -> T:
    """Return the value of an attrs class with these plain values; `payload` goes the other way.

    Raises:
        UnreadableRecord: They are not those of one.
    """
    try:
        return _converter.structure(fields, kind)
    except (BaseValidationError, UnreadableRecord, TypeError, ValueError, KeyError) as error:
        raise UnreadableRecord(f"{kind.__name__}: {error}") from None


def dumps(fields: Fields) -> bytes:
    """Return plain values as one JSON object on one line, without a newline.

    Raises:
        UnwritableRecord: A value is not JSON, or an integer from 2^53 on; or the line would be too large.
    """
    try:
        body = orjson.dumps(fields, option=orjson.OPT_STRICT_INTEGER)
    except TypeError as error:
        if type(fields.get("t")) is int and fields["t"] > MAX_INTEGER:
            # After 104 days. A reader with only 53 bits is then off by nanoseconds, which does no harm.
            dumps({**fields, "t": 0})
            return orjson.dumps(fields)
        raise UnwritableRecord(f"{fields.get('type')}: {error}") from None
    if (reason := _too_much(body)) is not None:
        raise UnwritableRecord(f"{fields.get('type')}: {reason}")
    return body


def _too_much(body: bytes) -> str | None:
    """Return the reason why a line is too large to be read; None if it is not."""
    if len(body) <= MAX_LINE_VALUES:
        return None
    n_values = sum(map(body.count, (b",", b"[", b"{")))
    if n_values > MAX_LINE_VALUES:
        return f"it has more than {MAX_LINE_VALUES:,} values"
    if len(body) > MAX_LINE_TEXT + 32 * n_values:
        return f"it has more than {MAX_LINE_TEXT:,} bytes of text"
    return None


def written(value: object) -> str:
    """Return a plain value as JSON for people to read; unlike `dumps` it accepts a time beyond 2^53."""
    return orjson.dumps(value).decode()


def loads(body: bytes) -> Fields:
    """Return the plain values of a line.

    Raises:
        UnreadableRecord: It is not a JSON object, or contains something that no log may contain: too many values, an
            integer from 2^53 on (except the time), or deeply nested arrays and objects.
    """
    if (reason := _too_much(body)) is not None:
        raise UnreadableRecord(reason)
    try:
        fields = orjson.loads(body)
    except orjson.JSONDecodeError as error:
        raise UnreadableRecord(f"not JSON: {error}") from None
    if not isinstance(fields, dict):
        raise UnreadableRecord("not a JSON object")
    if body.count(b"[") + body.count(b"{") > _MAX_DEPTH or _LONG_NUMBER.search(body):
        for name, value in fields.items():
            if name != "t":
                _bounded(name, value)
    return fields


def _bounded(name: str, value: object, depth: int = 1) -> None:
    """Refuse values that no field may contain, at any depth.

    Args:
        name: The field's name.
        value: Its value, or a part of that.
        depth: The depth of that part.
    """
    if depth > _MAX_DEPTH:
        raise UnreadableRecord(f"{name}: arrays and objects are nested more than {_MAX_DEPTH} deep")
    match value:
        case dict():
            for item in value.values():
                _bounded(name, item, depth + 1)
        case list():
            n_left = MAX_SLOTS
            for item in value:
                if type(item) is not float:  # Most values of long arrays are floats.
                    n_left -= type(item) in {dict, list}
                    if n_left < 0:
                        raise UnreadableRecord(f"{name}: more than {MAX_SLOTS} arrays or objects are in one array")
                    _bounded(name, item, depth + 1)
        case int() if abs(value) > MAX_INTEGER:
            raise UnreadableRecord(f"{name}: expected an integer below 2^53, got {value}")
        case _:
            pass


def check_envelope(fields: Fields) -> None:
    """Refuse a line without the envelope of a record, whatever the record is.

    Raises:
        UnreadableRecord: A field is missing or wrong; the error names it.
    """
    for name, kind in {**_ENVELOPE_TYPES, **({"cause": int} if "cause" in fields else {})}.items():
        if type(fields.get(name)) is not kind:
            raise UnreadableRecord(f"{name}: expected {kind.__name__}, got {shown(fields.get(name))}")


def decode(fields: Fields) -> e.Record:
    """Return the record with these plain values.

    Raises:
        UnreadableRecord: The type is unknown, or a field is missing, unknown or of the wrong type; the error names the
            path.
    """
    kind = fields.get("type")
    if not isinstance(kind, str) or (event_type := EVENT_TYPES.get(kind)) is None:
        raise UnreadableRecord(f"there is no event of type {shown(kind)}")
    payload = {name: value for name, value in fields.items() if name not in ENVELOPE}
    try:
        event: e.Event = _converter.structure(payload, event_type)
        n = _strict_int(fields.get("n"), int)
        _strict(int)(fields.get("t"), int)
        cause = _strict_int(fields["cause"], int) if "cause" in fields else None
        record = e.Record(n, event, cause)
    except BaseValidationError as error:
        raise UnreadableRecord(
            f"{kind}: {'; '.join(transform_error(error, path=kind, format_exception=_reason))}"
        ) from None
    except (TypeError, ValueError, KeyError) as error:
        raise UnreadableRecord(f"{kind}: {error}") from None
    if fields.get("actor") != actor_of(event):
        raise UnreadableRecord(f"{kind} belongs to {actor_of(event)}, not to {shown(fields.get('actor'))}")
    return record


def recordable(decoded: object) -> e.BatchDecoded:
    """Return an engine's outcome of a batch, if a log can contain it and reading gives the same back.

    Raises:
        UnwritableRecord, UnreadableRecord: It is not a BatchDecoded, or has a value that no log may contain.
    """
    if not isinstance(decoded, e.BatchDecoded):
        raise UnwritableRecord(f"expected BatchDecoded, got {shown(decoded)}")
    decode(loads(dumps(encode(e.Record(0, decoded, None), 0))))
    return decoded


def same(one: object, other: object) -> bool:
    """Return whether two plain values are alike: 7, 7.0 and true are three values, and so are 0, 0.0 and -0.0."""
    if type(one) is not type(other):
        return False
    if isinstance(one, float) and isinstance(other, float):
        return one == other and math.copysign(1.0, one) == math.copysign(1.0, other)
    if isinstance(one, dict) and isinstance(other, dict):
        return one.keys() == other.keys() and all(same(one[key], other[key]) for key in one)
    if isinstance(one, list) and isinstance(other, list):
        return len(one) == len(other) and all(map(same, one, other))
    return one == other


def flat(fields: Fields, above: str = "") -> Iterator[tuple[str, Any]]:
    """Return the values of plain fields by their paths, including those of objects within them.

    Args:
        fields: The fields.
        above: The beginning of each path.
    """
    for name, value in fields.items():
        if isinstance(value, dict):
            yield from flat(value, f"{above}{name}.")
        else:
            yield above + name, value


def _reason(error: BaseException, kind: type | None) -> str:
    """Return the error in one value; cattrs adds its path."""
    plain = type(error) in {TypeError, ValueError, InvalidRequest}
    return str(error) if plain else format_exception(error, kind)


def _strict(kind: type[T]) -> Callable[[object, object], T]:
    def hook(value: object, _: object) -> T:
        if type(value) is not kind:
            raise TypeError(f"expected {kind.__name__}, got {shown(value)}")
        return value

    return hook


def _strict_int(value: object, _: object) -> int:
    if type(value) is not int:
        raise TypeError(f"expected int, got {shown(value)}")
    if abs(value) > MAX_INTEGER:
        raise ValueError(f"expected an integer below 2^53, got {value}")
    return value


def _finite(value: float) -> float:
    if not math.isfinite(value):
        # orjson would write null.
        raise UnwritableRecord(f"{value} is not a number that a log may contain")
    return value


def _input(value: object, _: object) -> Input:
    if type(value) is int:
        return _strict_int(value, int)
    if type(value) is str and _DIGEST.fullmatch(value):
        return Row(value)
    raise TypeError(f"expected a token or the SHA-256 of a row, got {shown(value)}")


def _written_row(row: Row) -> str:
    if not _DIGEST.fullmatch(row.digest):
        raise UnwritableRecord(f"{shown(row.digest)} is not the SHA-256 of a row")
    return row.digest


def _wanted(value: object, _: object) -> e.Draw | e.Pool:
    match value:
        case "pool":
            return e.Pool()
        case int():
            return e.Draw(_strict_int(value, int))
        case _:
            raise TypeError(f'expected the index of a draw, or "pool", got {shown(value)}')


def _bytes_fields(kind: type) -> tuple[str, ...]:
    return tuple(a.name for a in attrs.fields(kind) if a.type is bytes)


def _write_bytes(fields: Fields, names: tuple[str, ...]) -> Fields:
    written: Fields = {}
    for name, value in fields.items():
        if name in names:
            try:
                written[name] = value.decode()
            except UnicodeDecodeError:
                written[f"{name}_bytes"] = b64encode(value).decode()
        else:
            written[name] = value
    return written


def _read_bytes(fields: Fields, names: tuple[str, ...]) -> Fields:
    read = dict(fields)
    for name in names:
        if (encoded := read.pop(f"{name}_bytes", None)) is not None:
            if name in read:
                raise ValueError(f"{name} is there twice, as text and as bytes")
            try:
                read[name] = b64decode(_strict(str)(encoded, str), validate=True)
            except ValueError as error:
                raise ValueError(f"{name}_bytes: {error}") from None
        elif name in read:
            read[name] = _strict(str)(read[name], str).encode()
    return read


def _is_tuple(kind: Any) -> bool:
    origin: Any = get_origin(kind)
    return origin is tuple


def _is_by_number(kind: Any) -> bool:
    """Return whether it is a dict with integers as keys, which JSON has not: it is written as an array of pairs."""
    origin: Any = get_origin(kind)
    return origin is dict and get_args(kind)[0] is int


def _make_converter() -> Converter:
    converter = Converter(forbid_extra_keys=True)
    converter.register_structure_hook(int, _strict_int)
    converter.register_structure_hook(Input, _input)
    converter.register_structure_hook(Inputs, lambda value, _: Inputs(_input(one, Input) for one in value))
    converter.register_structure_hook(e.Draw | e.Pool, _wanted)
    converter.register_structure_hook(e.Wants, lambda value, of: None if value is None else _wanted(value, of))
    for kind in (str, bool, float, bytes):
        converter.register_structure_hook(kind, _strict(kind))

    converter.register_unstructure_hook(float, _finite)
    converter.register_unstructure_hook(Row, _written_row)
    converter.register_unstructure_hook(
        Inputs, lambda inputs: [_written_row(one) if isinstance(one, Row) else one for one in inputs[:]]
    )
    converter.register_unstructure_hook(e.Draw, lambda draw: draw.index)
    converter.register_unstructure_hook(e.Pool, lambda _: "pool")

    @converter.register_structure_hook_factory(_is_tuple)
    def _tuple_hook(kind: Any) -> Callable[[object, object], tuple[Any, ...]]:
        inner = get_args(kind)

        def hook(value: object, _: object) -> tuple[Any, ...]:
            if not isinstance(value, list):
                raise TypeError(f"expected a list, got {shown(value)}")
            if inner[-1] is Ellipsis:
                structure = converter.get_structure_hook(inner[0])
                return tuple(structure(item, inner[0]) for item in value)
            if len(value) != len(inner):
                raise TypeError(f"expected {len(inner)} values, got {len(value)}")
            return tuple(converter.structure(item, of) for item, of in zip(value, inner, strict=True))

        return hook

    @converter.register_unstructure_hook_factory(_is_by_number)
    def _pairs_writer(_: Any) -> Callable[[dict[int, Any]], list[Any]]:
        return lambda values: [[number, converter.unstructure(value)] for number, value in values.items()]

    @converter.register_structure_hook_factory(_is_by_number)
    def _pairs_reader(kind: Any) -> Callable[[Any, Any], dict[int, Any]]:
        of = get_args(kind)[1]
        return lambda pairs, _: {number: converter.structure(value, of) for number, value in pairs}

    @converter.register_unstructure_hook_factory(attrs.has)
    def _class_writer(kind: Any) -> Callable[[Any], Fields]:
        write = make_dict_unstructure_fn(kind, converter, _cattrs_omit_if_default=kind in _SPARSE)
        names = _bytes_fields(kind)
        return (lambda value: _write_bytes(write(value), names)) if names else write

    @converter.register_structure_hook_factory(attrs.has)
    def _class_reader(kind: Any) -> Callable[[Any, Any], Any]:
        read = make_dict_structure_fn(kind, converter, _cattrs_forbid_extra_keys=True)
        names = _bytes_fields(kind)
        # A field with a default must be in the log all the same, because defaults may change between versions.
        required = frozenset() if kind in _SPARSE else frozenset(a.name for a in attrs.fields(kind))

        def hook(value: Any, of: Any) -> Any:
            if not isinstance(value, dict):
                raise TypeError(f"expected an object, got {shown(value)}")
            plain = _read_bytes(value, names) if names else value
            if missing := required - plain.keys():
                raise TypeError(f"{', '.join(sorted(missing))} is missing")
            return read(plain, of)

        return hook

    return converter


_converter = _make_converter()
