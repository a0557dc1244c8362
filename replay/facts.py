"""What happened in a session, apart from what was made of it: it can happen again, also in part.

The rules that hold here:

* Of a log the given records are taken, and of the plans only whose rows were meant. What follows is today's actors' to
  decide.
* What became of a batch is told of its sequences, not of its slots: so it can be told of another batch, which was
  planned because some of the rest did not happen.
* What an engine says because it was told something that cannot be (rows that do not follow the cells) is no fact. It
  says so again, if it is told so again.
* A sequence draws what it drew, token by token, whatever batch it is in. One that draws on beyond that has come to the
  end of its text.
* What cannot be any more (a cancel of a request that never came, the outcome of no batch) does not happen. With what
  could never be (a batch decoded twice, or in slots that are not its own; a request that came twice) the session is
  over, as it was when it was recorded.
"""

from collections.abc import Collection, Iterable, Iterator, Mapping
from typing import Any, Final, TypeVar

from attrs import evolve as changed
from attrs import frozen

from reenact.actors import events as e
from reenact.actors.batch import apply_operations, n_without
from reenact.actors.errors import InternalError, LogNotComparable
from reenact.actors.header import ContextFacts
from reenact.runtime.engine.driver import Driver
from reenact.runtime.engine.protocol import code_before, refused
from reenact.runtime.log.reader import Entry

EventT = TypeVar("EventT", bound=e.Event)

_EOG_TOKEN: Final = 0
"""The end-of-generation token of a sequence that draws more than it drew in the log; there it has none."""


@frozen(kw_only=True)
class Outcome:
    """What became of a batch."""

    code: int
    """`DONE` also where the code followed from the plan alone."""
    refused: bool
    """The engine did nothing of it, with cells neither, though it could have."""
    missing: Mapping[int, int]
    """Rows of each sequence that are not in cells after it; who is not named lacks none if it is done, and else all."""


@frozen
class Happening:
    """A fact: a given event, or what became of a batch."""

    t: int
    """Nanoseconds since the session opened."""
    what: e.GivenEvent | Outcome | None
    """None for a record that is no fact."""


@frozen(kw_only=True)
class Facts:
    """All that happened in a session, in order."""

    header: e.SessionOpened
    happenings: tuple[Happening, ...]
    drawn: Mapping[int, tuple[e.Sample, ...]]
    """What each sequence drew, by index."""
    vectors: Mapping[int, e.Vector]
    """What the text of each was pooled to."""

    @property
    def requests(self) -> list[int]:
        """The numbers of the requests that came."""
        return [one.what.sequence for one in self.happenings if isinstance(one.what, e.RequestReceived)]


class _Cells:
    """How many cells each slot has in use, in an engine that does as it is told."""

    def __init__(self, context: ContextFacts) -> None:
        self._context = context
        self._lengths: dict[int, int] = {}
        self.lose()

    def takes(self, planned: e.BatchPlanned) -> bool:
        """Return whether there are the slots of a plan.

        What else an engine refuses it may refuse for reasons of its own: that is a fact.
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
        """Take the last position in each slot."""
        for slot, last in positions:
            self._lengths[slot] = last + 1

    def lose(self) -> None:
        """Let all slots be empty."""
        self._lengths = dict.fromkeys(range(self._context.n_slots), 0)


def facts_of(entries: Iterable[Entry]) -> Facts:
    """Return the facts of a log.

    Raises:
        LogNotComparable: There is no record.
    """
    reading = iter(entries)
    first = next(reading, None)
    if first is None or not isinstance(header := first.record.event, e.SessionOpened):
        raise LogNotComparable("there is no record in it")
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
                draws = {part.sequence: part.draw for part in planned.parts}
                for sample in event.samples:
                    drawn.setdefault(sample.sequence, {})[draws.get(sample.sequence) or 0] = sample
                vectors |= {vector.sequence: vector for vector in event.vectors}
                planned = None
            case e.BatchDecoded() | e.RequestReceived() as event if _cannot_be(event, received):
                happenings.append(Happening(entry.t, None))
                for _ in reading:
                    pass  # A line that is corrupt is so all the same.
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
    """Return whether this is the outcome of no batch, or a request that came already."""
    return isinstance(event, e.BatchDecoded) or event.sequence in received


def _is_of(decoded: e.BatchDecoded, planned: e.BatchPlanned) -> bool:
    """Return whether an outcome is this batch's."""
    slots = {part.slot for part in planned.parts}
    return decoded.batch == planned.batch and all(slot in slots for slot, _ in decoded.positions)


def _outcome(cells: _Cells, planned: e.BatchPlanned, decoded: e.BatchDecoded) -> Outcome:
    """Return what became of a batch, apart from its slots and from what its plan led to."""
    taken = cells.takes(planned)
    if not taken or not decoded.positions:
        return Outcome(code=decoded.code if taken else e.DONE, refused=taken, missing={})
    due = cells.operate(planned)
    reached = dict(decoded.positions)
    missing: dict[int, int] = {}
    for part in planned.parts:
        if part.slot in reached and not part.pool:
            lacking = cells.length(part.slot) + len(part.inputs) - 1 - reached[part.slot]
            if lacking != (0 if decoded.code == e.DONE else len(part.inputs)):
                missing[part.sequence] = lacking
    cells.reach(decoded.positions)
    return Outcome(code=e.DONE if decoded.code == due else decoded.code, refused=False, missing=missing)


@frozen
class Played:
    """A fact that happened again, and what today's actors made of it."""

    index: int
    """Among the happenings; -1 for the header."""
    t: int
    records: list[e.Record]
    """It, and all that followed from it."""
    error: Exception | None = None
    """Why the kernel could not take it, which ends the session."""


class Play:
    """Facts that happen again.

    Args:
        facts: The facts.
    """

    def __init__(self, facts: Facts) -> None:
        self.numbers: dict[int, int] = {}
        """What number each request has here."""
        self._facts = facts
        self._driver = Driver()
        self._cells = _Cells(facts.header.context)

    def run(self) -> Iterator[Played]:
        """Let the facts happen, one after the other; after one that cannot be worked off nothing happens any more.

        Nothing happens at all in a session that cannot be opened, because a batch has no row for one of its slots.
        """
        opening = self._driver.give(self._facts.header)
        if opening.error is not None:
            return
        yield Played(-1, 0, opening.records)
        for index, happening in enumerate(self._facts.happenings):
            given = self.told(happening.what)
            if given is None:
                continue
            worked = self._driver.give(given)
            if isinstance(worked.error, InternalError):
                continue  # Nothing has changed.
            yield Played(index, happening.t, worked.records, worked.error)
            if worked.error is not None:
                return  # An actor could not take what was decided.

    def told(self, what: e.GivenEvent | Outcome | None) -> e.GivenEvent | None:
        """Return an event as it happens here, None where it cannot."""
        match what:
            case None:
                return None
            case Outcome():
                return None if self._driver.planned is None else self._decoded(what, self._driver.planned)
            case e.RequestReceived():
                number = self.numbers[what.sequence] = self._driver.kernel.n_requests + 1
                return changed(what, sequence=number, continues=self.numbers.get(what.continues or 0))
            case e.SessionClosed():
                # In a session of other batches somebody may not have ended yet.
                kernel = self._driver.kernel
                return None if kernel.live else e.SessionClosed(digest=kernel.digest())
            case e.CellsLost():
                self._cells.lose()
                return what
            case e.SessionOpened() | e.EngineFailed() | e.RequestRefused():
                return what
            case _:
                return self.renumbered(what)

    def renumbered(self, event: EventT) -> EventT | None:
        """Return an event of one sequence with the number that it has here, None where it never came."""
        number = self.numbers.get(getattr(event, "sequence", 0))
        fields: dict[str, Any] = {"sequence": number}
        return None if number is None else changed(event, **fields)

    def _decoded(self, outcome: Outcome, planned: e.BatchPlanned) -> e.BatchDecoded:
        """Return what became of the batch in flight."""
        if outcome.refused or not self._cells.takes(planned):
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
            positions.append((part.slot, -1 if part.pool else reached))
            if done and part.draw is not None:
                drawn = self._facts.drawn.get(number, ())
                sample = drawn[part.draw] if part.draw < len(drawn) else None
                sample = sample or e.Sample(sequence=number, token=_EOG_TOKEN, eog=True)
                samples.append(changed(sample, sequence=part.sequence))
            if done and part.pool:
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
