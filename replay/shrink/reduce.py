"""Reduces facts, step by step, while they keep showing a fault.

The rules that hold here:

* Whether the fault stays is decided by letting whole facts happen again; this module does not know the fault itself.
* Items are left out in runs, the longest first (delta debugging): so of a thousand requests one is found in some dozens
  of tries.
* It ends when the time is up, even in the middle of a try, or when no request, fact, fault, token, input or option can
  be left out alone, and the context cannot be made smaller.
"""

from collections.abc import Callable, Collection, Sequence
from contextlib import suppress
from functools import partial
from typing import Any, Final, TypeVar

from attrs import evolve as changed

from reenact.actors import events as e
from reenact.actors.inputs import Input
from reenact.actors.options import OPTION_NAMES, Options
from reenact.replay.facts import Facts, Happening, Outcome
from reenact.replay.shrink.patience import Patience, TimeIsOver
from reenact.replay.shrink.question import Shows, Wrong

T = TypeVar("T")
AboutOneT = TypeVar("AboutOneT", e.RequestReceived, e.PromptTokenized)

_DONE: Final = Outcome(code=e.DONE, refused=False, missing={})
_CONTEXT: Final = ("n_slots", "n_batch", "n_ctx")


def fewest(items: Sequence[T], stays: Callable[[list[T]], bool]) -> list[T]:
    """Return the items without those that can be left out.

    Args:
        items: All items.
        stays: Returns whether the fault stays with these items, which are in the same order.
    """
    kept = list(items)
    size = len(kept)
    while size:
        at = 0
        while at < len(kept):
            fewer = kept[:at] + kept[at + size :]
            if stays(fewer):
                kept = fewer
            else:
                at += size
        size //= 2
    return kept


class Reduction:
    """Reduces facts.

    Args:
        facts: All facts.
        wrong: The predicate that must stay true.
        on_progress: A callback that receives the remaining facts after every reduction.
        stopped: Returns whether to stop.
        patience: The limit on how long it may take.
    """

    def __init__(
        self,
        facts: Facts,
        wrong: Wrong,
        *,
        on_progress: Callable[[Facts], None],
        stopped: Callable[[], bool],
        patience: Patience,
    ) -> None:
        self.facts = facts
        """The fewest facts so far."""
        self.shows: Shows | None = None
        """The session that they make; None before `run`, and if all facts do not show the fault."""
        self.n_tries = 0
        """How often facts happened."""
        self.finished = False
        """Whether nothing more can be left out."""
        self._wrong = wrong
        self._on_progress = on_progress
        self._stopped = stopped
        self._patience = patience

    def run(self) -> None:
        """Leave out everything that can be left out."""
        with suppress(TimeIsOver):
            if self._try(self.facts):
                self._until_nothing_goes()
            self.finished = True

    def _until_nothing_goes(self) -> None:
        before = None
        while before != self.facts:
            before = self.facts
            self._requests()
            self._happenings()
            self._faults()
            self._drawn()
            self._prompts()
            self._options()
            self._context()

    def _try(self, facts: Facts) -> bool:
        """Keep these facts if they show the fault, without those that come after it."""
        if self._stopped():
            raise TimeIsOver
        self._patience.check()
        self.n_tries += 1
        shows = self._wrong(facts)
        if shows is None:
            return False
        self.shows, self.facts = shows, changed(facts, happenings=facts.happenings[: shows.n_needed])
        self._on_progress(self.facts)
        return True

    def _requests(self) -> None:
        base = self.facts
        fewest(base.requests, lambda kept: self._try(_of_requests(base, kept)))

    def _happenings(self) -> None:
        """Leave out facts one by one; a request is left out as a whole."""
        base = self.facts
        requests = {i for i, one in enumerate(base.happenings) if isinstance(one.what, e.RequestReceived)}

        def stays(kept: list[int]) -> bool:
            chosen = requests.union(kept)
            return self._try(
                changed(base, happenings=tuple(one for i, one in enumerate(base.happenings) if i in chosen))
            )

        fewest([i for i in range(len(base.happenings)) if i not in requests], stays)

    def _faults(self) -> None:
        """Let batches succeed that did not."""
        base = self.facts
        faults = [i for i, one in enumerate(base.happenings) if isinstance(one.what, Outcome) and one.what != _DONE]

        def stays(kept: list[int]) -> bool:
            return self._try(_with(base, dict.fromkeys(set(faults) - set(kept), _DONE)))

        fewest(faults, stays)

    def _drawn(self) -> None:
        """Leave out tokens, and the values of a token other than its piece."""
        base = self.facts
        self._try(changed(base, drawn={number: tuple(map(_plain, those)) for number, those in base.drawn.items()}))
        for number in self.facts.drawn:
            fewest(self.facts.drawn[number], partial(self._draws, self.facts, number))

    def _draws(self, base: Facts, number: int, samples: list[e.Sample]) -> bool:
        """Try these samples for a sequence."""
        return self._try(changed(base, drawn={**base.drawn, number: tuple(samples)}))

    def _prompts(self) -> None:
        """Shorten prompts, as inputs and as text."""
        for number in self.facts.requests:
            if (found := _first(self.facts, e.RequestReceived, number)) is not None:
                i, received = found
                if received.prompt:
                    self._try(_with(self.facts, {i: changed(received, prompt="")}))
            if (prompt := _first(self.facts, e.PromptTokenized, number)) is not None:
                i, tokenized = prompt
                fewest(tokenized.inputs, partial(self._tokenized, self.facts, i, tokenized))

    def _tokenized(self, base: Facts, i: int, event: e.PromptTokenized, inputs: list[Input]) -> bool:
        """Try these inputs as a prompt."""
        return self._try(_with(base, {i: changed(event, inputs=tuple(inputs))}))

    def _options(self) -> None:
        """Reset options to their defaults."""
        for number in self.facts.requests:
            if (found := _first(self.facts, e.RequestReceived, number)) is not None:
                i, event = found
                default = Options(seed=event.options.seed)
                given = [name for name in OPTION_NAMES if getattr(event.options, name) != getattr(default, name)]
                fewest(given, partial(self._asked, self.facts, i, event))

    def _asked(self, base: Facts, i: int, event: e.RequestReceived, names: list[str]) -> bool:
        """Try a request with only these of its options, and the defaults of the others."""
        if "top_logprobs" in names and "logprobs" not in names:
            return False  # One is invalid without the other.
        asked = {name: getattr(event.options, name) for name in (*names, "seed", "dimensions")}
        return self._try(_with(base, {i: changed(event, options=Options(**asked))}))

    def _context(self) -> None:
        """Make the context smaller."""
        for name in _CONTEXT:
            header = self.facts.header
            for value in _smaller(getattr(header.context, name)):
                sizes: dict[str, Any] = {name: value, **({"n_ctx_seq": value} if name == "n_ctx" else {})}
                context = changed(header.context, **sizes)
                if self._try(changed(self.facts, header=changed(header, context=context))):
                    break


def _first(facts: Facts, kind: type[AboutOneT], number: int) -> tuple[int, AboutOneT] | None:
    """Return the index and the first fact of a kind about a request; None if that is left out."""
    return next(
        (
            (i, one.what)
            for i, one in enumerate(facts.happenings)
            if isinstance(one.what, kind) and one.what.sequence == number
        ),
        None,
    )


def _of_requests(facts: Facts, kept: Collection[int]) -> Facts:
    """Return the facts without those of other requests."""
    chosen = set(kept)
    numbers = [getattr(one.what, "sequence", None) for one in facts.happenings]
    return changed(
        facts,
        happenings=tuple(
            one for one, number in zip(facts.happenings, numbers, strict=True) if number is None or number in chosen
        ),
        drawn={number: samples for number, samples in facts.drawn.items() if number in chosen},
        vectors={number: vector for number, vector in facts.vectors.items() if number in chosen},
    )


def _with(facts: Facts, whats: dict[int, e.GivenEvent | Outcome]) -> Facts:
    """Return the facts with some of them replaced."""
    return changed(
        facts,
        happenings=tuple(Happening(one.t, whats.get(i, one.what)) for i, one in enumerate(facts.happenings)),
    )


def _plain(sample: e.Sample) -> e.Sample:
    return changed(sample, logits_crc32=None, logprob=None, top=())


def _smaller(value: int) -> list[int]:
    """Return smaller values, the smallest first: 1, 2, 3, 4, 6, 8, 12, 16, ..."""
    powers = [1 << i for i in range(value.bit_length())]
    return sorted(one for power in powers for one in {power, power + power // 2} if one < value)
