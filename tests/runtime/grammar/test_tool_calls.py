import json
import re
from random import Random

import jsonschema
import pytest

from reenact.actors.limits import MAX_GRAMMAR_BYTES
from reenact.runtime.grammar.json_schema import SchemaError
from reenact.runtime.grammar.soundness import check
from reenact.runtime.grammar.tool_calls import call_grammar
from reenact.runtime.http.tools import AnswerReader
from reenact.runtime.llama.grammar_states import DEAD, START, GrammarStates

WEATHER = {
    "type": "object",
    "properties": {"city": {"$ref": "#/$defs/City"}, "days": {"type": "integer", "minimum": 1, "maximum": 7}},
    "required": ["city"],
    "$defs": {"City": {"enum": ["Rome", "Oslo"]}},
}
TREE = {
    "type": "object",
    "properties": {"tree": {"$ref": "#/$defs/City"}},
    "required": ["tree"],
    "$defs": {"City": {"type": "object", "properties": {"in": {"type": "array", "items": {"$ref": "#/$defs/City"}}}}},
}
NOTHING = {"type": "object", "properties": {}}
TOOLS = {"weather": WEATHER, "grow": TREE, "stop": NOTHING}

ALPHABET = [chr(code) for code in range(32, 127)] + ["\n", "é"]


def fits(text: str, *, required: bool) -> bool:
    """Return whether a whole answer is in the grammar of the tools."""
    states = GrammarStates(check(call_grammar(TOOLS, required=required)))
    return states.may_end(states.after(START, text.encode()))


@pytest.mark.parametrize(
    ("text", "required", "auto"),
    [
        ('{"name": "stop", "arguments": {}}', True, True),
        ('{"name":"weather","arguments":{"city":"Rome","days":7}}', True, True),
        ('{"name": "grow", "arguments": {"tree": {"in": [{}, {"in": []}]}}}', True, True),
        ('<tool_call>\n{"name": "stop", "arguments": {}}\n</tool_call>', True, True),
        ('{"name": "weather", "arguments": {"city": "Paris"}}', False, False),
        ('{"name": "weather", "arguments": {"city": "Rome", "days": 8}}', False, False),
        ('{"name": "weather", "arguments": {}}', False, False),
        ('{"name": "other", "arguments": {}}', False, False),
        ('{"name": "stop", "arguments": {}', False, False),
        ('<tool_call>{"name": "stop", "arguments": {}}', False, False),
        ("<tool_call>", False, False),
        ("{", False, False),
        ("", False, True),
        ("<", False, True),
        ("<b>Hello</b> {", False, True),
        ("<tool_cat>", False, True),
        ("Hello\n", False, True),
    ],
)
def test_what_is_an_answer(text: str, required: bool, auto: bool) -> None:
    """A call fits its tool's schema; a text begins otherwise than a call, and is excluded where one is required."""
    assert (required, auto) == (fits(text, required=True), fits(text, required=False))


def test_many_tools_have_a_grammar() -> None:
    """As many tools as a request may have are not too many, and the grammar has no rule that nothing needs."""
    grammar = call_grammar({f"weather_{i}": WEATHER for i in range(128)}, required=False)
    rules = [line.partition(" ::= ")[0] for line in grammar.splitlines()]
    assert len(grammar.encode()) < MAX_GRAMMAR_BYTES
    assert [] == [rule for rule in rules[1:] if not re.search(rf"\b{rule}\b(?! ::=)", grammar)]


@pytest.mark.parametrize("seed", range(40))
def test_every_call_of_the_grammar_validates(seed: int) -> None:
    """However a model draws within the grammar, the reader finds the call as it grows, and the arguments validate."""
    random = Random(seed)  # noqa: S311  # not for a secret
    states = GrammarStates(check(call_grammar(TOOLS, required=True)))
    reader, state, streamed = AnswerReader("call"), START, ""
    for _ in range(3000):
        after = {text: states.after(state, text.encode()) for text in ALPHABET}
        possible = [text for text, then in after.items() if then != DEAD]
        if states.may_end(state) and (not possible or random.random() < 0.5):
            break
        closing = [text for text in possible if text in "]}"]
        chosen = random.choice(closing if closing and random.random() < 0.6 else possible)
        state = after[chosen]
        streamed += reader.take(chosen).arguments
    streamed += reader.rest().arguments
    assert reader.complete()
    call = reader.call()
    assert call is not None
    assert streamed == call.arguments
    jsonschema.validate(json.loads(call.arguments), TOOLS[call.name])


def test_the_error_names_the_tool() -> None:
    """A schema that cannot be enforced is an error with the name of its tool and the place."""
    bad = {"type": "object", "properties": {"a": {"type": "array", "uniqueItems": True}}}
    with pytest.raises(SchemaError, match=r"the parameters of bad: at \$\.a: uniqueItems cannot be enforced"):
        call_grammar({"stop": NOTHING, "bad": bad}, required=True)
