"""Helpers that tests share: an opened session, a driver without trio, and properties under two kinds of seed."""

import os
from collections.abc import Callable, Iterable, Iterator
from itertools import chain
from random import SystemRandom
from typing import Any, Final, TypeVar, Unpack

import pytest
from attrs import frozen
from hypothesis import HealthCheck, given, seed, settings
from hypothesis.strategies import SearchStrategy

from reenact.actors import events as e
from reenact.actors.kernel import Kernel, State
from reenact.actors.options import RequestOptions, options_of

FRESH_SEED_NAME: Final = "REENACT_SEED"
"""The environment variable that repeats the fresh examples of an earlier run."""

# It stands in the environment, so that worker processes have the same one.
FRESH_SEED: Final = int(os.environ.setdefault(FRESH_SEED_NAME, str(SystemRandom().randrange(2**32))))

EventT = TypeVar("EventT")


def holds_for(
    *, examples: int = 200, **strategies: SearchStrategy[Any]
) -> Callable[[Callable[..., None]], Callable[[str], None]]:
    """Turn a property into two tests: on examples that are the same in every run, and on fresh ones.

    Args:
        examples: So many for each of the two.
        strategies: Of the property's arguments.
    """
    common = settings(max_examples=examples, database=None, deadline=None, suppress_health_check=[HealthCheck.too_slow])

    def decorate(body: Callable[..., None]) -> Callable[[str], None]:
        fixed = settings(common, derandomize=True)(given(**strategies)(body))
        fresh = seed(FRESH_SEED)(common(given(**strategies)(body)))

        @pytest.mark.parametrize("examples", ["fixed", "fresh"])
        def test(examples: str) -> None:
            if examples == "fixed":
                fixed()
                return
            try:
                fresh()
            except BaseException as error:
                error.add_note(f"Run these examples again with {FRESH_SEED_NAME}={FRESH_SEED}")
                raise

        test.__name__, test.__qualname__, test.__doc__ = body.__name__, body.__qualname__, body.__doc__
        test.__module__ = body.__module__
        return test

    return decorate


def opened(*, n_slots: int = 2, n_ctx: int = 64, n_batch: int = 32, max_waiting: int = 8) -> e.SessionOpened:
    """Return the header of a session whose engine is the `Driver` below."""
    return e.SessionOpened(
        format=1,
        schema=1,
        session="test",
        opened_at="2026-01-01T00:00:00Z",
        reenact="0",
        python="3",
        platform="none",
        engine=e.EngineFacts(name="driver", versions={}, system_info=""),
        model=e.ModelFacts(name="script", size=0, sha256="", description=""),
        context=e.ContextFacts(
            n_slots=n_slots,
            n_ctx=n_ctx,
            n_ctx_seq=n_ctx,
            n_batch=n_batch,
            n_ubatch=n_batch,
            n_threads=1,
            type_k="f16",
            type_v="f16",
            flash_attn="off",
            kv_unified=False,
        ),
        limits=e.Limits(max_waiting=max_waiting, max_reader_lag=64),
        policies={},
        rules={},
        determinism="not probed",
    )


@frozen
class Moment:
    """A record, and what every actor knew right after it."""

    record: e.Record
    state: State


class WatchedKernel(Kernel):
    """A kernel that remembers its state at every record, also in the middle of a fact."""

    def __init__(self) -> None:
        super().__init__()
        self.moments: list[Moment] = []

    def _record(self, event: e.Event, cause: int | None) -> e.Record:
        record = super()._record(event, cause)
        self.moments.append(Moment(record, self.state))
        return record


class Driver:
    """Drives a kernel as the runtime would, step by step, with an engine that plays scripts.

    The engine keeps cells. A plan whose rows do not follow the cells, or do not fit, is an assertion error.
    Sequence 3 samples the tokens 3000, 3001, ..., whatever their pieces; a script that is over samples an
    end-of-generation token.
    """

    def __init__(self, *, n_slots: int = 2, n_ctx: int = 64, n_batch: int = 32, max_waiting: int = 8) -> None:
        self.kernel = WatchedKernel()
        self.records: list[e.Record] = []
        self.planned: e.BatchPlanned | None = None
        """The batch in flight."""
        self.cells: list[list[int]] = [[] for _ in range(n_slots)]
        self.n_ctx = n_ctx
        self._scripts: dict[int, Iterator[bytes]] = {}
        self._prompts: dict[int, tuple[int, ...]] = {}
        self.give(opened(n_slots=n_slots, n_ctx=n_ctx, n_batch=n_batch, max_waiting=max_waiting))

    def give(self, event: e.GivenEvent) -> list[e.Record]:
        """Give the kernel a fact and keep what follows."""
        records = self.kernel.handle(event)
        self.records += records
        for record in records:
            if isinstance(record.event, e.BatchPlanned):
                assert self.planned is None, "a batch is planned while one is in flight"
                self.planned = record.event
        return records

    def submit(
        self, *pieces: bytes, script: Iterable[bytes] = (), prompt: int = 3, **asked: Unpack[RequestOptions]
    ) -> int:
        """Submit a request with ``prompt`` tokens, tokenised at once; it generates ``pieces`` and then ``script``."""
        number = self.receive(*pieces, script=script, prompt=prompt, **asked)
        self.tokenize(number)
        return number

    def receive(
        self, *pieces: bytes, script: Iterable[bytes] = (), prompt: int = 3, **asked: Unpack[RequestOptions]
    ) -> int:
        """Submit a request whose prompt is not tokenised yet."""
        number = self.kernel.n_requests + 1
        self._scripts[number] = chain(pieces, script)
        self._prompts[number] = tuple(range(number * 100, number * 100 + prompt))
        options = options_of(asked, seed=lambda: 1)
        self.give(e.RequestReceived(sequence=number, request_id=None, prompt="...", options=options))
        return number

    def tokenize(self, sequence: int) -> None:
        """Say what the prompt's tokens are."""
        self.give(e.PromptTokenized(sequence=sequence, tokens=self._prompts[sequence], bos_added=False))

    def cancel(self, sequence: int) -> None:
        """Let the caller leave."""
        self.give(e.CancelRequested(sequence=sequence))

    def pause(self, sequence: int) -> None:
        """Let the reader fall behind."""
        self.give(e.ReaderPaused(sequence=sequence))

    def resume(self, sequence: int) -> None:
        """Let the reader catch up."""
        self.give(e.ReaderResumed(sequence=sequence))

    def step(self, *, code: int = 0, nan: frozenset[int] = frozenset()) -> list[e.Record]:
        """Carry out the batch in flight, with this return code, and NaN in the logits of some sequences."""
        return self.give(self.decoded(code=code, nan=nan))

    def decoded(self, *, code: int = 0, nan: frozenset[int] = frozenset()) -> e.BatchDecoded:
        """Take the batch in flight and return what an engine says after it, without giving it to the kernel."""
        planned, self.planned = self.planned, None
        assert planned is not None, "no batch is in flight"
        for slot in planned.clears:
            self.cells[slot].clear()
        if code == 0:
            for part in planned.parts:
                assert part.position == len(self.cells[part.slot]), "the rows do not follow the cells"
                self.cells[part.slot] += part.tokens
                assert len(self.cells[part.slot]) <= self.n_ctx, "the cells do not hold the rows"
        samples = [self._sample(part, nan) for part in planned.parts if part.draw is not None and code == 0]
        positions = tuple((part.slot, len(self.cells[part.slot]) - 1) for part in planned.parts)
        return e.BatchDecoded(batch=planned.batch, code=code, samples=tuple(samples), positions=positions)

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

    def failure(self, sequence: int) -> e.Failure:
        """Return why a sequence ended with an error."""
        error = self.end(sequence).error
        assert error is not None, "it did not end with an error"
        return error

    def holders(self) -> list[int | None]:
        """Return who has each slot."""
        batcher = self.kernel.state.batcher
        assert batcher is not None
        return [slot.sequence for slot in batcher.slots]

    def _sample(self, part: e.Part, nan: frozenset[int]) -> e.Sample:
        if part.sequence in nan:
            return e.Sample(sequence=part.sequence, token=-1, nan=True)
        token = part.sequence * 1000 + (part.draw or 0)
        piece = next(self._scripts[part.sequence], None)
        return e.Sample(sequence=part.sequence, token=token, piece=piece or b"", eog=piece is None)


def beside_another() -> Driver:
    """Return a driver whose sequence 1 generates "bcdef" and then ends; sequence 2 is the test's."""
    driver = Driver(n_batch=8)
    driver.submit(b"b", b"c", b"d", b"e", b"f")
    return driver


def assert_all_well(driver: Driver) -> None:
    """Check that sequence 1 said what it has to say, and that a slot is free again for somebody else."""
    driver.run()
    assert ("bcdef", "stop") == (driver.text(1), driver.end(1).finish_reason)
    assert [None, None] == driver.holders()
    after = driver.submit(b"x")
    driver.run()
    assert "x" == driver.text(after)
