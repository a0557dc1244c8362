"""The facts of a session, apart from the decisions that followed: they can happen again, wholly or in part.

The rules that hold here:

* From a log the given records are taken, and from its plans only the sequences whose rows a batch had. Today's actors
  decide what follows.
* The outcome of a batch is kept by sequence, not by slot: so it applies to another batch, which was planned because
  some facts did not happen again.
* Refusals caused by an invalid plan (rows that do not follow the cells) are not facts: the engine will refuse again if
  the same plan comes back.
* A sequence draws its recorded tokens, one by one, whatever batch it is in. If it draws beyond them, it has come to the
  end of its text.
* A fact that has become impossible (a cancel of a request that was never received, the outcome of no batch) does not
  happen. A fact that was always impossible (a batch decoded twice, or in slots that are not its own; a request received
  twice) ends the session, as it did when it was recorded.
"""

from collections.abc import Collection, Iterable, Iterator, Mapping
from typing import Any, Final, TypeVar

from attrs import evolve as changed
from attrs import frozen

from reenact.actors import events as e
from reenact.actors.batch import apply_operations, n_without
from reenact.actors.errors import InternalError
from reenact.actors.header import ContextFacts
from reenact.runtime.engine.driver import Driver
from reenact.runtime.engine.protocol import code_before, refused
from reenact.runtime.log.reader import EmptyLog, Entry

EventT = TypeVar("EventT", bound=e.Event)

_EOG_TOKEN: Final = 0
"""The end-of-generation token of a sequence that draws more tokens than it has in the log."""


@frozen(kw_only=True)
class Outcome:
    """The outcome of a batch."""

    code: int
    """The return code; `DONE` also where the code followed from the plan alone."""
    refused: bool
    """Whether the engine refused the batch, although it could have executed it, and changed no cells."""
    missing: Mapping[int, int]
    """How many rows of each sequence are not in cells afterwards; by default none if it is done, and else all."""


@frozen
class Happening:
    """A fact: a given event, or the outcome of a batch."""

    t: int
    """Nanoseconds since the session opened."""
    what: e.GivenEvent | Outcome | None
    """None for a record that is not a fact."""


@frozen(kw_only=True)
class Facts:
    """All facts of a session, in order."""

    header: e.SessionOpened
    happenings: tuple[Happening, ...]
    drawn: Mapping[int, tuple[e.Sample, ...]]
    """The draws of each sequence, by index."""
    vectors: Mapping[int, e.Vector]
    """The vector of each pooled text."""

    @property
    def requests(self) -> list[int]:
        """The numbers of the requests that were received."""
        return [one.what.sequence for one in self.happenings if isinstance(one.what, e.RequestReceived)]


class _Cells:
    """How many cells each slot has in use, in an engine that does what plans require."""

    def __init__(self, context: ContextFacts) -> None:
        self._context = context
        self._lengths: dict[int, int] = {}
        self.lose()

    def accepts(self, planned: e.BatchPlanned) -> bool:
        """Return whether the slots of a plan exist.

        An engine may refuse a plan for other reasons of its own: that is a fact.
        """
        return planned.slots <= self._lengths.keys()

    def operate(self, planned: e.BatchPlanned) -> int:
        """Copy, trim and shift, and return the code that follows from the plan."""
        self._lengths = apply_operations(self._lengths, planned, n_without)
        return code_before(planned, [self._lengths[part.slot] for part in planned.parts], self._context)

    def length(self, slot: int) -> int:
        """Return how many cells a slot has in use."""
        return self._lengths[slot]

    def reach(self, positions: Iterable[tuple[int, int]]) -> None:
        """Set the last position in each slot."""
        for slot, last in positions:
            self._lengths[slot] = last + 1

    def lose(self) -> None:
        """Empty all slots."""
        self._lengths = dict.fromkeys(range(self._context.n_slots), 0)


def facts_of(entries: Iterable[Entry]) -> Facts:
    """Return the facts of a log.

    Raises:
        LogNotComparable: The log has no record.
    """
    reading = iter(entries)
    first = next(reading, None)
    if first is None or not isinstance(header := first.record.event, e.SessionOpened):
        raise EmptyLog
    happenings: list[Happening] = []
    drawn: dict[int, dict[int, e.Sample]] = {}
    vectors: dict[int, e.Vector] = {}
    planned: e.BatchPlanned | None = None
    received: set[int] = set()
    cells = _Cells(header.context)
    for entry in reading:
        match entry.record.event:
            case e.BatchPlanned() as event:
                planned = event
            case e.BatchDecoded() as event if planned is not None and _is_of(event, planned):
                happenings.append(Happening(entry.t, _outcome(cells, planned, event)))
                for sample in event.samples:
                    drawn.setdefault(sample.sequence, {})[sample.index] = sample
                vectors |= {vector.sequence: vector for vector in event.vectors}
                planned = None
            case e.BatchDecoded() | e.RequestReceived() as event if _cannot_be(event, received):
                happenings.append(Happening(entry.t, None))
                for _ in reading:
                    pass  # A corrupt line must still be reported.
            case event if entry.record.cause is None:
                if isinstance(event, e.CellsLost):
                    cells.lose()
                if isinstance(event, e.RequestReceived):
                    received.add(event.sequence)
                happenings.append(Happening(entry.t, event))  # type: ignore[arg-type]  # it has no cause
            case _:
                pass
    return Facts(
        header=header,
        happenings=tuple(happenings),
        drawn={number: tuple(samples[index] for index in sorted(samples)) for number, samples in drawn.items()},
        vectors=vectors,
    )


def _cannot_be(event: e.BatchDecoded | e.RequestReceived, received: Collection[int]) -> bool:
    """Return whether this is the outcome of no batch, or a request that was already received."""
    return isinstance(event, e.BatchDecoded) or event.sequence in received


def _is_of(decoded: e.BatchDecoded, planned: e.BatchPlanned) -> bool:
    """Return whether an outcome belongs to this batch."""
    slots = {part.slot for part in planned.parts}
    return decoded.batch == planned.batch and all(slot in slots for slot, _ in decoded.positions)


def _outcome(cells: _Cells, planned: e.BatchPlanned, decoded: e.BatchDecoded) -> Outcome:
    """Return the outcome of a batch, apart from its slots and from the effects of its plan."""
    taken = cells.accepts(planned)
    if not taken or not decoded.positions:
        return Outcome(code=decoded.code if taken else e.DONE, refused=taken, missing={})
    due = cells.operate(planned)
    reached = dict(decoded.positions)
    missing: dict[int, int] = {}
    for part in planned.parts:
        if part.slot in reached and not part.pools:
            lacking = cells.length(part.slot) + len(part.inputs) - 1 - reached[part.slot]
            if lacking != (0 if decoded.code == e.DONE else len(part.inputs)):
                missing[part.sequence] = lacking
    cells.reach(decoded.positions)
    return Outcome(code=e.DONE if decoded.code == due else decoded.code, refused=False, missing=missing)


@frozen
class Played:
    """A fact that happened again, and the records that today's actors made of it."""

    index: int
    """Its index among the happenings; -1 for the header."""
    t: int
    records: list[e.Record]
    """The fact's record, and all that followed from it."""
    error: Exception | None = None
    """The error because of which the kernel could not take it; it ends the session."""


class Play:
    """A session in which facts happen again.

    Args:
        facts: The facts.
    """

    def __init__(self, facts: Facts) -> None:
        self.numbers: dict[int, int] = {}
        """The number that each request has in this session."""
        self._facts = facts
        self._driver = Driver()
        self._cells = _Cells(facts.header.context)

    def run(self) -> Iterator[Played]:
        """Let the facts happen, one after the other, up to one that the kernel cannot process.

        Nothing happens at all in a session that cannot be opened because a batch has no row for one of its slots.
        """
        opening = self._driver.give(self._facts.header)
        if opening.error is not None:
            return
        yield Played(-1, 0, opening.records)
        for index, happening in enumerate(self._facts.happenings):
            given = self.event_of(happening.what)
            if given is None:
                continue
            worked = self._driver.give(given)
            if isinstance(worked.error, InternalError):
                continue  # The fact was refused and changed nothing.
            yield Played(index, happening.t, worked.records, worked.error)
            if worked.error is not None:
                return  # An actor could not take a decision.

    def event_of(self, what: e.GivenEvent | Outcome | None) -> e.GivenEvent | None:
        """Return a fact's event in this session; None if it is impossible here."""
        match what:
            case None:
                return None
            case Outcome():
                return None if self._driver.planned is None else self._decoded(what, self._driver.planned)
            case e.RequestReceived():
                number = self.numbers[what.sequence] = self._driver.kernel.n_requests + 1
                return changed(what, sequence=number, continues=self.numbers.get(what.continues or 0))
            case e.SessionClosed():
                # In a session of other batches some sequences may be live still.
                kernel = self._driver.kernel
                return None if kernel.live else e.SessionClosed(digest=kernel.digest())
            case e.CellsLost():
                self._cells.lose()
                return what
            case e.SessionOpened() | e.SessionResumed() | e.EngineFailed() | e.RequestRefused():
                return what
            case _:
                return self.renumbered(what)

    def renumbered(self, event: EventT) -> EventT | None:
        """Return an event of one sequence with its number in this session; None if the request was never received."""
        number = self.numbers.get(getattr(event, "sequence", 0))
        fields: dict[str, Any] = {"sequence": number}
        return None if number is None else changed(event, **fields)

    def _decoded(self, outcome: Outcome, planned: e.BatchPlanned) -> e.BatchDecoded:
        """Return the outcome of the batch in flight."""
        if outcome.refused or not self._cells.accepts(planned):
            return refused(planned)
        names = {here: number for number, here in self.numbers.items()}
        code = self._cells.operate(planned)
        code = outcome.code or code
        missing = outcome.missing if code == outcome.code else {}
        done = code == e.DONE
        positions, samples, vectors = [], [], []
        for part in planned.parts:
            number = names[part.sequence]
            lacking = missing.get(number, 0 if done else len(part.inputs))
            reached = self._cells.length(part.slot) + max(len(part.inputs) - lacking, 0) - 1
            positions.append((part.slot, -1 if part.pools else reached))
            if done and part.draw is not None:
                drawn = self._facts.drawn.get(number, ())
                sample = drawn[part.draw] if part.draw < len(drawn) else None
                sample = sample or e.Sample(sequence=number, index=part.draw, token=_EOG_TOKEN, eog=True)
                samples.append(changed(sample, sequence=part.sequence, index=part.draw))
            if done and part.pools:
                vector = self._facts.vectors.get(number) or e.Vector(sequence=number, values=(1.0,), crc32=0)
                vectors.append(changed(vector, sequence=part.sequence))
        self._cells.reach(positions)
        return e.BatchDecoded(
            batch=planned.batch,
            code=code,
            samples=tuple(samples),
            vectors=tuple(vectors),
            positions=tuple(positions),
        )
