"""The kernel processes one fact from outside until no further events follow.

Three rules hold here, and everything else follows from them:

* `Kernel.handle` takes one given event, and the records that it returns are a function of the given events so far.
  There is one queue and no await, so there are no races.
* An actor's state is the fold of its own events, at every record. `Kernel.fold` only folds and decides nothing; the
  state is the same whether the records were decided or read.
* An actor that raises in ``decide``, or that decides more than any fact can lead to, has failed, and its callers get an
  error. ``evolve`` must not raise on a decided event: if it does, `Kernel.handle` raises half-way, and the session is
  over.

Three drivers use the kernel: trio with a model, a log file, and a test. The kernel knows none of them.
"""

from collections import deque
from collections.abc import Iterable
from hashlib import sha256

from attrs import frozen

from reenact.actors import batcher as b
from reenact.actors import events as e
from reenact.actors import sequence as s
from reenact.actors.errors import Failure, InternalError, description
from reenact.actors.limits import MOST_RECORDS
from reenact.actors.routing import BATCHER, ROUTES, Origin, Role, sequence_name, sequences_of


@frozen(kw_only=True)
class State:
    """The state of every actor at one record."""

    session: e.SessionOpened | None
    closed: bool
    batcher: b.Batcher | None
    sequences: tuple[s.Sequence, ...]
    """The sequences that have not ended, or that ended after the last given record."""
    failed: tuple[str, ...]
    """The actors that raised."""
    n_requests: int


class Kernel:
    """The actors and the queue between them.

    The caller numbers the requests: the next one is `n_requests` + 1.
    """

    def __init__(self) -> None:
        self._n = 0
        self._session: e.SessionOpened | None = None
        self._closed = False
        self._batcher: b.Batcher | None = None
        self._sequences: dict[int, s.Sequence] = {}
        self._ended: list[int] = []
        self._failed: dict[str, str] = {}
        """The actors that raised, with their errors."""
        self._decided_by = MOST_RECORDS
        """The number of the last record that may follow from the last fact."""
        self._past = sha256()
        self.n_requests = 0

    @classmethod
    def restored(cls, state: State, n: int) -> "Kernel":
        """Return a kernel that can fold on from a state. What it lacks for more: errors and states that are past.

        Args:
            state: The state.
            n: The number of the next record.
        """
        kernel = cls()
        kernel._n, kernel.n_requests = n, state.n_requests
        kernel._session, kernel._closed, kernel._batcher = state.session, state.closed, state.batcher
        kernel._sequences = {one.sequence: one for one in state.sequences}
        kernel._ended = [one.sequence for one in state.sequences if one.finish_reason is not None]
        kernel._failed = dict.fromkeys(state.failed, "")
        return kernel

    def handle(self, given: e.GivenEvent) -> list[e.Record]:
        """Record ``given`` and everything that follows from it, in order.

        Raises:
            InternalError: ``given`` is impossible: not a given event, out of turn, or not the requested outcome. Then
                nothing has changed.
        """
        if ROUTES[type(given)].origin is not Origin.GIVEN:
            raise InternalError(f"{type(given).__name__} is derived, so it cannot be given")
        queue = deque([self._record(given, None)])
        self._decided_by = self._n + MOST_RECORDS
        records: list[e.Record] = [queue[0]]
        while queue:
            record = queue.popleft()
            follows = [
                self._record(event, record.n)
                for actor in self._receivers(record.event)
                for event in self._decide(actor, record)
            ]
            if not follows and not queue:
                follows = [self._record(event, records[0].n) for event in self._proceed()]
            queue.extend(follows)
            records.extend(follows)
        return records

    def fold(self, record: e.Record) -> None:
        """Apply ``record`` to the state of its owner, and decide nothing."""
        if record.n != self._n:
            raise InternalError(f"record {record.n} where {self._n} comes next")
        self._record(record.event, record.cause)

    @property
    def state(self) -> State:
        """The state of every actor now."""
        return State(
            session=self._session,
            closed=self._closed,
            batcher=self._batcher,
            sequences=tuple(self._sequences.values()),
            failed=tuple(self._failed),
            n_requests=self.n_requests,
        )

    @property
    def live(self) -> list[s.Sequence]:
        """The sequences that have not ended, in the order of their numbers."""
        return [one for one in self._sequences.values() if one.finish_reason is None]

    def digest(self) -> str:
        """Return a digest of the folded state, including the states of ended sequences."""
        whole = self._past.copy()
        # ascii(), because the escapes of repr() depend on the Unicode tables of the Python version.
        whole.update(ascii(self.state).encode())
        return whole.hexdigest()[:32]

    def _record(self, event: e.Event, cause: int | None) -> e.Record:
        """Number an event and apply it to the state of its owner."""
        if (reason := self._refusal(event)) is not None:
            raise InternalError(reason)
        ended = tuple(self._ended) if ROUTES[type(event)].origin is Origin.GIVEN else ()
        self._evolve(event)
        for number in ended:
            # Only records of the same fact follow an end.
            self._past.update(ascii(self._sequences.pop(number)).encode())
            self._ended.remove(number)
        record = e.Record(self._n, event, cause)
        self._n += 1
        return record

    def _refusal(self, event: e.Event) -> str | None:
        """Return the reason why an event is impossible now; None if it is not. Only facts and damaged logs have one."""
        if isinstance(event, e.SessionOpened) != (self._session is None) or self._closed:
            return f"{type(event).__name__} comes before the session opened, twice, or after it closed"
        if isinstance(event, e.SessionOpened):
            return b.refuse_context(event.context)
        match ROUTES[type(event)].owner:
            case Role.SESSION:
                return None
            case Role.BATCHER:
                return b.refuse(self._the_batcher(), event)
            case _:
                return self._refusal_of_sequence(event)

    def _refusal_of_sequence(self, event: e.Event) -> str | None:
        (number,) = sequences_of(event)
        if isinstance(event, e.RequestReceived):
            due = self.n_requests + 1
            return None if number == due else f"request {number} where {due} comes next"
        if not 1 <= number <= self.n_requests:
            return f"there is no sequence {number}"
        state = self._sequences.get(number)
        return None if state is None else s.refuse(state, event)

    def _evolve(self, event: e.Event) -> None:
        match ROUTES[type(event)].owner:
            case Role.SESSION:
                self._evolve_session(event)
            case Role.BATCHER:
                self._batcher = b.evolve(self._the_batcher(), event)
            case _:
                self._evolve_sequence(event)

    def _evolve_session(self, event: e.Event) -> None:
        match event:
            case e.SessionOpened():
                self._batcher = b.opened(event)
                self._session = event
            case e.SessionClosed():
                self._closed = True
            case e.ActorFailed():
                self._failed[event.failed] = event.error
            case e.RequestRefused() | e.SessionResumed():
                pass  # No sequence has the one, and `CellsLost` follows the other.
            case _:
                raise InternalError(f"{type(event).__name__} is not an event of the session")

    def _evolve_sequence(self, event: e.Event) -> None:
        (number,) = sequences_of(event)
        if isinstance(event, e.RequestReceived):
            self.n_requests = number
            self._sequences[number] = s.received(event, self._the_batcher().context)
            return
        if number not in self._sequences or number in self._ended:
            return  # A late fact about a sequence that has ended.
        self._sequences[number] = s.evolve(self._sequences[number], event)
        if isinstance(event, e.SequenceFinished):
            self._ended.append(number)

    def _receivers(self, event: e.Event) -> Iterable[int | Role]:
        for role in ROUTES[type(event)].receivers:
            match role:
                case Role.SEQUENCE:
                    yield from sequences_of(event)
                case Role.EVERY_SEQUENCE:
                    yield from tuple(self._sequences)
                case _:
                    yield role

    def _decide(self, actor: int | Role, record: e.Record) -> list[e.Event]:
        """Return the decisions of one actor. If it raises, it has failed, and every sequence is notified."""
        name = sequence_name(actor) if isinstance(actor, int) else actor.value
        if name in self._failed:
            return self._stand_in(actor, record.event)
        try:
            if not isinstance(actor, int):
                return self._bounded(b.decide(self._the_batcher(), record.event))
            state = self._sequences.get(actor)
            return [] if state is None else self._bounded(s.decide(state, record.event))
        except Exception as error:
            return [e.ActorFailed(failed=name, error=description(error))]

    def _bounded(self, events: list[e.Event]) -> list[e.Event]:
        """Return an actor's decisions unchanged.

        Raises:
            RuntimeError: So many records follow from one fact that the actor must be in an endless loop.
        """
        if events and self._n > self._decided_by:
            self._decided_by = self._n + MOST_RECORDS  # The records of its failure have their own limit.
            raise RuntimeError(f"it goes round in circles: {MOST_RECORDS:,} records follow from one fact")
        return events

    def _stand_in(self, actor: int | Role, event: e.Event) -> list[e.Event]:
        """Decide for an actor that has failed: its own request ends, and no other request waits for it."""
        match event:
            case e.ActorFailed(failed=failed, error=error) if isinstance(actor, int) and failed == sequence_name(actor):
                failure = Failure(kind="internal_error", reason=f"{failed} raised {error}")
                return [s.failed(self._sequences[actor], failure)]
            case e.RequestReceived():
                failure = Failure(kind="internal_error", reason=f"{BATCHER} raised {self._failed[BATCHER]}")
                return [e.RequestRejected(sequence=event.sequence, failure=failure)]
            case _:
                return []

    def _proceed(self) -> list[e.Event]:
        """Return the Batcher's next step once no other actor has anything left to decide."""
        if self._batcher is None or BATCHER in self._failed:
            return []
        try:
            return self._bounded(b.proceed(self._batcher))
        except Exception as error:
            return [e.ActorFailed(failed=BATCHER, error=description(error))]

    def _the_batcher(self) -> b.Batcher:
        if self._batcher is None:
            raise InternalError("the session is not open")
        return self._batcher
