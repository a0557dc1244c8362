"""Finds the grammar in force for a request.

The rule that holds here: the request alone decides whether its grammar or schema is accepted. All engines, models and
machines accept the same ones.
"""

import json
from typing import Final

from reenact.actors.errors import InvalidRequest
from reenact.actors.options import Options
from reenact.runtime.grammar.gbnf import GrammarError
from reenact.runtime.grammar.json_schema import SchemaError, distinct, grammar_of
from reenact.runtime.grammar.soundness import check

_TOO_LARGE: Final = (
    "the schema is too large to be followed; ask for fewer properties, alternatives or constants, or for lower"
    " minLength, maxLength, minItems, maxItems and counts in patterns"
)


def grammar_in_force(options: Options) -> str | None:
    """Return the grammar that a request asks for, in GBNF: as given, or made from its format; None without either.

    Raises:
        InvalidRequest: It cannot be followed; the error names ``grammar`` or ``format``.
    """
    name, grammar = ("format", options.format) if options.grammar is None else ("grammar", options.grammar)
    if grammar is None:
        return None
    try:
        if name == "format":
            schema = {"type": "object"} if grammar == "json" else json.loads(grammar, object_pairs_hook=distinct)
            grammar = grammar_of(schema)
        check(grammar)
    except RecursionError:
        raise InvalidRequest(name, "the schema is nested too deeply") from None
    except GrammarError as error:
        # The caller of a schema has never seen the lines of its grammar.
        raise InvalidRequest(name, _TOO_LARGE if name == "format" else str(error)) from error
    except (SchemaError, ValueError) as error:
        # The message quotes the schema, and json.loads accepts half surrogate pairs in it.
        raise InvalidRequest(name, str(error).encode("utf-8", "backslashreplace").decode()) from None
    return grammar
