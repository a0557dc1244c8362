"""A kernel under the rules and an engine that carries out what it plans, without trio."""

from collections.abc import Collection
from typing import Final, TypeVar

from reenact.actors import events as e
from reenact.replay.testing.kernel import CheckedKernel
from reenact.runtime.engine.drawings import Drawings
from reenact.runtime.engine.protocol import Drawing, Engine
from reenact.runtime.engine.row_numbers import NO_NUMBERS

MOST_STEPS: Final = 4000
"""More than any session here needs; one that is not done by then goes round in circles."""

EventT = TypeVar("EventT")


class Session(CheckedKernel):
    """A session of an engine.

    Args:
        engine: Loaded, with empty cells.
        header: The session's first record.
        rules: The names of the rules that are held against its records; None for all.
    """

    def __init__(self, engine: Engine, header: e.SessionOpened, *, rules: Collection[str] | None = None) -> None:
        self.engine = engine
        self._drawings = Drawings()
        self._drawing: dict[int, Drawing] = {}
        """How to draw for the batch in flight: by what was known when it was planned."""
        super().__init__(header, rules=rules)

    def give(self, fact: e.GivenEvent, *, t: int | None = None) -> list[e.Record]:
        """Give the kernel a fact, and have the engine abort what follows to be aborted."""
        records = super().give(fact, t=t)
        for record in records:
            self._drawings.add(record.event)
            match record.event:
                case e.BatchPlanned() as planned:
                    self._drawing = self._drawings.of(planned)
                case e.AbortRequested(batch=batch):
                    self.engine.abort(batch)
                case _:
                    pass
        return records

    def outcome(self) -> e.BatchDecoded:
        """Have the engine carry out the batch in flight, and return what becomes of it; it is yet to be given."""
        assert self.in_flight is not None, "no batch is in flight"
        return self.engine.step(self.in_flight, self._drawing, NO_NUMBERS)

    def step(self) -> list[e.Record]:
        """Carry out the batch in flight."""
        return self.give(self.outcome())

    def finish(self) -> int:
        """Carry batches out until none is planned, and return how many; no sequence is cancelled for it."""
        for n_steps in range(MOST_STEPS):
            if self.in_flight is None:
                return n_steps
            self.step()
        raise AssertionError("the session goes round in circles")

    def events(self, *kinds: type[EventT]) -> list[EventT]:
        """Return the events of these kinds so far, in order."""
        return [record.event for record in self.records if isinstance(record.event, kinds)]

    def end(self, sequence: int) -> e.SequenceFinished:
        """Return the one end of a sequence."""
        (finished,) = [event for event in self.events(e.SequenceFinished) if event.sequence == sequence]
        return finished
