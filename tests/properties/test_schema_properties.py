"""Schemas of any shape: each is refused in its own words, or its texts fit it."""

import json
import re
from collections.abc import Callable
from random import Random
from typing import Any, Final

import jsonschema
from hypothesis import strategies as st

from reenact.actors.errors import InvalidRequest
from reenact.actors.options import Options
from reenact.runtime.grammar.in_force import grammar_in_force
from reenact.runtime.grammar.soundness import check
from reenact.runtime.llama.grammar_states import DEAD, START, GrammarStates
from tests.helpers.properties import holds_for

NAMES: Final = ("a", "b", "x y", "日本")
REFERENCES: Final = (
    "#",
    "#/$defs/a",
    "#/$defs/b",
    "#/$defs/%61",
    "#/properties/a",
    "#/anyOf/0",
    "#/prefixItems/1",
    "a",
)
PATTERNS: Final = ("^a$", "[a-c]+", r"\d{2}", "^[^0-9]$", "a|b", "(?:ab)?", "(?<n>a)", r"\<", "(", "")
NOT_THEIRS: Final = re.compile(r"\bline [0-9]|\brules?\b|Error\b")
"""Words of grammars, and of exceptions."""

numbers = st.sampled_from([-1, 0, 1, 2.0, 1.5, -0.1, 1e-14, 1e14, 999999999999999, 10**20, 1e308, 10**310, 2**53 + 1])
counts = st.sampled_from([0, 1, 2, 3, 5, -1, 2.0])
leaves = st.sampled_from([None, True, False, 0, 1, -1, 2.5, "", "a", "é", "\ud800", "\0", [], {}, [1], {"a": None}])
lists = st.lists(leaves, max_size=3)
WORDS: Final[dict[str, Any]] = {
    "type": st.sampled_from(["object", "array", "string", "integer", "number", "boolean", "null"]),
    "required": st.lists(st.sampled_from(NAMES), max_size=2),
    "pattern": st.sampled_from(PATTERNS),
    "format": st.sampled_from(["date", "time", "date-time", "uuid", "email"]),
    "$ref": st.sampled_from(REFERENCES),
    "const": leaves,
    "enum": lists,
    **dict.fromkeys(("minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum"), numbers),
    **dict.fromkeys(("minItems", "maxItems", "minLength", "maxLength"), counts),
    **dict.fromkeys(("uniqueItems", "nullable", "title", "$id", "not", "multipleOf"), leaves),
}
OF_TYPE: Final = {
    "object": ("properties", "required", "additionalProperties"),
    "array": ("items", "prefixItems", "minItems", "maxItems"),
    "string": ("minLength", "maxLength", "format", "pattern"),
    "integer": ("minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum"),
    "number": ("minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum"),
}
NESTED: Final[dict[str, Callable[[Any], Any]]] = {
    **dict.fromkeys(("properties", "$defs"), lambda inner: st.dictionaries(st.sampled_from(NAMES), inner, max_size=3)),
    **dict.fromkeys(("prefixItems", "anyOf", "oneOf", "allOf"), lambda inner: st.lists(inner, max_size=3)),
    **dict.fromkeys(("items", "additionalProperties"), lambda inner: inner),
}


def a_schema(inner: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    """Return schemas with others in them: words of one type, or any words, and now and then a value of any kind."""
    every = WORDS | {name: nest(inner) for name, nest in NESTED.items()}
    of_one_type = st.one_of(
        *(
            st.fixed_dictionaries({"type": st.just(kind)}, optional={name: every[name] for name in names})
            for kind, names in OF_TYPE.items()
        )
    )
    one_word = st.sampled_from(sorted(every)).flatmap(lambda name: st.fixed_dictionaries({name: every[name] | leaves}))
    return of_one_type | one_word


schemas = st.recursive(st.booleans() | a_schema(st.just({"type": "null"})), a_schema, max_leaves=5)
definitions = st.fixed_dictionaries({"a": schemas, "b": schemas})


@holds_for(schema=schemas, defined=definitions, random=st.randoms(use_true_random=False))
def test_a_schema_is_refused_in_its_own_words_or_its_texts_fit_it(schema: Any, defined: Any, random: Random) -> None:
    """Whatever is in it: nothing but a wrong argument is raised, and a validator takes each text that ends."""
    whole = {"$defs": defined, **schema} if isinstance(schema, dict) else {"items": schema}
    grammar, refusal = asked(json.dumps(whole))
    assert not NOT_THEIRS.search(refusal), refusal
    text = followed(GrammarStates(check(grammar)), random) if grammar else None
    if text is not None and is_valid_schema(whole):
        assert jsonschema.Draft202012Validator(whole).is_valid(json.loads(text)), text


def asked(schema: str) -> tuple[str | None, str]:
    """Return the grammar of a schema, or why there is none."""
    try:
        return grammar_in_force(Options(seed=0, format=schema)), ""
    except InvalidRequest as error:
        return None, str(error)


def is_valid_schema(schema: Any) -> bool:
    """Return whether a schema is one also where nothing of it is used."""
    try:
        jsonschema.Draft202012Validator.check_schema(schema)
    except jsonschema.SchemaError:
        return False
    return True


def followed(states: GrammarStates, random: Random) -> str | None:
    """Return a text that has the form of a grammar, or None if it would be long."""
    raw, state = bytearray(), START
    for _ in range(60):
        after = {byte: found for byte in range(256) if (found := states.after(state, bytes([byte]))) != DEAD}
        if states.may_end(state) and (not after or random.random() < 0.5):
            return raw.decode()
        ends = [byte for byte in after if byte in b'"}],']
        byte = random.choice(ends if ends and random.random() < 0.5 else list(after))
        raw.append(byte)
        state = after[byte]
    return None
