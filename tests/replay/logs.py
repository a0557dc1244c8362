"""Logs for the tests of replay: the driver that tests share, a clock and a journal."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Unpack

from attrs import evolve

from reenact.actors import events as e
from reenact.actors.inputs import Input
from reenact.actors.options import RequestOptions, options_of
from reenact.runtime.log.codec import dumps, plain
from reenact.runtime.log.line import sealed
from reenact.runtime.log.reader import Entry, LogFile, entries
from reenact.runtime.log.writer import Journal
from tests.helpers.driver import Driver

MS = 1_000_000
"""Nanoseconds."""

EOG = None
"""As a piece: the model ends its text."""


class Session(Driver):
    """A session whose facts a test gives one by one; each one happens 10 ms after the last unless said otherwise."""

    def __init__(
        self,
        path: Path,
        *,
        n_slots: int = 2,
        n_ctx: int = 16,
        n_batch: int = 8,
        max_waiting: int = 4,
        opened_at: str = "2026-03-04T10:00:00.000000Z",
        **header: Any,
    ) -> None:
        self.path = path
        self.journal = Journal(path)
        self.t = 0
        self._opened_at = opened_at
        super().__init__(n_slots=n_slots, n_ctx=n_ctx, n_batch=n_batch, max_waiting=max_waiting, **header)

    def give(self, event: e.GivenEvent, *, after_ms: int = 10) -> list[e.Record]:
        """Hand a fact to the kernel and write what follows."""
        if isinstance(event, e.SessionOpened):
            model = evolve(event.model, name="none.gguf")
            event = evolve(event, session="5e55", opened_at=self._opened_at, model=model)
        else:
            self.t += after_ms * MS
        records = super().give(event)
        self.journal.append(records, self.t)
        return records

    def arrive(
        self,
        prompt: str = "Hi",
        *,
        inputs: int | Sequence[Input] = 2,
        request_id: str | None = None,
        embedding: bool = False,
        continues: int | None = None,
        **asked: Unpack[RequestOptions],
    ) -> int:
        """Let a request arrive; it is not tokenized yet. ``inputs`` says what its prompt will be, or how much."""
        number = self.kernel.n_requests + 1
        self._scripts[number], self._endless[number], self._bos[number] = [], iter(()), False
        many = range(number * 100, number * 100 + inputs) if isinstance(inputs, int) else inputs
        self._prompts[number] = tuple(many)
        self.give(
            e.RequestReceived(
                sequence=number,
                request_id=request_id,
                prompt=prompt,
                options=options_of(asked, seed=lambda: 7),
                embedding=embedding,
                continues=continues,
            )
        )
        return number

    def request(self, prompt: str = "Hi", **arriving: Any) -> int:
        """Let a request arrive, as by `arrive`, and be tokenized."""
        number = self.arrive(prompt, **arriving)
        self.tokenize(number)
        return number

    def decode(
        self, pieces: Mapping[int, bytes | None] | None = None, *, after_ms: int = 10, **outcome: Any
    ) -> list[e.Record]:
        """Give the outcome of the batch in flight: a piece for each sequence that draws, " x" unless said otherwise."""
        assert self.planned is not None, "no batch is in flight"
        for part in self.planned.parts:
            if part.draw is not None and (piece := (pieces or {}).get(part.sequence, b" x")) is not EOG:
                self._scripts[part.sequence][part.draw :] = [piece]
        return self.give(self.decoded(**outcome), after_ms=after_ms)

    def close(self) -> None:
        """Close the session."""
        self.give(e.SessionClosed(digest=self.kernel.digest()))
        self.journal.close()


def short(path: Path) -> Path:
    """Write a session of two sequences that finish: one by a stop string, one by an end-of-generation token."""
    session = Session(path)
    session.request("Why\nnot?", request_id="chat-1", stop=("END",))
    session.decode({1: b"Because"})
    session.request("Name\ta colour", inputs=10)
    session.decode({1: b" it E"})
    session.decode({1: b"ND now"})
    session.decode({2: b" r\xc3"})
    session.decode({2: b"\xb6t"})
    session.decode({2: EOG})
    session.close()
    return path


def hanging(path: Path) -> Path:
    """Write a session that hangs: the reader of sequence 1 went away, and its sequence has the one slot."""
    session = Session(path, n_slots=1)
    session.request("Tell me a story", request_id="first client")
    session.decode({1: b"Once"})
    session.give(e.ReaderPaused(sequence=1))
    session.request("Hello?", request_id="second client")
    session.decode({1: b" upon"})
    session.journal.close()
    return path


def crashed(path: Path) -> Path:
    """Write a session that ended while a batch was in flight."""
    session = Session(path)
    session.request("one")
    session.decode({1: b"1"})
    session.request("two", inputs=3)
    session.decode({1: b"1"}, after_ms=30)
    session.journal.close()
    return path


def waiting(path: Path) -> Path:
    """Write a session with one slot taken, a request that is being tokenized and two behind it."""
    session = Session(path, n_slots=1)
    session.request("long", inputs=10)
    session.arrive("slow")
    session.request("third")
    session.request("fourth")
    session.journal.close()
    return path


def read(path: Path) -> list[Entry]:
    """Return the records of a log."""
    with LogFile(path) as log:
        return list(entries(log))


def flipped(path: Path, line: int) -> Path:
    """Change one byte in a line of a log, counted from 1."""
    lines = path.read_bytes().splitlines(keepends=True)
    lines[line - 1] = lines[line - 1].replace(b'"type":', b'"Type":', 1)
    path.write_bytes(b"".join(lines))
    return path


def rewritten(path: Path, line: int, old: bytes, new: bytes) -> Path:
    """Change a line of a log that leaves out nothing, counted from 1, and make all checksums right again."""
    with LogFile(path) as log:
        bodies = [dumps(plain(entry.record, entry.t)) for entry in entries(log)]
    assert old in bodies[line - 1]
    bodies[line - 1] = bodies[line - 1].replace(old, new, 1)
    crc, lines = 0, []
    for body in bodies:
        sealed_line, crc = sealed(body, crc)
        lines.append(sealed_line)
    path.write_bytes(b"".join(lines))
    return path


def scalars(value: Any, path: tuple[str | int, ...] = ()) -> Iterator[tuple[str | int, ...]]:
    """Yield the path of every scalar in a plain value; an empty array or object counts as one."""
    if isinstance(value, dict | list) and value:
        for key, item in value.items() if isinstance(value, dict) else enumerate(value):
            yield from scalars(item, (*path, key))
    else:
        yield path


def changed(value: Any, path: tuple[str | int, ...]) -> Any:
    """Return a plain value with the scalar at ``path`` made another of its kind."""
    if path and isinstance(value, dict):
        return {key: changed(item, path[1:]) if key == path[0] else item for key, item in value.items()}
    if path:
        return [changed(item, path[1:]) if i == path[0] else item for i, item in enumerate(value)]
    match value:
        case bool():
            return not value
        case int():
            return value + 1
        case str():
            return value + "x"
        case _:
            return 0 if value is None else [1]
