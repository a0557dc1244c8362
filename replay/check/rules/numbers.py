"""A rule about a file beside a log: the numbers of its rows.

The rule that holds here: this rule alone reads something other than records, and only where the file is at hand. A
missing file breaks nothing, because no decision needs it.
"""

from collections.abc import Iterator

from reenact.actors import events as e
from reenact.replay.check.rule import Rule, Violation
from reenact.runtime.log.rows import RowsCorrupt, RowsFile, RowsMissing


class NumbersRule(Rule):
    """The numbers of each row."""

    name = "numbers"
    says = (
        "The numbers of each row in a prompt are in the file beside the log, in the order in which the log first "
        "names the rows, and they have the digest by which the log names them."
    )
    source = "ARCHITECTURE.md, 4"
    hears = (e.SessionOpened, e.PromptTokenized)

    _rows: RowsFile | None = None

    def see(self, record: e.Record) -> Iterator[Violation]:
        """Read the rows that this prompt is the first to contain."""
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
