"""How a kernel is driven: facts go in, records come out, and the batch in flight is known with how to draw for it.

Everything that drives a kernel does it by this one class: a session under trio, a fork, a request that is executed
alone, facts that happen again, tests. The rules that hold here:

* `Driver` decides nothing and waits for nothing. It has no engine: whoever drives calls `execute` for the batch in
  flight, wherever an engine may be called, and gives what comes of it. So records can be written before the engine
  works, and an outcome can be changed before it is given.
* How to draw for a batch is settled when it is planned.
* A fact that the kernel cannot take is a record all the same, and the last one: so a replay leads to it.
* An engine that raises, or reports what no log may hold, has failed, and that is a fact like any other.
"""

from attrs import field, frozen

from reenact.actors import events as e
from reenact.actors.errors import InternalError, description
from reenact.actors.kernel import Kernel
from reenact.runtime.engine.drawings import Drawings
from reenact.runtime.engine.protocol import Drawing, Engine
from reenact.runtime.engine.row_numbers import NO_NUMBERS, Numbers
from reenact.runtime.log.codec import recordable


@frozen
class Crossing:
    """A batch to execute, and how to draw for the sequences in it."""

    planned: e.BatchPlanned
    drawings: dict[int, Drawing]


@frozen
class Worked:
    """A fact, and all that followed from it."""

    records: list[e.Record]
    error: Exception | None = field(default=None)
    """Why the kernel could not take the fact, which then is the only record; the session is over."""

    def checked(self) -> list[e.Record]:
        """Return the records.

        Raises:
            InternalError: The kernel could not take the fact.
        """
        if self.error is not None:
            fact = type(self.records[0].event).__name__
            raise InternalError(f"{fact} cannot be worked off: {description(self.error)}") from self.error
        return self.records


class Driver:
    """A kernel, and what its driver knows of the batch in flight.

    Args:
        kernel: The kernel; a new one unless given.
    """

    def __init__(self, kernel: Kernel | None = None) -> None:
        self.kernel = kernel or Kernel()
        self.crossing: Crossing | None = None
        """The batch in flight: the last one planned, if nothing was given yet of what became of it."""
        self.aborting = False
        """Whether it is to end early."""
        self._drawings = Drawings()
        self._n_records = 0

    @property
    def planned(self) -> e.BatchPlanned | None:
        """The plan of the batch in flight."""
        return None if self.crossing is None else self.crossing.planned

    def give(self, given: e.GivenEvent) -> Worked:
        """Hand a fact to the kernel, and return it with all that follows from it."""
        try:
            records = self.kernel.handle(given)
        except Exception as error:  # noqa: BLE001  # a bug of ours or of an engine; all is recorded
            return Worked([e.Record(self._n_records, given, None)], error)
        self._n_records += len(records)
        for record in records:
            self._follow(record.event)
        return Worked(records)

    def _follow(self, event: e.Event) -> None:
        self._drawings.add(event)
        match event:
            case e.BatchPlanned():
                self.crossing, self.aborting = Crossing(event, self._drawings.of(event)), False
            case e.AbortRequested():
                self.aborting = True
            case e.BatchDecoded() | e.EngineFailed() | e.CellsLost():
                self.crossing, self.aborting = None, False
            case _:
                pass


def execute(engine: Engine, crossing: Crossing, numbers: Numbers = NO_NUMBERS) -> e.BatchDecoded | e.EngineFailed:
    """Have an engine execute a batch, and return what became of it; it is yet to be given.

    Args:
        engine: The engine.
        crossing: The batch.
        numbers: Those of the batch's rows.
    """
    try:
        return recordable(engine.step(crossing.planned, crossing.drawings, numbers))
    except Exception as error:  # noqa: BLE001  # an engine may raise anything; all is told
        return e.EngineFailed(error=description(error))
