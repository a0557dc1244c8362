"""Turns the lines of an older schema into those of today's, when they are read.

The rules that hold here:

* An upcaster leads from one schema to the next, so a line passes all of them from its own on. A schema that none leads
  from cannot be read, nor can any before it.
* It is given the plain values of a line as it was written, so with what its line leaves out still missing; all that
  comes after it knows one schema only.
* What writes a log writes today's schema. A log of an older one is never written on.
"""

from collections.abc import Callable
from typing import Final

from reenact.actors.errors import description
from reenact.runtime.log.codec import SCHEMA, Fields, UnreadableRecord

UPCASTERS: Final[dict[int, Callable[[Fields], Fields]]] = {}
"""By the schema that each leads from. There is none yet, because no schema before today's was released."""


def oldest_schema() -> int:
    """Return the oldest schema that can be read."""
    schema = SCHEMA
    while schema - 1 in UPCASTERS:
        schema -= 1
    return schema


def upcast(fields: Fields, schema: int) -> Fields:
    """Return the plain values of a line in today's schema; the header's own field says still which one it was.

    Args:
        fields: The plain values.
        schema: Their schema.

    Raises:
        UnreadableRecord: They are not of that schema.
    """
    for older in range(schema, SCHEMA):
        try:
            fields = UPCASTERS[older](fields)
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            raise UnreadableRecord(f"it is no record of schema {older}: {description(error)}") from None
    return fields
