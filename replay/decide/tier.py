"""The decide tier: run today's actors on a log's given events and compare every derived event.

The rules that hold here:

* Bytes first: a log with a wrong byte anywhere is corrupt, and nothing is compared.
* A derived record is compared with the one that the actors decide, value by value, envelope included: number, time
  (that of its given record), type, actor, cause and every field. Its line is not decoded; a line whose envelope is
  malformed makes the log corrupt.
* A given record is decoded strictly and passed to the kernel. `SessionClosed` contains a digest, which must be that of
  the state folded here.
* The first difference ends the replay: all later ones follow from it.
"""

import os
from collections import deque

from reenact.actors import events as e
from reenact.actors.errors import LogCorrupt, LogNotComparable, description
from reenact.actors.kernel import Kernel
from reenact.actors.routing import EVENT_TYPES, ROUTES, Origin
from reenact.replay.decide.figures import Counting
from reenact.replay.divergence import Divergence
from reenact.replay.render.endings import NOT_CLOSED, torn
from reenact.replay.shrink.patience import Patience
from reenact.replay.verdict import Result, Verdict
from reenact.runtime.log.codec import SCHEMA, Fields, UnreadableRecord, check_envelope, dumps, plain, same
from reenact.runtime.log.line import Line
from reenact.runtime.log.reader import EntryReader, LogFile
from reenact.runtime.log.rows import ROWS_CURE, RowsCorrupt, RowsFile, RowsMissing


def replay_log(path: str | os.PathLike[str], patience: Patience | None = None) -> Verdict:
    """Run today's actors on a log and compare their decisions with it; this needs no model.

    Args:
        path: The log of any session, including one that crashed or still runs.
        patience: The limit on how long this may take; None for no limit.

    Returns:
        The verdict. This never raises for the content of the file, nor for a file that is missing.
    """
    replay, patience = _Replay(os.fspath(path)), patience or Patience()
    try:
        with LogFile(path) as log:
            for _ in patience.within(log):
                pass
            return replay.run(log, patience)
    except OSError as error:
        return replay.verdict("unreadable", notes=(error.strerror or str(error),), error=error)
    except LogCorrupt as error:
        return replay.verdict("corrupt", notes=(str(error),), error=error)
    except LogNotComparable as error:
        return replay.verdict("not comparable", notes=(str(error),), error=error)


class _Replay:
    """One replay of one log."""

    def __init__(self, path: str) -> None:
        self._path = path
        self._kernel = Kernel()
        self._reader = EntryReader()
        self._log: LogFile | None = None
        self._counting = Counting()
        self._expected: deque[e.Record] = deque()
        """The records that the actors decided and that have not been found in the log yet."""
        self._rows = RowsFile(path, 0)
        self._t = 0
        """The time of the given record from which they follow."""

    def run(self, log: LogFile, patience: Patience) -> Verdict:
        """Compare the whole log."""
        self._log = log
        for line in patience.within(log):
            try:
                divergence = self._derived(line) if self._expected else self._given(line)
            except UnreadableRecord as error:
                raise line.corrupt(str(error)) from None
            if divergence is not None:
                return self.verdict("diverged", divergence=divergence)
        return self._end(log, patience)

    def verdict(
        self,
        result: Result,
        *,
        divergence: Divergence | None = None,
        notes: tuple[str, ...] = (),
        error: Exception | None = None,
    ) -> Verdict:
        """Return a verdict on the records so far."""
        return Verdict(
            path=self._path,
            verdict=result,
            tally=self._counting.tally(0 if self._log is None else self._log.n_bytes),
            first_divergence=divergence,
            notes=notes,
            error=error,
        )

    def _derived(self, line: Line) -> Divergence | None:
        """Compare a record with the next one that the actors decided."""
        record = self._expected.popleft()
        if line.body != dumps(self._reader.shorthand.short(record, self._t)):
            # Other bytes can still be the same values: members have no order, and need not be left out.
            expected, actual = self._reader.fields(line), plain(record, self._t)
            if not same(expected, actual):
                check_envelope(expected)
                return Divergence(n=record.n, expected=expected, actual=actual)
        self._reader.note(record, self._t)
        self._counting.add(record.event, self._t, derived=True)
        return None

    def _given(self, line: Line) -> Divergence | None:
        """Pass a given record to the actors."""
        fields = self._reader.fields(line)
        kind = EVENT_TYPES.get(str(fields.get("type")))
        if kind is not None and ROUTES[kind].origin is Origin.DERIVED:
            return Divergence(n=line.number - 1, expected=fields, actual=None)
        record = self._reader.entry(line, fields).record
        if isinstance(record.event, e.SessionClosed) and (divergence := self._check_digest(record.event, fields)):
            return divergence
        try:
            records = self._kernel.handle(record.event)  # type: ignore[arg-type]  # its origin is GIVEN
        except Exception as error:  # noqa: BLE001  # any error is a divergence: the log's writer had none
            note = f"today's actors cannot take this fact: {description(error)}"
            return Divergence(n=record.n, expected=fields, actual=None, note=note)
        self._t = fields["t"]
        match record.event:
            case e.SessionOpened():
                self._rows = RowsFile(self._path, record.event.context.n_embd)
            case e.PromptTokenized():
                self._rows.meet(record.event.inputs)
            case _:
                pass
        self._counting.add(record.event, self._t, derived=False)
        self._expected.extend(records[1:])
        return None

    def _check_digest(self, closed: e.SessionClosed, fields: Fields) -> Divergence | None:
        session = self._kernel.state.session
        actual = self._kernel.digest()
        if closed.digest == actual or session is None or session.schema != SCHEMA:
            return None
        return Divergence(n=fields["n"], expected=fields, actual={**fields, "digest": actual})

    def _notes_on_rows(self, patience: Patience) -> list[str]:
        """Return notes on faulty rows beside the log: no decision depends on their numbers."""
        session = self._kernel.state.session
        if session is not None and session.redacted:
            return []  # They were left out.
        try:
            for row in patience.within(self._rows):
                _ = self._rows[row]
        except (RowsMissing, RowsCorrupt) as error:
            needs = "no decision needs its numbers; --compute, --only and fork do"
            return [f"{error}: {needs}" + (f": {ROWS_CURE}" if isinstance(error, RowsMissing) else "")]
        return []

    def _end(self, log: LogFile, patience: Patience) -> Verdict:
        """Return the verdict at the end of the log, with notes on what is missing; a crash is not a divergence."""
        n = self._counting.n_records
        notes: list[str] = []
        if not self._kernel.state.closed:
            notes.append(f"same up to record {n - 1:,}: {NOT_CLOSED}" if n else "the log is empty")
        notes += [*torn(log.torn), *self._notes_on_rows(patience)]
        if self._expected:
            names = ", ".join(ROUTES[type(record.event)].name for record in self._expected)
            notes.append(f"missing at the end, and decided now: {names}")
        verdict = self.verdict("same", notes=tuple(notes))
        if verdict.tally.derived or self._kernel.state.closed:
            return verdict
        error = LogNotComparable("; ".join([*notes, "there is no derived record to compare"]))
        return self.verdict("not comparable", notes=(str(error),), error=error)
