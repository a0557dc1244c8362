"""Fills in the name of a log from a template: ``logs/{model}/{opened_at}-{session}.jsonl.zst``.

The fields are those of `FIELDS`; ``{{`` and ``}}`` become braces. The parts of the name that the template leaves to
the fields have only letters, digits, dots, hyphens and underscores, and the folders of the name are made.
"""

import re
from datetime import datetime
from pathlib import Path
from string import Formatter
from typing import Final

from reenact.actors.errors import InvalidRequest, shown
from reenact.actors.events import SessionOpened

FIELDS: Final = ("model", "opened_at", "session")
"""The fields: the model's name without its ending; the time in UTC, as in 20261128T134501Z; the id."""

_UNNAMEABLE: Final = re.compile(r"[^A-Za-z0-9._]+")
_MOST: Final = 80
"""The characters of a name that is a part of a file's."""


def is_template(log: Path) -> bool:
    """Return whether the name of a log is to be filled in."""
    return "{" in str(log) or "}" in str(log)


def check_template(log: Path) -> None:
    """Refuse a template that cannot be filled in.

    Raises:
        InvalidRequest: It has another field, or a brace alone.
    """
    cure = f"expected {', '.join(f'{{{name}}}' for name in FIELDS)} in it, and {{{{ or }}}} for a brace"
    try:
        for _, name, how, conversion in Formatter().parse(str(log)):
            if name is not None and (name not in FIELDS or how or conversion):
                raise InvalidRequest("log", f"{{{name}}} is no field: {cure}")
    except ValueError:
        raise InvalidRequest("log", f"{shown(str(log))} is not a template: {cure}") from None


def escaped(path: Path) -> str:
    """Return a path as a template for itself."""
    return str(path).replace("{", "{{").replace("}", "}}")


def named(template: Path, header: SessionOpened) -> Path:
    """Return the name of a session's log, and make its folders, for their owner only.

    Args:
        template: The template, which was checked.
        header: The session's header.

    Raises:
        OSError: A folder cannot be made.
    """
    opened_at = datetime.fromisoformat(header.opened_at).strftime("%Y%m%dT%H%M%SZ")
    model = nameable(header.model.name.removesuffix(".gguf"))
    log = Path(str(template).format(model=model, opened_at=opened_at, session=nameable(header.session)))
    log.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    return log


def nameable(text: str) -> str:
    """Return a text as a part of a file's name."""
    return _UNNAMEABLE.sub("-", text)[:_MOST].strip("-.") or "unnamed"
