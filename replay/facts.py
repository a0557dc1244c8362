"""What happened in a session, apart from what was made of it: it can happen again, also in part.

The rules that hold here:

* Only given records are taken from a log. Played again, they are today's actors' to work off.
* What became of a batch is told of its sequences, not of its slots: so it can be told of another batch, which was
  planned because some of the rest did not happen.
* A sequence draws what it drew, token by token, whatever batch it is in. One that draws on beyond that has come to the
  end of its text.
* What cannot be any more (a cancel of a request that never came, the outcome of no batch) does not happen.
"""

from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Final, TypeVar

from attrs import evolve as changed
from attrs import frozen

from reenact.actors import events as e
from reenact.actors.errors import InternalError, LogNotComparable
from reenact.actors.kernel import Kernel
from reenact.replay.fold import Entry
from reenact.runtime.engine import refused

EventT = TypeVar("EventT", bound=e.Event)

_EOG_TOKEN: Final = 0
"""What a sequence draws that draws on; no engine says what it is called there."""


@frozen(kw_only=True)
class Outcome:
    """What became of a batch."""

    code: int
    refused: bool
    """The engine did nothing of it, with cells neither."""
    missing: Mapping[int, int]
    """Rows of each sequence that are not in cells after it; whoever is not named has all in it, if it is done."""


@frozen
class Happening:
    """A fact: a given event, or what became of a batch."""

    t: int
    """Nanoseconds since the session opened."""
    what: e.GivenEvent | Outcome


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


def facts_of(entries: Iterable[Entry]) -> Facts:
    """Return the facts of a log.

    Raises:
        LogNotComparable: There is no record.
    """
    header: e.SessionOpened | None = None
    happenings: list[Happening] = []
    drawn: dict[int, dict[int, e.Sample]] = {}
    vectors: dict[int, e.Vector] = {}
    planned: e.BatchPlanned | None = None
    for entry in entries:
        match entry.record.event:
            case e.SessionOpened() as event:
                header = event
            case e.BatchPlanned() as event:
                planned = event
            case e.BatchDecoded() as event:
                happenings.append(Happening(entry.t, _outcome(planned, event)))
                draws = {part.sequence: part.draw for part in planned.parts} if planned else {}
                for sample in event.samples:
                    drawn.setdefault(sample.sequence, {})[draws.get(sample.sequence) or 0] = sample
                vectors |= {vector.sequence: vector for vector in event.vectors}
            case event if entry.record.cause is None:
                happenings.append(Happening(entry.t, event))  # type: ignore[arg-type]  # it has no cause
            case _:
                pass
    if header is None:
        raise LogNotComparable("there is no record in it")
    return Facts(
        header=header,
        happenings=tuple(happenings),
        drawn={number: tuple(samples[index] for index in sorted(samples)) for number, samples in drawn.items()},
        vectors=vectors,
    )


def _outcome(planned: e.BatchPlanned | None, decoded: e.BatchDecoded) -> Outcome:
    """Return what became of a batch, apart from its slots."""
    reached = dict(decoded.positions)
    parts = [] if planned is None else [one for one in planned.parts if one.slot in reached and not one.pool]
    missing = {part.sequence: part.position + len(part.inputs) - 1 - reached[part.slot] for part in parts}
    if decoded.code == e.DONE:
        missing = {number: n_rows for number, n_rows in missing.items() if n_rows}
    return Outcome(code=decoded.code, refused=not decoded.positions, missing=missing)


@frozen
class Played:
    """A fact that happened again, and what today's actors made of it."""

    index: int
    """Among the happenings; -1 for the header."""
    t: int
    records: list[e.Record]
    """It, and all that followed from it."""
    error: Exception | None = None
    """Why it could not be worked off."""


class Play:
    """Facts that happen again.

    Args:
        facts: The facts.
    """

    def __init__(self, facts: Facts) -> None:
        self.numbers: dict[int, int] = {}
        """What number each request has here."""
        self._facts = facts
        self._kernel = Kernel()
        self._in_flight: e.BatchPlanned | None = None

    def run(self) -> Iterator[Played]:
        """Let the facts happen, one after the other; after one that cannot be worked off nothing happens any more."""
        yield Played(-1, 0, self._kernel.handle(self._facts.header))
        n_records = 1
        for index, happening in enumerate(self._facts.happenings):
            given = self.told(happening.what)
            if given is None:
                continue
            try:
                records = self._kernel.handle(given)
            except InternalError:
                continue  # Nothing has changed.
            except Exception as error:  # noqa: BLE001  # an actor that cannot take what was decided
                yield Played(index, happening.t, [e.Record(n_records, given, None)], error)
                return
            n_records += len(records)
            for record in records:
                if isinstance(record.event, e.BatchPlanned):
                    self._in_flight = record.event
                elif isinstance(record.event, e.BatchDecoded | e.EngineFailed | e.CellsLost):
                    self._in_flight = None
            yield Played(index, happening.t, records)

    def told(self, what: e.GivenEvent | Outcome) -> e.GivenEvent | None:
        """Return an event as it happens here, None where it cannot."""
        match what:
            case Outcome():
                return None if self._in_flight is None else self._decoded(what, self._in_flight)
            case e.RequestReceived():
                number = self.numbers[what.sequence] = self._kernel.n_requests + 1
                return changed(what, sequence=number, continues=self.numbers.get(what.continues or 0))
            case e.SessionClosed():
                return e.SessionClosed(digest=self._kernel.digest())
            case e.SessionOpened() | e.EngineFailed() | e.CellsLost():
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
        if outcome.refused:
            return refused(planned)
        names = {here: number for number, here in self.numbers.items()}
        done = outcome.code == e.DONE
        positions, samples, vectors = [], [], []
        for part in planned.parts:
            number = names[part.sequence]
            missing = outcome.missing.get(number, 0 if done else len(part.inputs))
            reached = part.position + max(len(part.inputs) - missing, 0) - 1
            positions.append((part.slot, -1 if part.pool else reached))
            if done and part.draw is not None:
                drawn = self._facts.drawn.get(number, ())
                sample = drawn[part.draw] if part.draw < len(drawn) else None
                sample = sample or e.Sample(sequence=number, token=_EOG_TOKEN, eog=True)
                samples.append(changed(sample, sequence=part.sequence))
            if done and part.pool:
                vector = self._facts.vectors.get(number) or e.Vector(sequence=number, values=(1.0,), crc32=0)
                vectors.append(changed(vector, sequence=part.sequence))
        return e.BatchDecoded(
            batch=planned.batch,
            code=outcome.code,
            samples=tuple(samples),
            vectors=tuple(vectors),
            positions=tuple(positions),
        )
