"""Opens the log of a session that was not closed, so that it goes on in the same file.

The rules that hold here:

* Valid records are a prefix of what was recorded. The bytes behind them come from a write that did not finish; they are
  cut, and kept in ``LOG.torn``.
* A line that is corrupt is damage, and nothing is cut for it.
* The records that are missing of the last fact are decided again, and written.
* A log has one writer: a log that another process holds is refused.
* The log keeps its durability, unless another one is asked for; the fact that the session goes on holds a change.
"""

import os
from pathlib import Path

from attrs import evolve, frozen

from reenact.actors import events as e
from reenact.actors.errors import LogNotComparable
from reenact.actors.header import REDACTED, Durability
from reenact.actors.inputs import Row, rows_of
from reenact.runtime.engine.driver import Driver
from reenact.runtime.log.codec import SCHEMA
from reenact.runtime.log.own_file import OTHER_WRITER, held
from reenact.runtime.log.reader import EmptyLog, End, Entry, LogFile, entries
from reenact.runtime.log.restored import Fact, restored
from reenact.runtime.log.rows import RowsFile
from reenact.runtime.log.writer import Journal


@frozen(kw_only=True)
class Resumption:
    """A session that was not closed, restored from its log."""

    header: e.SessionOpened
    driver: Driver
    """Its actors, as its log left them."""
    facts: list[Fact]
    rows: RowsFile
    journal: Journal
    """The writer, which goes on with the next fact."""
    n_torn: int
    """The count of bytes that were cut."""
    event: e.SessionResumed


def resumption(
    path: str | os.PathLike[str], event: e.SessionResumed, durability: Durability | None = None
) -> Resumption:
    """Restore a session from its log, and open the log for writing.

    Args:
        path: The log.
        event: The fact that it goes on, to be given first.
        durability: The durability of the log from here on; None for the one that it has.

    Raises:
        LogCorrupt: A line of the log is corrupt, or the file of rows.
        LogNotComparable: The session was closed, its engine or an actor has failed, or today's actors decide otherwise.
        FileExistsError: Another process writes the log.
        OSError: A file cannot be read or written.
    """
    journal = Journal(path, existing=True)
    try:
        return _restored(journal, event, durability)
    except BaseException:
        journal.close()
        raise


def resumable(path: str | os.PathLike[str]) -> None:
    """Return if the session of a log can go on, and change nothing.

    Args:
        path: The log.

    Raises:
        LogCorrupt, LogNotComparable, OSError: As from `resumption`.
    """
    earlier = _read(Path(path))
    for sequence in earlier.driver.kernel.live:
        for row in earlier.rows_of.get(sequence.sequence, ()):
            _ = earlier.rows[row]
    with Path(path).open("rb") as file:
        if not held(file.fileno()):
            raise LogNotComparable(f"its session still runs: {OTHER_WRITER}")


@frozen(kw_only=True)
class _Earlier:
    """A session, restored from its log."""

    header: e.SessionOpened
    driver: Driver
    facts: list[Fact]
    whole: list[Entry]
    """The records of the facts that were written whole, and of the last one those that can be read."""
    rows: RowsFile
    rows_of: dict[int, list[Row]]
    """The rows in each prompt."""
    end: End


def _read(path: Path) -> _Earlier:
    """Restore a session, and refuse one that cannot go on."""
    with LogFile(path) as log:
        whole = list(entries(log))
    # What a compressed log has of a fact that was not written whole is decided again.
    whole = whole[: log.end.n_lines]
    if not whole or not isinstance(header := whole[0].record.event, e.SessionOpened):
        raise EmptyLog
    if header.redacted:
        raise LogNotComparable(REDACTED)
    rows, rows_in_prompts = RowsFile(path, header.context.n_embd), dict[int, list[Row]]()
    for entry in whole:
        if isinstance(event := entry.record.event, e.PromptTokenized):
            rows.meet(event.inputs)
            rows_in_prompts[event.sequence] = list(rows_of(event.inputs))
    if isinstance(whole[-1].record.event, e.SessionClosed):
        raise LogNotComparable("its session was closed, so there is nothing to resume: record into another file")
    if header.schema != SCHEMA:
        raise LogNotComparable(f"its schema is {header.schema}, and lines of schema {SCHEMA} cannot follow: fork it")
    driver = Driver()
    facts = restored(driver, header, whole)
    state = driver.kernel.state
    if state.failed or (state.batcher is not None and state.batcher.broken is not None):
        raise LogNotComparable("its engine or an actor failed, so it took no more requests: record into another file")
    return _Earlier(
        header=header, driver=driver, facts=facts, whole=whole, rows=rows, rows_of=rows_in_prompts, end=log.end
    )


def _restored(journal: Journal, event: e.SessionResumed, durability: Durability | None) -> Resumption:
    earlier = _read(journal.path)
    header, facts, rows = earlier.header, earlier.facts, earlier.rows
    recorded = header.durability
    for entry in earlier.whole:
        if isinstance(entry.record.event, e.SessionResumed):
            recorded = entry.record.event.durability or recorded
    if durability not in {None, recorded}:
        event = evolve(event, durability=durability)
    journal.durability = durability or recorded
    n_torn = journal.go_on(earlier.end, earlier.whole, rows)
    n_written = len(earlier.whole) - facts[-1].records[0].n
    if missing := facts[-1].records[n_written:]:
        journal.append(missing, facts[-1].t, rows)
    return Resumption(
        header=header, driver=earlier.driver, facts=facts, rows=rows, journal=journal, n_torn=n_torn, event=event
    )
