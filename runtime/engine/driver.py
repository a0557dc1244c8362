"""Drives a kernel: gives it facts, returns its records, and tracks the batch in flight with its drawings.

All code that drives a kernel uses this class: a session under trio, a fork, a request that is executed alone, facts
that are replayed, tests. The rules that hold here:

* `Driver` decides nothing and waits for nothing. It has no engine: its caller runs `execute` for the batch in flight,
  in whichever thread may call the engine, and gives the outcome to `Driver.give`. So records can be written before the
  engine works, and an outcome can be changed before it is given.
* The drawings of a batch are fixed when it is planned.
* A fact that the kernel cannot take is recorded all the same, as the last record, so that a replay reaches it.
* An engine that raises, or returns values that no log may contain, has failed, and its failure is a fact like any
  other.
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
    """A batch to execute, and the drawings of its sequences."""

    planned: e.BatchPlanned
    drawings: dict[int, Drawing]


@frozen
class Worked:
    """A fact, and all records that followed from it."""

    records: list[e.Record]
    error: Exception | None = field(default=None)
    """The reason why the kernel could not take the fact, which then is the only record; the session is over."""

    def checked(self) -> list[e.Record]:
        """Return the records.

        Raises:
            InternalError: The kernel could not take the fact.
        """
        if self.error is not None:
            fact = type(self.records[0].event).__name__
            raise InternalError(f"{fact} cannot be processed: {description(self.error)}") from self.error
        return self.records


class Driver:
    """A kernel and its batch in flight.

    Args:
        kernel: The kernel; a new one if not given.
    """

    def __init__(self, kernel: Kernel | None = None) -> None:
        self.kernel = kernel or Kernel()
        self.crossing: Crossing | None = None
        """The batch in flight: the last one planned, until its outcome is given."""
        self.aborting = False
        """Whether the batch in flight is to end early."""
        self._drawings = Drawings()
        self._n_records = 0

    @property
    def planned(self) -> e.BatchPlanned | None:
        """The plan of the batch in flight."""
        return None if self.crossing is None else self.crossing.planned

    def give(self, given: e.GivenEvent) -> Worked:
        """Give a fact to the kernel, and return it with all records that follow from it."""
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
    """Have an engine execute a batch, and return the outcome, which the caller must still give to the driver.

    Args:
        engine: The engine.
        crossing: The batch and its drawings.
        numbers: The numbers of the batch's rows.
    """
    try:
        return recordable(engine.step(crossing.planned, crossing.drawings, numbers))
    except Exception as error:  # noqa: BLE001  # an engine may raise anything; all of it is reported
        return e.EngineFailed(error=description(error))
