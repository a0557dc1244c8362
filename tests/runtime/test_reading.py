"""Values that raise while they are read: each is an error of the argument that it was given as."""

from collections.abc import Callable, Iterator, Mapping
from itertools import repeat
from pathlib import Path
from typing import Any

import pytest

from reenact.actors.errors import EngineBroken, InvalidRequest, description, reading, shown
from reenact.actors.limits import MAX_STOPS
from reenact.actors.options import OPTION_NAMES
from reenact.runtime import ScriptedEngine, open_runtime
from reenact.runtime.pytest_plugin import OpenScripted
from tests.helpers.sessions import read_fields

METHODS = (
    *("__repr__", "__str__", "__format__", "__eq__", "__hash__", "__bool__", "__len__", "__iter__", "__next__"),
    *("__getitem__", "__contains__", "__index__", "__int__", "__float__", "__fspath__"),
    *("items", "keys", "values", "get", "encode", "strip"),
)
BASES = (object, str, bytes, int, float, list, tuple, dict, set, Mapping)
ERRORS = (RuntimeError, StopIteration, UnicodeError, MemoryError, AttributeError, RecursionError)


def hostile(base: type, error: type[Exception], *given: object) -> Any:
    """Return a value of a class derived from ``base``; whatever is asked of it raises ``error``, its class too."""

    def refuse(*_: object, **__: object) -> Any:
        raise error("\ud800 no " * 1000)

    methods: dict[str, Any] = dict.fromkeys(METHODS, refuse)
    if error is not AttributeError:  # Python takes that one for a class that does not say.
        methods["__class__"] = property(refuse)
    return type("Hostile", (base,), methods)(*given)


def values() -> list[Any]:
    """Return values that raise, each error and each class once at least, and some that hold one."""
    made = [hostile(base, ERRORS[i % len(ERRORS)]) for i, base in enumerate(BASES)]
    return [*made, *(hostile(object, error) for error in ERRORS), [made[0]], [10**5000]]


ASKED: dict[str, Callable[[Any, Any], Any]] = {
    "prompt": lambda runtime, value: runtime.complete(value),
    "messages": lambda runtime, value: runtime.chat(value),
    "content": lambda runtime, value: runtime.chat([{"role": "user", "content": value}]),
    "role": lambda runtime, value: runtime.chat([{"role": value, "content": ""}]),
    "request_id": lambda runtime, value: runtime.complete("p", request_id=value),
    "traceparent": lambda runtime, value: runtime.complete("p", traceparent=value),
    "texts": lambda runtime, value: runtime.embed(value),
    "text": lambda runtime, value: runtime.embed([value]),
    "dimensions": lambda runtime, value: runtime.embed(["p"], dimensions=value),
} | {name: lambda runtime, value, name=name: runtime.complete("p", **{name: value}) for name in OPTION_NAMES}
FIELDS = {"content": "messages", "role": "messages", "text": "texts"}


@pytest.mark.parametrize("name", ASKED)
async def test_a_value_that_raises_is_refused_by_name(
    scripted_runtime: OpenScripted, session_log: Path, name: str
) -> None:
    """Whatever a value raises, as any argument of a request, the error names the argument, and so does the log."""
    errors = []
    async with scripted_runtime() as runtime:
        for value in values():
            if name == "prompt" and issubclass(type(value), str):
                continue  # It is a text.
            with pytest.raises(InvalidRequest) as raised:
                await ASKED[name](runtime, value)
            assert FIELDS.get(name, name) == raised.value.field
            assert len(str(raised.value)) < 2200
            str(raised.value).encode()
            errors.append(raised.value)
    refused = [fields["failure"] for fields in read_fields(session_log) if fields["type"] == "RequestRefused"]
    assert [(error.field, error.recorded) for error in errors] == [
        (failure["field"], failure["reason"]) for failure in refused
    ]
    assert b" no " * 3 not in session_log.read_bytes()


async def test_what_a_value_raised_is_for_its_caller(scripted_runtime: OpenScripted, session_log: Path) -> None:
    """Its caller sees the text of its own exception, and the log has the exception's type alone."""

    def texts(*, first: bool) -> Iterator[str]:
        if not first:
            yield "a secret"
        raise KeyError("secret")

    async with scripted_runtime(["a"]) as runtime:
        for first in (False, True):
            with pytest.raises(InvalidRequest, match="cannot be read: KeyError: 'secret'"):
                await runtime.complete(texts(first=first))
            with pytest.raises(InvalidRequest, match="cannot be read: KeyError: 'secret'"):
                await runtime.embed(texts(first=first))
        with pytest.raises(InvalidRequest, match="the schema is not JSON: TypeError: keys must be str"):
            await runtime.complete("p", format={"const": {("secret",): 1}})
    reasons = [fields["failure"]["reason"] for fields in read_fields(session_log) if fields["type"] == "RequestRefused"]
    assert [*["it cannot be read: KeyError"] * 4, "the schema is not JSON: TypeError"] == reasons
    assert b"secret" not in session_log.read_bytes()


async def test_the_characters_of_a_text_are_its_own(scripted_runtime: OpenScripted, session_log: Path) -> None:
    """A prompt of a class derived from str is taken for its characters, whatever its methods return or raise."""
    prompt = type("Odd", (str,), {"__str__": lambda _: "other", "__format__": lambda *_: "other"})("p")
    async with scripted_runtime({"p": ["a"], "pp": ["b"], "q": ["c"]}) as runtime:
        assert "a" == (await runtime.complete(prompt)).text
        assert "b" == (await runtime.complete([prompt, prompt])).text
        assert "c" == (await runtime.complete(hostile(str, RuntimeError, "q"))).text
    received = [fields["prompt"] for fields in read_fields(session_log) if fields["type"] == "RequestReceived"]
    assert ["p", "pp", "q"] == received


@pytest.mark.parametrize(
    "name",
    [
        *("model", "log", "n_slots", "n_ctx", "n_batch", "n_threads", "determinism", "logits_hash"),
        *("max_waiting", "max_reader_lag", "max_pause"),
    ],
)
async def test_a_setting_that_raises_is_refused_by_name(name: str) -> None:
    """Whatever a value raises, as any setting of a session, the error names the setting."""
    for value in values():
        if name in {"model", "log"} and issubclass(type(value), str):
            continue  # It is a path.
        settings: dict[str, Any] = {"model": ScriptedEngine(), name: value}
        with pytest.raises(InvalidRequest) as raised:
            async with open_runtime(**settings):
                pass
        assert name == raised.value.field


@pytest.mark.parametrize("base", [object, set, Mapping])
async def test_a_schema_that_raises(scripted_runtime: OpenScripted, base: type) -> None:
    """A value that raises within a schema is an error of the format."""
    async with scripted_runtime() as runtime:
        with pytest.raises(InvalidRequest, match="format: "):
            await runtime.complete("p", format={"const": hostile(base, KeyError)})


async def test_stop_strings_without_end(scripted_runtime: OpenScripted) -> None:
    """Stop strings are read as far as there may be any: more are an error, also where they never end."""
    async with scripted_runtime() as runtime:
        with pytest.raises(InvalidRequest, match=f"stop: expected at most {MAX_STOPS} stop strings"):
            await runtime.complete("p", stop=repeat("x"))


def test_what_is_no_exception_is_let_through() -> None:
    """An interrupt while a value is read is no wrong argument."""
    with pytest.raises(KeyboardInterrupt), reading("prompt"):
        raise KeyboardInterrupt


def test_the_cause_is_kept() -> None:
    """The error says what the value raised, and has it as its cause."""
    with pytest.raises(InvalidRequest, match="stop: it cannot be read: OSError: gone") as raised, reading("stop"):
        raise OSError("gone")
    assert isinstance(raised.value.__cause__, OSError)


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("a" * 78, f"'{'a' * 78}'"),
        ("a" * 10**6, f"'{'a' * 79}…"),
        (list(range(10**6)), f"{str(list(range(81)))[:80]}…"),
        (2**53, "a number beyond 2^53"),
        ([10**5000], "a value of type list that cannot be shown"),
        ("\ud800", r"'\ud800'"),
        (type("Odd", (), {"__repr__": lambda _: "\ud800"})(), r"\ud800"),
        (type("Odd", (), {"__repr__": lambda _: None})(), "a value of type Odd that cannot be shown"),
    ],
)
def test_a_value_is_shown(value: object, expected: str) -> None:
    """A value in an error is short, can be written, and never raises."""
    assert expected == shown(value)


def test_an_exception_that_cannot_be_shown() -> None:
    """An exception whose message raises is described by its type."""
    broken = type("Broken", (Exception,), {"__str__": lambda _: 1 / 0})
    assert "Broken with a message that cannot be shown" == description(broken())


def test_a_long_message_is_cut() -> None:
    """An exception's message is no longer than a log and a terminal bear."""
    assert f"ValueError: {'x' * 1988}…" == description(ValueError("x" * 10**6))


async def test_an_engine_that_answers_what_cannot_be_shown(session_log: Path) -> None:
    """An engine's answer of the wrong type is the engine's fault, also where it cannot be shown."""

    class Odd(ScriptedEngine):
        def compile(self, options: object) -> Any:
            del options
            return hostile(object, RuntimeError)

    async with open_runtime(Odd(), log=session_log) as runtime:
        with pytest.raises(EngineBroken, match="expected str, got a value of type Hostile that cannot be shown"):
            await runtime.complete("p", format="json")
