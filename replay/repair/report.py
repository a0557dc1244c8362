"""The result of a repair: how much of a log was copied, and what was left out."""

from typing import Any

from attrs import frozen

from reenact.replay.render.endings import NOT_CLOSED
from reenact.replay.render.values import count
from reenact.runtime.terminal import Spans


@frozen(kw_only=True)
class Repaired:
    """A log that has the valid records of another one."""

    path: str
    """The new log."""
    source: str
    """The old one."""
    n_records: int
    closed: bool
    """Whether the last record is `SessionClosed`."""
    byte: int
    """The offset in the old file from which on bytes were left out; of a compressed one, that of a block."""
    n_left_out: int
    """The count of these bytes."""
    line: int
    """The number of the first line that was left out, if there is one."""
    reason: str | None
    """The reason why that line is damaged; None if there is none or it is only torn."""
    rows: str | None
    """The reason why not all rows were copied; None if they were."""

    def as_json(self) -> dict[str, Any]:
        """Return the result as ``replay repair --json`` prints it."""
        return {
            "log": self.path,
            "records": self.n_records,
            "closed": self.closed,
            "left_out": {"bytes": self.n_left_out, "byte": self.byte, "line": self.line, "reason": self._why}
            if self.n_left_out
            else None,
            "rows": self.rows,
        }

    @property
    def _why(self) -> str:
        return "a write that did not finish" if self.reason is None else self.reason

    def lines(self) -> list[Spans]:
        """Return the lines that ``replay repair`` prints."""
        left_out = "nothing was left out"
        if self.n_left_out:
            left_out = (
                f"left out: {count(self.n_left_out, 'byte')} from byte {self.byte:,}, line {self.line:,}: {self._why}"
            )
        lines: list[Spans] = [
            [(f"repaired: {self.path}: {count(self.n_records, 'record')} of {self.source}", "bold green")],
            [(f"  {left_out}", "")],
        ]
        if not self.closed:
            lines.append([(f"  {NOT_CLOSED}", "")])
        if self.rows is not None:
            lines.append([(f"  rows were copied up to this one: {self.rows}", "")])
        return [*lines, [(f"  replay check {self.path}", "")]]
