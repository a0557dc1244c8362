"""A session of the whole runtime in virtual time, of which one seed decides everything.

The rules that hold here:

* Whatever happens is drawn from the seed: arrivals, readers, cancels, faults, the order of trio's tasks, how long a
  call takes, the wall clock, the session's id. Nothing asks a real clock, the system's randomness or ``hash``.
* Time is trio's `MockClock`. A call of the engine takes some of it, one call after the other, so that callers come and
  go while a batch is decoded.
* What is replaced that is not ours to set stands in one place: `_replaced`. trio's two private knobs are among it.
* A token follows from the inputs of its sequence, the index and the options alone (a `ScriptedEngine` that draws from
  the history). So any schedule gives any request the same text, or the schedule is wrong.
"""

import os
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractAsyncContextManager, contextmanager, suppress
from datetime import UTC, datetime
from errno import ENOSPC
from functools import partial
from pathlib import Path
from random import Random
from typing import Any, Final, Literal, TypeVar, TypeVarTuple

import pytest
import trio
from attrs import evolve as changed
from attrs import frozen
from trio.testing import MockClock

from reenact.actors import events as e
from reenact.actors.errors import LogBroken, ReenactError
from reenact.actors.inputs import Input
from reenact.actors.options import RequestOptions
from reenact.runtime import Chunk, Completion, Runtime, ScriptedEngine, Stream, open_runtime
from reenact.runtime.engine.protocol import Drawing, Rendered, Tokenized, refused
from reenact.runtime.sources import Sources

T = TypeVar("T")
Ts = TypeVarTuple("Ts")

_Asking = partial[AbstractAsyncContextManager[Stream]]
"""Makes a request, once it has a name and options."""

Ending = Literal["all served", "left", "engine", "log"]
"""How a session ends: when all are served, while some still wait, by an engine that raises, by a log that is full."""

BOS: Final = 1
"""A byte that is in no prompt."""
ROW_IN_TEXT: Final = "\N{OBJECT REPLACEMENT CHARACTER}"
"""What stands for a row of numbers where a prompt is told as text."""
_FAULTS: Final[tuple[int | Literal["refused", "nan"], ...]] = (1, 2, -1, -2, "refused", "nan", "nan")
_BEGINNINGS: Final = ("", "You are the keeper. ", "You are the keeper of a lighthouse, ", "Once ", "Once upon a time ")
_STOPS: Final = ("</s>", "ab a", "é", "the the", "b<", "a. ")
_MANNERS: Final = ("whole", "reads", "impatient", *["slow", "stalls"] * 3, "leaves", "vanishes", "chats", "chats")
_LONGEST: Final = 1e8
"""Virtual seconds: a session that is not over by then hangs."""
_MOST_CALLERS: Final = 60
"""That are there at once: calls of the engine are not to pile up without end."""
_MOST_TRIES: Final = 20
"""So often a reader gives up and reads again, before he waits."""
_MOST_AT_ONCE: Final = 2
"""Chunks that may come after the one by which a reader lags too far: the token in flight, and what the end releases."""
_MOST_BEFALLS: Final = 8
"""Things that befall a session for each of its steps; where hardly anything is computed it would go on for ever."""
_BROKEN_CALLS: Final = 5
"""So many callers still come to a runtime that is broken."""


def as_text(prompt: str | list[Any]) -> str:
    """Return a prompt as text."""
    return "".join(piece if isinstance(piece, str) else ROW_IN_TEXT for piece in prompt)


# ---------------------------------------------------------------- what a seed decides


def _another(chances: Random) -> Random:
    """Return chances of their own for one thing, so that what befalls it changes nothing elsewhere."""
    return Random(chances.getrandbits(64))  # noqa: S311  # nothing is secret here


@frozen(kw_only=True)
class Weather:
    """What is decided of a session before it begins."""

    ending: Ending
    settings: dict[str, Any]
    """Of the runtime."""
    fault: float
    """How likely a batch goes wrong."""
    pause: float
    """Virtual seconds between arrivals, on average."""
    raises_at: int
    """The batch at which the engine raises; -1 for none."""
    room: int | None
    """Bytes that the log may have; None for any number."""
    bos: bool
    """Whether the vocabulary puts a BOS before a prompt."""


def weather(chances: Random, n_steps: int) -> Weather:
    """Draw what is decided before a session begins."""
    ending: Ending = chances.choice(("all served", "all served", "left", "engine", "log"))
    n_slots = chances.randint(1, 5)
    settings = {
        "n_slots": n_slots,
        "n_ctx": chances.choice((12, 24, 48, 96)),
        "n_batch": n_slots + chances.choice((0, 1, 8, 40)),
        "determinism": chances.choice(("auto", "auto", "recorded-schedule")),
        "logits_hash": chances.random() < 0.8,
        "max_waiting": chances.choice((0, 2, 6, 30)),
        "max_reader_lag": chances.choice((1, 2, 5, 64)),
        "max_pause": chances.choice((None, 0.05, 0.05, 1.0, 1.0, 10.0)),
    }
    return Weather(
        ending=ending,
        settings=settings,
        fault=chances.choice((0.0, 0.01, 0.05)),
        pause=chances.choice((0.05, 0.2, 1.0)),
        raises_at=chances.randrange(n_steps) if ending == "engine" else -1,
        room=chances.randrange(5_000, 5_000 + 1_000 * n_steps) if ending == "log" else None,
        bos=chances.random() < 0.5,
    )


# ---------------------------------------------------------------- the engine


class ComputingEngine(ScriptedEngine):
    """An engine whose tokens follow from its cells, and of whose batches some go wrong.

    Args:
        chances: What goes wrong is drawn from it.
        sky: How often, and when it raises.
    """

    def __init__(self, chances: Random, sky: Weather) -> None:
        self._injected: dict[int, int] = {}
        super().__init__(draws_from="history", faults=self._injected)
        self.n_steps = 0
        self.faults: Counter[str] = Counter()
        """What went wrong, and how often."""
        self.surprises: list[str] = []
        """What went wrong that was not to."""
        self._chances = chances
        self._sky = sky
        self._to_abort = -1

    def tokenize(self, text: str | Rendered, *, after: Input | None = None) -> Tokenized:
        """Return the bytes of ``text``, or raise."""
        if self._chances.random() < self._sky.fault / 2:
            self.faults["tokenizing raised"] += 1
            raise OSError("the vocabulary cannot be read")
        tokenized = super().tokenize(text, after=after)
        if after is not None or not self._sky.bos:
            return tokenized
        return Tokenized(tokens=(BOS, *tokenized.tokens), bos_added=True)

    def step(self, planned: e.BatchPlanned, drawings: Mapping[int, Drawing], numbers: Any) -> e.BatchDecoded:
        """Do as asked, or go wrong."""
        self.n_steps += 1
        if planned.batch == self._sky.raises_at:
            self.faults["the engine raised"] += 1
            raise RuntimeError("the engine is out of order")
        asked = self._to_abort == planned.batch and self._chances.random() < 0.7
        if asked:  # Else it is too late: the batch comes to its end.
            super().abort(planned.batch)
        fault = self._chances.choice(_FAULTS) if self._chances.random() < self._sky.fault else None
        if fault == "refused":
            self.faults["-1, refused"] += 1
            return refused(planned)
        if isinstance(fault, int):
            self._injected[planned.batch] = fault
        decoded = super().step(planned, drawings, numbers)
        if decoded.code:
            self.faults[f"{decoded.code}{', asked' if asked and decoded.code == e.ABORTED else ''}"] += 1
            if decoded.code != fault and not (decoded.code == e.ABORTED and asked):
                self.surprises.append(f"batch {planned.batch} came out with {decoded.code}, which nobody injected")
        if fault == "nan" and decoded.samples:
            self.faults["NaN"] += 1
            first, *others = decoded.samples
            nan = e.Sample(
                sequence=first.sequence, index=first.index, token=-1, fault="nan", logits_crc32=first.logits_crc32
            )
            decoded = changed(decoded, samples=(nan, *others))
        return decoded

    def abort(self, batch: int) -> None:
        """Abort the batch, unless it is too late for that."""
        self._to_abort = batch


# ---------------------------------------------------------------- what is replaced


class _VirtualCompute:
    """Calls that take virtual time, one after the other; like those of the compute thread they cannot be cancelled.

    Who may leave while such a call goes on leaves at once.
    """

    def __init__(self, seconds: Callable[[str], float]) -> None:
        self._seconds = seconds
        self._turn = trio.StrictFIFOLock()

    async def run(self, call: Callable[[*Ts], T], *args: *Ts, may_leave: bool = False) -> T:
        with trio.CancelScope(shield=not may_leave):
            await self._turn.acquire()
        try:
            with trio.CancelScope(shield=not may_leave):
                await trio.sleep(self._seconds(getattr(call, "__name__", "")))
            return call(*args)
        finally:
            self._turn.release()

    async def finish(self, last: Callable[[], None]) -> None:
        await self.run(last)


def _writing(chances: Random, room: int | None) -> Callable[[int, bytes], int]:
    """Return an ``os.write`` that writes less than it is asked to now and then, and no more than there is room for."""
    real, left = os.write, room

    def write(file: int, data: bytes) -> int:
        nonlocal left
        if left == 0:
            raise OSError(ENOSPC, os.strerror(ENOSPC))
        if chances.random() < 0.02:
            data = data[: chances.randint(1, len(data))]
        written = real(file, data if left is None else data[:left])
        left = None if left is None else left - written
        return written

    return write


@contextmanager
def _replaced(chances: Random, room: int | None, seconds: Callable[[str], float]) -> Iterator[None]:
    """Replace what decides the order of trio's tasks, where engines are called, and how logs are written.

    trio shuffles each batch of tasks that can run: by its first knob after having sorted them, and from its second.
    """
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("trio._core._run._ALLOW_DETERMINISTIC_SCHEDULING", True)
        patch.setattr("trio._core._run._r", _another(chances))
        patch.setattr("reenact.runtime.api.InPlace", lambda: _VirtualCompute(seconds))
        patch.setattr("reenact.runtime.log.writer.os.write", _writing(_another(chances), room))
        yield


def _sources(chances: Random) -> Sources:
    """Return a wall clock that may stand anywhere, a session's id, and seeds."""
    return Sources(
        wall_clock=lambda: datetime.fromtimestamp(chances.randrange(2**33), UTC),
        session=lambda: f"{chances.getrandbits(64):016x}",
        seed=lambda: chances.getrandbits(32),
    )


# ---------------------------------------------------------------- the callers


@frozen(kw_only=True)
class End:
    """How a request ended for its caller."""

    how: str
    """ "read" to the end, "left", "cancelled", or the name of an error."""
    completion: Completion | None
    prompts: tuple[str, ...]
    """What was asked, as text; of a chat also without its first message, without its first two, and so on."""
    chat: bool
    options: RequestOptions
    asked: float
    """When, in seconds since the session opened."""
    chunks: tuple[Chunk, ...] | None
    """What was read, one after the other; None where it was asked for as a whole."""


@frozen(kw_only=True)
class Ran:
    """A session that is over."""

    seed: int
    n_steps: int
    """As asked."""
    log: Path
    sky: Weather
    ends: dict[str, list[End]]
    """How each request ended, by its name: once, if all is well."""
    done: int
    """Steps of the engine."""
    seconds: float
    """Of virtual time."""
    jumped: float
    """Of these, those that the clock jumped over."""
    faults: Counter[str]
    """What befell it, and how often."""
    amiss: tuple[str, ...]
    """What was seen to be wrong while it ran and at its end."""


class World:
    """Callers of a runtime, and what befalls them.

    Args:
        seed: Decides everything.
        n_steps: Steps of the engine after which nobody new comes.
        log: Where the session is recorded.
    """

    def __init__(self, seed: int, n_steps: int, log: Path) -> None:
        chances = Random(seed)  # noqa: S311  # nothing is secret here
        self._seed, self._n_steps, self._log = seed, n_steps, log
        self._sky = weather(chances, n_steps)
        self._engine = ComputingEngine(_another(chances), self._sky)
        self._sources = _sources(_another(chances))
        self._calls = _another(chances)
        self._replacing = _another(chances)
        self._chances = chances
        self._clock = MockClock(autojump_threshold=0)
        self._slow = 0
        """So many calls of the engine still take a hundred times as long."""
        self._scopes: dict[str, trio.CancelScope] = {}
        """Of the callers that are there."""
        self._ends: dict[str, list[End]] = {}
        self._befell: Counter[str] = Counter()
        self._amiss: list[str] = []
        self._n_callers = self._n_broken = self._n_befell = 0
        self._jumped = 0.0

    def run(self) -> Ran:
        """Let it happen."""
        with _replaced(self._replacing, self._sky.room, self._call_seconds):
            trio.run(self._session, clock=self._clock)
        return Ran(
            seed=self._seed,
            n_steps=self._n_steps,
            log=self._log,
            sky=self._sky,
            ends=self._ends,
            done=self._engine.n_steps,
            seconds=self._clock.current_time(),
            jumped=self._jumped,
            faults=self._befell + self._engine.faults,
            amiss=(
                *self._amiss,
                *self._engine.surprises,
                *(f"{name} is left over" for name in self._scopes),
                *([] if self._engine.context_facts is None else ["the engine was not closed"]),
            ),
        )

    def _call_seconds(self, name: str) -> float:
        """Return how long a call takes: a step some 20 ms, all else some 1 ms."""
        self._slow = max(self._slow - 1, 0)
        return self._calls.expovariate(50 if name == "step" else 1000) * (100 if self._slow else 1)

    async def _session(self) -> None:
        with trio.fail_after(_LONGEST):
            async with trio.open_nursery() as outside:
                try:
                    runtime_block = open_runtime(
                        self._engine, log=self._log, sources=self._sources, **self._sky.settings
                    )
                    async with runtime_block as runtime, trio.open_nursery() as inside:
                        callers = outside if self._sky.ending == "left" else inside
                        while self._engine.n_steps < self._n_steps and self._n_broken < _BROKEN_CALLS:
                            self._n_befell += 1
                            assert self._n_befell < _MOST_BEFALLS * self._n_steps, "hardly anything is computed"
                            self._befall(runtime, callers)
                            await trio.sleep(self._chances.expovariate(1 / self._sky.pause))
                except LogBroken:
                    if self._sky.room is None:
                        raise
                    self._befell["LogBroken out of the block"] += 1

    def _befall(self, runtime: Runtime, nursery: trio.Nursery) -> None:
        """Let one thing happen."""
        what = self._chances.choices(
            ("caller", "crowd", "cancel storm", "latency spike", "clock jump"), (80, 8, 6, 4, 2)
        )[0]
        match what:
            case "cancel storm":
                for scope in list(self._scopes.values()):
                    if self._chances.random() < 0.7:
                        scope.cancel()
            case "latency spike":
                self._slow = self._chances.randint(1, 10)
            case "clock jump":
                seconds = self._chances.choice((1.0, 60.0, 36_000.0))
                self._clock.jump(seconds)
                self._jumped += seconds
            case _:
                n_callers = self._chances.randint(3, 15) if what == "crowd" else 1
                for _ in range(min(n_callers, _MOST_CALLERS - len(self._scopes))):
                    self._n_callers += 1
                    nursery.start_soon(self._caller, runtime, f"caller {self._n_callers}")
        if what not in {"caller", "crowd"}:
            self._befell[what] += 1

    async def _caller(self, runtime: Runtime, name: str) -> None:
        manner = self._chances.choice(_MANNERS)
        prompt = self._chances.choice(_BEGINNINGS) + self._words()
        scope = self._scopes[name] = trio.CancelScope()
        if manner == "vanishes":
            scope.deadline = trio.current_time() + self._chances.uniform(0, 3)
        try:
            with scope:
                if manner != "chats":
                    mixed = self._mixed(prompt)
                    await self._ask(name, manner, partial(runtime.stream, mixed), runtime, (as_text(mixed),))
                    return
                messages = [{"role": "user", "content": prompt}]
                for turn in range(self._chances.randint(1, 3)):
                    lines = [f"{message['role']}: {message['content']}\n" for message in messages]
                    chats = tuple("".join([*lines[start:], "assistant: "]) for start in range(len(lines)))
                    ask = partial(runtime.stream_chat, messages)
                    end = await self._ask(f"{name}, turn {turn}", manner, ask, runtime, chats)
                    said = "" if end.completion is None else end.completion.text
                    messages += [{"role": "assistant", "content": said}, {"role": "user", "content": self._words()}]
        finally:
            del self._scopes[name]

    async def _ask(self, name: str, manner: str, ask: _Asking, runtime: Runtime, prompts: tuple[str, ...]) -> End:
        """Make a request, and note how it ended."""
        how, options = "cancelled", self._options()
        asked = trio.current_time() - runtime._session._started  # times of the log count from there
        chunks: list[Chunk] = []
        completion: Completion | None = None
        stream: Stream | None = None
        try:
            if manner == "whole":
                completion = await runtime.complete(*ask.args, request_id=name, **options)
                how = "read"
            else:
                async with ask(request_id=name, **options) as stream:
                    how = "read" if await self._read(stream, manner, chunks) else "left"
        except (ReenactError, trio.ClosedResourceError) as error:
            how = type(error).__name__
            self._n_broken += how in {"EngineBroken", "LogBroken"}
        finally:
            if stream is not None:
                with suppress(ReenactError, trio.ClosedResourceError):
                    completion = stream.completion
            read = None if manner == "whole" else tuple(chunks)
            end = End(
                how=how,
                completion=completion,
                prompts=prompts,
                chat=manner == "chats",
                options=options,
                asked=asked,
                chunks=read,
            )
            self._ends.setdefault(name, []).append(end)
        return end

    async def _read(self, stream: Stream, manner: str, chunks: list[Chunk]) -> bool:
        """Read a stream, and return whether it was read to its end."""
        turning_point = self._chances.randint(0, 8)
        if manner == "leaves" and turning_point == 0:
            return False
        while (chunk := await self._next(stream, manner)) is not None:
            chunks.append(chunk)
            if manner == "slow":
                await trio.sleep(self._chances.expovariate(4))
            elif manner == "stalls" and len(chunks) == turning_point:
                await trio.sleep(self._chances.uniform(1, 100))
                self._look_at_lag(stream)
            elif manner == "leaves" and len(chunks) == turning_point:
                return False
        return True

    async def _next(self, stream: Stream, manner: str) -> Chunk | None:
        """Read a chunk, None at the end; who is impatient gives up now and then, and tries again."""
        for _ in range(_MOST_TRIES if manner == "impatient" else 0):
            with suppress(StopAsyncIteration), trio.move_on_after(self._chances.expovariate(20)) as scope:
                return await stream.__anext__()
            if not scope.cancelled_caught:
                return None
        return await anext(stream, None)

    def _look_at_lag(self, stream: Stream) -> None:
        """Note it if more is unread than a reader may leave."""
        most = self._sky.settings["max_reader_lag"] + _MOST_AT_ONCE
        n_unread = stream._live.chunks.statistics().current_buffer_used
        if n_unread > most:
            self._amiss.append(f"{stream.request_id} has {n_unread} chunks unread, expected {most} at most")

    def _words(self) -> str:
        return "".join(self._chances.choices("abc é", k=self._chances.choice((0, 1, 4, 12, 12, 40))))

    def _mixed(self, prompt: str) -> Any:
        """Return a prompt, now and then one with rows of numbers in it."""
        if self._chances.random() < 0.9:
            return prompt
        rows = [[self._chances.choice((0.5, 0.25)), 1.0] for _ in range(self._chances.randint(1, 3))]
        return [prompt, *rows, "after"]

    def _options(self) -> RequestOptions:
        choice = self._chances.choice
        return {
            "seed": choice((None, 1, 2)),
            "num_predict": choice((-1, -1, 0, 1, 5, 20, 100)),
            "num_keep": choice((-1, 0, 4, 9)),
            "stop": self._chances.sample(_STOPS, choice((0, 0, 1, 3))),
            "truncate": choice((True, True, True, False)),
            "shift": choice((True, True, False)),
            "logprobs": choice((True, False, False)),
            "priority": choice((0, 0, 0, 1, -1)),
            "deadline": choice((None, None, None, self._chances.uniform(0, 5))),
        }


def run(seed: int, n_steps: int, log: Path) -> Ran:
    """Run the session of a seed.

    Args:
        seed: Decides everything.
        n_steps: Steps of the engine after which nobody new comes.
        log: Where it is recorded; it must not exist.
    """
    return World(seed, n_steps, log).run()
