"""The form that a request asks its text to have, as the grammar in force.

The rule that holds here: what is accepted follows from the request alone. No engine, no model and no machine accepts
another grammar or another schema than the next one.
"""

import json
from typing import Final

from reenact.actors.errors import InvalidRequest
from reenact.actors.options import Options
from reenact.runtime.grammar.gbnf import GrammarError
from reenact.runtime.grammar.json_schema import SchemaError, distinct, grammar_of
from reenact.runtime.grammar.soundness import check

_TOO_LARGE: Final = (
    "the schema comes to more than can be followed; ask for fewer properties, alternatives or constants, or for lower"
    " minLength, maxLength, minItems, maxItems and counts in patterns"
)


def grammar_in_force(options: Options) -> str | None:
    """Return the grammar that a request asks for, in GBNF: as given, or made of its format; None without either.

    Raises:
        InvalidRequest: It cannot be followed; it names ``grammar`` or ``format``.
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
        # Of a schema's grammar its caller has seen no line.
        raise InvalidRequest(name, _TOO_LARGE if name == "format" else str(error)) from error
    except (SchemaError, ValueError) as error:
        # A schema's own words stand in it, which json.loads lets be half a surrogate pair.
        raise InvalidRequest(name, str(error).encode("utf-8", "backslashreplace").decode()) from None
    return grammar
