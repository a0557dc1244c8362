"""``replay redact``: replaces the texts and tokens of a log by keyed hashes, so that its decisions still replay.

The rules that hold here:

* Facts are redacted one by one, and today's actors decide on them. Each record that follows must be the log's but for
  its texts, tokens and error messages; otherwise nothing is written.
* The key is not in the new log. Without a file for it, it is random, and gone when the command ends.
* The header is marked: nothing of a redacted session can be computed, and no session goes on from it.
* A fact that ended the session because the actors could not take it is the last one of the new log, too.
"""

import os
import secrets
from collections.abc import Iterable, Iterator
from itertools import zip_longest
from pathlib import Path
from typing import Final

from attrs import evolve as changed
from attrs import frozen

from reenact.actors import events as e
from reenact.actors.errors import InternalError, InvalidRequest, LogNotComparable
from reenact.replay.compute.machine import OnProgress
from reenact.replay.decide.tier import replay_log
from reenact.replay.new_log import new_log
from reenact.replay.redact.decisions import difference
from reenact.replay.redact.facts import Redaction
from reenact.replay.redact.hashes import ByBeginning, ByToken, Hashes, Key
from reenact.replay.redact.report import Redacted
from reenact.runtime.engine.driver import Driver
from reenact.runtime.log.reader import EmptyLog, Entry, LogFile, entries
from reenact.runtime.log.writer import Journal

_EVERY: Final = 500
"""The facts between two reports of progress."""

_MIN_SECRET: Final = 16
"""The fewest bytes of a secret."""

_MAX_SECRET: Final = 65_536


class _Otherwise(LogNotComparable):
    """The redacted facts lead to another session."""


@frozen
class RecordedFact:
    """A given record of a log, and those that follow from it."""

    given: Entry
    follows: list[Entry]
    last: bool
    """Whether nothing comes after it."""


def secret_of(path: str | os.PathLike[str]) -> bytes:
    """Return the contents of a file with a secret.

    Raises:
        InvalidRequest: It is too short to be a secret, or too long.
        OSError: It cannot be read.
    """
    with Path(path).open("rb") as file:
        secret = file.read(_MAX_SECRET + 1)
    if not _MIN_SECRET <= len(secret) <= _MAX_SECRET:
        expected = f"expected {_MIN_SECRET} to {_MAX_SECRET:,} random bytes"
        raise InvalidRequest("key_file", f"{os.fspath(path)}: {expected}; head -c 32 /dev/urandom makes some")
    return secret


def redact_log(
    path: str | os.PathLike[str],
    *,
    out: str | os.PathLike[str],
    secret: bytes | None = None,
    on_progress: OnProgress | None = None,
) -> Redacted:
    """Write a log whose texts and tokens are replaced by keyed hashes; this needs no model.

    Args:
        path: The log of any session, including one that crashed or still runs.
        out: The path of the new log, which must not exist.
        secret: The key of the hashes; with the same one, equal texts of several logs have equal hashes. None for a
            random one.
        on_progress: A callback for the progress.

    Raises:
        LogNotComparable: The redacted facts do not lead to the same session; the error names the record.
        LogCorrupt: A line of the log is corrupt.
        OSError: A file cannot be read or created; FileExistsError if the new log exists.
        LogBroken: The new log cannot be written.
    """
    show = on_progress or (lambda _doing, _fraction: None)
    key = Key(secrets.token_bytes(32) if secret is None else secret)
    try:
        return _redacted(path, out, ByBeginning(key), show)
    except _Otherwise:
        # After a shift, inputs are compared that have other ones before them.
        return _redacted(path, out, ByToken(key), show)


def _redacted(path: str | os.PathLike[str], out: str | os.PathLike[str], hashes: Hashes, show: OnProgress) -> Redacted:
    with new_log(out) as journal:
        with LogFile(path) as log:
            size = max(log.path.stat().st_size, 1)
            writer = _Writer(journal, Redaction(hashes))
            for number, fact in enumerate(_facts(entries(log))):
                if number % _EVERY == 0:
                    show("redacting the log", log.n_bytes / size)
                writer.write(fact)
        journal.close()
        if writer.header is None:
            raise EmptyLog
        show("replaying the new log", 0.0)
        replayed = replay_log(out)
        if replayed.verdict != ("diverged" if writer.refused else "same"):
            raise InternalError(f"{os.fspath(out)} does not replay as the log does: {'; '.join(replayed.lines())}")
    return Redacted(
        path=os.fspath(out),
        session=writer.header.session,
        n_records=writer.n_records,
        n_prompts=writer.redaction.n_prompts,
        n_tokens=writer.redaction.n_tokens,
        why_by_token=hashes.why,
        refused=writer.refused,
    )


def _facts(whole: Iterable[Entry]) -> Iterator[RecordedFact]:
    """Return the facts of a log, one after the other."""
    given: Entry | None = None
    follows: list[Entry] = []
    for entry in whole:
        if entry.record.cause is None:
            if given is not None:
                yield RecordedFact(given, follows, last=False)
            given, follows = entry, []
        else:
            follows.append(entry)
    if given is not None:
        yield RecordedFact(given, follows, last=True)


class _Writer:
    """Writes the redacted facts of a log, with what today's actors decide on them."""

    def __init__(self, journal: Journal, redaction: Redaction) -> None:
        self.redaction = redaction
        self.header: e.SessionOpened | None = None
        self.n_records = 0
        self.refused = False
        """Whether the actors could not take the last fact."""
        self._journal = journal
        self._driver = Driver()

    def write(self, fact: RecordedFact) -> None:
        """Write a fact, and what follows from it.

        Raises:
            _Otherwise: Other records follow than in the log.
        """
        recorded = fact.given.record
        given = recorded.event
        follows = [entry.record.event for entry in fact.follows]
        made = self.redaction.redacted(given, follows)  # type: ignore[arg-type]  # it has no cause, so it is given
        if isinstance(made, e.SessionOpened):
            self.header = made
        if isinstance(made, e.SessionClosed):
            made = changed(made, digest=self._driver.kernel.digest())
        worked = self._driver.give(made)
        if worked.error is not None and not (fact.last and not follows):
            raise self._otherwise(recorded.n, f"today's actors cannot take {type(made).__name__}")
        self.refused = worked.error is not None
        for entry, record in zip_longest(fact.follows, worked.records[1:]):
            if entry is None and fact.last:
                break  # A write did not finish: the rest is decided now.
            n = entry.record.n if entry is not None else record.n
            if entry is None or record is None or (entry.record.n, entry.record.cause) != (record.n, record.cause):
                raise self._otherwise(n, "it follows in one of them only")
            if (field := difference(entry.record.event, record.event)) is not None:
                raise self._otherwise(n, f"{type(entry.record.event).__name__}.{field} is another")
        self._journal.append(worked.records, fact.given.t)
        self.n_records += len(worked.records)

    def _otherwise(self, n: int, reason: str) -> _Otherwise:
        version = "" if self.header is None else f", and if not, use the reenact that wrote it ({self.header.reenact})"
        cure = f"replay run says whether it replays as it is{version}"
        return _Otherwise(f"record {n:,} differs once texts are redacted: {reason}; {cure}")
