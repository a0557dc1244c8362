"""A session of the core at random, from a seed: steps under load, with every fault there is, held against all rules.

The rules that hold here:

* All that happens follows from the seed and the number of steps, so that a seed repeats it.
* Many ask for a slot at any time, so that the slots are in use.
* Faults stop in the end. Then everybody ends within a number of steps that follows from what is left, and the session
  is closed.
"""

from collections.abc import Sequence
from itertools import accumulate
from random import Random
from time import process_time
from typing import Final, TypeVar

from attrs import evolve as changed

from reenact.actors import events as e
from reenact.actors.header import ContextFacts
from reenact.actors.inputs import Input
from reenact.actors.options import Options
from reenact.replay.testing.kernel import CheckedKernel, Submission, context_of, decoded, header_of, left_undone
from reenact.replay.testing.liveness import end_all
from reenact.replay.testing.strategies import ENDLESS_N_CTX, FAR, MOST_BATCHES_A_CONTEXT, PIECES, STOPS, TAILS
from reenact.runtime.engine.protocol import refused

T = TypeVar("T")

N_SLOTS: Final = (1, 2, 3, 4, 5, 6, 6, 6, 6, 6, 6, 6, 7, 7, 8, 16)
N_CTX: Final = (1, 2, 4, 8, 16, 32, 32, 64, 64, 64, 100, 100, 256, 256, 512, 2048)
"""What stands here more than once comes more often, here and below."""

LIMITS: Final = (0, 1, 3, 20, 40, 80, 80, 120, 120, 200)
"""Tokens that a request asks for."""

POOLED_SESSIONS: Final = 16
"""One session of so many pools texts, and is a quarter as long."""
BROKEN_SESSIONS: Final = 4
"""In one session of so many the engine fails in the end."""

MEDDLES: Final = 0.08
"""How likely anybody does anything between two steps, beside those who ask for a slot."""
FAILS: Final = 1 / 150
"""How likely a batch fails."""
CODES: Final = (e.NO_ROOM, e.ABORTED, e.INVALID, -2, -3, None)
"""How it does; None where the engine refuses it."""
ENDS, FAULTY = 1 / 150, 1 / 300
"""How likely a token ends the text, and a fault stands in place of one."""
VECTORS: Final = (*((3.0, 4.0),) * 20, (0.0, 0.0), (1e300, -1e300), ())
"""What a text is pooled to; nothing where the model gives a NaN."""


class TimedKernel(CheckedKernel):
    """Knows how long the kernel and the rules took, and what came last."""

    seconds = 0.0
    last: e.GivenEvent | None = None
    """The fact that was given last; it is in no record if the kernel could not take it."""

    def give(self, fact: e.GivenEvent, *, t: int | None = None) -> list[e.Record]:
        """Give the kernel a fact; see `CheckedKernel.give`."""
        self.last = fact
        started = process_time()
        try:
            return super().give(fact, t=t)
        finally:
            self.seconds += process_time() - started


class Play:
    """One session."""

    def __init__(self, seed: int) -> None:
        self.random = Random(seed)  # noqa: S311  # it is to be the same again
        self.pools = self.one_of(POOLED_SESSIONS)
        self.max_waiting = self.choose((0, 1, 2, 9, 9, 9))
        self.session = TimedKernel(header_of(self._context(), max_waiting=self.max_waiting))
        self.paused: list[int] = []
        """Requests whose readers are, or were when they ended."""
        self.said: dict[int, list[int]] = {}
        """What was drawn for each request."""
        self.crowd = 1
        """So many requests want a slot beyond those that have one, if so many may wait."""

    def choose(self, values: Sequence[T]) -> T:
        """Return one of some values."""
        return values[int(self.random.random() * len(values))]

    def one_of(self, count: int) -> bool:
        """Return whether something is so that is so once in so many times."""
        return self.random.random() * count < 1

    def run(self, n_steps: int) -> None:
        """Play so many steps, and let all end.

        Raises:
            AssertionError: A rule does not hold, an actor raised, or somebody does not end in time.
        """
        for _ in range(n_steps // 4 if self.pools else n_steps):
            self._come()
            if self.random.random() < MEDDLES:
                self._meddle()
            while self.session.in_flight is None:
                self._wake()
            self.session.give(self._outcome(self.session.in_flight))
        if self.one_of(BROKEN_SESSIONS) and self.session.in_flight is not None:
            self.session.give(e.EngineFailed(error="OSError"))
            self._submit()
        end_all(self.session)
        self.session.close()

    # ------------------------------------------------------------ what a session is like

    def _context(self) -> ContextFacts:
        n_slots, n_ctx = self.choose(N_SLOTS), self.choose(N_CTX)
        least = max(n_slots, n_ctx // MOST_BATCHES_A_CONTEXT)
        return context_of(
            n_slots=n_slots,
            n_ctx=n_ctx,
            n_ctx_seq=self.choose((n_ctx, -(-n_ctx // 256) * 256)),
            n_batch=self.choose((least, least + 1, least + 4, least + 16, max(least, n_ctx), max(least, 2 * n_ctx))),
            shift=self.choose(("move", "evaluate")),
            pooling="mean" if self.pools else "none",
            alone=self.choose((True, False)),
        )

    def _submission(self) -> Submission:
        n_ctx, n_batch = self.session.context.n_ctx, self.session.context.n_batch
        limits = (*LIMITS, -1, -1) if n_ctx <= ENDLESS_N_CTX else LIMITS
        options = Options(
            seed=1,
            num_predict=self.choose(limits),
            num_keep=self.choose((4, 4, 0, 2, n_ctx, -1)),
            stop=self.choose(STOPS),
            shift=not self.one_of(5),
            truncate=not self.one_of(5),
            priority=self.choose((0, 0, 0, 0, 0, 0, 1, 2, -1)),
            deadline=self.choose((None, FAR)),
            dimensions=self.choose((None, 1, 2)) if self.pools else None,
        )
        lengths = (0, 1, 2, 3, 5, 8, 20, 40, n_batch, n_batch + 1, n_ctx - 1, n_ctx, n_ctx + 1, 2 * n_ctx + 1)
        length = min(self.choose(lengths), 2 * n_ctx + 1)
        return Submission(prompt=self._prompt(length), bos_added=self.one_of(2), options=options, embedding=self.pools)

    def _prompt(self, length: int) -> tuple[Input, ...]:
        """Return a prompt: some begin as others do, and some as another's prompt and text."""
        if self.said and self.one_of(4):
            number = max(self.said) - self.random.randrange(min(len(self.said), 20))
            return (*self.session.submissions[number].prompt, *self.said[number], 50)[: length + 20]
        family = self.choose((100, 100, 200, 10_000))
        tail = self.choose(TAILS) if self.one_of(10) and not self.pools else ()
        return (*range(family, family + length), *tail)

    # ------------------------------------------------------------ callers and readers

    def _come(self) -> None:
        """Let requests come, so that the slots are wanted."""
        crowd = self.session.context.n_slots + min(self.crowd, self.max_waiting)
        for _ in range(crowd - len(self.session.live)):
            number = self._submit()
            late = self.one_of(16) and self.session.untokenized == [number]
            if not late:
                self.session.tokenize(number)

    def _submit(self) -> int:
        number = self.session.submit(self._submission())
        self.said[number] = []
        return number

    def _wake(self) -> None:
        """Let somebody want something."""
        while self.session.untokenized:
            self.session.tokenize(self.session.untokenized[-1])
        while self.paused:
            self.session.give(e.ReaderResumed(sequence=self.paused.pop()))
        if self.session.in_flight is None:
            self.session.tokenize(self._submit())

    def _meddle(self) -> None:
        (meddling,) = self.random.choices(tuple(MEDDLING), cum_weights=WEIGHTS)
        meddling(self)

    def _a_live_one(self) -> int | None:
        live = sorted(self.session.live)
        return self.choose(live) if live else None

    def cancel(self) -> None:
        """Let a caller leave."""
        number = self._a_live_one()
        if number is not None:
            self.session.give(e.CancelRequested(sequence=number))

    def leave_in_prefill(self) -> None:
        """Let the caller leave who has most rows in flight."""
        if self.session.in_flight is not None:
            number = max(self.session.in_flight.parts, key=lambda part: len(part.inputs)).sequence
            self.session.give(e.CancelRequested(sequence=number))

    def expire(self) -> None:
        """Let a deadline come."""
        number = self._a_live_one()
        if number is not None and self.session.submissions[number].options.deadline is not None:
            self.session.give(e.DeadlineExpired(sequence=number))

    def pause(self) -> None:
        """Let a reader fall behind; few do at the same time."""
        number = self._a_live_one()
        if number is not None and len(self.paused) <= self.session.context.n_slots // 4:
            self.paused.append(number)
            self.session.give(e.ReaderPaused(sequence=number))

    def stall(self) -> None:
        """Let readers not have read on for too long."""
        for number in self.paused:
            self.session.give(e.PauseExpired(sequence=number))

    def resume(self) -> None:
        """Let the readers catch up."""
        while self.paused:
            self.session.give(e.ReaderResumed(sequence=self.paused.pop()))

    def tokenize(self) -> None:
        """Tokenize late, or fail to."""
        while self.session.untokenized:
            number = self.session.untokenized[-1]
            if self.one_of(4):
                self.session.give(e.TokenizeFailed(sequence=number, error="OSError"))
            else:
                self.session.tokenize(number)

    def come_late(self) -> None:
        """Say something of a request that has ended."""
        number = self.random.randint(1, max(self.session.kernel.n_requests, 1))
        if number in self.said and number not in self.session.live:
            late = e.DeadlineExpired, e.CancelRequested, e.ReaderPaused, e.ReaderResumed, e.PauseExpired
            fact: e.GivenEvent = self.choose([kind(sequence=number) for kind in late])
            self.session.give(fact)

    def crowd_in(self) -> None:
        """Let more come than may wait, and then more or fewer than before."""
        for _ in range(self.session.context.n_slots + self.max_waiting + 1 - len(self.session.live)):
            self.session.tokenize(self._submit())
        self.crowd = self.choose((0, 1, 1, 2, 2, 3))

    def lose_cells(self) -> None:
        """Give the engine a new context."""
        self.session.give(e.CellsLost())

    # ------------------------------------------------------------ the engine

    def _outcome(self, planned: e.BatchPlanned) -> e.BatchDecoded:
        if self.session.aborting and not self.one_of(5):
            return self._ended(planned, e.ABORTED)
        if self.random.random() < FAILS:
            code = self.choose(CODES)
            return refused(planned) if code is None else self._ended(planned, code)
        drawn = [self._sample(part.sequence, part.draw) for part in planned.parts if part.draw is not None]
        outcome = decoded(planned, *drawn)
        vectors = tuple(changed(vector, values=self.choose(VECTORS)) for vector in outcome.vectors)
        return changed(outcome, vectors=vectors) if vectors else outcome

    def _ended(self, planned: e.BatchPlanned, code: int) -> e.BatchDecoded:
        in_part = code == e.ABORTED or code < e.INVALID
        rows = (len(part.inputs) for part in planned.parts)
        return left_undone(planned, code, [self.random.randint(0, n_rows) if in_part else 0 for n_rows in rows])

    def _sample(self, number: int, index: int) -> e.Sample:
        at = self.random.random()
        if at < ENDS:
            return e.Sample(sequence=number, index=index, token=2, eog=True)
        if at < ENDS + FAULTY:
            return e.Sample(sequence=number, index=index, token=-1, fault=self.choose(("nan", "grammar", "cost")))
        token = int(at * 1000)
        self.said[number].append(token)
        return e.Sample(sequence=number, index=index, token=token, piece=self.choose(PIECES))


MEDDLING: Final = {
    Play.cancel: 8,
    Play.expire: 4,
    Play.leave_in_prefill: 12,
    Play.pause: 20,
    Play.stall: 10,
    Play.resume: 30,
    Play.tokenize: 12,
    Play.come_late: 4,
    Play.crowd_in: 4,
    Play.lose_cells: 1,
}
"""What may happen between two steps, and how often."""
WEIGHTS: Final = tuple(accumulate(MEDDLING.values()))
