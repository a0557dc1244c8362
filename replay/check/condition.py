"""The condition of a log: whether its bytes are those that were written, and which uses of it are possible.

The rules that hold here:

* A log is *sound* if every byte of it is a line's, *torn* if a write at its end did not finish, *damaged* if a line is
  not what was written, and *unreadable* if it cannot be opened, has no record or is of another version.
* Nothing is opened that takes long: the model is looked for, and neither loaded nor hashed. Whether this build and
  machine compute the same is known only to ``replay run --compute``.
* A session that was not closed is restored as `reenact resume` restores it, and nothing is written.
"""

import os
from typing import Any, Final, Literal

from attrs import frozen

from reenact.actors import events as e
from reenact.actors.errors import LogCorrupt, LogNotComparable, ReenactError
from reenact.actors.header import REDACTED
from reenact.replay.compute.machine import no_model_here
from reenact.replay.render.values import count
from reenact.runtime.log.reader import EmptyLog, LogFile, entries
from reenact.runtime.log.resumption import resumable
from reenact.runtime.log.rows import ROWS_CURE, RowsFile, RowsMissing

Bytes = Literal["sound", "torn", "damaged", "unreadable"]

USES: Final = ("decided", "computed", "resumed")
"""The uses of a log: ``replay run``, ``replay run --compute`` and ``reenact resume``."""


@frozen(kw_only=True)
class Condition:
    """The condition of one log."""

    bytes: Bytes
    n_records: int = 0
    """The count of valid records, up to the end or to the damage."""
    cannot: dict[str, str]
    """The uses that are impossible, each with its reason."""

    @property
    def can(self) -> list[str]:
        """The uses that are possible."""
        return [use for use in USES if use not in self.cannot]

    def as_json(self) -> dict[str, Any]:
        """Return the fields that ``replay check --json`` prints."""
        uses = {use: {"possible": use in self.can, "reason": self.cannot.get(use)} for use in USES}
        return {"bytes": self.bytes, "uses": uses}

    def lines(self) -> list[str]:
        """Return the lines that ``replay check`` prints: the bytes, the possible uses, and a line for each other."""
        if self.bytes == "damaged":
            kept = f"replay repair copies the {count(self.n_records, 'record')} before that" if self.n_records else ""
            return [f"damaged: it cannot be decided, computed or resumed{kept and '; ' + kept}"]
        if self.bytes == "unreadable":
            return []  # The reason is the outcome's.
        uses = (
            f"it can be {' and '.join(self.can)}" if self.can else f"it cannot be {', '.join(USES[:-1])} or {USES[-1]}"
        )
        return [f"{self.bytes}: {uses}", *(f"  not {use}: {reason}" for use, reason in self.cannot.items())]


def condition_of(path: str | os.PathLike[str]) -> Condition:
    """Return the condition of a log; this needs no model, and never raises for the content of the file.

    Args:
        path: The log of any session, including one that crashed or still runs.
    """
    reading = _Reading(path)
    try:
        with LogFile(path) as log:
            reading.read(log)
    except OSError as error:
        return reading.condition("unreadable", dict.fromkeys(USES, error.strerror or str(error)))
    except LogCorrupt as error:
        return reading.condition("damaged", dict.fromkeys(USES, str(error)))
    except LogNotComparable as error:
        return reading.condition("unreadable", dict.fromkeys(USES, str(error)))
    reasons = {use: reason for use, reason in zip(USES, reading.reasons(), strict=True) if reason is not None}
    return reading.condition("torn" if log.torn else "sound", reasons)


class _Reading:
    """One pass over a log."""

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self._path = path
        self._n_records = self._n_derived = self._n_decoded = 0
        self._header: e.SessionOpened | None = None
        self._closed = False
        self._rows = RowsFile(path, 0)

    def read(self, log: LogFile) -> None:
        """Read all records.

        Raises:
            LogCorrupt, LogNotComparable, OSError: As from `reenact.runtime.log.reader.entries`.
        """
        for entry in entries(log):
            event = entry.record.event
            self._n_records += 1
            self._n_derived += entry.record.cause is not None
            match event:
                case e.SessionOpened():
                    self._header = event
                    self._rows = RowsFile(self._path, event.context.n_embd)
                case e.PromptTokenized():
                    self._rows.meet(event.inputs)
                case e.BatchDecoded():
                    self._n_decoded += 1
                case e.SessionClosed():
                    self._closed = True
                case _:
                    pass
        if self._header is None:
            raise EmptyLog

    def condition(self, found: Bytes, cannot: dict[str, str]) -> Condition:
        """Return the condition so far."""
        return Condition(bytes=found, n_records=self._n_records, cannot=cannot)

    def reasons(self) -> tuple[str | None, str | None, str | None]:
        """Return the reasons against each use of a log whose records can be read; None where it is possible."""
        assert self._header is not None  # noqa: S101  # it was read
        decided = None if self._n_derived or self._closed else "there is no derived record to compare"
        if self._header.redacted:
            return decided, REDACTED, REDACTED
        model = no_model_here(self._header)
        if self._header.engine.name != "llama.cpp":
            return decided, "nothing was computed: its engine is not llama.cpp", self._not_resumed(None)
        nothing = None if self._n_decoded else "there is no row of logits and no token to compare"
        return decided, decided or nothing or self._without_rows() or model, self._not_resumed(model)

    def _without_rows(self) -> str | None:
        try:
            self._rows.check()
        except RowsMissing as error:
            return f"{error}: {ROWS_CURE}"
        except ReenactError as error:
            return str(error)
        return None

    def _not_resumed(self, model: str | None) -> str | None:
        """Return the reason why the session cannot go on, or else the one against its model."""
        try:
            resumable(self._path)
        except (ReenactError, OSError) as error:
            return str(error)
        return model
