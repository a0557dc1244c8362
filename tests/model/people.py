"""A schema with nested objects, enums and bounded arrays and strings, and how often a model ends by itself in it."""

import json
from typing import Any, Final

import jsonschema
import trio
from attrs import frozen

from reenact.runtime import Completion, Runtime

SCHEMA: Final[dict[str, Any]] = {
    "type": "object",
    "properties": {
        "name": {"type": "string", "minLength": 1, "maxLength": 20},
        "role": {"enum": ["sailor", "keeper", "cook"]},
        "home": {
            "type": "object",
            "properties": {
                "town": {"type": "string", "minLength": 1, "maxLength": 16},
                "kind": {"enum": ["house", "boat", "tower"]},
            },
            "required": ["town", "kind"],
            "additionalProperties": False,
        },
        "tools": {
            "type": "array",
            "items": {"type": "string", "minLength": 1, "maxLength": 12},
            "minItems": 1,
            "maxItems": 3,
        },
        "married": {"type": "boolean"},
    },
    "required": ["name", "role", "home", "tools", "married"],
    "additionalProperties": False,
}
PROMPT: Final = "Describe a person who lives by the sea, as JSON:\n"
NUM_PREDICT: Final = 300


@frozen
class Answer:
    """What one seed came to."""

    seed: int
    completion: Completion
    valid: bool

    @property
    def ended(self) -> bool:
        """Whether the model ended it by itself."""
        return self.completion.finish_reason == "stop"


async def answers(runtime: Runtime, seeds: range) -> list[Answer]:
    """Ask for a person with each seed, several at once."""
    found: list[Answer] = []

    async def ask(seed: int) -> None:
        completion = await runtime.complete(PROMPT, seed=seed, format=SCHEMA, num_predict=NUM_PREDICT)
        found.append(Answer(seed, completion, is_valid(completion.text)))

    async with trio.open_nursery() as nursery:
        for seed in seeds:
            nursery.start_soon(ask, seed)
    return sorted(found, key=lambda answer: answer.seed)


def is_valid(text: str) -> bool:
    """Return whether a text is JSON that the schema allows."""
    try:
        jsonschema.validate(json.loads(text), SCHEMA)
    except (ValueError, jsonschema.ValidationError):
        return False
    return True
