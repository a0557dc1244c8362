"""Grammars against what they are to mean, written down a second time: as Python's own expressions, and as numbers."""

import json
import re
from codecs import getincrementaldecoder
from decimal import Decimal
from random import Random
from typing import Any

import jsonschema
from hypothesis import assume
from hypothesis import strategies as st

from reenact.runtime.grammar.gbnf import GrammarError
from reenact.runtime.grammar.json_schema import SchemaError, grammar_of
from reenact.runtime.grammar.soundness import check
from reenact.runtime.llama.grammar_states import DEAD, START, GrammarStates
from tests.helpers.properties import holds_for

SIGNS = 'ab"\\é日😀\x7f\x80\u07ff\u0800\uffff\U00010000'
"""What texts and classes are made of: one character at least at each end of each length in UTF-8."""

codes = st.sampled_from(sorted(map(ord, SIGNS)))
texts = st.text(SIGNS, max_size=6)


def escaped(code: int) -> str:
    """Return a character that means the same in a grammar and in a regular expression."""
    return f"\\U{code:08X}"


def a_class(ranges: list[tuple[int, int]], *, negated: bool) -> tuple[str, str]:
    """Return a class of characters, twice."""
    inner = "".join(f"{escaped(min(ends))}-{escaped(max(ends))}" for ends in ranges)
    body = f"[{'^' * negated}{inner}]"
    return body, body


def a_text(text: str) -> tuple[str, str]:
    """Return a text, twice."""
    return f'"{"".join(map(escaped, map(ord, text)))}"', f"(?:{re.escape(text)})"


def some(alternatives: list[list[tuple[str, str]]]) -> tuple[str, str]:
    """Return one of several sequences, twice."""
    ours = " | ".join(" ".join(item for item, _ in one) for one in alternatives)
    theirs = "|".join("".join(item for _, item in one) for one in alternatives)
    return f"({ours})", f"(?:{theirs})"


def times(item: tuple[str, str], count: str) -> tuple[str, str]:
    """Return an item so many times, twice."""
    ours = f"({item[0]})" if item[0][-1] in "*+?}" else item[0]
    return ours + count, f"(?:{item[1]}){count}"


counts = st.sampled_from(["*", "+", "?", "{2}", "{1,2}", "{0,3}", "{2,}"])
items = st.recursive(
    st.builds(a_class, st.lists(st.tuples(codes, codes), min_size=1, max_size=3), negated=st.booleans())
    | st.builds(a_text, st.text(SIGNS, min_size=1, max_size=3)),
    lambda inner: (
        st.builds(some, st.lists(st.lists(inner, min_size=1, max_size=3), min_size=1, max_size=4))
        | st.builds(times, inner, counts)
    ),
    max_leaves=8,
)


def states_of(grammar: str) -> GrammarStates:
    """Return the states of a grammar, which can be followed."""
    return GrammarStates(check(grammar))


@holds_for(item=items, tries=st.lists(texts, min_size=1, max_size=12), random=st.randoms(use_true_random=False))
def test_a_text_has_the_form_that_a_regular_expression_says(
    item: tuple[str, str], tries: list[str], random: Random
) -> None:
    """Of made-up texts, and of one that is made by following the grammar."""
    states = followable(f"root ::= {item[0]}")
    expression = re.compile(item[1], re.DOTALL)
    for text in [*tries, followed(states, random)[0].decode(errors="ignore")]:
        assert bool(expression.fullmatch(text)) == states.may_end(states.after(START, text.encode()))


@holds_for(item=items, random=st.randoms(use_true_random=False))
def test_what_is_allowed_is_the_beginning_of_a_text(item: tuple[str, str], random: Random) -> None:
    """Whichever bytes are taken they begin characters, and where none may come the text may end."""
    raw, ended = followed(followable(f"root ::= {item[0]}"), random)
    assert ended
    getincrementaldecoder("utf-8")().decode(raw)


def followable(grammar: str) -> GrammarStates:
    """Return the states of a grammar, unless it cannot be followed because a class of it is empty."""
    try:
        return states_of(grammar)
    except GrammarError as error:
        assume("a class of characters is empty" not in str(error))
        raise


def followed(states: GrammarStates, random: Random) -> tuple[bytes, bool]:
    """Take bytes that a grammar allows; and tell whether the text may end where it allows none."""
    raw, state = b"", START
    for _ in range(24):
        after = {byte: found for byte in range(256) if (found := states.after(state, bytes([byte]))) != DEAD}
        if not after:
            return raw, states.may_end(state)
        byte = random.choice(list(after))
        raw, state = raw + bytes([byte]), after[byte]
    return raw, True


# ---------------------------------------------------------------- numbers

wholes = st.integers(-1200, 1200)
decimals = st.decimals(-50, 50, places=2).map(float)
BOUNDS = ("minimum", "exclusiveMinimum"), ("maximum", "exclusiveMaximum")


def within(value: Decimal, schema: dict[str, Any]) -> bool:
    """Return whether a number keeps a schema's bounds."""
    low, high = (Decimal(repr(schema.get(name, value))) if name in schema else value for name in ("minimum", "maximum"))
    above, below = (Decimal(repr(schema[n])) if n in schema else None for n in (BOUNDS[0][1], BOUNDS[1][1]))
    return low <= value <= high and (above is None or value > above) and (below is None or value < below)


@holds_for(
    low=wholes | st.none(),
    high=wholes | st.none(),
    names=st.tuples(*map(st.sampled_from, BOUNDS)),
    tries=st.lists(wholes, min_size=5, max_size=30),
)
def test_whole_numbers_keep_their_bounds(
    low: int | None, high: int | None, names: tuple[str, str], tries: list[int]
) -> None:
    """All that are within the bounds are allowed, and no others."""
    bounds = {name: end for name, end in zip(names, (low, high), strict=True) if end is not None}
    near = [end + step for end in bounds.values() for step in (-1, 0, 1)]
    schema = {"type": "integer", **bounds}
    assume(low is None or high is None or high - low > 1)
    states = states_of(grammar_of(schema))
    for number in [*tries, *near]:
        fits = states.may_end(states.after(START, json.dumps(number).encode()))
        assert within(Decimal(number), schema) == fits


@holds_for(
    low=decimals | st.none(),
    high=decimals | st.none(),
    names=st.tuples(*map(st.sampled_from, BOUNDS)),
    tries=st.lists(st.decimals(-60, 60, places=3), min_size=5, max_size=30),
)
def test_numbers_keep_their_bounds(
    low: float | None, high: float | None, names: tuple[str, str], tries: list[Decimal]
) -> None:
    """All decimals that are within the bounds are allowed, and no others; -0 never is."""
    bounds = {name: end for name, end in zip(names, (low, high), strict=True) if end is not None}
    near = [Decimal(repr(end)) + step for end in bounds.values() for step in map(Decimal, ("-0.001", "0", "0.001"))]
    schema = {"type": "number", **bounds}
    assume(bounds and (low is None or high is None or low < high))
    states = states_of(grammar_of(schema))
    for number in filter(None, [*tries, *near]):
        fits = states.may_end(states.after(START, format(number, "f").encode()))
        assert within(number, schema) == fits


sizes = st.builds(
    lambda digits, exponent: digits * 10.0**exponent, st.integers(-(10**17), 10**17), st.integers(-20, 0)
) | st.sampled_from([10**310, 1e300, -1e16, 1e-14, 999999999999999, 2**53 + 1, 1.2345678901234567e19])
near = st.sampled_from([0, 1e-16, 1e-15, 1e-14, 1e-9, 0.5, 1, 1000])


@holds_for(
    kind=st.sampled_from(["integer", "number"]),
    low=sizes | st.none(),
    wide=near | st.none(),
    names=st.tuples(*map(st.sampled_from, BOUNDS)),
    random=st.randoms(use_true_random=False),
)
def test_bounds_are_refused_or_have_a_number(
    kind: str, low: float | None, wide: float | None, names: tuple[str, str], random: Random
) -> None:
    """However large the bounds are and however close: a text that ends is a number that fits its schema."""
    high = wide if low is None or wide is None else low + wide if abs(low) < 10**300 else low
    schema = {"type": kind} | {name: end for name, end in zip(names, (low, high), strict=True) if end is not None}
    try:
        states = states_of(grammar_of(schema))
    except SchemaError:
        return
    raw, state = b"", START
    while not states.may_end(state):
        byte = random.choice([byte for byte in b"-.0123456789" if states.after(state, bytes([byte])) != DEAD])
        raw, state = raw + bytes([byte]), states.after(state, bytes([byte]))
    jsonschema.validate(json.loads(raw), schema)


# ---------------------------------------------------------------- branches of a oneOf

some_values = st.sampled_from([None, True, False, -1, 0, 0.1, 1, 1.0, 1.5, 2, "", "a", "b", [], [1]])
some_numbers = st.sampled_from([-1, 0, 0.1, 1, 1.5, 2])
plain_branches = st.one_of(
    st.builds(lambda value: {"const": value}, some_values),
    st.builds(lambda values: {"enum": values}, st.lists(some_values, min_size=1, max_size=3)),
    st.builds(
        lambda kind: {"type": kind}, st.sampled_from(["null", "boolean", "string", "integer", "number", "array"])
    ),
    st.builds(
        lambda kind, name, bound: {"type": kind, name: bound},
        st.sampled_from(["integer", "number"]),
        st.sampled_from([*BOUNDS[0], *BOUNDS[1]]),
        some_numbers,
    ),
    st.builds(lambda name, bound: {name: bound}, st.sampled_from(["minimum", "maximum"]), some_numbers),
)
some_objects = st.builds(
    lambda properties, required: {"type": "object", "properties": properties, "required": [*properties][:required]},
    st.dictionaries(st.sampled_from("ab"), plain_branches, max_size=2),
    st.integers(0, 2),
)
branches = plain_branches | some_objects
tried = some_values | st.dictionaries(st.sampled_from("ab"), some_values, max_size=2)


@holds_for(several=st.lists(branches, min_size=2, max_size=3), tries=st.lists(tried, min_size=20, max_size=60))
def test_branches_that_are_kept_exclude_each_other(several: list[dict[str, Any]], tries: list[Any]) -> None:
    """No value fits two, as a validator says."""
    try:
        grammar_of({"oneOf": several})
    except SchemaError:
        return
    for value in tries:
        assert sum(jsonschema.Draft202012Validator(branch).is_valid(value) for branch in several) <= 1


# ---------------------------------------------------------------- patterns

patterns = st.from_regex(
    r"\A\^?([abc]|\[\^?a-c\]|\[\^0-9\]|\\d|\\w|\.|\(a\|bc?\)|[ab]\+|b\*|c\?|\(\?:ab\)\{1,2\}){1,5}\$?\Z"
)


@holds_for(pattern=patterns, tries=st.lists(st.text('abc1_é"\\\n', max_size=7), min_size=3, max_size=12))
def test_a_pattern_is_found_in_the_string(pattern: str, tries: list[str]) -> None:
    """As Python's own search says, where a string is written as JSON writes it."""
    states = states_of(grammar_of({"type": "string", "pattern": pattern}))
    for text in tries:
        written = json.dumps(text, ensure_ascii=False).encode()
        assert bool(re.search(pattern.replace("$", r"\Z"), text, re.ASCII)) == states.may_end(
            states.after(START, written)
        )
