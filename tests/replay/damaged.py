"""Logs that no session wrote: a golden log changed at random, a seed each, mostly with its checksums made right."""

import io
import json
from collections.abc import Callable, Iterator
from contextlib import redirect_stderr, redirect_stdout
from copy import deepcopy
from pathlib import Path
from random import Random
from time import process_time
from typing import Any, Final

import orjson
from attrs import frozen

from reenact.replay.cli.main import main
from reenact.runtime.log.line import sealed
from tests.helpers.paths import GOLDEN
from tests.helpers.sessions import read_fields

LOGS: Final = sorted(GOLDEN.glob("*.jsonl"))
COMMANDS: Final = (
    ("run", "LOG"),
    ("check", "LOG"),
    ("show", "LOG"),
    ("state", "LOG"),
    ("texts", "LOG"),
    ("diff", "LOG", "WHOLE"),
    ("shrink", "LOG", "--limit", "0.5", "-o", "OUT"),
    ("to-test", "LOG", "-o", "OUT.py"),
    ("show", "LOG", "3-9"),
    ("state", "LOG", "9"),
    ("fork", "LOG", "--at", "9", "-o", "OUT", "--model", "nothing.gguf"),
    ("run", "LOG", "--json"),
)
TYPED: Final = {0: "fine", 1: "diverged or violated", 2: "cannot be had", 3: "corrupt", 4: "not comparable"}

_HOSTILE: Final[tuple[Any, ...]] = (
    *(0, 1, -1, 2, 7, 255, 256, 2**31 - 1, 2**31, 2**53 - 1, 2**53, -(2**53), 2**63, 2**64 - 1),
    *(0.0, -0.0, 1.5, 1e308, 5e-324, True, False, None, [], {}, [[]], [None], [1.5], {"": {}}, [0] * 5000),
    *("", "x", "\x1b[2J\u202e\x9b", "1", "SessionOpened", "sequence-1", "\ud7ff", "0" * 40, "x" * 100_000),
)

Line = dict[str, Any]


@frozen
class Damaged:
    """A log that no session wrote."""

    seed: int
    path: Path
    whole: Path
    """The golden log that it was made of."""


@frozen
class Outcome:
    """What came of a command."""

    command: str
    code: int
    seconds: float
    """Of the CPU: other programs may use it too."""
    printed: str
    """What it said, where that is a fault."""


def damaged(seed: int, folder: Path) -> Damaged:
    """Write the log of a seed."""
    random = Random(seed)  # noqa: S311  # it is to be the same again
    whole = random.choices(LOGS, [1 / path.stat().st_size for path in LOGS])[0]
    lines = read_fields(whole)
    if random.random() < 0.8:
        lines = lines[: random.randint(1, 60)]
    lines = deepcopy(lines)
    for _ in range(random.choice((1, 1, 1, 2, 3, 5))):
        random.choices(*zip(*_CHANGES.items(), strict=True))[0](random, lines)
    if random.random() < 0.8:
        _renumber(lines)
    data = _sealed(lines)
    if random.random() < 0.1:
        data = _bytes_changed(random, data)
    path = folder / "damaged.jsonl"
    path.write_bytes(data)
    return Damaged(seed, path, whole)


def outcomes(log: Damaged) -> Iterator[Outcome]:
    """Run every command on a log."""
    out = log.path.with_name("out")
    for command in COMMANDS:
        names = {"LOG": log.path, "WHOLE": log.whole, "OUT": out, "OUT.py": out.with_suffix(".py")}
        printed = io.StringIO()
        started = process_time()
        with redirect_stdout(printed), redirect_stderr(printed):
            code = main([str(names.get(word, word)) for word in command])
        seconds = process_time() - started
        yield Outcome(" ".join(command), code, seconds, "" if code in TYPED else printed.getvalue()[-500:])
        for left in (out, out.with_suffix(".py"), log.path.with_name("damaged-small.jsonl")):
            left.unlink(missing_ok=True)


def _sealed(lines: list[Line]) -> bytes:
    crc, data = 0, []
    for fields in lines:
        line, crc = sealed(_body(fields), crc)
        data.append(line)
    return b"".join(data)


def _body(fields: Line) -> bytes:
    try:
        return orjson.dumps(fields)
    except TypeError:  # An integer that takes more than 64 bits.
        return json.dumps(fields).encode()


def _bytes_changed(random: Random, data: bytes) -> bytes:
    at = random.randrange(len(data)) if data else 0
    match random.randrange(5):
        case 0:
            return data[:at] + bytes([data[at] ^ 1 << random.randrange(8)]) + data[at + 1 :] if data else data
        case 1:
            return data[:at]
        case 2:
            return data[:at] + data[at + 1 :]
        case 3:
            return data[:at] + random.randbytes(9) + data[at:]
        case _:
            return data + b"\n"


def _renumber(lines: list[Line]) -> None:
    """Let numbers be dense again, causes follow them, and times not go back."""
    new: dict[Any, int] = {}
    t = 0
    for n, fields in enumerate(lines):
        if isinstance(fields.get("n"), int):
            new[fields["n"]] = n
        fields["n"] = n
        if isinstance(fields.get("t"), int):
            t = fields["t"] = max(t, fields["t"])
        if isinstance(fields.get("cause"), int):
            fields["cause"] = new.get(fields["cause"], fields["cause"])


def _remove(random: Random, lines: list[Line]) -> None:
    del lines[random.randrange(len(lines) or 1) :][: random.choice((1, 1, 3))]
    if lines:
        del lines[random.randrange(len(lines))]


def _double(random: Random, lines: list[Line]) -> None:
    if lines:
        at = random.randrange(len(lines))
        n = random.choice((1, 1, 2, 8))
        lines[at + n : at + n] = deepcopy(lines[at : at + n])


def _swap(random: Random, lines: list[Line]) -> None:
    if lines:
        one, other = random.randrange(len(lines)), random.randrange(len(lines))
        lines[one], lines[other] = lines[other], lines[one]


def _insert(random: Random, lines: list[Line]) -> None:
    """Insert a record of another log."""
    others = read_fields(random.choice(LOGS[:6]))
    lines.insert(random.randint(0, len(lines)), random.choice(others))


def _change(random: Random, lines: list[Line]) -> None:
    """Put something else in place of a value, its name or an item; in the header as often as in a tenth of the rest."""
    if not lines:
        return
    place: Any = lines[0 if random.random() < 0.1 else random.randrange(len(lines))]
    while place:
        name = random.choice(list(place) if isinstance(place, dict) else range(len(place)))
        value = place[name]
        if isinstance(value, dict | list) and value and random.random() < 0.9:
            place = value
            continue
        match random.randrange(8):
            case 0:
                del place[name]
            case 1 if isinstance(place, dict):
                place[random.choice(("x", "n", "type", "\x1b[2J"))] = place.pop(name)
            case 2 if isinstance(place, list):
                place[:] = place * random.choice((2, 2, 1000))
            case 3 if isinstance(value, int):
                place[name] = value + random.choice((-1, 1, 1, 2, 10, 1000))
            case 4 if isinstance(value, int):
                place[name] = random.randrange(20)
            case _:
                place[name] = random.choice(_HOSTILE)
        return


def _alike(random: Random, lines: list[Line]) -> None:
    """Put another value of its kind in place of one, so that the record can be read."""
    places = [
        (place, name)
        for place in _places(random.choice(lines) if lines else {})
        for name in (place if isinstance(place, dict) else range(len(place)))
        if name not in {"n", "t", "type", "actor", "cause"}
    ]
    if not places:
        return
    place, name = random.choice(places)
    match place[name]:
        case bool():
            place[name] = not place[name]
        case int() as value:
            place[name] = random.choice((0, 1, -1, 2, value + 1, value - 1, 5, 64, 255, 2**31 - 1, 2**53 - 1))
        case float() as value:
            place[name] = random.choice((0.0, -1.0, 1e308, 5e-324, value * 2))
        case str():
            place[name] = random.choice(("", "x", "\x1b[2J\u202e", "</s>", "x" * 100_000))
        case list() as value:
            place[name] = random.choice((value[1:], value * 2, value * 500, value[::-1], []))
        case None:
            place[name] = random.choice((0, 1, 3, "x"))
        case _:
            pass


def _places(value: Any) -> Iterator[Any]:
    """Yield every object and every list of a value."""
    if isinstance(value, dict | list):
        yield value
        for item in value.values() if isinstance(value, dict) else value:
            yield from _places(item)


def _lengthen(random: Random, lines: list[Line]) -> None:
    """Make a text or a list long; seldom, because that takes its time."""
    if random.random() < 0.1 and lines:
        place, name = random.choice(
            [(place, name) for place in _places(random.choice(lines)) if isinstance(place, dict) for name in place]
        )
        if isinstance(value := place[name], str | list) and value:
            place[name] = value * (random.choice((2**18, 2**20, 2**22 if isinstance(value, str) else 2)) // len(value))


def _exchange(random: Random, lines: list[Line]) -> None:
    """Exchange a field of two records of one kind."""
    if not lines:
        return
    one = random.choice(lines)
    other = random.choice([fields for fields in lines if fields.get("type") == one.get("type")])
    if shared := [name for name in one if name in other and name not in {"n", "t"}]:
        name = random.choice(shared)
        one[name], other[name] = other[name], one[name]


_CHANGES: Final[dict[Callable[[Random, list[Line]], None], int]] = {
    _remove: 2,
    _double: 3,
    _swap: 2,
    _insert: 2,
    _change: 6,
    _alike: 10,
    _exchange: 3,
    _lengthen: 1,
}
