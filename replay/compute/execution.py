"""Executes a log's batches again: every operation on cells, every row in the same order, every draw.

The rules that hold here:

* The recorded plans are executed; draws are compared and not used: the next batch has the recorded tokens.
* A decode that was aborted, or that failed half-way, is executed in full, and then the cells beyond the recorded
  positions are removed; its logits were lost then, so none is compared (docs/llama-cpp.md section 4).
* A batch that the engine refused did nothing and does nothing now.
* Where the log records a new context, the execution takes a new one.
"""

import re
from collections.abc import Callable, Iterable, Iterator
from typing import Final

from attrs import evolve as changed
from attrs import frozen

from reenact.actors import events as e
from reenact.actors.routing import ROUTES
from reenact.runtime.engine.drawings import Drawings
from reenact.runtime.engine.protocol import Drawing, Engine
from reenact.runtime.engine.row_numbers import NO_NUMBERS, Numbers, numbers_of
from reenact.runtime.log.codec import SCHEMA
from reenact.runtime.log.line import Line
from reenact.runtime.log.reader import EntryReader

Planned = Callable[[e.BatchPlanned], e.BatchPlanned]
"""A function that changes a plan before it is executed."""


_BEGINNING: Final = re.compile(rb'\{"n":[0-9]+,(?:"t":[0-9]+,)?"type":"(\w+)"')
_SKIPPED: Final = frozenset(ROUTES[kind].name.encode() for kind in (e.TokenEmitted, e.RequestQueued, e.SlotReleased))
"""The kinds of records that no other line refers to and no execution depends on, as far as they are many."""


@frozen
class ExecutedRow:
    """A row of logits, or a vector: the recorded one and the new one."""

    n: int
    """The number of the record that contains it."""
    batch: int
    part: e.Part
    recorded: e.Outcome
    replayed: e.Outcome | None
    """None if there is none now."""

    @property
    def has_checksum(self) -> bool:
        """Whether there are bits to compare."""
        return _checksum(self.recorded) is not None

    @property
    def same_bits(self) -> bool:
        """Whether the numbers are the same, to the last bit; also true where the log has no checksum."""
        return not self.has_checksum or (self.same_checksum and _details(self.recorded) == _details(self.replayed))

    @property
    def same_checksum(self) -> bool:
        """Whether the checksums are equal."""
        return _checksum(self.recorded) == _checksum(self.replayed)

    @property
    def same_token(self) -> bool:
        """Whether the same token was drawn, or the same fault found."""
        return isinstance(self.recorded, e.Vector) or _drawn(self.recorded) == _drawn(self.replayed)


def _drawn(outcome: e.Outcome | None) -> tuple[object, ...]:
    """Return the token with its piece, its end-of-text flag and its fault."""
    match outcome:
        case e.Sample():
            return outcome.token, outcome.piece, outcome.eog, outcome.fault
        case _:
            return ()


def _details(outcome: e.Outcome | None) -> tuple[object, ...]:
    """Return the other recorded values of a row: probabilities, or the values of a vector."""
    match outcome:
        case e.Sample():
            return outcome.logprob, outcome.top
        case e.Vector():
            return outcome.values
        case None:
            return ()


def _checksum(outcome: e.Outcome | None) -> int | None:
    if isinstance(outcome, e.Vector):
        return outcome.crc32
    return None if outcome is None else outcome.logits_crc32


@frozen(kw_only=True)
class Step:
    """A batch, executed again."""

    n: int
    """The number of the record of its outcome."""
    planned: e.BatchPlanned
    recorded: e.BatchDecoded
    replayed: e.BatchDecoded

    @property
    def same_outcome(self) -> bool:
        """Whether the code and the cells are the same."""
        one, other = self.recorded, self.replayed
        return (one.code, one.positions) == (other.code, other.positions)

    @property
    def rows(self) -> Iterator[ExecutedRow]:
        """The rows of the parts that have an outcome."""
        parts = {part.sequence: part for part in self.planned.parts}
        replayed = {outcome.sequence: outcome for outcome in self.replayed.outcomes}
        for outcome in self.recorded.outcomes:
            number = outcome.sequence
            yield ExecutedRow(self.n, self.planned.batch, parts[number], outcome, replayed.get(number))


def executed_records(lines: Iterable[Line]) -> Iterator[e.Record]:
    """Return those records of a log on which an execution depends.

    The rest is skipped undecoded, because decoding would take longer than some batches do. That is safe: the decide
    tier has already checked the log's lines.
    """
    reader = EntryReader()
    for line in lines:
        # In the form that our writer gives a line, its type comes first.
        begins = _BEGINNING.match(line.body)
        if begins is not None and begins[1] in _SKIPPED and reader.schema == SCHEMA:
            continue
        record = reader.record(line)
        if _matters(record.event):
            yield record


def _matters(event: e.Event) -> bool:
    """Return whether the next draw, or the cells, depend on an event."""
    match event:
        case (
            e.RequestReceived()
            | e.SequenceForked()
            | e.PromptTokenized()
            | e.BatchPlanned()
            | e.BatchDecoded()
            | e.CellsLost()
            | e.SequenceFinished()
        ):
            return True
        case e.InputQueued(wants=wants):
            return wants in {e.Pool(), e.Draw(0)}  # Of inputs, only those of a prompt matter.
        case _:
            return False


class Execution:
    """Executes a log's batches on an engine.

    Args:
        engine: An engine opened with the settings of the log's header, with empty cells.
        renew: A function that gives the engine a new context.
        numbers: The numbers of the log's rows.
        planned: A change to each plan, for experiments.
    """

    def __init__(
        self, engine: Engine, renew: Callable[[], None], numbers: Numbers, planned: Planned | None = None
    ) -> None:
        self.drawings = Drawings()
        self._engine = engine
        self._renew = renew
        self._numbers = numbers
        self._changed = planned or (lambda plan: plan)
        self._plan: e.BatchPlanned | None = None
        self._plan_drawings: dict[int, Drawing] = {}
        self._outcome: e.BatchDecoded | None = None

    def recorded(self, sequence: int) -> e.Sample | None:
        """Return the recorded sample of a sequence of the batch that is being executed."""
        samples = () if self._outcome is None else self._outcome.samples
        return next((sample for sample in samples if sample.sequence == sequence), None)

    def drawing(self, sequence: int) -> Drawing:
        """Return the parameters of the draw for a sequence of the batch that is being executed."""
        return self._plan_drawings[sequence]

    def run(self, records: Iterable[e.Record]) -> Iterator[Step]:
        """Execute batch after batch, while the log's records are read; see `executed_records`."""
        for record in records:
            event = record.event
            match event:
                case e.BatchPlanned():
                    self._plan, self._plan_drawings = event, self.drawings.of(event)
                case e.CellsLost():
                    self._renew()
                case e.BatchDecoded() if self._plan is not None:
                    self._outcome = event
                    plan = self._changed(self._plan)
                    numbers = numbers_of(plan, self._numbers)
                    replayed = execute(self._engine, plan, event, self._plan_drawings, numbers)
                    yield Step(n=record.n, planned=self._plan, recorded=event, replayed=replayed)
                case _:
                    pass
            self.drawings.add(event)


def execute(
    engine: Engine,
    planned: e.BatchPlanned,
    recorded: e.BatchDecoded,
    drawings: dict[int, Drawing],
    numbers: Numbers = NO_NUMBERS,
) -> e.BatchDecoded:
    """Execute a batch as it was executed, and return its outcome."""
    if planned.parts and not recorded.positions:
        return recorded
    if recorded.code in {e.DONE, e.NO_ROOM, e.INVALID}:
        return engine.step(planned, drawings, numbers)
    whole = changed(
        planned, parts=tuple(changed(part, wants=part.wants if part.pools else None) for part in planned.parts)
    )
    outcome = engine.step(whole, {}, numbers)
    reached = dict(outcome.positions)
    pooled = any(part.pools for part in planned.parts)
    if outcome.code != e.DONE or any(reached[slot] < last for slot, last in recorded.positions):
        return outcome
    trims = () if pooled else tuple(e.Trim(slot=slot, length=last + 1) for slot, last in recorded.positions)
    engine.step(changed(planned, copies=(), trims=trims, shifts=(), parts=()), {}, NO_NUMBERS)
    return changed(outcome, code=recorded.code, vectors=(), positions=recorded.positions)
