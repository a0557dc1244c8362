"""The options that a caller may give, and the errors that name a wrong one."""

import json
import math
from collections.abc import Iterable, Iterator, Mapping
from itertools import count
from typing import Any

import pytest

from reenact.actors.errors import InternalError, InvalidRequest
from reenact.actors.limits import (
    MAX_GRAMMAR_BYTES,
    MAX_INTEGER,
    MAX_PROMPT_BYTES,
    MAX_STOP_BYTES,
    MAX_STOPS,
    MAX_TOP_LOGPROBS,
)
from reenact.actors.options import (
    CHANGEABLE,
    DRAW_OPTIONS,
    OPTION_NAMES,
    OPTIONS,
    Options,
    RequestOptions,
    about,
    check_text,
    check_traceparent,
    option_bounds,
    options_of,
    utf8,
)


@pytest.mark.parametrize(
    ("field", "value", "reason"),
    [
        ("seed", -1, "expected 0 to 9,007,199,254,740,991, got -1"),
        ("seed", MAX_INTEGER + 1, "expected 0 to 9,007,199,254,740,991, got a number beyond 2^53"),
        ("seed", "7", "expected a whole number, got '7'"),
        ("seed", True, "expected a whole number, got True"),
        ("num_predict", -2, "expected -1 to 9,007,199,254,740,991, got -2"),
        ("num_predict", 2.0, "expected a whole number, got 2.0"),
        ("top_k", -1, "expected 0 to 9,007,199,254,740,991, got -1"),
        ("temperature", -0.1, "expected 0 to 100, got -0.1"),
        ("temperature", math.nan, "expected 0 to 100, got nan"),
        ("temperature", math.inf, "expected 0 to 100, got inf"),
        ("temperature", None, "expected a number, got None"),
        ("temperature", False, "expected a number, got False"),
        ("temperature", MAX_INTEGER, "expected 0 to 100, got 9,007,199,254,740,991"),
        ("temperature", MAX_INTEGER + 1, "expected a number, got a number beyond 2^53"),
        ("temperature", -MAX_INTEGER - 1, "expected a number, got a number beyond 2^53"),
        ("top_k", MAX_INTEGER + 0.5, "expected a whole number, got 9007199254740992.0"),
        ("priority", -MAX_INTEGER - 1, f"expected {-MAX_INTEGER:,} to {MAX_INTEGER:,}, got a number beyond 2^53"),
        ("num_predict", "x" * 78, f"expected a whole number, got '{'x' * 78}'"),
        ("num_predict", "x" * 79, f"expected a whole number, got '{'x' * 79}…"),
        ("top_p", 1.1, "expected 0 to 1, got 1.1"),
        ("min_p", "0", "expected a number, got '0'"),
        ("typical_p", 1.5, "expected 0 to 1, got 1.5"),
        ("num_keep", -2, "expected -1 to 9,007,199,254,740,991, got -2"),
        ("repeat_last_n", -2, "expected -1 to 9,007,199,254,740,991, got -2"),
        ("repeat_penalty", 0, "expected more than 0"),
        ("repeat_penalty", -1, "expected 0 to 100, got -1"),
        ("presence_penalty", -101, "expected -100 to 100, got -101"),
        ("frequency_penalty", "1", "expected a number, got '1'"),
        ("truncate", 1, "expected True or False, got 1"),
        ("shift", None, "expected True or False, got None"),
        ("logprobs", "yes", "expected True or False, got 'yes'"),
        ("top_logprobs", MAX_TOP_LOGPROBS + 1, f"expected 0 to {MAX_TOP_LOGPROBS}, got {MAX_TOP_LOGPROBS + 1}"),
        ("top_logprobs", MAX_INTEGER, f"expected 0 to {MAX_TOP_LOGPROBS}, got 9007199254740991"),
        ("top_logprobs", 1, "logprobs is required with it"),
        ("priority", 1.0, "expected a whole number, got 1.0"),
        ("deadline", -1, "expected 0 to 10,000,000, got -1"),
        ("deadline", 10_000_000.5, "expected 0 to 10,000,000, got 10,000,000.5"),
        ("deadline", math.inf, "expected 0 to 10,000,000, got inf"),
        ("dimensions", 0, "expected 1 to 9,007,199,254,740,991, got 0"),
        ("grammar", " ", "it is empty: leave it out, or say what the text is to look like"),
        ("grammar", 7, "expected a string, got 7"),
        ("grammar", "é" * (MAX_GRAMMAR_BYTES // 2) + "a", f"it has more than {MAX_GRAMMAR_BYTES:,} bytes"),
        ("format", 7, 'expected "json" or a JSON Schema, got 7'),
        ("format", {}, "expected \"json\" or a JSON Schema with something in it, got '{}'"),
        ("format", "[1]", "expected \"json\" or a JSON Schema with something in it, got '[1]'"),
        ("format", {"type": {1, 2}}, "the schema is not JSON: TypeError: Object of type set is not JSON serializable"),
        ("format", " ", "it is empty: leave it out, or say what the text is to look like"),
        ("stop", "abc", "expected a list of strings, got 'abc'"),
        ("stop", b"abc", "expected a list of strings, got b'abc'"),
        ("stop", 5, "expected a list of strings, got 5"),
        ("stop", ["a", 5], "expected a list of strings, got 5 in it"),
        ("stop", [10**5000], "expected a list of strings, got a number beyond 2^53 in it"),
        ("stop", ["a", ""], "a stop string is empty: it would end every text before it begins"),
        ("stop", ["é" * (MAX_STOP_BYTES // 2) + "a"], f"a stop string is longer than {MAX_STOP_BYTES} bytes"),
        ("stop", ["a"] * (MAX_STOPS + 1), f"expected at most {MAX_STOPS} stop strings"),
        ("stop", ["a\ud800"], "a lone surrogate at character 1 is not text"),
    ],
)
def test_a_wrong_value_is_refused_by_name(field: str, value: object, reason: str) -> None:
    """A value of the wrong type or out of bounds is an error that names the field and says why."""
    wrong: dict[str, Any] = {"seed": 1, field: value}
    with pytest.raises(InvalidRequest) as raised:
        Options(**wrong)
    assert (field, reason) == (raised.value.field, raised.value.reason)


def test_an_unknown_option_is_refused_by_name() -> None:
    """An option that does not exist is an error that names it and those that do."""
    asked: Any = {"num_predicts": 3}
    with pytest.raises(InvalidRequest, match=r"num_predicts: there is no such option; .*num_predict, num_keep, stop"):
        options_of(asked, seed=lambda: 1)


@pytest.mark.parametrize(
    "asked",
    [
        RequestOptions(seed=0, num_predict=-1, top_k=0),
        RequestOptions(seed=MAX_INTEGER, num_predict=MAX_INTEGER, top_k=MAX_INTEGER),
        RequestOptions(seed=1, temperature=0, top_p=0, min_p=0),
        RequestOptions(seed=1, temperature=100, top_p=1, min_p=1),
        RequestOptions(seed=1, stop=["é" * (MAX_STOP_BYTES // 2)] * MAX_STOPS),
        RequestOptions(seed=1, grammar="é" * (MAX_GRAMMAR_BYTES // 2)),
    ],
)
def test_bounds_are_allowed(asked: RequestOptions) -> None:
    """The bounds themselves are allowed, and numbers are kept as floats and stops as a tuple."""
    options = options_of(asked, seed=lambda: 1)
    kept = {name: list(value) if isinstance(value := getattr(options, name), tuple) else value for name in asked}
    assert asked == kept
    assert {float} == {type(options.temperature), type(options.top_p), type(options.min_p)}


@pytest.mark.parametrize("asked", [RequestOptions(), RequestOptions(seed=None)])
def test_a_seed_is_drawn_where_none_is_given(asked: RequestOptions) -> None:
    """A request without a seed gets a drawn one, and ollama's defaults."""
    expected = Options(seed=17, num_predict=-1, stop=(), temperature=0.8, top_k=40, top_p=0.9, min_p=0.0)
    assert expected == options_of(asked, seed=lambda: 17)


def test_a_given_seed_is_kept() -> None:
    """A seed of 0 is a seed: none is drawn."""
    assert 0 == options_of({"seed": 0}, seed=lambda: 17).seed


def test_every_option_has_a_default_but_the_seed() -> None:
    """The names a caller of a completion may use are the fields of the options but the one of embeddings."""
    fields = {name for name in dir(Options(seed=1)) if not name.startswith("_")}
    assert set(OPTION_NAMES) == fields - {"dimensions"}


def test_the_arguments_of_a_request_are_the_options() -> None:
    """What a caller may pass has the names and the order of the fields, and takes what these hold."""
    assert OPTION_NAMES == tuple(RequestOptions.__annotations__)
    taken = {name: kind for name, kind in RequestOptions.__annotations__.items() if kind != OPTIONS[name].type}
    wider = {"seed": int | None, "stop": Iterable[str], "format": str | Mapping[str, Any] | None}
    assert wider == taken


def test_every_option_has_its_help() -> None:
    """Each option says what it does, in other words than its name, and no two say the same."""
    helps = [about(name).help for name in OPTION_NAMES]
    assert (len(OPTION_NAMES), []) == (len(set(helps)), [text for text in helps if len(text) < 20])


def test_what_is_tried_of_an_option_is_allowed() -> None:
    """The values that a search for another draw goes through can be asked for, and the default is among them."""
    for name in DRAW_OPTIONS:
        for value in about(name).tried:
            assert value == getattr(Options(**{"seed": 1, name: value}), name)
        assert name == "seed" or OPTIONS[name].default in about(name).tried


def test_a_fork_may_change_what_acts_on_tokens_to_come() -> None:
    """All options but those that were applied before, or that give the whole text its form."""
    fixed = {"num_keep", "truncate", "format", "grammar", "priority", "deadline"}
    assert fixed == set(OPTION_NAMES) - set(CHANGEABLE)


def test_draws_depend_on_the_seed_and_the_samplers() -> None:
    """The options that a draw depends on are the seed and the options of llama.cpp's samplers."""
    samplers = ("temperature", "top_k", "top_p", "min_p", "typical_p")
    penalties = ("repeat_last_n", "repeat_penalty", "presence_penalty", "frequency_penalty")
    assert ("seed", *samplers, *penalties) == DRAW_OPTIONS


def test_the_defaults_are_ollamas() -> None:
    """A request without options gets what ollama gives: the defaults of docs/runner-semantics.md section 1."""
    options = Options(seed=1)
    expected = {
        "num_predict": -1,
        "num_keep": 4,
        "temperature": 0.8,
        "top_k": 40,
        "top_p": 0.9,
        "min_p": 0.0,
        "typical_p": 1.0,
        "repeat_last_n": 64,
        "repeat_penalty": 1.0,
        "presence_penalty": 0.0,
        "frequency_penalty": 0.0,
        "stop": (),
        "truncate": True,
        "shift": True,
        "logprobs": False,
        "top_logprobs": 0,
    }
    assert expected == {name: getattr(options, name) for name in expected}


def test_a_format_and_a_grammar_are_one_too_many() -> None:
    """A text can have the form of one of them: both are an error that names the grammar."""
    with pytest.raises(InvalidRequest, match="grammar: format is given too"):
        Options(seed=1, format="json", grammar='root ::= "a"')


def test_a_schema_keeps_the_order_of_its_properties() -> None:
    """A schema stands in the log as its text, in the order in which it was given."""
    schema = {"type": "object", "properties": {"b": {"type": "string"}, "a": {"type": "null"}}}
    assert json.dumps(schema) == Options(seed=1, format=schema).format


def test_a_schema_keeps_its_characters() -> None:
    """A schema's text holds its characters as they are, none of them escaped."""
    assert '{"const": "é"}' == Options(seed=1, format={"const": "é"}).format


def test_a_schema_holds_no_nan() -> None:
    """A NaN, which json.dumps would let through, is no JSON."""
    with pytest.raises(InvalidRequest, match="format: the schema is not JSON: ValueError: Out of range float values"):
        Options(seed=1, format={"maximum": math.nan})


def test_text_that_is_none_is_refused() -> None:
    """A lone surrogate in a prompt is an error that names the field and the place."""
    with pytest.raises(InvalidRequest, match="prompt: a lone surrogate at character 2 is not text"):
        utf8("prompt", "ab\udfff")


def test_a_text_is_no_longer_than_a_prompt_may_be() -> None:
    """A text of as many bytes as a prompt may have is returned; a longer one and no text are errors of the field."""
    longest = "é" * (MAX_PROMPT_BYTES // 2)
    assert longest == check_text("prompt", longest)
    for wrong, reason in ((longest + "a", "it has more than 1,048,576 bytes"), (b"a", "expected a string, got bytes")):
        with pytest.raises(InvalidRequest) as raised:
            check_text("prompt", wrong)
        assert ("prompt", reason) == (raised.value.field, raised.value.reason)


TRACE, PARENT = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"


@pytest.mark.parametrize("text", [f"00-{TRACE}-{PARENT}-01", f"fe-{'0' * 31}1-1{'0' * 15}-00"])
def test_a_traceparent_is_returned(text: str) -> None:
    """A traceparent of any version that has a trace and a parent is kept as it is."""
    assert text == check_traceparent(text)


@pytest.mark.parametrize(
    "text",
    [
        None,
        "",
        f"00-{TRACE}-{PARENT}-01".encode(),
        f"ff-{TRACE}-{PARENT}-01",
        f"00-{'0' * 32}-{PARENT}-01",
        f"00-{TRACE}-{'0' * 16}-01",
        f"00-{TRACE.upper()}-{PARENT}-01",
        f"00-{TRACE}-{PARENT}-01\n",
        f"00-{TRACE[1:]}-{PARENT}-01",
    ],
)
def test_what_is_no_traceparent_is_refused(text: object) -> None:
    """Another form, the version ff, and a trace or a parent of zeros are errors of the argument."""
    with pytest.raises(InvalidRequest) as raised:
        check_traceparent(text)
    assert "traceparent" == raised.value.field
    assert "expected 00-TRACE-PARENT-FLAGS, with 32, 16 and 2 hexadecimal digits" == raised.value.reason


def test_the_bounds_of_an_option_are_known() -> None:
    """A number has the bounds that its value is checked against; an option of another type has none."""
    assert (0, MAX_TOP_LOGPROBS) == (option_bounds("top_logprobs").low, option_bounds("top_logprobs").high)
    with pytest.raises(InternalError, match="stop has no bounds"):
        option_bounds("stop")


class Broken(dict[str, str]):
    """A schema that cannot be read."""

    def items(self) -> Any:
        """Fail."""
        raise OSError("gone")


class BrokenStops:
    """Stop strings of which the second one cannot be read."""

    def __iter__(self) -> Iterator[str]:
        yield "a"
        raise OSError("gone")


@pytest.mark.parametrize(("field", "value"), [("format", Broken(a="b")), ("stop", BrokenStops())])
def test_a_value_that_raises_is_refused_by_name(field: str, value: object) -> None:
    """A value that raises while it is read is an error that names the field and the exception."""
    wrong: dict[str, Any] = {"seed": 1, field: value}
    with pytest.raises(InvalidRequest) as raised:
        Options(**wrong)
    assert (field, "it cannot be read: OSError: gone") == (raised.value.field, raised.value.reason)


def test_of_too_many_stop_strings_one_is_read() -> None:
    """An endless list of stop strings is an error, and no more of them are read than show that."""
    read = count()
    with pytest.raises(InvalidRequest, match="expected at most 64 stop strings"):
        Options(seed=1, stop=(f"{number}" for number in read))
    assert MAX_STOPS + 1 == next(read)
