import json
import math
from datetime import date
from typing import Any

import jsonschema
import pytest

from reenact.actors.errors import InvalidRequest
from reenact.actors.options import Options
from reenact.runtime.grammar.in_force import grammar_in_force
from reenact.runtime.grammar.json_schema import SchemaError, grammar_of
from reenact.runtime.grammar.json_text import Shape, _Writer
from reenact.runtime.grammar.soundness import check
from reenact.runtime.llama.grammar_states import START, GrammarStates


def nested(depth: int) -> dict[str, Any]:
    """Return arrays in arrays."""
    schema: dict[str, Any] = {"type": "null"}
    for _ in range(depth):
        schema = {"type": "array", "items": schema}
    return schema


@pytest.mark.parametrize(
    ("schema", "reason"),
    [
        ({"type": "strin"}, 'at $: there is no type "strin"; there are object, array,'),
        ({"properties": {"a": {"type": ["string", 5]}}}, "at $.a: there is no type 5"),
        ({"type": "string", "properties": {}}, "at $: properties cannot be enforced for string"),
        (
            {"type": "array", "items": {"type": "object", "minItems": 1}},
            "at $[]: minItems cannot be enforced for object",
        ),
        ({"properties": {"a": 5}}, "at $.a: expected a schema, got 5"),
        ({"properties": {"a": False}}, "at $.a: no value fits false; leave it out"),
        ({"propertys": {}}, "at $: propertys cannot be enforced"),
        ({"properties": {"a": {"$id": "a.json"}}}, "at $.a: $id changes the meaning of the references below it"),
        ({"$ref": "#/$defs/A", "$defs": {"A": {"$id": "a.json", "type": "null"}}}, "at $/$defs/A: $id changes"),
        (
            {"properties": {"a": {}}, "additionalProperties": {"type": "null"}},
            "at $: properties and a schema as additionalProperties cannot both be enforced; leave it out",
        ),
        ({"properties": []}, "at $: properties must be an object"),
        ({"properties": {}, "required": "a"}, "at $: required must be a list of names"),
        ({"properties": {}, "required": ["a"]}, "at $: 'a' is required and not among the properties"),
        ({"uniqueItems": True}, "at $: uniqueItems cannot be enforced"),
        ({"items": {}, "minLength": 1}, "belong to different types; name the type"),
        (
            {"type": "array", "items": {}, "uniqueItems": True},
            "at $: uniqueItems cannot be enforced for array; leave it",
        ),
        ({"type": "array", "minItems": 3, "maxItems": 2}, "at $: minItems 3 is more than maxItems 2"),
        ({"type": "array", "minItems": -1}, "at $: minItems must be a whole number below 2000, got -1"),
        ({"type": "string", "maxLength": 2000}, "at $: maxLength must be a whole number below 2000, got 2000"),
        ({"type": "array", "items": False}, "at $[]: no value fits false; leave it out"),
        ({"items": [{}]}, "at $: a list as items is called prefixItems since draft 2020-12; write that"),
        ({"prefixItems": []}, "at $: prefixItems must be a list that is not empty"),
        (
            {"prefixItems": [{}], "minItems": 2},
            "with prefixItems there are exactly these items; leave items out, and let minItems and maxItems allow 1",
        ),
        ({"prefixItems": [{}, {}], "maxItems": 1}, "with prefixItems there are exactly these items"),
        ({"prefixItems": [{}], "items": {}}, "with prefixItems there are exactly these items; leave items out"),
        ({"items": {"const": "a\ud800"}}, r"at $[]: \ud800 is half a surrogate pair; write the whole character"),
        ({"properties": {"a\udfff": {}}}, r"at $: \udfff is half a surrogate pair; write the whole character"),
        ({"enum": [[{"\udc00": 1}]]}, r"at $: \udc00 is half a surrogate pair; write the whole character"),
        ({"pattern": "\udc00"}, r"at $: \udc00 is half a surrogate pair; write the whole character"),
        (
            {"properties": {"a": {"$ref": "#"}}, "required": ["a"]},
            'at $: each value contains another one, without end; require less, or allow {"type": "null"} there',
        ),
        (
            {"prefixItems": [{"$ref": "#/$defs/a"}]}
            | {"$defs": {"a": {"items": {"anyOf": [{"$ref": "#/$defs/a"}] * 2}, "minItems": 1}}},
            "at $/$defs/a: each value contains another one, without end",
        ),
        ({"type": "integer", "minimum": 5, "maximum": 4}, "no whole number is at least 5 and at most 4"),
        (
            {"type": "integer", "exclusiveMinimum": 4, "exclusiveMaximum": 5},
            "no whole number is at least 5 and at most 4",
        ),
        ({"type": "integer", "minimum": True, "maximum": 5}, "minimum must be a number, got true"),
        ({"type": "integer", "maximum": 10**20}, "a bound has more than 20 digits; leave it out and check the answer"),
        ({"type": "number", "minimum": "0"}, 'minimum must be a number, got "0"'),
        ({"type": "number", "minimum": math.inf}, "minimum must be a number, got Infinity"),
        ({"type": "integer", "minimum": 10**310}, "at $: a bound has more than 20 digits"),
        ({"type": "integer", "minimum": 10**310, "maximum": 0}, "at $: a bound has more than 20 digits"),
        ({"type": "number", "maximum": -(10**310)}, "the bounds have more than 15 digits together"),
        ({"type": "number", "minimum": 2, "exclusiveMaximum": 2}, "no number of up to 15 digits lies between these"),
        (
            {"items": {"exclusiveMinimum": 1, "exclusiveMaximum": 1.00000000000001, "type": "number"}},
            "at $[]: no number",
        ),
        ({"type": "number", "exclusiveMinimum": 0, "exclusiveMaximum": 1e-14}, "at $: no number of up to 15 digits"),
        ({"type": "number", "exclusiveMinimum": 999999999999999}, "at $: no number of up to 15 digits"),
        ({"type": "number", "exclusiveMaximum": -999999999999999}, "at $: no number of up to 15 digits"),
        (
            {"type": "integer", "minimum": 0, "exclusiveMinimum": True},
            "exclusiveMinimum is itself a number since draft 6; write it in place of minimum",
        ),
        ({"type": "number", "minimum": 1e-9, "maximum": 1e9}, "the bounds have more than 15 digits together; leave it"),
        (
            {"type": "integer", "multipleOf": 5},
            "multipleOf cannot be enforced for integer; use integer, or leave it out",
        ),
        (
            {"type": "string", "nullable": True},
            'nullable cannot be enforced for string; use anyOf with {"type": "null"}',
        ),
        ({"anyOf": [{}], "nullable": True}, 'together cannot be enforced; use anyOf with {"type": "null"}'),
        ({"type": "string", "pattern": 5}, "at $: pattern must be a regular expression, got 5"),
        (
            {"items": {"type": "string", "pattern": r"\ba"}},
            "at $[]: the pattern cannot be enforced: the end of a word is not supported",
        ),
        (
            {"pattern": "a", "maxLength": 5},
            "pattern and a length together cannot be enforced; write the length as ^.{1,9}$",
        ),
        (
            {"$defs": {"a": {"$id": "a.json", "$defs": {"b": {}}}}, "$ref": "#/$defs/a/$defs/b"},
            "at $: $ref '#/$defs/a/$defs/b' leads through an $id: $id changes the meaning of the references below it",
        ),
        (
            {"$anchor": "a"},
            "at $: $anchor cannot be enforced; give each schema a place in $defs, and write #/$defs/...",
        ),
        ({"$dynamicAnchor": "a"}, "at $: $dynamicAnchor cannot be enforced; give each schema a place in $defs"),
        ({"$dynamicRef": "#a"}, "at $: $dynamicRef cannot be enforced; use $ref"),
        ({"$ref": "#a"}, '$ref "#a" does not point into this schema; write #/$defs/...'),
        ({"$id": "https://a.example/a", "$ref": "https://a.example/a#/$defs/b"}, "does not point into this schema"),
        (
            {"type": "string", "format": "email"},
            'format "email" cannot be enforced; use one of date, time, date-time, uuid without a length, or leave it',
        ),
        ({"type": "string", "format": "date", "minLength": 1}, 'format "date" cannot be enforced; use one of date'),
        ({"enum": []}, "enum must be a list that is not empty"),
        ({"anyOf": []}, "anyOf must be a list that is not empty"),
        ({"anyOf": [{}], "type": "string"}, "anyOf and type together cannot be enforced"),
        ({"allOf": [{}, {}]}, "allOf of more than one schema cannot be enforced"),
        ({"enum": ["a", 1], "type": "string"}, '1 is not of the type "string"'),
        ({"const": True, "type": "integer"}, 'true is not of the type "integer"'),
        ({"$ref": "https://example.com/schema"}, "does not point into this schema"),
        ({"$ref": "#/$defs/a"}, "there is no '$defs'"),
        ({"enum": [math.nan]}, "at $: Out of range float values are not JSON compliant"),
        ({"prefixItems": [{"$ref": "#/prefixItems/1"}]}, "there is no '1'"),
        ({"prefixItems": [{"$ref": "#/prefixItems/00"}]}, "there is no '00'"),
        ({"$ref": 7}, "$ref 7 does not point into this schema"),
        ({"$ref": "#"}, "at $: it leads to itself without a property or an item in between"),
        ({"anyOf": [{"type": "null"}, {"$ref": "#"}]}, "at $: it leads to itself without a property or an item"),
        (
            {"items": {"$ref": "#/$defs/a"}}
            | {
                "$defs": {
                    "a": {"anyOf": [{"items": {}}, {"$ref": "#/$defs/b"}]},
                    "b": {"oneOf": [{"$ref": "#/$defs/a"}]},
                }
            },
            "at $/$defs/a: it leads to itself without a property or an item in between",
        ),
        (nested(100), "schemas are nested more than 64 deep"),
    ],
)
def test_what_cannot_be_kept_is_refused(schema: dict[str, Any], reason: str) -> None:
    """With the place in the schema; nothing is passed over."""
    with pytest.raises(SchemaError) as caught:
        grammar_of(schema)
    assert reason in str(caught.value)


@pytest.mark.parametrize(
    ("pattern", "cure"),
    [
        (r"^\<b\>$", r"\< is the end of a word to some readers; write < without the backslash"),
        (r"^[a\>]$", r"\> is the end of a word to some readers; write > without the backslash"),
        ("(?<n>a)", "named groups are written differently by different readers; write ( )"),
        ("(?P<n>a)(?P<n>b)", "named groups are written differently by different readers; write ( )"),
        ("(?<=a)b", "only the groups ( ) and (?: ) are supported"),
        (r"\ud83d\ude00", r"\ud83d is half a character to some readers; write the character itself"),
    ],
)
def test_a_pattern_that_not_all_read_alike_is_refused(pattern: str, cure: str) -> None:
    """With what to write instead."""
    with pytest.raises(SchemaError) as caught:
        grammar_of({"type": "string", "pattern": pattern})
    assert cure in str(caught.value)


@pytest.mark.parametrize(
    ("pattern", "fitting", "unfitting"),
    [
        ("^[^0-9]+$", ["é", "e", " "], ["5", "a5"]),
        (r"^[^\d]+$", ["e", " "], ["é", "5"]),
        (r"^[^\t-\r]+$", ["é", " "], ["\t"]),
        (r"^[^\s]+$", ["e"], ["é", " ", "\t"]),
        ("^😀$", ["😀"], ["😁"]),
    ],
)
def test_only_an_escape_makes_a_class_narrow(pattern: str, fitting: list[str], unfitting: list[str]) -> None:
    r"""What ``[^0-9]`` leaves is read alike, and what ``[^\d]`` leaves is not beyond ASCII."""
    states = GrammarStates(check(grammar_of({"type": "string", "pattern": pattern})))
    taken = [states.may_end(states.after(START, json.dumps(text, ensure_ascii=False).encode())) for text in fitting]
    left = [states.may_end(states.after(START, json.dumps(text, ensure_ascii=False).encode())) for text in unfitting]
    assert ({True}, {False}) == (set(taken), set(left))


@pytest.mark.parametrize("name", ["minimum", "exclusiveMinimum", "maximum", "exclusiveMaximum"])
def test_a_bound_of_many_digits_is_the_double_that_it_is(name: str) -> None:
    """Integers are compared with it to its last digit, as a validator compares them."""
    bound = 1.2345678901234567e19
    schema = {"type": "integer", name: bound}
    states = GrammarStates(check(grammar_of(schema)))
    for number in range(int(bound) - 200, int(bound) + 200):
        allowed = states.may_end(states.after(START, str(number).encode()))
        assert jsonschema.Draft202012Validator(schema).is_valid(number) == allowed


@pytest.mark.parametrize(
    ("schema", "like"),
    [
        ({"items": {"type": "null"}, "uniqueItems": False}, {"items": {"type": "null"}}),
        ({"type": "null", "nullable": False}, {"type": "null"}),
        ({"type": "integer", "minimum": 1, "exclusiveMinimum": False}, {"type": "integer", "minimum": 1}),
        ({"prefixItems": [{}, {}], "minItems": 1, "maxItems": 2}, {"prefixItems": [{}, {}]}),
        ({"prefixItems": [{}, {}], "maxItems": 5, "items": False}, {"prefixItems": [{}, {}]}),
    ],
)
def test_words_that_change_nothing_are_kept(schema: dict[str, Any], like: dict[str, Any]) -> None:
    """A false that is the same as nothing, and counts that a list of items keeps."""
    assert grammar_of(like) == grammar_of(schema)


@pytest.mark.parametrize(
    "schema",
    [
        {"properties": {"next": {"$ref": "#"}}},
        {"properties": {"next": {"anyOf": [{"$ref": "#"}, {"type": "null"}]}}, "required": ["next"]},
        {"items": {"$ref": "#"}, "maxItems": 1999},
        {"items": {"$ref": "#/$defs/a"}} | {"$defs": {"a": {"prefixItems": [{"$ref": "#/$defs/a"}]}}},
    ],
)
def test_a_schema_that_recurs_is_kept_where_a_value_ends(schema: dict[str, Any]) -> None:
    """Because the next one may be left out, or be something else."""
    check(grammar_of(schema))


@pytest.mark.parametrize(
    "schema",
    [
        {"properties": {f"p{i}": {"type": "string", "maxLength": 1900} for i in range(200)}},
        {"type": "string", "pattern": "^(a{1000}){1000}$"},
        {"type": "string", "pattern": "()" * 20_000},
    ],
)
def test_a_schema_that_is_too_large_says_so_in_its_own_words(schema: dict[str, Any]) -> None:
    """And not in those of a grammar that no user wrote."""
    with pytest.raises(InvalidRequest) as caught:
        grammar_in_force(Options(seed=0, format=schema))
    assert "the schema is too large to be followed; ask for fewer properties" in str(caught.value)


def test_a_name_that_is_there_twice_is_refused() -> None:
    """In a schema that is given as text, of which a reader would take the last one."""
    with pytest.raises(InvalidRequest, match='"type" appears twice in one object; leave one of them out'):
        grammar_in_force(Options(seed=0, format='{"items": {"type": "null", "title": "a", "type": "integer"}}'))


CAT = {"type": "object", "properties": {"kind": {"const": "cat"}, "lives": {"type": "integer"}}, "required": ["kind"]}
DOG = {"type": "object", "properties": {"kind": {"enum": ["dog", "hound"]}}, "required": ["kind"]}
TIN = {"type": "object", "properties": {"kind": {"const": "dog"}}, "required": ["kind"]}


@pytest.mark.parametrize(
    "branches",
    [
        [{"type": "string"}],
        [{"type": "string"}, {"type": "null"}, {"type": ["array", "number"]}],
        [{"const": 1}, {"enum": [2, "1", True]}],
        [{"type": "integer", "minimum": 1, "maximum": 5}, {"type": "integer", "minimum": 6, "maximum": 9}],
        [{"const": 0}, {"const": False}, {"const": None}, {"const": ""}],
        [{"type": "boolean"}, {"const": 1}],
        [CAT, DOG, {"type": "array"}],
        [{"oneOf": [{"$ref": "#/$defs/cat"}, {"type": "null"}]}, {"allOf": [{"$ref": "#/$defs/dog"}]}],
        [{"type": "null"}, {"properties": {"next": {"$ref": "#"}}, "type": "object"}],
        [CAT | {"properties": {"kind": {"$ref": "#/$defs/name"}}}, DOG],
        [CAT | {"properties": {"kind": {"type": "integer"}}}, DOG],
        [
            CAT | {"properties": {"kind": {"type": "number", "maximum": 1}}},
            CAT | {"properties": {"kind": {"const": 2}}},
        ],
        [{"type": "integer", "maximum": -1}, {"type": "integer", "minimum": 0, "maximum": 9999}, {"const": 10000}],
        [{"type": "number", "maximum": 0.1}, {"type": "number", "minimum": 0.2}],
        [{"type": "integer", "minimum": i * 9999, "maximum": i * 9999 + 9998} for i in range(1000)],
        [{"type": "string"}, {"const": [1]}, {"const": {"a": 1}}],
    ],
)
def test_one_of_is_kept_where_no_value_fits_two(branches: list[Any]) -> None:
    """As types, constants, or constants of a property that all require show, also behind references."""
    check(grammar_of({"oneOf": branches, "$defs": {"cat": CAT, "dog": DOG, "name": {"const": "cat"}}}))


@pytest.mark.parametrize(
    "branches",
    [
        [{"const": 1}, {"enum": [1, 2]}],
        [{"const": 1}, {"const": 1.0}],
        [{"const": {"a": 1}}, {"const": {"a": 1.0}}],
        [{"type": "integer"}, {"type": "number"}],
        [{"type": "integer", "minimum": 1, "maximum": 5}, {"const": 5.0}],
        [{"type": "string"}, {"const": "a"}],
        [{"type": "string"}, {}],
        [{"type": "string"}, True],
        [{"type": "string"}, {"properties": {"a": {}}}],
        [{"type": "string"}, {"minimum": 1, "maximum": 2}],
        [{"type": ["string", "null"]}, {"type": "null"}],
        [{"type": "number", "maximum": 0.1}, {"const": 0.1}],
        [{"type": "number", "minimum": 1, "maximum": 5}, {"type": "integer", "minimum": 5, "maximum": 9}],
        [{"type": "integer", "minimum": 7}, {"type": "number"}],
        [{"const": [1]}, {"const": [1.0]}],
        [CAT, CAT],
        [CAT, {"type": "object"}],
        [CAT, {"const": {"kind": "dog"}}],
        [CAT, DOG, TIN],
        [CAT, DOG | {"required": []}],
        [CAT, DOG | {"properties": {"kind": {"anyOf": [{"const": "dog"}, {"type": "string"}]}}}],
        [{"$ref": "#/$defs/cat"}, {"anyOf": [{"type": "null"}, {"$ref": "#/$defs/cat"}]}],
        [CAT | {"properties": {"kind": {"minimum": 1, "maximum": 2}}}, DOG],
        [{"properties": {"a": {}}, "type": "object"}, {"properties": {"a": {}, "b": {}}, "type": "object"}],
    ],
)
def test_one_of_is_refused_where_a_value_may_fit_two(branches: list[Any]) -> None:
    """What fits two branches does not fit the schema; the error says what to do instead."""
    with pytest.raises(SchemaError) as caught:
        grammar_of({"items": {"oneOf": branches}, "$defs": {"cat": CAT}})
    assert "at $[]: a value may fit two branches of oneOf; use anyOf, or give the branches" in str(caught.value)


def test_a_one_of_that_is_too_much_is_refused() -> None:
    """What is looked at is counted, however often references lead to the same."""
    many = {"anyOf": [{"const": i} for i in range(2000)]}
    branches = [{"oneOf": [{"$ref": "#/$defs/many"}, {"type": "null"}]}] * 40
    with pytest.raises(
        SchemaError, match=r"at \$\[[0-9]+\]: the branches of oneOf are too large to be compared; use anyOf"
    ):
        grammar_of({"prefixItems": branches, "$defs": {"many": many}})


def test_names_of_rules_are_looked_up_as_often_as_there_are_rules() -> None:
    """Also where none of the properties' names has a letter that a rule's name may have, and deep in a schema."""

    class Counted(dict[str, str]):
        n_lookups = 0

        def __contains__(self, name: object) -> bool:
            self.n_lookups += 1
            return super().__contains__(name)

    shape: Shape = {"type": "object", "required": []}
    shape["properties"] = {f"{chr(0x4E00 + i)}": {"type": "integer", "low": i, "high": i} for i in range(500)}
    for _ in range(30):
        shape = {"items": shape, "minItems": 0, "maxItems": 1}
    writer = _Writer()
    writer.rules = rules = Counted()
    writer.write("root", shape)
    assert 2030 < len(rules) < 2050
    assert rules.n_lookups < 3 * len(rules)
    assert max(map(len, rules)) < 50


def test_references_to_one_place_are_one_however_they_are_written() -> None:
    """The place is written out once."""
    pointers = ["#/$defs/A", "#/%24defs/A", "#/$defs/%41"]
    grammar = grammar_of({"prefixItems": [{"$ref": one} for one in pointers], "$defs": {"A": {"const": 1}}})
    assert 1 == grammar.count('::= ("1")')


@pytest.mark.parametrize(
    "schema",
    [
        {"$id": "https://a.example/a", "$ref": "#/$defs/b", "$defs": {"b": {"const": 1}}},
        {"properties": {"$id": {"const": 1}, "$anchor": {"$ref": "#/properties/$id"}}},
    ],
)
def test_the_name_of_the_whole_and_of_a_property_is_no_matter(schema: dict[str, Any]) -> None:
    """References lead from the root, as they do without it."""
    assert '("1") space' in grammar_of(schema)


def test_references_that_end_alike_are_told_apart() -> None:
    """And each is written once."""
    grammar = grammar_of(
        {
            "prefixItems": [{"$ref": "#/$defs/a/x"}, {"$ref": "#/$defs/b/x"}, {"$ref": "#/$defs/a/x"}],
            "$defs": {"a": {"x": {"const": 1}}, "b": {"x": {"const": 2}}},
        }
    )
    check(grammar)
    assert [1, 1] == [grammar.count('::= ("1")'), grammar.count('::= ("2")')]


def test_references_that_branch_do_not_multiply() -> None:
    """A chain of 30 pairs has a rule for each link, not 2^30."""
    definitions = {
        f"a{index}": {"prefixItems": [{"$ref": f"#/$defs/a{index + 1}"}, {"$ref": f"#/$defs/a{index + 1}"}]}
        for index in range(30)
    }
    grammar = grammar_of({"$ref": "#/$defs/a0", "$defs": definitions | {"a30": {"type": "null"}}})
    check(grammar)
    assert len(grammar.splitlines()) < 100


@pytest.mark.parametrize("year", [0, 1, 4, 96, 100, 400, 1900, 1996, 2000, 2023, 2024, 2100, 9999])
def test_a_date_is_a_day_that_exists(year: int) -> None:
    """The grammar of a date takes the days of the calendar, leap years included, and no others."""
    states = GrammarStates(check(grammar_of({"type": "string", "format": "date"})))
    texts = {f"{year:04}-{month:02}-{day:02}" for month in range(20) for day in range(40)}
    taken = {text for text in texts if states.may_end(states.after(START, f'"{text}"'.encode()))}
    assert {text for text in texts if exists(text)} == taken


def exists(text: str) -> bool:
    """Return whether a text is the date of a day."""
    try:
        return bool(date.fromisoformat(text))
    except ValueError:
        return False


@pytest.mark.parametrize(
    "properties",
    [
        {"name": {"title": "Name", "type": "string"}, "age": {"title": "Age", "type": "integer"}},
        {"kind": {"enum": ["good", "bad"], "type": "string"}, "stars": {"title": "Stars", "type": "number"}},
        {"tags": {"items": {"type": "string"}, "type": "array"}},
        {"nickname": {"anyOf": [{"type": "string"}, {"type": "null"}], "default": None}},
        {"age": {"maximum": 120, "minimum": 0, "type": "integer"}},
        {"grams": {"maximum": 5000, "minimum": 0, "title": "Grams", "type": "integer"}},
        {"email": {"pattern": ".+@.+", "title": "Email", "type": "string"}},
        {"celsius": {"maximum": 60, "minimum": -40, "title": "Celsius", "type": "number"}},
        {"counts": {"additionalProperties": {"type": "integer"}, "title": "Counts", "type": "object"}},
        {"ok": {"default": True, "title": "Ok", "type": "boolean"}},
        {"p": {"maximum": 1, "minimum": 0, "title": "P", "type": "number"}},
        {"value": {"anyOf": [{"$ref": "#/$defs/A"}, {"$ref": "#/$defs/B"}], "title": "Value"}},
        {"day": {"format": "date", "type": "string"}, "id": {"format": "uuid", "type": "string"}},
        {"name": {"maxLength": 10, "minLength": 1, "title": "Name", "type": "string"}},
    ],
)
def test_what_models_of_pydantic_say_is_kept(properties: dict[str, Any]) -> None:
    """Everyday fields, as pydantic writes them."""
    definitions = {name: {"properties": {name: {"type": "integer"}}, "type": "object"} for name in "AB"}
    schema = {"properties": properties, "required": [*properties], "title": "Model", "type": "object"}
    check(grammar_of({"$defs": definitions, **schema}))
