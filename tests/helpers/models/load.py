"""A random load on a runtime, and what its log shows of it: for the tests of this folder and for ``make soak``.

The rules that hold here:

* What is asked, and how who asks behaves, follows from a seed. How it falls together does not: that trio and the
  machine decide, and the log holds it.
* Nobody sleeps: gaps between arrivals are counted in batches, and whoever waits, waits for a batch or for an end.
* Nobody waits for ever: one reader stalls at a time, and he goes on when nobody else is there.
"""

from collections.abc import Callable, Iterator, Mapping
from itertools import count
from pathlib import Path
from random import Random
from typing import Any, Final, Literal

import trio
from attrs import asdict, define, frozen

from reenact.actors.batch import ABORTED, BatchDecoded, BatchPlanned
from reenact.actors.metrics import Statistics
from reenact.runtime import LlamaEngine, Runtime, open_runtime
from reenact.runtime.engine.protocol import Drawing
from reenact.runtime.log.codec import Fields, plain
from reenact.runtime.log.reader import LogFile, entries

DEEP: Final = 512
"""Cells from which on llama.cpp may compute a lone row otherwise (docs/llama-cpp.md section 2)."""
REUSED: Final = 16
"""Inputs that two prompts of one family have in common at least; the first one is that of most prompts."""
READER_LAG: Final = 8
"""Chunks a reader may leave unread in these sessions."""

Enough = Callable[[Statistics], bool]
"""Says of a session so far whether nobody need come any more."""

Manner = Literal["reads", "stalls", "leaves", "leaves in prefill", "chats"]


@frozen(kw_only=True)
class Sizes:
    """How long things are."""

    family: tuple[int, int]
    """Words that several prompts begin with."""
    num_predict: tuple[int, ...]
    n_lone: int
    """So many callers come first, each alone."""
    lone: int
    """Tokens for one who is alone."""


LONG: Final = Sizes(family=(50, 200), num_predict=(16, 48, 96, 160, 240), n_lone=3, lone=96)
BRIEF: Final = Sizes(family=(20, 60), num_predict=(4, 8, 16), n_lone=1, lone=12)


@frozen(kw_only=True)
class Visit:
    """One caller's request and behaviour."""

    name: str
    prompt: str
    options: dict[str, Any]
    manner: Manner = "reads"
    after: int = 0
    """Chunks after which he stalls or leaves, or batches with rows of his; of a chat, its turns."""
    alone: bool = False
    """Nobody else is there meanwhile."""

    @property
    def urgent(self) -> bool:
        """Whether it comes at once, however many are there."""
        return bool(self.options.get("priority"))


# ---------------------------------------------------------------- what is asked

_SUBJECTS: Final = ("keeper", "sailor", "baker", "child", "doctor", "teacher", "miller", "captain", "stranger", "widow")
_VERBS: Final = ("mended", "carried", "counted", "forgot", "painted", "sold", "found", "followed", "praised", "hid")
_OBJECTS: Final = ("nets", "lamps", "letters", "boats", "bells", "apples", "ropes", "maps", "stones", "candles")
_PLACES: Final = ("by the sea", "in the old town", "behind the mill", "under the bridge", "near the harbour", "at home")
_GRAMMAR: Final = 'root ::= "The " ("sea" | "sky" | "lamp") " is " ("wet" | "wide" | "old") ("." | "!")'

_N_FAMILIES: Final = 4
"""Texts that several prompts begin with."""
_DEEP_WORDS: Final = (420, 460)
"""Words of a prompt beyond `DEEP` tokens: 580 to 650."""
_N_WAITING: Final = 2
"""Callers who wait for a slot when there are as many as may be, but for urgent ones."""
_NEW_LEVEL, _NOT_FULL = 1 / 12, 0.25
"""Of so many visits each is the first one with another number of callers at once; of these so many are not full."""
_UNCOMMON: Final[tuple[tuple[float, dict[str, Any]], ...]] = (
    (0.15, {"temperature": 0.0}),
    (0.15, {"repeat_penalty": 1.2, "frequency_penalty": 0.3}),
    (0.10, {"stop": [" the sea", "\n\n"]}),
    (0.05, {"grammar": _GRAMMAR}),
    (0.05, {"logprobs": True, "top_logprobs": 3}),
    (0.10, {"num_keep": 64}),
    (0.24, {"priority": 1}),
    (0.05, {"priority": 2}),
)
"""Options, and how many of all have them."""


class Visits:
    """Draws visits, without end.

    Args:
        random: Where all that is random comes from.
        n_ctx: Cells of a sequence.
        sizes: How long things are.
    """

    def __init__(self, random: Random, n_ctx: int, sizes: Sizes) -> None:
        self._random = random
        self._sizes = sizes
        self._deep = self._words(*_DEEP_WORDS)
        """What most deep prompts begin with, so that they are seldom evaluated whole."""
        self._families = [self._words(*sizes.family) for _ in range(_N_FAMILIES)]
        self._n_lone = sizes.n_lone if n_ctx > DEEP + sizes.lone else 0

    def __iter__(self) -> Iterator[Visit]:
        for number in count(1):
            name = f"visit-{number}"
            yield self._lone(name) if number <= self._n_lone else self._visit(name)

    def _lone(self, name: str) -> Visit:
        """Return one that is alone, and deep in its context."""
        options = {"seed": self._seed(), "num_predict": self._sizes.lone}
        return Visit(name=name, prompt=f"{self._deep} {self._words(8, 16)}", options=options, alone=True)

    def _visit(self, name: str) -> Visit:
        random = self._random
        manners: tuple[Manner, ...] = ("reads", "stalls", "leaves", "leaves in prefill", "chats")
        (manner,) = random.choices(manners, (63, 4, 6, 23, 4))
        options: dict[str, Any] = {"seed": self._seed(), "num_predict": random.choice(self._sizes.num_predict)}
        if manner == "leaves in prefill":
            prompt, after = self._words(*_DEEP_WORDS), random.randint(1, 3)
        elif manner == "chats":
            prompt, after = self._words(6, 12), random.randint(2, 4)
        else:
            prompt, after = self._prompt(), random.randint(1, 6)
            for share, more in _UNCOMMON:
                options |= more if random.random() < share else {}
        return Visit(name=name, prompt=prompt, options=options, manner=manner, after=after)

    def _prompt(self) -> str:
        random = self._random
        (kind,) = random.choices(("short", "longer", "family", "deep", "new and deep"), (30, 12, 50, 7, 1))
        match kind:
            case "family":
                return f"{random.choice(self._families)} {self._words(8, 24)}"
            case "deep":
                return f"{self._deep} {self._words(8, 60)}"
            case "new and deep":
                return self._words(*_DEEP_WORDS)
            case _:
                return self._words(*((6, 24) if kind == "short" else (60, 120)))

    def _words(self, low: int, high: int) -> str:
        """Return so many words, in sentences."""
        random = self._random
        wanted = random.randint(low, high)
        words: list[str] = []
        while len(words) < wanted:
            subject, verb, thing, place = (random.choice(each) for each in (_SUBJECTS, _VERBS, _OBJECTS, _PLACES))
            words += f"The {subject} {verb} {random.randint(2, 99)} {thing} {place}.".split()
        return " ".join(words[:wanted])

    def _seed(self) -> int:
        return self._random.randrange(2**32)


# ---------------------------------------------------------------- how it is asked


class Pulse:
    """Beats when something changed that tasks wait for."""

    def __init__(self) -> None:
        self._next = trio.Event()

    def beat(self) -> None:
        """Let all who wait look again."""
        self._next.set()
        self._next = trio.Event()

    async def until(self, holds: Callable[[], bool]) -> None:
        """Wait until something holds."""
        while not holds():
            await self._next.wait()


class SeenEngine(LlamaEngine):
    """llama.cpp, with a word to the load whenever a batch begins."""

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        self.pulse = Pulse()
        self.n_begun = 0
        """Batches."""
        self.n_with: dict[int, int] = {}
        """Batches with rows of each sequence."""
        self._token = trio.lowlevel.current_trio_token()

    def step(self, planned: BatchPlanned, drawings: Mapping[int, Drawing], numbers: Any) -> BatchDecoded:
        """Tell, and step."""
        self._token.run_sync_soon(self._begin, planned)
        return super().step(planned, drawings, numbers)

    def _begin(self, planned: BatchPlanned) -> None:
        self.n_begun += 1
        for part in planned.parts:
            self.n_with[part.sequence] = self.n_with.get(part.sequence, 0) + 1
        self.pulse.beat()


class Load:
    """Callers who come to a runtime.

    Args:
        runtime: The runtime, of two slots at least.
        engine: Its engine.
        seed: Of all that is random.
        sizes: How long things are.
    """

    def __init__(self, runtime: Runtime, engine: SeenEngine, seed: int, sizes: Sizes) -> None:
        self._runtime = runtime
        self._engine = engine
        self._pulse = engine.pulse
        self._random = Random(seed)  # noqa: S311  # nothing is secret
        self._visits = Visits(self._random, runtime.header.context.n_ctx, sizes)
        self._n_there = 0
        self._stalls = False
        """Whether one stalls."""

    async def run(self, enough: Enough) -> None:
        """Let callers come until there were enough, and wait for their ends."""
        full = level = self._runtime.header.context.n_slots + _N_WAITING
        async with trio.open_nursery() as nursery:
            for visit in self._visits:
                if enough(self._runtime.statistics()):
                    break
                if self._random.random() < _NEW_LEVEL:
                    level = self._random.randint(1, full) if self._random.random() < _NOT_FULL else full
                await self._gap(self._random.choice((0, 0, 0, 1, 2, 5)))
                if not visit.urgent:
                    await self._fewer_than(1 if visit.alone else level)
                self._n_there += 1
                nursery.start_soon(self._come, visit)
                if visit.alone:
                    await self._fewer_than(1)

    async def _gap(self, n_batches: int) -> None:
        """Wait for so many batches, or until no caller is there."""
        last = self._engine.n_begun + n_batches
        await self._pulse.until(lambda: self._engine.n_begun >= last or not self._n_there)

    async def _fewer_than(self, n: int) -> None:
        await self._pulse.until(lambda: self._n_there < n)

    async def _come(self, visit: Visit) -> None:
        try:
            if visit.manner == "chats":
                await self._chat(visit)
            else:
                await self._read(visit)
        finally:
            self._n_there -= 1
            self._pulse.beat()

    async def _chat(self, visit: Visit) -> None:
        """Go on from each answer."""
        messages = [{"role": "user", "content": visit.prompt}]
        for turn in range(visit.after):
            answer = await self._runtime.chat(messages, request_id=f"{visit.name}.{turn}", **visit.options)
            messages += [{"role": "assistant", "content": answer.text}, {"role": "user", "content": "And then?"}]

    async def _read(self, visit: Visit) -> None:
        async with self._runtime.stream(visit.prompt, request_id=visit.name, **visit.options) as stream:
            if visit.manner == "leaves in prefill":
                n_with, number = self._engine.n_with, stream.sequence
                await self._pulse.until(lambda: n_with.get(number, 0) >= visit.after)
                return
            n_read = 0
            async for _ in stream:
                n_read += 1
                if n_read == visit.after and visit.manner == "leaves":
                    return
                if n_read == visit.after and visit.manner == "stalls":
                    await self._stall()

    async def _stall(self) -> None:
        """Read nothing until the sequence has paused and others went on without it, or no other is there."""
        if self._stalls:
            return
        self._stalls = True
        last = self._engine.n_begun + 3 * READER_LAG
        await self._pulse.until(lambda: self._engine.n_begun >= last or self._n_there == 1)
        self._stalls = False


async def record(log: Path, model: Path, seed: int, enough: Enough, *, sizes: Sizes = LONG, **settings: Any) -> None:
    """Record a session of random callers.

    Args:
        log: Its log.
        model: The file.
        seed: Of the load.
        enough: When nobody need come any more.
        sizes: How long things are.
        **settings: Those of `open_runtime`; at least two slots.
    """
    engine = SeenEngine(model)
    async with open_runtime(engine, log=log, max_reader_lag=READER_LAG, **settings) as runtime:
        await Load(runtime, engine, seed, sizes).run(enough)


# ---------------------------------------------------------------- what a log shows


@define(kw_only=True)
class Shown:
    """What a log shows of a load, or what several do together."""

    rows: int = 0
    """Rows of logits whose checksum is recorded."""
    tokens: int = 0
    evaluated: int = 0
    """Rows of all batches."""
    batches: int = 0
    parts: int = 0
    """Sequences of all batches."""
    sequences: int = 0
    forks: int = 0
    reuses: int = 0
    """Slots given to a sequence that found at least `REUSED` of its inputs in them."""
    shifts: int = 0
    left_in_prefill: int = 0
    """Cancels of sequences whose prompt was in part evaluated, or in flight."""
    aborts: int = 0
    """Batches that were ended early."""
    preemptions: int = 0
    pauses: int = 0
    deep_lone_rows: int = 0
    """Batches of one row, at `DEEP` cells or more."""
    seconds: float = 0.0
    """From each batch's plan to its outcome, in all: without the time in which there was nothing to do."""

    def __add__(self, other: "Shown") -> "Shown":
        mine, others = asdict(self), asdict(other)
        return Shown(**{name: mine[name] + others[name] for name in mine})


def shown(log: Path) -> Shown:
    """Return what a log shows."""
    reader = _Reader()
    with LogFile(log) as file:
        for entry in entries(file):
            reader.add(plain(entry.record, entry.t))
    return reader.shown


class _Reader:
    """Counts, record by record."""

    def __init__(self) -> None:
        self.shown = Shown()
        self._in_prefill: set[int] = set()
        """Sequences that had rows in a batch, and no token yet."""
        self._drawn: set[int] = set()
        self._planned_at = 0

    def add(self, fields: Fields) -> None:
        """Count one more record."""
        found = self.shown
        match fields["type"]:
            case "RequestReceived":
                found.sequences += 1
            case "SlotAssigned":
                found.forks += fields["source"] is not None
                found.reuses += fields["source"] is None and fields["reused"] >= REUSED
            case "ContextShifted":
                found.shifts += 1
            case "SequencePreempted":
                found.preemptions += 1
            case "SequencePaused":
                found.pauses += 1
            case "CancelRequested":
                found.left_in_prefill += fields["sequence"] in self._in_prefill
            case "BatchPlanned":
                self._plan(fields)
            case "BatchDecoded":
                self._decode(fields)
            case _:
                pass

    def _plan(self, fields: Fields) -> None:
        parts = fields["parts"]
        n_rows = sum(len(part["inputs"]) for part in parts)
        self.shown.batches += 1
        self.shown.parts += len(parts)
        self.shown.evaluated += n_rows
        self.shown.deep_lone_rows += n_rows == 1 and parts[0]["position"] + 1 >= DEEP
        self._in_prefill |= {part["sequence"] for part in parts} - self._drawn
        self._planned_at = fields["t"]

    def _decode(self, fields: Fields) -> None:
        samples = fields.get("samples", ())
        self.shown.rows += sum("logits_crc32" in sample for sample in samples)
        self.shown.tokens += len(samples)
        self.shown.aborts += fields["code"] == ABORTED
        self.shown.seconds += (fields["t"] - self._planned_at) / 1e9
        drawn = {sample["sequence"] for sample in samples}
        self._drawn |= drawn
        self._in_prefill -= drawn
