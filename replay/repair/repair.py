"""``replay repair``: copies the valid records of a log into a new one.

The rules that hold here:

* Valid records are a prefix: everything up to the first line that is torn, damaged or no record. What comes after it is
  not trusted, however it looks.
* Lines are copied as they are. The new log is plain or compressed by its own name, whatever the old one is; compressed,
  it ends in a seal.
* Nothing is overwritten, and the old log stays as it is.
* The new log is read back, and must have exactly these records.
"""

import os
from collections.abc import Iterator

from attrs import frozen

from reenact.actors import events as e
from reenact.actors.errors import InternalError, LogCorrupt
from reenact.replay.compute.machine import OnProgress
from reenact.replay.new_log import new_log
from reenact.replay.repair.report import Repaired
from reenact.runtime.log.line import sealed
from reenact.runtime.log.reader import EmptyLog, End, Entry, LogFile, entries
from reenact.runtime.log.rows import RowsCorrupt, RowsFile, RowsMissing
from reenact.runtime.log.writer import Journal


def repair_log(
    path: str | os.PathLike[str], *, out: str | os.PathLike[str], on_progress: OnProgress | None = None
) -> Repaired:
    """Copy the valid records of a log, whatever follows them.

    Args:
        path: The log: damaged, torn or sound.
        out: The path of the new log, which must not exist; compressed if it ends in ``.zst``.
        on_progress: A callback for the progress of reading.

    Raises:
        LogCorrupt: Not even the first line is valid.
        LogNotComparable: The log has no record, or is of another version.
        OSError: A file cannot be read or made; FileExistsError if the new log exists.
        LogBroken: The new log cannot be written.
    """
    show = on_progress or (lambda _doing, _fraction: None)
    with LogFile(path) as log, new_log(out) as journal:
        copying = _Copying(log, journal)
        size = max(log.path.stat().st_size, 1)
        for n_bytes in copying.run():
            show("copying the log", n_bytes / size)
        journal.close()
        repaired = copying.repaired(os.fspath(out), log.path.stat().st_size)
        _check(repaired)
    return repaired


def _check(repaired: Repaired) -> None:
    """Read the new log back.

    Raises:
        InternalError: It is not the one that was to be written.
    """
    with LogFile(repaired.path) as log:
        n_records = sum(1 for _ in entries(log))
    if (n_records, log.torn) != (repaired.n_records, 0):
        raise InternalError(f"{repaired.path}: it has {n_records:,} records in place of {repaired.n_records:,}")


@frozen
class _Part:
    """Lines that are copied together: a fact and what followed from it."""

    text: bytes
    records: list[e.Record]


class _Copying:
    """One copy of one log."""

    def __init__(self, log: LogFile, journal: Journal) -> None:
        self._log = log
        self._journal = journal
        self._rows: RowsFile | None = None
        self._rows_error: str | None = None
        self._damage: LogCorrupt | None = None
        self._n_records = 0
        self._crc = 0
        self._end = End()
        self._closed = False

    def run(self) -> Iterator[int]:
        """Copy fact by fact, and return how many bytes were read after each.

        Raises:
            LogCorrupt, LogNotComparable: There is nothing to copy.
        """
        before: _Part | None = None
        for part in self._parts():
            if before is not None:
                self._copy(before, last=False)
                yield self._log.n_bytes
            before = part
        if before is None:
            raise self._damage or EmptyLog()
        self._copy(before, last=True)

    def repaired(self, out: str, size: int) -> Repaired:
        """Return the result.

        Args:
            out: The path of the new log.
            size: The count of bytes in the old one.
        """
        byte = self._end.length if self._damage is not None or self._log.torn else size
        return Repaired(
            path=out,
            source=os.fspath(self._log.path),
            n_records=self._n_records,
            closed=self._closed,
            byte=byte,
            n_left_out=size - byte,
            line=self._n_records + 1,
            reason=None if self._damage is None else self._damage.reason,
            rows=self._rows_error,
        )

    def _parts(self) -> Iterator[_Part]:
        text, records = b"", list[e.Record]()
        for entry in self._entries():
            if entry.record.cause is None and records:
                yield _Part(text, records)
                text, records = b"", []
            line, self._crc = sealed(entry.line.body, self._crc)
            text += line
            records.append(entry.record)
        if records:
            yield _Part(text, records)

    def _entries(self) -> Iterator[Entry]:
        """Return the valid records, and remember what ends them."""
        try:
            for entry in entries(self._log):
                self._end = self._log.end
                yield entry
        except LogCorrupt as error:
            self._damage = error

    def _copy(self, part: _Part, *, last: bool) -> None:
        for record in part.records:
            self._meet(record.event)
        self._journal.copy(part.text, last=last)
        self._n_records += len(part.records)

    def _meet(self, event: e.Event) -> None:
        match event:
            case e.SessionOpened():
                self._rows = RowsFile(self._log.path, event.context.n_embd)
            case e.SessionClosed():
                self._closed = True
            case e.PromptTokenized() if self._rows is not None:
                self._rows.meet(event.inputs)
                if self._rows_error is None:
                    try:
                        self._journal.keep_rows(event.inputs, self._rows)
                    except (RowsMissing, RowsCorrupt) as error:
                        # A later row has its place behind this one, so none can follow.
                        self._rows_error = str(error)
            case _:
                pass
