"""Reads the history of each sequence in a log: its request, every token drawn, and its end.

The rules that hold here:

* A history grows while the log is read, record by record, and decides nothing.
* A log that cannot be read to its end is read as far as possible, and a note reports it.
"""

import os
from typing import Any

from attrs import Factory, define, field, frozen

from reenact.actors import events as e
from reenact.actors.errors import LogCorrupt
from reenact.actors.inputs import Row
from reenact.replay.render.endings import end_notes
from reenact.replay.render.values import piece
from reenact.runtime.log.codec import Fields, plain
from reenact.runtime.log.reader import EmptyLog, Entry, LogFile, entries


@frozen
class DrawnToken:
    """A sampled token. Two are equal if the tokens are, whatever their records and logits."""

    n: int = field(eq=False)
    """The number of the record that contains it."""
    token: int
    piece: bytes
    eog: bool
    fault: str | None
    logits: int | None = field(eq=False)
    """The checksum of the row of logits; None where the log has none."""

    def __str__(self) -> str:
        return f"{self.token} {self.fault or ('EOG' if self.eog else piece(self.piece))}"


@define
class History:
    """A log's records of one sequence; it grows while the log is read."""

    facts: dict[str, Fields]
    """The plain values of the records of its request and its end, by their type."""
    draws: dict[int, DrawnToken] = Factory(dict)
    """The sampled tokens, by their index."""

    def fact(self, kind: str, name: str) -> Any:  # noqa: ANN401  # a plain value
        """Return a field of the record of type ``kind``; None where there is no such record."""
        return self.facts.get(kind, {}).get(name)

    @property
    def inputs(self) -> list[Any]:
        """The prompt's inputs; none while it is not tokenized."""
        written = self.fact("PromptTokenized", "inputs") or []
        return [Row(one) if isinstance(one, str) else one for one in written]

    def asked(self) -> Fields:
        """Return the request, with the options of the last fork and the grammar in force."""
        asked = self.facts["RequestReceived"] | self.facts.get("SequenceForked", {})
        return asked | {"grammar": self.fact("PromptTokenized", "grammar")}

    def ended(self) -> Fields:
        """Return the end, and the vector."""
        end = {name: self.fact("SequenceFinished", name) for name in ("n", "finish_reason", "stop", "error")}
        return end | {"embedding": self.fact("EmbeddingComputed", "embedding")}


@define
class Log:
    """The histories of a log's sequences; it grows while the log is read."""

    path: str
    """The log's path, as it was given."""
    header: Fields = Factory(dict)
    histories: dict[int, History] = Factory(dict)
    """The histories, by the sequence's number."""
    notes: list[str] = Factory(list)
    """Notes on the log's end."""
    corrupt: LogCorrupt | None = None
    """The error because of which it could not be read to its end."""

    def add(self, entry: Entry) -> None:
        """Add a record to the history of its sequence."""
        event, n = entry.record.event, entry.record.n
        try:
            match event:
                case e.SessionOpened():
                    self.header = plain(entry.record, entry.t)
                case e.RequestReceived():
                    self.histories[event.sequence] = History({"RequestReceived": plain(entry.record, entry.t)})
                case e.PromptTokenized() | e.SequenceForked() | e.EmbeddingComputed() | e.SequenceFinished():
                    fields = plain(entry.record, entry.t)
                    self.histories[event.sequence].facts[fields["type"]] = fields
                case e.BatchDecoded():
                    for one in event.samples:
                        draw = DrawnToken(n, one.token, one.piece, one.eog, one.fault, one.logits_crc32)
                        self.histories[one.sequence].draws[one.index] = draw
                case _:
                    pass
        except KeyError as error:
            raise entry.line.corrupt(f"there is no sequence {error} that it can be about") from None


def read_log(path: str | os.PathLike[str]) -> Log:
    """Read the histories of a log's sequences, up to its end or to a corrupt line.

    Raises:
        OSError: The file cannot be opened.
        LogCorrupt: The first line is corrupt.
        LogNotComparable: The log has no record, or its schema is too new.
    """
    log, last = Log(os.fspath(path)), None
    with LogFile(path) as file:
        try:
            for entry in entries(file):
                log.add(entry)
                last = entry.record
        except LogCorrupt as error:
            if last is None:
                raise
            log.corrupt = error
            log.notes = [f"corrupt: {error}"]
            return log
    if last is None:
        raise EmptyLog
    log.notes = end_notes(last.n + 1, closed=isinstance(last.event, e.SessionClosed), n_torn=file.torn)
    return log
