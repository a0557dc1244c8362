"""A rule about what lies beside a log: the numbers of its rows.

The rule that holds here: it is the one that reads something else than records, and only where that is at hand. Where
there is no file at all nothing is broken: no decision needs it.
"""

from collections.abc import Iterator

from reenact.actors import events as e
from reenact.replay.check.rule import Rule, Violation
from reenact.runtime.log.rows import RowsCorrupt, RowsFile, RowsMissing


class NumbersRule(Rule):
    """The numbers of each row."""

    name = "numbers"
    says = (
        "The numbers of each row that a prompt has lie beside the log, in the order in which the log names them first, "
        "and have the digest that it names."
    )
    source = "ARCHITECTURE.md, 4"
    hears = (e.SessionOpened, e.PromptTokenized)

    _rows: RowsFile | None = None

    def see(self, record: e.Record) -> Iterator[Violation]:
        """Read the rows that a prompt is the first to have."""
        event = record.event
        if isinstance(event, e.SessionOpened) and self.recount.log is not None:
            self._rows = RowsFile(self.recount.log, event.context.n_embd)
        if isinstance(event, e.PromptTokenized) and self._rows is not None:
            new = self._rows.meet(event.inputs)
            try:
                for row in new if self._rows.exists else ():
                    _ = self._rows[row]
            except (RowsMissing, RowsCorrupt) as error:
                yield self.violation(record.n, "the numbers of its rows", str(error))
