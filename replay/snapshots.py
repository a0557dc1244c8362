"""Keeps snapshots of long logs that were folded, so that another look at a record begins near it.

The rules that hold here:

* A snapshot has the state of every actor behind a line, and all that a reader knows there. It is kept in the user's
  cache, under the name of the session and a digest of the code that folds.
* Nothing depends on it. It is used where the log has the same checksum at the same place; each checksum depends on all
  bytes before it. Damage before that place is found by the commands that read the whole log.
* Some `_MOST_LOGS` logs have snapshots; those of the log that was kept first go first.
"""

from collections.abc import Iterator
from contextlib import suppress
from functools import cache
from hashlib import sha256
from importlib.metadata import version
from pathlib import Path
from typing import Any, Final

from attrs import frozen

from reenact.actors.events import SessionOpened
from reenact.actors.kernel import State
from reenact.runtime import user_cache
from reenact.runtime.log.codec import Fields, UnreadableRecord, decode, payload, plain, structured
from reenact.runtime.log.line import Line
from reenact.runtime.log.reader import Entry, EntryReader, LogFile, LogPlace

EVERY: Final = 2**14
"""The records between two snapshots: half a second of folding, and 122 snapshots of two million records."""

_MOST_LOGS: Final = 8
_KIND: Final = "snapshots"
_LOGS: Final = "logs"
"""The key of the list of logs that have snapshots."""


@frozen
class Mark:
    """The last record of its kind that names a sequence; under 0, that names any."""

    sequence: int
    entry: Entry


@frozen(kw_only=True)
class Snapshot:
    """All that is known behind a line of a log."""

    place: LogPlace
    reader: EntryReader
    state: State
    at: Entry
    """The record of the line."""
    marks: tuple[Mark, ...]


class Snapshots:
    """The snapshots of one log.

    Args:
        header: The log's first record.
    """

    def __init__(self, header: SessionOpened) -> None:
        self._name = f"{header.session} {_code()}"
        self._kept = next((last for name, last in _logs() if name == self._name), 0)

    def nearest(self, log: LogFile, n: int | None) -> Snapshot | None:
        """Go to the last snapshot that is not behind record ``n``, or to the last one of all.

        Returns:
            The snapshot; ``log.more()`` reads the lines behind it. None where there is none, and then nothing was read.
        """
        last = self._kept if n is None else min(self._kept, n // EVERY)
        for number in range(last, 0, -1):
            snapshot = self._read(number)
            if snapshot is not None and (n is None or snapshot.at.record.n <= n) and log.go_to(snapshot.place):
                return snapshot
        if last > 1:
            self._kept = 0  # They are gone, or those of other bytes.
        return None

    def is_due(self, entry: Entry) -> bool:
        """Return whether the next snapshot may be taken behind a record."""
        return entry.record.n // EVERY > self._kept

    def keep(self, snapshot: Snapshot) -> None:
        """Keep a snapshot, and note that the log has it."""
        number = snapshot.at.record.n // EVERY
        user_cache.write(_KIND, self._key(number), {"snapshot": _written(snapshot)})
        self._kept = number
        logs = [(name, last) for name, last in _logs() if name != self._name]
        logs.append((self._name, number))
        for name, last in logs[:-_MOST_LOGS]:
            for one in range(1, last + 1):
                user_cache.remove(_KIND, f"{name} {one}")
        user_cache.write(_KIND, _LOGS, {"logs": logs[-_MOST_LOGS:]})

    def _key(self, number: int) -> str:
        return f"{self._name} {number}"

    def _read(self, number: int) -> Snapshot | None:
        kept = user_cache.read(_KIND, self._key(number))
        with suppress(UnreadableRecord, KeyError, TypeError):
            return None if kept is None else _snapshot(kept["snapshot"])
        return None


def _logs() -> Iterator[tuple[str, int]]:
    """Return the names of the logs that have snapshots, the oldest first, and the number of the last of each."""
    kept = user_cache.read(_KIND, _LOGS) or {}
    logs = kept.get("logs")
    for one in logs if isinstance(logs, list) else []:
        match one:
            case [str(name), int(last)]:
                yield name, last
            case _:
                pass


@cache
def _code() -> str:
    """Return a digest of the code that folds: another version, or a changed file, has snapshots of its own."""
    package = Path(__file__).parents[1]
    digest = sha256(version("reenact").encode())
    for folder in ("actors", "runtime/log"):
        for path in sorted((package / folder).glob("*.py")):
            status = path.stat()
            digest.update(f"{path.name} {status.st_size} {status.st_mtime_ns}\n".encode())
    return digest.hexdigest()[:16]


# ---------------------------------------------------------------- as plain values


def _written(snapshot: Snapshot) -> Fields:
    fields: Fields = {name: payload(getattr(snapshot, name)) for name in ("place", "reader", "state")}
    fields["at"] = _written_entry(snapshot.at)
    fields["marks"] = [[mark.sequence, *_written_entry(mark.entry)] for mark in snapshot.marks]
    return fields


def _written_entry(entry: Entry) -> list[Any]:
    return [plain(entry.record, entry.t), entry.line.number, entry.line.offset]


def _snapshot(fields: Fields) -> Snapshot:
    return Snapshot(
        place=structured(LogPlace, fields["place"]),
        reader=structured(EntryReader, fields["reader"]),
        state=structured(State, fields["state"]),
        at=_entry(*fields["at"]),
        marks=tuple(Mark(sequence, _entry(*entry)) for sequence, *entry in fields["marks"]),
    )


def _entry(fields: Fields, number: int, offset: int) -> Entry:
    return Entry(decode(fields), fields["t"], Line(number, offset, b""))
