"""The probe: does this model, on this build and machine, give the same bits under another schedule?

The rules that hold here:

* The same inputs are evaluated in several ways, one for each cause of a difference that is known (docs/llama-cpp.md
  section 2), and the last row of logits is compared with that of the first way. Equal checksums prove nothing about
  other inputs; unequal ones prove that nothing can be promised.
* A probe has a time limit, because a large model takes minutes: what is not tried is told as that. The cheapest ways
  come first.
* What was found is kept, by all that it depends on.
"""

from collections.abc import Callable, Iterator
from time import monotonic
from typing import Final

import orjson
from attrs import asdict, define, frozen

from reenact.actors.events import BatchPlanned, Copy, Part, Trim
from reenact.actors.header import EngineFacts, Numerics, Probed
from reenact.actors.options import Options
from reenact.runtime import kept
from reenact.runtime.engine import ContextSettings, Drawing
from reenact.runtime.evaluator import Evaluator

SECONDS_AT_LOAD: Final = 10.0
"""What a probe may take when a model is opened for the first time: about as long as loading it from a disk."""

_KIND: Final = "probes"
_N_SLOTS: Final = 8
_SLOT: Final = 3
"""The slot that is looked at: it has neighbours on both sides."""
_SHORT, _WIDE, _DEEP, _END = 24, 72, 512, 8
"""Inputs of a short prompt, of one wider than a tile, of a deep one; and how many come one by one at its end."""

_DRAWING: Final = Drawing(options=Options(seed=0, temperature=0), grammar=None, prompt=(), sampled=())

Make = Callable[[ContextSettings], Evaluator]
"""Makes a context of the model with the numerics in question."""
OnCase = Callable[[str, float], None]
"""Told what is being compared, and how much of the whole is done."""


@frozen(kw_only=True)
class _Way:
    """A way to evaluate the first inputs, up to ``length``, into the probed slot."""

    length: int
    chunk: int = _DEEP
    lone: int = 0
    """So many inputs at the end are evaluated one by one."""
    n_neighbours: int = 0
    """Sequences that have a row in each of these batches."""
    slot: int = _SLOT
    n_threads: int | None = None
    """None for those that are asked for."""
    from_copy: bool = False
    """What is before the end comes from another slot, by a copy that is trimmed."""
    kept: int = 0
    """So many cells stay as the way before left them."""

    @property
    def n_rows(self) -> int:
        """Rows that it evaluates."""
        chunks = -(-(self.length - self.lone - self.kept) // self.chunk) + self.lone
        return self.length - self.kept + chunks * self.n_neighbours


_ONE_THREAD: Final = "with one thread"

_CASES: Final[dict[str, tuple[_Way, _Way]]] = {
    "in chunks of 8": (_Way(length=_SHORT), _Way(length=_SHORT, chunk=8)),
    "one by one": (_Way(length=_SHORT), _Way(length=_SHORT, lone=_SHORT)),
    "beside 1 neighbour": (_Way(length=_SHORT), _Way(length=_SHORT, lone=_END, n_neighbours=1)),
    "beside 7 neighbours": (_Way(length=_SHORT), _Way(length=_SHORT, chunk=8, lone=_END, n_neighbours=7)),
    "in another slot": (_Way(length=_SHORT), _Way(length=_SHORT, slot=0)),
    "from a copied slot": (_Way(length=_SHORT), _Way(length=_SHORT, lone=_END, from_copy=True)),
    _ONE_THREAD: (_Way(length=_SHORT), _Way(length=_SHORT, chunk=8, lone=_END, n_threads=1)),
    "in chunks of 64": (_Way(length=_WIDE, chunk=_SHORT), _Way(length=_WIDE, chunk=64)),
    "alone at 512 cells": (_Way(length=_DEEP + _END), _Way(length=_DEEP + _END, lone=_END, kept=_DEEP)),
    "at 512 cells beside a neighbour": (
        _Way(length=_DEEP + _END),
        _Way(length=_DEEP + _END, lone=_END, kept=_DEEP, n_neighbours=1),
    ),
    f"at 512 cells {_ONE_THREAD}": (
        _Way(length=_DEEP + _END),
        _Way(length=_DEEP + _END, lone=_END, kept=_DEEP, n_threads=1),
    ),
}
"""What is compared: the first way of each case is done once for all that share it."""

CASES: Final = tuple(_CASES)


def probe(
    make: Make, n_vocab: int, n_threads: int, *, seconds: float | None, thorough: bool, on_case: OnCase
) -> dict[str, Probed]:
    """Return what each case came to.

    Args:
        make: Makes contexts.
        n_vocab: Tokens of the vocabulary.
        n_threads: Threads that are to be used.
        seconds: How long it may take; None for as long as it takes.
        thorough: Go on after the first difference.
        on_case: Told how it goes.
    """
    found: dict[str, Probed] = dict.fromkeys(CASES, "not tried")
    clock = _Clock(None if seconds is None else monotonic() + seconds)
    deep = [name for name, (_, way) in _CASES.items() if way.length > _WIDE]
    shallow = [name for name in CASES if name not in deep]
    for names, n_slots in ((shallow, _N_SLOTS), (deep, _SLOT + 2)):
        n_ctx = max(_CASES[name][1].length for name in names)
        settings = ContextSettings(n_slots=n_slots, n_ctx=n_ctx, n_batch=_DEEP, n_threads=n_threads)
        prober = _Prober(make(settings), n_vocab, n_threads, clock)
        try:
            for name in names:
                on_case(name, CASES.index(name) / len(CASES))
                found[name] = prober.compare(*_CASES[name])
                if found[name] == "differs" and not thorough:
                    return found
        finally:
            prober.close()
    return found


@define
class _Clock:
    """How long it may still take, and how long a row has taken so far."""

    ends: float | None
    n_rows: int = 0
    taken: float = 0.0

    def allows(self, n_rows: int) -> bool:
        """Return whether so many rows will be evaluated in time, going by those before; of the first it lets one be."""
        if self.ends is None:
            return True
        expected = self.taken / self.n_rows * n_rows if self.n_rows else 0.0
        return monotonic() + expected < self.ends


class _Prober:
    """Evaluates the same inputs in several ways."""

    def __init__(self, evaluator: Evaluator, n_vocab: int, n_threads: int, clock: _Clock) -> None:
        self._evaluator = evaluator
        self._n_threads = n_threads
        self._clock = clock
        # Any tokens do; these are spread over the vocabulary.
        self._tokens = tuple((7919 * i + 104729) % n_vocab for i in range(_DEEP + _END))
        self._lengths = [0] * evaluator.facts.n_slots
        self._first: dict[_Way, int | None] = {}
        self._batch = 0

    def compare(self, first: _Way, other: _Way) -> Probed:
        """Return whether both ways give the same row of logits."""
        n_rows = other.n_rows + (0 if first in self._first else first.n_rows)
        if not self._clock.n_rows and self._clock.ends is not None:
            self._evaluate(_Way(length=1))  # What a row costs.
        if not self._clock.allows(n_rows):
            return "not tried"
        if first not in self._first:
            self._first[first] = self._evaluate(first)
        return "same" if self._first[first] == self._evaluate(other) else "differs"

    def close(self) -> None:
        """Free the context."""
        self._evaluator.close()

    def _evaluate(self, way: _Way) -> int | None:
        """Return the checksum of the last row."""
        started = monotonic()
        self._evaluator.use_threads(way.n_threads or self._n_threads)
        start, checksum = way.kept, None
        copies: tuple[Copy, ...] = ()
        if way.from_copy:
            self._evaluate(_Way(length=way.length, slot=0))
            start = way.length - way.lone
            copies = (Copy(source=0, slot=way.slot),)
        trims: tuple[Trim, ...] = (Trim(slot=way.slot, length=start),)
        for begin, end in _chunks(start, way):
            planned = self._planned(way, begin, end, copies, trims)
            decoded = self._evaluator.step(planned, {1: _DRAWING})
            checksum = decoded.samples[0].logits_crc32 if decoded.samples else None
            copies, trims = (), ()
        self._clock.taken += monotonic() - started
        self._clock.n_rows += way.n_rows
        return checksum

    def _planned(
        self, way: _Way, begin: int, end: int, copies: tuple[Copy, ...], trims: tuple[Trim, ...]
    ) -> BatchPlanned:
        parts = [Part(sequence=1, slot=way.slot, position=begin, inputs=self._tokens[begin:end], draw=0)]
        others = [slot for slot in range(self._evaluator.facts.n_slots) if slot != way.slot]
        for slot in others[-way.n_neighbours :] if way.n_neighbours else []:
            position = self._lengths[slot]
            token = self._tokens[(position + slot) % len(self._tokens)]
            parts.append(Part(sequence=slot + 2, slot=slot, position=position, inputs=(token,), draw=None))
            self._lengths[slot] += 1
        self._lengths[way.slot] = end
        self._batch += 1
        parts.sort(key=lambda part: part.slot)
        return BatchPlanned(batch=self._batch, copies=copies, trims=trims, shifts=(), parts=tuple(parts))


def _chunks(start: int, way: _Way) -> Iterator[tuple[int, int]]:
    """Return where each batch's rows begin and end."""
    lone_from = way.length - way.lone
    for begin in range(start, lone_from, way.chunk):
        yield begin, min(begin + way.chunk, lone_from)
    for begin in range(max(lone_from, start), way.length):
        yield begin, begin + 1


# ---------------------------------------------------------------- what is kept


def kept_probe(key: str, seconds: float | None) -> dict[str, Probed] | None:
    """Return what an earlier probe found, unless it ran out of a time that was shorter than ``seconds``."""
    found = kept.read(_KIND, key)
    cases = None if found is None else found.get("probe")
    if found is None or not isinstance(cases, dict) or tuple(cases) != CASES:
        return None
    earlier = found.get("seconds")
    is_whole = "not tried" not in cases.values() or (seconds is not None and "differs" in cases.values())
    if is_whole or earlier is None or (seconds is not None and seconds <= earlier):
        return cases
    return None


def keep_probe(key: str, found: dict[str, Probed], seconds: float | None) -> None:
    """Keep what a probe found."""
    kept.write(_KIND, key, {"probe": found, "seconds": seconds})


def probe_key(sha256: str, engine: EngineFacts, numerics: Numerics, n_threads: int) -> str:
    """Return all that a probe's outcome depends on, as text."""
    values = {"sha256": sha256, "engine": asdict(engine), "numerics": asdict(numerics), "n_threads": n_threads}
    return orjson.dumps(values, option=orjson.OPT_SORT_KEYS).decode()
