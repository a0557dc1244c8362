"""Drives a session that goes on from a log, without trio, and writes its log.

The rules that hold here:

* A fact and all that follows from it are written at once.
* Nothing is aborted: every batch is completed, even if its sequences have ended meanwhile.
"""

from collections.abc import Sequence
from threading import Event
from time import monotonic_ns

from reenact.actors import events as e
from reenact.actors.errors import InternalError
from reenact.runtime.engine.driver import Driver, execute
from reenact.runtime.engine.protocol import Engine
from reenact.runtime.engine.row_numbers import Numbers, numbers_of
from reenact.runtime.log.writer import Journal


class Recorder:
    """Writes the log of a driver's facts; times continue from the last written one as real time passes.

    Args:
        driver: The driver.
        journal: The journal of the log, which is empty.
        numbers: The numbers of the prompts' rows.
    """

    def __init__(self, driver: Driver, journal: Journal, numbers: Numbers) -> None:
        self._driver = driver
        self._numbers = numbers
        self._journal = journal
        self._t, self._written = 0, monotonic_ns()

    def write(self, records: Sequence[e.Record], t: int) -> None:
        """Write a fact that was already given, and the records that followed from it.

        Args:
            records: The records.
            t: When it happened, in nanoseconds since the session opened.

        Raises:
            LogBroken: The file cannot be written.
        """
        self._journal.append(records, t, self._numbers)
        self._t, self._written = t, monotonic_ns()

    def give(self, given: e.GivenEvent) -> None:
        """Pass a fact to the kernel and write it with what follows.

        Raises:
            InternalError: The kernel cannot take the fact. It is the last record then, so that a replay leads to it.
            LogBroken: The file cannot be written.
        """
        t = self._t + monotonic_ns() - self._written
        worked = self._driver.give(given)
        self.write(worked.records, t)
        if worked.error is not None:
            self._journal.close()
        worked.checked()

    def run(self, engine: Engine, interrupted: Event) -> None:
        """Let an engine work until every sequence has ended or is cancelled, and close the log.

        Args:
            engine: A loaded engine, with the cells that the facts so far require.
            interrupted: An event that is set once the work is to stop.
        """
        kernel = self._driver.kernel
        while kernel.live and not interrupted.is_set():
            crossing = self._driver.crossing
            if crossing is None:
                raise InternalError("sequences are live, and no batch is in flight that an engine could execute")
            self.give(execute(engine, crossing, numbers_of(crossing.planned, self._numbers)))
        for one in kernel.live:
            self.give(e.CancelRequested(sequence=one.sequence))
        self.give(e.SessionClosed(digest=kernel.digest()))
        self._journal.close()
