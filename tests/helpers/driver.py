"""A driver without trio, whose engine keeps cells and plays scripts."""

from collections.abc import Iterable, Iterator, Sequence
from typing import Any, TypeVar, Unpack

from attrs import evolve as changed

from reenact.actors import events as e
from reenact.actors.batch import apply_operations, without
from reenact.actors.errors import Failure
from reenact.actors.inputs import Input
from reenact.actors.options import RequestOptions, options_of
from tests.helpers.header import opened
from tests.helpers.watched_kernel import WatchedKernel

EventT = TypeVar("EventT")


class Driver:
    """Drives a kernel as the runtime would, step by step, with an engine that plays scripts.

    The engine keeps cells. A plan whose rows do not follow the cells, or do not fit, is an assertion error.
    Sequence 3 has the prompt 300, 301, ... and samples the tokens 3000, 3001, ..., whatever their pieces; a script that
    is over samples an end-of-generation token.
    """

    def __init__(self, **header: Any) -> None:
        self.kernel = WatchedKernel()
        self.records: list[e.Record] = []
        self.planned: e.BatchPlanned | None = None
        """The batch in flight."""
        session = opened(**header)
        self.context = session.context
        self.cells: list[list[Input]] = [[] for _ in range(self.context.n_slots)]
        self.n_evaluated = 0
        self._scripts: dict[int, list[bytes]] = {}
        self._endless: dict[int, Iterator[bytes]] = {}
        self._prompts: dict[int, tuple[Input, ...]] = {}
        self._bos: dict[int, bool] = {}
        self.give(session)

    def give(self, event: e.GivenEvent) -> list[e.Record]:
        """Give the kernel a fact and keep what follows."""
        records = self.kernel.handle(event)
        self.records += records
        for record in records:
            if isinstance(record.event, e.BatchPlanned):
                assert self.planned is None, "a batch is planned while one is in flight"
                self.planned = record.event
        return records

    def submit(self, *pieces: bytes, **asked: Any) -> int:
        """Submit a request, tokenized at once; see `receive` for what it takes."""
        number = self.receive(*pieces, **asked)
        self.tokenize(number)
        return number

    def receive(
        self,
        *pieces: bytes,
        script: Iterable[bytes] = (),
        prompt: int | Sequence[Input] = 3,
        bos: bool = False,
        embedding: bool = False,
        dimensions: int | None = None,
        **asked: Unpack[RequestOptions],
    ) -> int:
        """Submit a request whose prompt is not tokenized yet; it generates ``pieces`` and then ``script``.

        Args:
            pieces: What is sampled, in order.
            script: More of it, endless perhaps.
            prompt: Its inputs, or how many.
            bos: Whether the first of them was added.
            embedding: A vector is wanted.
            dimensions: So many values of it.
            asked: Options.
        """
        number = self.kernel.n_requests + 1
        self._scripts[number] = list(pieces)
        self._endless[number] = iter(script)
        self._prompts[number] = (
            tuple(range(number * 100, number * 100 + prompt)) if isinstance(prompt, int) else tuple(prompt)
        )
        self._bos[number] = bos
        options = changed(options_of(asked, seed=lambda: 1), dimensions=dimensions)
        self.give(
            e.RequestReceived(
                sequence=number, request_id=None, prompt="...", options=options, embedding=embedding, continues=None
            )
        )
        return number

    def tokenize(self, sequence: int) -> None:
        """Say what the prompt's inputs are."""
        self.give(
            e.PromptTokenized(
                sequence=sequence, inputs=self._prompts[sequence], bos_added=self._bos[sequence], grammar=None
            )
        )

    def cancel(self, sequence: int) -> None:
        """Let the caller leave."""
        self.give(e.CancelRequested(sequence=sequence))

    def expire(self, sequence: int) -> None:
        """Let the deadline come."""
        self.give(e.DeadlineExpired(sequence=sequence))

    def pause(self, sequence: int) -> None:
        """Let the reader fall behind."""
        self.give(e.ReaderPaused(sequence=sequence))

    def resume(self, sequence: int) -> None:
        """Let the reader catch up."""
        self.give(e.ReaderResumed(sequence=sequence))

    def stall(self, sequence: int) -> None:
        """Let the reader not have read on for too long."""
        self.give(e.PauseExpired(sequence=sequence))

    def step(self, **outcome: Any) -> list[e.Record]:
        """Carry out the batch in flight; see `decoded` for how it may come out."""
        return self.give(self.decoded(**outcome))

    def decoded(
        self,
        *,
        code: int = 0,
        rows: int = 0,
        nan: frozenset[int] = frozenset(),
        no_token: frozenset[int] = frozenset(),
        unknown: frozenset[int] = frozenset(),
        vector: tuple[float, ...] = (3.0, 4.0),
    ) -> e.BatchDecoded:
        """Take the batch in flight and return what an engine says after it, without giving it to the kernel.

        Args:
            code: The return code.
            rows: For code 2 and those below -1: so many rows were evaluated before.
            nan: Sequences in whose logits is a NaN.
            no_token: Sequences whose grammar allows no token.
            unknown: Sequences that the engine has no token for.
            vector: What a text is pooled to.
        """
        planned, self.planned = self.planned, None
        assert planned is not None, "no batch is in flight"
        self._operate(planned)
        left = sum(len(part.inputs) for part in planned.parts) if code == 0 else rows if code in {2, -2} else 0
        for part in planned.parts:
            cells = self.cells[part.slot]
            assert part.position == len(cells), "the rows do not follow the cells"
            done = part.inputs[:left]
            left -= len(done)
            self.n_evaluated += len(done)
            cells += done
            assert len(cells) <= self.context.n_ctx, "the cells do not hold the rows"
        done_parts = planned.parts if code == 0 else ()
        for part in done_parts:
            if part.pools:
                self.cells[part.slot].clear()
        samples = [self._sample(part, nan, no_token, unknown) for part in done_parts if part.draw is not None]
        vectors = [e.Vector(sequence=part.sequence, values=vector, crc32=0) for part in done_parts if part.pools]
        positions = tuple((part.slot, len(self.cells[part.slot]) - 1) for part in planned.parts)
        return e.BatchDecoded(
            batch=planned.batch, code=code, samples=tuple(samples), vectors=tuple(vectors), positions=positions
        )

    def _operate(self, planned: e.BatchPlanned) -> None:
        """Copy, trim and shift cells."""
        after = apply_operations(dict(enumerate(self.cells)), planned, self._removed)
        self.cells = [list(after[number]) for number in range(self.context.n_slots)]

    def _removed(self, cells: list[Input], removed: slice) -> list[Input]:
        is_shift = removed.stop is not None
        assert not is_shift or len(cells) == self.context.n_ctx, "the context is not full"
        assert removed.start <= len(cells), "there are no such cells to keep"
        return without(cells, removed)

    def run(self) -> None:
        """Carry out batches until none is planned."""
        while self.planned is not None:
            self.step()

    def events(self, *kinds: type[EventT]) -> list[EventT]:
        """Return the events of these kinds so far, in order."""
        return [record.event for record in self.records if isinstance(record.event, kinds)]

    def chunks(self, sequence: int) -> list[str]:
        """Return what went out to the caller of a sequence, piece by piece."""
        said = e.TokenEmitted | e.StopMatched | e.SequenceFinished
        events = [record.event for record in self.records if isinstance(record.event, said)]
        return [event.text for event in events if event.sequence == sequence and event.text]

    def text(self, sequence: int) -> str:
        """Return all that went out to the caller of a sequence."""
        return "".join(self.chunks(sequence))

    def end(self, sequence: int) -> e.SequenceFinished:
        """Return the one end of a sequence."""
        (finished,) = [event for event in self.events(e.SequenceFinished) if event.sequence == sequence]
        return finished

    def failure(self, sequence: int) -> Failure:
        """Return why a sequence ended with an error."""
        error = self.end(sequence).error
        assert error is not None, "it did not end with an error"
        return error

    def holders(self) -> list[int | None]:
        """Return the sequence of each slot."""
        batcher = self.kernel.state.batcher
        assert batcher is not None
        return [slot.sequence for slot in batcher.slots]

    def lengths(self) -> list[int]:
        """Return how many cells of each slot are of use."""
        batcher = self.kernel.state.batcher
        assert batcher is not None
        return [len(slot.cells) for slot in batcher.slots]

    def reused(self, sequence: int) -> int:
        """Return how many inputs of a sequence were in cells when it first got a slot."""
        return next(event.reused for event in self.events(e.SlotAssigned) if event.sequence == sequence)

    def _sample(self, part: e.Part, nan: frozenset[int], no_token: frozenset[int], unknown: frozenset[int]) -> e.Sample:
        assert part.draw is not None
        if part.sequence in unknown:
            return e.Sample(
                sequence=part.sequence, index=part.draw, token=-1, fault="engine", reason="there is no script"
            )
        if part.sequence in nan | no_token:
            return e.Sample(
                sequence=part.sequence, index=part.draw, token=-1, fault="nan" if part.sequence in nan else "grammar"
            )
        token = part.sequence * 1000 + part.draw
        script = self._scripts[part.sequence]
        while len(script) <= part.draw and (more := next(self._endless[part.sequence], None)) is not None:
            script.append(more)
        # By its index, not the next one: what is drawn again is the same token.
        piece = script[part.draw] if part.draw < len(script) else None
        return e.Sample(sequence=part.sequence, index=part.draw, token=token, piece=piece or b"", eog=piece is None)


def beside_another() -> Driver:
    """Return a driver whose sequence 1 generates "bcdef" and then ends; sequence 2 is the test's."""
    driver = Driver(n_batch=8)
    driver.submit(b"b", b"c", b"d", b"e", b"f")
    return driver


def assert_all_well(driver: Driver) -> None:
    """Check that sequence 1 has its whole text, and that a slot is free again for another."""
    driver.run()
    assert ("bcdef", "stop") == (driver.text(1), driver.end(1).finish_reason)
    assert [None, None] == driver.holders()
    after = driver.submit(b"x")
    driver.run()
    assert "x" == driver.text(after)
