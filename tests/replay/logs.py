"""Logs for the tests of replay: a kernel driven by hand, and a journal."""

from pathlib import Path

from attrs import evolve

from reenact.actors import events as e
from reenact.actors.kernel import Kernel
from reenact.actors.options import Options
from reenact.runtime.journal import Journal, LogFile, sealed
from tests.support import opened

MS = 1_000_000
"""Nanoseconds."""

EOG = None
"""As a piece: the model ends its text."""


class Session:
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
    ) -> None:
        self.path = path
        self.kernel = Kernel()
        self.journal = Journal(path)
        self.t = 0
        limits = e.Limits(max_waiting=max_waiting, max_reader_lag=4)
        header = opened(n_slots=n_slots, n_ctx=n_ctx, n_batch=n_batch)
        model = e.ModelFacts(name="none.gguf", size=0, sha256="", description="")
        self.give(evolve(header, session="5e55", opened_at=opened_at, limits=limits, model=model), after_ms=0)

    def give(self, event: e.GivenEvent, *, after_ms: int = 10) -> list[e.Record]:
        """Hand a fact to the kernel and write what follows."""
        self.t += after_ms * MS
        records = self.kernel.handle(event)
        self.journal.append(records, self.t)
        return records

    def arrive(self, prompt: str = "Hi", *, request_id: str | None = None, **options: object) -> int:
        """Let a request arrive; it is not tokenised yet."""
        sequence = self.kernel.n_requests + 1
        chosen = Options(seed=7, **options)  # type: ignore[arg-type]  # the validators are the type check
        self.give(e.RequestReceived(sequence=sequence, request_id=request_id, prompt=prompt, options=chosen))
        return sequence

    def request(
        self, prompt: str = "Hi", *, n_tokens: int = 2, request_id: str | None = None, **options: object
    ) -> int:
        """Let a request arrive, with so many tokens."""
        sequence = self.arrive(prompt, request_id=request_id, **options)
        self.tokenize(sequence, n_tokens)
        return sequence

    def tokenize(self, sequence: int, n_tokens: int = 2) -> None:
        """Give a request's tokens."""
        self.give(e.PromptTokenized(sequence=sequence, tokens=tuple(range(1, n_tokens + 1)), bos_added=False))

    def decode(self, pieces: dict[int, bytes | None] | None = None, *, code: int = 0, after_ms: int = 10) -> None:
        """Give the outcome of the batch in flight: a piece for each sequence that draws, " x" unless said otherwise."""
        batcher = self.kernel.state.batcher
        assert batcher is not None
        assert batcher.plan is not None
        plan = batcher.plan
        drawn = [
            _sample(part, (pieces or {}).get(part.sequence, b" x")) for part in plan.parts if part.draw is not None
        ]
        positions = tuple((part.slot, part.position + len(part.tokens) - 1) for part in plan.parts)
        samples = tuple(drawn) if code == 0 else ()
        self.give(e.BatchDecoded(batch=plan.batch, code=code, samples=samples, positions=positions), after_ms=after_ms)

    def close(self) -> None:
        """Close the session."""
        self.give(e.SessionClosed(digest=self.kernel.digest()))
        self.journal.close()


def _sample(part: e.Part, piece: bytes | None) -> e.Sample:
    token = 100 * part.sequence + (part.draw or 0)
    if piece is EOG:
        return e.Sample(sequence=part.sequence, token=0, eog=True)
    return e.Sample(sequence=part.sequence, token=token, piece=piece, logits_crc32=token)


def short(path: Path) -> Path:
    """Write a session of two sequences that finish: one by a stop string, one by an end-of-generation token."""
    session = Session(path)
    session.request("Why\nnot?", request_id="chat-1", stop=("END",))
    session.decode({1: b"Because"})
    session.request("Name\ta colour", n_tokens=10)
    session.decode({1: b" it E"})
    session.decode({1: b"ND now"})
    session.decode({2: b" r\xc3"})
    session.decode({2: b"\xb6t"})
    session.decode({2: EOG})
    session.close()
    return path


def hanging(path: Path) -> Path:
    """Write a session that hangs: the reader of sequence 1 went away, and the one slot is his."""
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
    session.request("two", n_tokens=3)
    session.decode({1: b"1"}, after_ms=30)
    session.journal.close()
    return path


def waiting(path: Path) -> Path:
    """Write a session with one slot taken, a request that is being tokenised and two behind it."""
    session = Session(path, n_slots=1)
    session.request("long", n_tokens=10)
    session.arrive("slow")
    session.request("third")
    session.request("fourth")
    session.journal.close()
    return path


def flipped(path: Path, line: int) -> Path:
    """Change one byte in a line of a log, counted from 1."""
    lines = path.read_bytes().splitlines(keepends=True)
    lines[line - 1] = lines[line - 1].replace(b'"t":', b'"T":', 1)
    path.write_bytes(b"".join(lines))
    return path


def rewritten(path: Path, line: int, old: bytes, new: bytes) -> Path:
    """Change a line of a log, counted from 1, and make all checksums right again."""
    with LogFile(path) as log:
        bodies = [each.body for each in log]
    assert old in bodies[line - 1]
    bodies[line - 1] = bodies[line - 1].replace(old, new, 1)
    crc, lines = 0, []
    for body in bodies:
        sealed_line, crc = sealed(body, crc)
        lines.append(sealed_line)
    path.write_bytes(b"".join(lines))
    return path
