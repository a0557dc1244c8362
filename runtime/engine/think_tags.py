"""Finds in a chat template the tags around a model's thinking, and the variable that turns thinking off."""

import re
from typing import Final

from attrs import frozen

from reenact.actors.errors import InvalidRequest

_NAMES: Final = ("think", "thinking", "seed:think")
"""The tags of widespread models: Qwen3, DeepSeek R1 and SmolLM3; Granite; Seed-OSS."""

_SWITCH: Final = re.compile(r"\benable_thinking\b")
"""The variable that widespread templates look at."""


@frozen
class ThinkTags:
    """The tags around a model's thinking."""

    begin: str
    end: str


def think_tags(template: str) -> ThinkTags | None:
    """Return the tags in a template's source; None if there are none. Some templates write only the second one."""
    return next((ThinkTags(f"<{name}>", f"</{name}>") for name in _NAMES if f"</{name}>" in template), None)


def think_variables(template: str, think: bool | None) -> dict[str, bool]:  # noqa: FBT001  # a value of three
    """Return the variables with which a template is rendered.

    Args:
        template: The template's source.
        think: Whether the model is to think; None for the template's own default.

    Raises:
        InvalidRequest: The template does not let a model think, or does not let it be.
    """
    if think is None:
        return {}
    tags = think_tags(template)
    if think and tags is None:
        raise InvalidRequest("think", "this model does not support thinking")
    if _SWITCH.search(template):
        return {"enable_thinking": think}
    if not think and tags is not None:
        raise InvalidRequest("think", "the model's chat template cannot turn thinking off")
    return {}
