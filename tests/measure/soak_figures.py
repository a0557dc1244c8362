"""What sessions of the soak come to, counted from their records alone. Figures are added up."""

from collections import Counter
from typing import Any, Final, get_args

from attrs import field, fields, frozen

from reenact.actors import events as e
from reenact.actors.inputs import Row

EVENTS: Final = {kind.__name__ for kind in (*get_args(e.GivenEvent), *get_args(e.DerivedEvent))} - {
    "SequenceForked",  # No business of a kernel: a fork's log is made by `replay fork`.
    "ActorFailed",  # A violation.
}
"""The kinds of events that are to be met."""

FAULTS: Final = (
    "decode 1, no room",
    "decode 2, asked for",
    "decode 2, unasked",
    "decode -1, with positions",
    "decode -1, refused",
    "decode -2",
    "decode -3",
    "cells lost",
    "engine failed",
    "fault nan",
    "fault grammar",
    "fault cost",
    "vector of NaN",
    "tokenizing failed",
    "tokenized late",
    "cancelled",
    "cancelled in a prefill",
    "deadline expired",
    "late fact",
    "reader paused",
    "reader resumed",
    "request rejected",
    "sequence preempted",
    "token dropped",
    "beginning reused",
    "slot copied",
    "cells moved",
    "batch of rows of numbers",
)
"""What is to be met: every kind of fault, and what else is not in each step."""


def _names(counts: dict[str, int]) -> Counter[str]:
    return Counter(counts)


def _numbers(counts: dict[Any, int]) -> Counter[int]:
    return Counter({int(number): count for number, count in counts.items()})


@frozen(kw_only=True)
class Figures:
    """What sessions come to."""

    sessions: int = 0
    steps: int = 0
    records: int = 0
    seconds: float = 0.0
    """Of a core, in all."""
    checked_seconds: float = 0.0
    """Of these, in the kernel and the rules."""
    bare_steps: int = 0
    """Steps that the kernel took a second time, without the rules."""
    bare_seconds: float = 0.0
    """In these."""
    events: Counter[str] = field(factory=Counter, converter=_names)
    faults: Counter[str] = field(factory=Counter, converter=_names)
    active: Counter[int] = field(factory=Counter, converter=_numbers)
    """Plans by the number of sequences that have rows in them."""
    holding: Counter[int] = field(factory=Counter, converter=_numbers)
    """Plans by the number of sequences that have a slot."""

    def __add__(self, other: "Figures") -> "Figures":
        names = [one.name for one in fields(Figures)]
        return Figures(**{name: getattr(self, name) + getattr(other, name) for name in names})

    @property
    def missing(self) -> list[str]:
        """What was never met."""
        return sorted(EVENTS - self.events.keys()) + [name for name in FAULTS if not self.faults[name]]


def median(counts: Counter[int]) -> int:
    """Return the number that as many are below as above, the lower one of two."""
    half = -(-counts.total() // 2)
    for number in sorted(counts):
        half -= counts[number]
        if half <= 0:
            return number
    return 0


class Counting:
    """Counts a session, record by record."""

    def __init__(self) -> None:
        self.events: Counter[str] = Counter()
        self.faults: Counter[str] = Counter()
        self.active: Counter[int] = Counter()
        self.holding: Counter[int] = Counter()
        self._n_given = self._n_holding = 0
        self._came: dict[int, int] = {}
        """Of each request that has not ended, the number of the fact that it came by."""
        self._rows: dict[int, int] = {}
        """How many rows in flight each sequence has."""
        self._aborting = False

    def add(self, record: e.Record) -> None:
        """Count a record."""
        event = record.event
        self.events[type(event).__name__] += 1
        self._n_given += record.cause is None
        match event:
            case e.BatchPlanned(parts=parts):
                self.active[len(parts)] += 1
                self.faults["cells moved"] += len(event.shifts)
                self.faults["slot copied"] += len(event.copies)
                self.faults["batch of rows of numbers"] += isinstance(parts[0].inputs[0], Row)
                self.holding[self._n_holding] += 1
                self._rows = {part.sequence: len(part.inputs) for part in parts}
                self._aborting = False
            case e.BatchDecoded():
                self._decoded(event)
                self._rows = {}
            case e.AbortRequested():
                self._aborting = True
            case e.SlotAssigned(reused=reused):
                self._n_holding += 1
                self.faults["beginning reused"] += reused > 0
            case e.SlotReleased():
                self._n_holding -= 1
            case e.RequestReceived(sequence=number):
                self._came[number] = self._n_given
            case e.SequenceFinished(sequence=number):
                del self._came[number]
            case _:
                self._add_seldom(event)

    def figures(self, *, seconds: float, checked_seconds: float) -> Figures:
        """Return what was counted, with how long it took."""
        return Figures(
            sessions=1,
            steps=self.active.total(),
            records=self.events.total(),
            seconds=seconds,
            checked_seconds=checked_seconds,
            events=self.events,
            faults=self.faults,
            active=self.active,
            holding=self.holding,
        )

    def _add_seldom(self, event: e.Event) -> None:
        match event:
            case e.SequencePreempted():
                self._n_holding -= 1
                self.faults["sequence preempted"] += 1
            case e.PromptTokenized(sequence=number):
                self.faults["tokenized late"] += self._n_given > self._came.get(number, self._n_given) + 1
            case e.CancelRequested(sequence=number) if number in self._came:
                self.faults["cancelled in a prefill" if self._rows.get(number, 0) > 1 else "cancelled"] += 1
            case e.DeadlineExpired(sequence=number) if number in self._came:
                self.faults["deadline expired"] += 1
            case e.ReaderPaused(sequence=number) if number in self._came:
                self.faults["reader paused"] += 1
            case e.ReaderResumed(sequence=number) if number in self._came:
                self.faults["reader resumed"] += 1
            case e.PauseExpired(sequence=number) if number in self._came:
                self.faults["pause expired"] += 1
            case e.SlotYielded():
                self._n_holding -= 1
                self.faults["slot given up"] += 1
            case e.CancelRequested() | e.DeadlineExpired() | e.ReaderPaused() | e.ReaderResumed() | e.PauseExpired():
                self.faults["late fact"] += 1
            case _ if type(event) in _FAULTS:
                self.faults[_FAULTS[type(event)]] += 1
            case _:
                pass

    def _decoded(self, event: e.BatchDecoded) -> None:
        match event.code:
            case e.DONE:
                pass
            case e.NO_ROOM:
                self.faults["decode 1, no room"] += 1
            case e.ABORTED:
                self.faults["decode 2, asked for" if self._aborting else "decode 2, unasked"] += 1
            case e.INVALID:
                self.faults["decode -1, with positions" if event.positions else "decode -1, refused"] += 1
            case code:
                self.faults[f"decode {code}"] += 1
        for sample in event.samples:
            if sample.fault is not None:
                self.faults[f"fault {sample.fault}"] += 1
        self.faults["vector of NaN"] += sum(not vector.values for vector in event.vectors)


_FAULTS: Final[dict[type[e.Event], str]] = {
    e.CellsLost: "cells lost",
    e.EngineFailed: "engine failed",
    e.TokenizeFailed: "tokenizing failed",
    e.RequestRejected: "request rejected",
    e.RequestDisplaced: "request displaced",
    e.TokenDropped: "token dropped",
}
