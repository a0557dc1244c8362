"""Writes grammars of answers that call a tool.

The rules that hold here:

* A call is a JSON object with ``name`` and ``arguments`` in this order, and the arguments fit the schema of the tool of
  that name. `reenact.runtime.grammar.json_schema` enforces the schema as a whole, or refuses it.
* A call may be written between `OPEN` and `CLOSE`, because many templates ask for it there.
* An answer that may be text is a call if it begins with a brace or with `OPEN`, and else it is a text. So the first
  characters decide which of the two it is, and a call is complete as soon as the grammar allows an end.
* The rules have short names, and there is none that nothing needs, so that a request can have many tools.
"""

import re
from collections.abc import Mapping
from typing import Any, Final

from reenact.runtime.grammar.json_schema import SchemaError, shape_of
from reenact.runtime.grammar.json_text import Shape, json_grammar

OPEN: Final = "<tool_call>"
CLOSE: Final = "</tool_call>"

_ANY: Final = "[^\\x00]*"
_NAMED: Final = ("call", "text")
"""The rules that keep their names for readers of a log."""
_WORD: Final = re.compile(r'"(?:\\.|[^"\\])*"|\[(?:\\.|[^]\\])*]|(?P<rule>[a-zA-Z][a-zA-Z0-9-]*)')
"""A text, a class of characters, or the name of a rule."""


def call_grammar(tools: Mapping[str, Any], *, required: bool) -> str:
    """Return the grammar, in GBNF, of answers that call one of these tools.

    Args:
        tools: The schema of each tool's arguments, by the tool's name.
        required: Exclude answers that are text.

    Raises:
        SchemaError: A schema cannot be enforced; the error names the tool.
    """
    calls: list[Shape] = []
    targets: dict[str, Shape] = {}
    for name, schema in tools.items():
        try:
            shape, targets = shape_of(schema, targets)
        except SchemaError as error:
            raise SchemaError(f"the parameters of {name}: {error}") from None
        properties = {"name": {"enum": [name]}, "arguments": shape}
        calls.append({"type": "object", "properties": properties, "required": ["name", "arguments"]})
    grammar = json_grammar({"anyOf": calls}, targets).replace("root ::=", "call ::=", 1)
    answers = ["call", f'"{OPEN}" "\\n"? call "\\n"? "{CLOSE}"']
    if not required:
        answers.append("text")
        grammar += "".join(_text())
    return _shortened(f"root ::= {' | '.join(answers)}\n{grammar}")


def _shortened(grammar: str) -> str:
    """Return a grammar with the rules that ``root`` needs, each by a short name, in the order of their first use."""
    rules = dict(line.split(" ::= ", 1) for line in grammar.splitlines())
    names = {"root": "root"}
    written = []

    def name(word: re.Match[str]) -> str:
        rule = word["rule"]
        return word[0] if rule is None else names.setdefault(rule, rule if rule in _NAMED else f"r{len(names)}")

    needed = ["root"]
    for rule in needed:
        known = len(names)
        written.append(f"{names[rule]} ::= {_WORD.sub(name, rules[rule])}\n")
        needed += list(names)[known:]
    return "".join(written)


def _text() -> list[str]:
    """Return the rules of texts that begin with neither a brace nor `OPEN`."""
    first, *more = list(OPEN)
    rules = [f'text ::= ([^{{{first}\\x00] {_ANY} | "{first}" text1)?\n']
    for number, character in enumerate(more, 1):
        following = f' | "{character}" text{number + 1}' if number < len(more) else ""
        rules.append(f"text{number} ::= ([^{character}\\x00] {_ANY}{following})?\n")
    return rules
