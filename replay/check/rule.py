"""What a rule is that every log must keep, and what it says where one does not.

The rules that hold here:

* A rule reads records, one after the other, and what was counted of those before (`reenact.replay.check.recount`). It
  asks no actor: what the actors decide by one formulation, it finds by another.
* It raises on nothing that a log can hold, and goes on after a violation with what the log says: one wrong record is
  not to make all that follow wrong.
* What a fact owes (a request that is cancelled has to end) is looked for when the next fact comes. A log that ends in
  between owes nothing.
"""

from collections.abc import Iterable, Iterator
from typing import ClassVar

from attrs import frozen

from reenact.actors import events as e
from reenact.replay.check.recount import Recount
from reenact.replay.render.values import text


@frozen(kw_only=True)
class Violation:
    """A record that a rule does not allow, or that lacks what the rule wants."""

    rule: str
    n: int
    """The record."""
    first: int
    """The first record of what is to be looked at: the fact that it follows from."""
    expected: str
    """What the rule wants to find there."""
    actual: str
    """What there is."""


class Rule:
    """What holds in every log, whatever callers, readers and engines do.

    Args:
        recount: What was counted of the records before the one that is seen.
    """

    name: ClassVar[str]
    says: ClassVar[str]
    """What must hold, in a sentence."""
    source: ClassVar[str]
    """Where that is written: a document, and its section or, in section 2 of runner-semantics, its paragraph."""
    hears: ClassVar[tuple[type[e.Event], ...]] = ()
    """The events that it wants to see."""

    def __init__(self, recount: Recount) -> None:
        self.recount = recount

    def see(self, record: e.Record) -> Iterator[Violation]:
        """Look at a record of a kind that it hears.

        Args:
            record: The record; nothing is counted of it yet.
        """
        raise NotImplementedError

    def settle(self) -> Iterable[Violation]:
        """Look at what the last fact owes: the next record is another fact."""
        return ()

    def violation(self, n: int, expected: object, actual: object, *, first: int | None = None) -> Violation:
        """Return that record ``n`` is not as it should be.

        Args:
            n: The record.
            expected: What should be.
            actual: What is.
            first: What is to be looked at from there on; the fact that the record is of unless given.
        """
        first = min(self.recount.first if first is None else first, n)
        return Violation(rule=self.name, n=n, first=first, expected=str(expected), actual=str(actual))


def quoted(value: str | bytes) -> str:
    """Return a text or bytes as a value to be compared."""
    return text(value) if isinstance(value, str) else repr(value)
