"""Probes whether a model, on this build and machine, gives the same bits under another schedule.

The rules that hold here:

* The same inputs are evaluated in several ways, one for each known cause of a difference (docs/llama-cpp.md section 2),
  and the last row of logits is compared with that of the first way. Equal checksums prove nothing about other inputs;
  unequal ones prove that nothing can be promised.
* A probe may have a time limit, because a large model takes minutes: a case that is not expected to end in time is
  reported as "not tried". The cheapest cases come first.
* A case that no session can meet is left out: one thread instead of one, more cells than the model has positions.
* The findings are kept under everything that they depend on. A case that a later probe does not try keeps its earlier
  finding.
"""

from collections.abc import Callable, Iterator
from time import monotonic
from typing import Any, Final, get_args

import orjson
from attrs import asdict, define, frozen

from reenact.actors.batch import ABORTED, DONE, BatchPlanned, Copy, Draw, Part, Trim
from reenact.actors.errors import EngineBroken
from reenact.actors.header import EngineFacts, Numerics, Probed
from reenact.actors.options import Options
from reenact.runtime import user_cache
from reenact.runtime.engine.protocol import ContextSettings, Drawing
from reenact.runtime.engine.row_numbers import NO_NUMBERS
from reenact.runtime.llama.context import Evaluator

SECONDS_AT_LOAD: Final = 10.0
"""The most time for a probe when a model is opened for the first time: about as long as loading it from a disk."""

BATCH: Final = 0
"""The number of every batch of a probe, so that an abort of it ends all later ones too."""

_KIND: Final = "probes"
_N_SLOTS: Final = 8
_SLOT: Final = 3
"""The slot that is compared; it has neighbours on both sides."""
_SHORT, _WIDE, _DEEP, _END = 24, 72, 512, 8
"""Lengths of a short prompt, of one wider than a tile, of a deep one, and of its end that is evaluated one by one."""

_DRAWING: Final = Drawing(options=Options(seed=0, temperature=0), grammar=None, prompt=(), sampled=())

Make = Callable[[ContextSettings], Evaluator]
"""Makes a context of the model with the numerics in question."""
OnCase = Callable[[str, float], None]
"""Called with the name of the next case and the part that is done, from 0 to 1; an exception from it ends the probe."""


@frozen(kw_only=True)
class _Way:
    """A way to evaluate the first ``length`` inputs into the probed slot."""

    length: int
    chunk: int = _DEEP
    lone: int = 0
    """The count of inputs at the end that are evaluated one by one."""
    n_neighbours: int = 0
    """The count of other sequences with a row in each of these batches."""
    slot: int = _SLOT
    one_thread: bool = False
    """Computed by one thread, whatever the count asked for."""
    source: "_Way | None" = None
    """The inputs before the lone ones come from another slot, filled in this way, by a copy that is then trimmed."""
    kept: int = 0
    """The count of cells that stay as the way before left them."""

    @property
    def start(self) -> int:
        """The count of cells before its first batch."""
        return self.kept if self.source is None else self.length - self.lone

    def batches(self) -> Iterator[tuple[int, int]]:
        """Return the beginning and end of each batch's rows."""
        lone_from = self.length - self.lone
        for begin in range(self.start, lone_from, self.chunk):
            yield begin, min(begin + self.chunk, lone_from)
        for begin in range(max(lone_from, self.start), self.length):
            yield begin, begin + 1

    @property
    def size(self) -> tuple[int, int]:
        """The counts of its batches and rows, including those of neighbours and of its source."""
        n_batches, n_rows = (0, 0) if self.source is None else self.source.size
        for begin, end in self.batches():
            n_batches, n_rows = n_batches + 1, n_rows + end - begin + self.n_neighbours
        return n_batches, n_rows


_IN_ANOTHER_SLOT: Final = _Way(length=_SHORT, slot=0)

_CASES: Final[dict[str, tuple[_Way, _Way]]] = {
    "in chunks of 8": (_Way(length=_SHORT), _Way(length=_SHORT, chunk=8)),
    "one by one": (_Way(length=_SHORT), _Way(length=_SHORT, lone=_SHORT)),
    "beside 1 neighbour": (_Way(length=_SHORT), _Way(length=_SHORT, lone=_END, n_neighbours=1)),
    "beside 7 neighbours": (_Way(length=_SHORT), _Way(length=_SHORT, chunk=8, lone=_END, n_neighbours=7)),
    "in another slot": (_Way(length=_SHORT), _IN_ANOTHER_SLOT),
    "from a copied slot": (_Way(length=_SHORT), _Way(length=_SHORT, lone=_END, source=_IN_ANOTHER_SLOT)),
    "with one thread": (_Way(length=_SHORT), _Way(length=_SHORT, chunk=8, lone=_END, one_thread=True)),
    "in chunks of 64": (_Way(length=_WIDE, chunk=_SHORT), _Way(length=_WIDE, chunk=64)),
    "alone at 512 cells": (_Way(length=_DEEP + _END), _Way(length=_DEEP + _END, lone=_END, kept=_DEEP)),
    "at 512 cells beside a neighbour": (
        _Way(length=_DEEP + _END),
        _Way(length=_DEEP + _END, lone=_END, kept=_DEEP, n_neighbours=1),
    ),
    "at 512 cells with one thread": (
        _Way(length=_DEEP + _END),
        _Way(length=_DEEP + _END, lone=_END, kept=_DEEP, one_thread=True),
    ),
}
"""The two ways that each case compares; a first way is evaluated once for all cases that share it."""

CASES: Final = tuple(_CASES)


def probe(
    make: Make, n_vocab: int, n_threads: int, *, seconds: float | None, thorough: bool, on_case: OnCase
) -> dict[str, Probed]:
    """Return the result of each case.

    Args:
        make: Makes contexts.
        n_vocab: The count of tokens in the vocabulary.
        n_threads: The count of threads to use.
        seconds: How long it may take; None for as long as it takes.
        thorough: Go on after the first difference.
        on_case: Called before each case.

    Raises:
        EngineBroken: No context can be made, or the probe was aborted.
    """
    found: dict[str, Probed] = {
        name: "not tried" for name, (_, way) in _CASES.items() if n_threads > 1 or not way.one_thread
    }
    clock = _Clock(None if seconds is None else monotonic() + seconds)
    deep = [name for name in found if _CASES[name][0].length > _WIDE]
    shallow = [name for name in found if name not in deep]
    for names, n_slots in ((shallow, _N_SLOTS), (deep, _SLOT + 2)):
        n_ctx = max(_CASES[name][0].length for name in names)
        settings = ContextSettings(n_slots=n_slots, n_ctx=n_ctx, n_batch=_DEEP, n_threads=n_threads)
        prober = _Prober(make(settings), n_vocab, n_threads, clock)
        try:
            for name in names:
                first, other = _CASES[name]
                if not prober.has_room(first):
                    del found[name]
                    continue
                on_case(name, CASES.index(name) / len(CASES))
                found[name] = prober.compare(first, other)
                if found[name] == "differs" and not thorough:
                    return found
        finally:
            prober.close()
    return found


@define
class _Clock:
    """The time limit, and the time that a batch takes."""

    ends: float | None
    batch: float = 0.0
    """Seconds for a batch apart from its rows, mostly for reading the weights once."""
    row: float = 0.0
    """Seconds for each row."""
    is_measured: bool = False
    """Whether these two have been measured."""

    @property
    def is_over(self) -> bool:
        """Whether no time is left."""
        return self.ends is not None and monotonic() >= self.ends

    def measure(self, take: Callable[[int], object]) -> None:
        """Measure the time that a batch takes, if there is a limit.

        Args:
            take: Evaluates a batch of the given number of rows.
        """
        if self.ends is None or self.is_measured:
            return
        taken = []
        for n_rows in (1, 1, _END):  # The first batch of all reads the weights from the disk.
            started = monotonic()
            if not self.is_over:
                take(n_rows)
            taken.append(monotonic() - started)
        self.row = max(0.0, taken[2] - taken[1]) / (_END - 1)
        self.batch = max(0.0, taken[1] - self.row)
        self.is_measured = True

    def allows(self, way: _Way, n_threads: int) -> bool:
        """Return whether a way is expected to end in time."""
        if self.ends is None:
            return True
        n_batches, n_rows = way.size
        expected = (n_batches * self.batch + n_rows * self.row) * (n_threads if way.one_thread else 1)
        return monotonic() + expected < self.ends


class _Prober:
    """Evaluates the same inputs in several ways."""

    def __init__(self, evaluator: Evaluator, n_vocab: int, n_threads: int, clock: _Clock) -> None:
        self._evaluator = evaluator
        self._n_threads = n_threads
        self._clock = clock
        # Any tokens will do; these are spread over the vocabulary.
        self._tokens = tuple((7919 * i + 104729) % n_vocab for i in range(_DEEP + _END))
        self._lengths = [0] * evaluator.facts.n_slots
        self._first: dict[_Way, int | None] = {}

    def has_room(self, way: _Way) -> bool:
        """Return whether a slot has enough cells: a model may have fewer positions."""
        return way.length <= self._evaluator.facts.n_ctx_seq

    def compare(self, first: _Way, other: _Way) -> Probed:
        """Return whether both ways give the same row of logits; a way is not tried if there is not enough time."""
        self._clock.measure(lambda n_rows: self._evaluate(_Way(length=n_rows)))
        if first not in self._first:
            if not self._clock.allows(first, self._n_threads):
                return "not tried"
            self._first[first] = self._evaluate(first)
        if not self._clock.allows(other, self._n_threads):
            return "not tried"
        expected, actual = self._first[first], self._evaluate(other)
        if expected is None or actual is None:
            return "not tried"
        return "same" if expected == actual else "differs"

    def close(self) -> None:
        """Free the context."""
        self._evaluator.close()

    def _evaluate(self, way: _Way) -> int | None:
        """Return the checksum of the last row; None if llama.cpp cannot evaluate a batch.

        Raises:
            EngineBroken: It was aborted.
        """
        copies: tuple[Copy, ...] = ()
        if way.source is not None:
            self._evaluate(way.source)
            copies = (Copy(source=way.source.slot, slot=way.slot),)
        trims: tuple[Trim, ...] = (Trim(slot=way.slot, length=way.start),)
        self._evaluator.use_threads(1 if way.one_thread else self._n_threads)
        checksum = None
        for begin, end in way.batches():
            decoded = self._evaluator.step(self._planned(way, begin, end, copies, trims), {1: _DRAWING}, NO_NUMBERS)
            if decoded.code == ABORTED:
                raise EngineBroken("the probe was aborted")
            if decoded.code != DONE:
                return None
            checksum = decoded.samples[0].logits_crc32
            copies, trims = (), ()
        return checksum

    def _planned(
        self, way: _Way, begin: int, end: int, copies: tuple[Copy, ...], trims: tuple[Trim, ...]
    ) -> BatchPlanned:
        parts = [Part(sequence=1, slot=way.slot, position=begin, inputs=self._tokens[begin:end], wants=Draw(0))]
        others = [slot for slot in range(self._evaluator.facts.n_slots) if slot != way.slot]
        for slot in others[-way.n_neighbours :] if way.n_neighbours else []:
            position = self._lengths[slot]
            token = self._tokens[(position + slot) % len(self._tokens)]
            parts.append(Part(sequence=slot + 2, slot=slot, position=position, inputs=(token,)))
            self._lengths[slot] += 1
        self._lengths[way.slot] = end
        parts.sort(key=lambda part: part.slot)
        return BatchPlanned(batch=BATCH, copies=copies, trims=trims, shifts=(), parts=tuple(parts))


# ---------------------------------------------------------------- findings that are kept


def kept_probe(key: str, seconds: float) -> dict[str, Probed] | None:
    """Return the findings of earlier probes; None if another one might find more, because it has more time."""
    known = _kept(key)
    if known is None:
        return None
    found, given = known
    ends = "differs" in found.values() or "not tried" not in found.values()
    return found if ends or given is None or seconds <= given else None


def keep_probe(key: str, found: dict[str, Probed], seconds: float | None) -> dict[str, Probed]:
    """Keep a probe's findings, and return them together with the earlier ones.

    Args:
        key: From `probe_key`.
        found: Its findings.
        seconds: How long it was allowed to take; None for no limit.
    """
    earlier = _kept(key)
    if earlier is not None:
        before, given = earlier
        found = {case: before.get(case, now) if now == "not tried" else now for case, now in found.items()}
        seconds = None if seconds is None or given is None else max(seconds, given)
    user_cache.write(_KIND, key, {"probe": found, "seconds": seconds})
    return found


def _kept(key: str) -> tuple[dict[str, Probed], float | None] | None:
    """Return the kept findings and the longest time limit of their probes; None if they are not in this form."""
    values: dict[str, Any] = user_cache.read(_KIND, key) or {}
    found, seconds = values.get("probe"), values.get("seconds", False)
    if not isinstance(found, dict) or not found or not set(found) <= set(CASES):
        return None
    if any(outcome not in get_args(Probed) for outcome in found.values()):
        return None
    return (found, seconds) if seconds is None or type(seconds) in {int, float} else None


def probe_key(sha256: str, engine: EngineFacts, numerics: Numerics, n_threads: int) -> str:
    """Return everything that a probe's findings depend on, as text."""
    values = {
        "sha256": sha256,
        "engine": asdict(engine),
        "numerics": asdict(numerics),
        "n_threads": n_threads,
        "cases": CASES,
    }
    return orjson.dumps(values, option=orjson.OPT_SORT_KEYS).decode()
