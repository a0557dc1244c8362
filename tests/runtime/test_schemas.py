import math
from typing import Any

import pytest

from reenact.runtime.gbnf import check
from reenact.runtime.schemas import SchemaError, grammar_of


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
        ({"type": "string", "properties": {}}, "at $: properties cannot be kept for string"),
        ({"type": "array", "items": {"type": "object", "minItems": 1}}, "at $[]: minItems cannot be kept for object"),
        ({"properties": {"a": 5}}, "at $.a: expected a schema, got 5"),
        ({"properties": {"a": False}}, "at $.a: expected a schema, got false"),
        ({"propertys": {}}, "at $: propertys cannot be kept"),
        (
            {"properties": {"a": {}}, "additionalProperties": {"type": "null"}},
            "at $: properties and a schema as additionalProperties cannot be kept together",
        ),
        ({"properties": []}, "at $: properties wants an object"),
        ({"properties": {}, "required": "a"}, "at $: required wants a list of names"),
        ({"properties": {}, "required": ["a"]}, "at $: 'a' is required and not among the properties"),
        ({"uniqueItems": True}, "at $: uniqueItems cannot be kept"),
        ({"items": {}, "minLength": 1}, "of unequal types; name the type"),
        ({"type": "array", "items": {}, "uniqueItems": True}, "at $: uniqueItems cannot be kept for array"),
        ({"type": "array", "minItems": 3, "maxItems": 2}, "at $: minItems 3 is more than maxItems 2"),
        ({"type": "array", "minItems": -1}, "at $: minItems wants a whole number below 2000, got -1"),
        ({"type": "string", "maxLength": 2000}, "at $: maxLength wants a whole number below 2000, got 2000"),
        ({"type": "array", "items": False}, "at $[]: expected a schema, got false"),
        ({"prefixItems": []}, "at $: prefixItems wants a list with something in it"),
        ({"prefixItems": [{}], "minItems": 2}, "with prefixItems there are exactly these items"),
        ({"type": "integer", "minimum": 5, "maximum": 4}, "no whole number is at least 5 and at most 4"),
        ({"type": "integer", "minimum": 0.5}, "minimum wants a whole number"),
        ({"type": "integer", "minimum": 5}, "of an integer both ends are kept, at most 1000 apart, or none"),
        ({"type": "integer", "minimum": 0, "maximum": 1001}, "both ends are kept, at most 1000 apart, or none"),
        ({"type": "integer", "minimum": True, "maximum": 5}, "minimum wants a whole number, got true"),
        ({"type": "number", "minimum": 0}, "minimum cannot be kept for number"),
        ({"type": "string", "pattern": "^]$"}, "pattern cannot be kept for string"),
        ({"type": "string", "format": "email"}, 'format "email" cannot be kept'),
        ({"enum": []}, "enum wants a list with something in it"),
        ({"anyOf": []}, "anyOf wants a list with something in it"),
        ({"anyOf": [{}], "type": "string"}, "anyOf and type together cannot be kept"),
        ({"allOf": [{}, {}]}, "allOf of more than one schema cannot be kept"),
        ({"enum": ["a", 1], "type": "string"}, '1 is not of the type "string"'),
        ({"const": True, "type": "integer"}, 'true is not of the type "integer"'),
        ({"$ref": "https://example.com/schema"}, "does not point into this schema"),
        ({"$ref": "#/$defs/a"}, "there is no '$defs'"),
        ({"enum": [math.nan]}, "at $: Out of range float values are not JSON compliant"),
        ({"$ref": 7}, "$ref 7 does not point into this schema"),
        (nested(100), "more than 64 schemas stand in each other"),
    ],
)
def test_what_cannot_be_kept_is_refused(schema: dict[str, Any], reason: str) -> None:
    """With the place in the schema; nothing is passed over."""
    with pytest.raises(SchemaError) as caught:
        grammar_of(schema)
    assert reason in str(caught.value)


def test_references_that_end_alike_are_told_apart() -> None:
    """And each is written once."""
    grammar = grammar_of(
        {
            "prefixItems": [{"$ref": "#/$defs/a/x"}, {"$ref": "#/$defs/b/x"}, {"$ref": "#/$defs/a/x"}],
            "$defs": {"a": {"x": {"const": 1}}, "b": {"x": {"const": 2}}},
        }
    )
    check(grammar)
    assert [1, 1] == [grammar.count('::= "1"'), grammar.count('::= "2"')]


def test_references_that_branch_do_not_multiply() -> None:
    """A chain of 30 pairs has a rule for each link, not 2^30."""
    definitions = {
        f"a{index}": {"prefixItems": [{"$ref": f"#/$defs/a{index + 1}"}, {"$ref": f"#/$defs/a{index + 1}"}]}
        for index in range(30)
    }
    grammar = grammar_of({"$ref": "#/$defs/a0", "$defs": definitions | {"a30": {"type": "null"}}})
    check(grammar)
    assert len(grammar.splitlines()) < 100
