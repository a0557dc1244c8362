"""The base class of the rules that every log must keep, and the violations that they report.

The rules that hold here:

* A rule reads records in order, and the recount of all earlier ones (`reenact.replay.check.recount`). It asks no
  actor: it derives what the actors decide by another formulation.
* It never raises for the content of a log. After a violation it goes on with the values in the log, so that one wrong
  record does not make all later ones wrong.
* A fact's obligations (a cancelled request has to end) are checked when the next fact comes. A log that ends in
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
    """A record that a rule forbids, or that lacks something the rule requires."""

    rule: str
    n: int
    """The number of the record."""
    first: int
    """The number of the first record to look at: that of the fact from which the record follows."""
    expected: str
    """The value that the rule requires."""
    actual: str
    """The value in the log."""


class Rule:
    """A statement that holds in every log, whatever callers, readers and engines do.

    Args:
        recount: The recount of all records before the current one.
    """

    name: ClassVar[str]
    says: ClassVar[str]
    """The statement that must hold, in a sentence."""
    source: ClassVar[str]
    """The document that defines it, and the section or, in section 2 of runner-semantics, the paragraph."""
    hears: ClassVar[tuple[type[e.Event], ...]] = ()
    """The kinds of events that it checks."""

    def __init__(self, recount: Recount) -> None:
        self.recount = recount

    def see(self, record: e.Record) -> Iterator[Violation]:
        """Check a record of one of the kinds in ``hears``.

        Args:
            record: The record, which is not in the recount yet.
        """
        raise NotImplementedError

    def settle(self) -> Iterable[Violation]:
        """Check the last fact's obligations, now that the next record begins another fact."""
        return ()

    def violation(self, n: int, expected: object, actual: object, *, first: int | None = None) -> Violation:
        """Return a violation by record ``n``.

        Args:
            n: The number of the record.
            expected: The value that the rule requires.
            actual: The value in the log.
            first: The number of the first record to look at; by default that of the record's fact.
        """
        first = min(self.recount.first if first is None else first, n)
        return Violation(rule=self.name, n=n, first=first, expected=str(expected), actual=str(actual))


def quoted(value: str | bytes) -> str:
    """Return text or bytes in quotes, for a comparison."""
    return text(value) if isinstance(value, str) else repr(value)
