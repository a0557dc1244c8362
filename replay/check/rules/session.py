"""Rules of a session as a whole: its records, the ends of its requests, and the effects of failures.

The rule that holds here: an end is checked against the record from which it follows, never against an actor.
"""

from collections.abc import Iterator
from heapq import heappop, heappush
from typing import Final, get_args

from reenact.actors import events as e
from reenact.actors.routing import BATCHER, sequence_name
from reenact.replay.check.recount import Recount, RecountedRequest
from reenact.replay.check.rule import Rule, Violation, quoted
from reenact.replay.render.values import sequences

GIVEN: Final = frozenset(get_args(e.GivenEvent))
"""The kinds of events that are facts from outside."""

_SECOND: Final = 1_000_000_000
_MOST_FACTS: Final = 2
"""How many facts, each a second after the one before, may follow the first one after a time is up. A blocked event loop
may have one of them before it delivers the timeout."""

_SAMPLED: Final = (e.BatchDecoded,)
_CAUSES: Final[dict[type[e.Event], tuple[type[e.Event], ...]]] = {
    e.PromptTruncated: (e.PromptTokenized,),
    e.ContextShifted: (e.BatchDecoded, e.ReaderResumed),
    e.TokenEmitted: _SAMPLED,
    e.StopMatched: _SAMPLED,
    e.EogSampled: _SAMPLED,
    e.EmbeddingComputed: _SAMPLED,
    e.SequencePaused: _SAMPLED,
    e.SequenceResumed: (e.ReaderResumed,),
    e.SequenceFinished: (
        e.PromptTokenized,
        e.TokenizeFailed,
        e.BatchDecoded,
        e.CancelRequested,
        e.DeadlineExpired,
        e.RequestRejected,
        e.RequestDisplaced,
        e.BatchFailed,
        e.EngineFailed,
        e.ActorFailed,
    ),
    e.RequestQueued: (e.RequestReceived,),
    e.RequestRejected: (e.RequestReceived,),
    e.RequestDisplaced: (e.RequestReceived,),
    e.RequestWithdrawn: (e.SequenceFinished,),
    e.SlotYielded: (e.PauseExpired,),
    e.InputQueued: (e.PromptTokenized, e.BatchDecoded, e.ReaderResumed, e.InputsDropped),
    e.InputsDropped: (e.ContextShifted,),
    e.SlotReleased: (e.SequenceFinished,),
    e.AbortRequested: (e.SequenceFinished,),
    e.BatchFailed: _SAMPLED,
    e.TokenDropped: _SAMPLED,
}
"""The possible causes of derived events. An event missing here (a slot assignment, a plan) follows from a given one."""


class RecordsRule(Rule):
    """The order of the log's records."""

    name = "records"
    says = (
        "Records are numbered from 0 without a gap; a derived one follows from a record of the same fact and sequence "
        "that can cause it, at the fact's time; time never goes back, and nothing follows the close."
    )
    source = "ARCHITECTURE.md, sections 2 and 4"
    hears = (*get_args(e.GivenEvent), *get_args(e.DerivedEvent))

    def see(self, record: e.Record) -> Iterator[Violation]:
        """Check the record's number, time and cause."""
        n, recount = record.n, self.recount
        if n != recount.n + 1:
            yield self.violation(n, f"record {recount.n + 1}", f"record {n}")
        if isinstance(record.event, e.SessionOpened) != (recount.n < 0) or recount.closed:
            yield self.violation(n, "SessionOpened first, and SessionClosed last", type(record.event).__name__)
        given = type(record.event) in GIVEN
        if given != (record.cause is None):
            yield self.violation(n, f"{'no' if given else 'a'} cause", f"cause {record.cause}")
        if recount.now < recount.before or (record.cause is not None and recount.now != recount.before):
            yield self.violation(n, f"time {recount.before}", f"time {recount.now}")
        if record.cause is not None:
            yield from self._follows(record)

    def _follows(self, record: e.Record) -> Iterator[Violation]:
        cause, event = self.recount.cause(record), record.event
        if cause is None:
            yield self.violation(record.n, f"a cause from {self.recount.first} on", f"cause {record.cause}")
        elif isinstance(event, e.ActorFailed):
            return
        elif type(event) not in _CAUSES:
            if record.cause != self.recount.first:
                yield self.violation(record.n, f"cause {self.recount.first}", f"cause {record.cause}")
        elif type(cause) not in _CAUSES[type(event)]:
            names = " or ".join(kind.__name__ for kind in _CAUSES[type(event)])
            yield self.violation(record.n, f"a cause that is {names}", f"{type(cause).__name__}")
        else:
            named = "by" if isinstance(event, e.RequestDisplaced) else "sequence"
            one, other = getattr(event, named, None), getattr(cause, "sequence", None)
            if one != other and None not in {one, other}:
                yield self.violation(record.n, f"a cause about sequence {one}", f"one about sequence {other}")


class EndsRule(Rule):
    """One end for each request."""

    name = "ends"
    says = "Every request that was received, and no other, ends exactly once; nothing is decided for it afterwards."
    source = "docs/runner-semantics.md, Ends"
    hears = (
        e.RequestReceived,
        e.SessionClosed,
        *get_args(e.SequenceEvent),
        e.RequestQueued,
        e.RequestRejected,
        e.RequestDisplaced,
        e.InputQueued,
        e.InputsDropped,
        e.SlotAssigned,
        e.SequencePreempted,
        e.SlotYielded,
        e.PromptTokenized,
        e.TokenizeFailed,
        e.CancelRequested,
        e.DeadlineExpired,
        e.ReaderPaused,
        e.ReaderResumed,
        e.PauseExpired,
        e.SequenceForked,
    )

    def see(self, record: e.Record) -> Iterator[Violation]:
        """Check that the record's request is live."""
        match record.event:
            case e.SessionClosed():
                for number, request in self.recount.requests.items():
                    if not request.ended:
                        yield self.violation(record.n, f"an end of request {number}", "none before the close")
            case e.RequestReceived(sequence=number):
                if number != self.recount.n_requests + 1:
                    yield self.violation(record.n, f"request {self.recount.n_requests + 1}", f"request {number}")
            case event:
                number = getattr(event, "sequence", 0)
                came = 1 <= number <= self.recount.n_requests
                if not came or (record.cause is not None and not self.recount.is_live(number)):
                    what = "that has ended" if came else "that was never received"
                    yield self.violation(
                        record.n, "a request that is live", f"{type(event).__name__} of request {number} {what}"
                    )


class ReasonsRule(Rule):
    """The reasons of ends."""

    name = "reasons"
    says = "An end has the reason that follows from its cause, and the counts of the prompt's and the sampled tokens."
    source = "docs/runner-semantics.md, Ends"
    hears = (e.SequenceFinished,)

    def see(self, record: e.Record) -> Iterator[Violation]:
        """Check an end."""
        end = record.event
        if not isinstance(end, e.SequenceFinished):
            return
        request = self.recount.request(end.sequence)
        reason, stop = self._due(request, self.recount.cause(record))
        if (reason, stop) != (end.finish_reason, end.stop):
            yield self.violation(record.n, _ended(reason, stop), _ended(end.finish_reason, end.stop))
        if (end.error is None) != (end.finish_reason != "error"):
            yield self.violation(record.n, "an error where the reason is error, and only there", end.finish_reason)
        due = len(request.prompt or ()), request.n_sampled
        if due != (end.n_prompt, end.n_sampled):
            yield self.violation(record.n, _counted(*due), _counted(end.n_prompt, end.n_sampled))

    def _due(self, request: RecountedRequest, cause: e.Event | None) -> tuple[str, str | None]:
        """Return the expected reason of an end, and the stop string."""
        match cause:
            case e.CancelRequested():
                return "cancelled", None
            case e.DeadlineExpired():
                return "deadline", None
            case e.PromptTokenized():
                fits = len(cause.inputs) > 0 and (len(cause.inputs) <= request.n_ctx or request.options.truncate)
                return "length" if fits and not request.embedding and request.limit == 0 else "error", None
            case e.BatchDecoded():
                return self._due_to_batch(request)
            case _:
                return "error", None

    def _due_to_batch(self, request: RecountedRequest) -> tuple[str, str | None]:
        made = e.TokenEmitted | e.StopMatched | e.EogSampled | e.EmbeddingComputed
        mine = (one for one in self.recount.fact if isinstance(one, made) and one.sequence == request.number)
        match next(mine, None):
            case None:
                return "error", None
            case e.StopMatched(stop=stop):
                return "stop", stop
            case e.TokenEmitted():
                if request.n_sampled >= request.limit:
                    return "length", None
                full = len(request.inputs) + 1 > request.n_ctx and not request.options.shift
                return "context_full" if full else "no end", None
            case _:
                return "stop", None


def _ended(reason: str, stop: str | None) -> str:
    return reason if stop is None else f"{reason} at {quoted(stop)}"


def _counted(n_prompt: int, n_sampled: int) -> str:
    return f"n_prompt {n_prompt} and n_sampled {n_sampled}"


class CancelsRule(Rule):
    """The ends of requests that are cancelled or late."""

    name = "cancels"
    says = (
        "A request that is cancelled, or whose deadline has passed, ends before anything else happens: after that at "
        "most the batch in flight is evaluated for it, and no batch is planned with a request that has ended."
    )
    source = "docs/runner-semantics.md, Cancelling"
    hears = (e.CancelRequested, e.DeadlineExpired, e.SequenceFinished, e.BatchPlanned)

    def __init__(self, recount: Recount) -> None:
        super().__init__(recount)
        self._owed: tuple[int, int] | None = None
        """The number of the record that makes a request end, and the request."""

    def see(self, record: e.Record) -> Iterator[Violation]:
        """Check a cancelled or late request, and the requests in a batch."""
        match record.event:
            case e.CancelRequested(sequence=number) | e.DeadlineExpired(sequence=number):
                if self.recount.is_live(number) and sequence_name(number) not in self.recount.failed:
                    self._owed = record.n, number
            case e.SequenceFinished(sequence=number):
                if self._owed is not None and self._owed[1] == number:
                    self._owed = None
            case e.BatchPlanned(parts=parts):
                for part in parts:
                    if not self.recount.is_live(part.sequence):
                        actual = f"rows of sequence {part.sequence}, which has ended"
                        yield self.violation(record.n, "rows of requests that are live", actual)
            case _:
                pass

    def settle(self) -> Iterator[Violation]:
        """Check that a cancelled or late request has ended."""
        if self._owed is not None:
            n, number = self._owed
            self._owed = None
            yield self.violation(n, f"an end of request {number} at once", "none in this fact")


class OverdueRule(Rule):
    """The times that are up."""

    name = "overdue"
    says = (
        "When a time is up, that becomes a fact before the session has gone on for three facts, each a second "
        "after the one before: a deadline ends its request, and max_pause ends a paused sequence's claim to its "
        "slot."
    )
    source = "docs/runner-semantics.md, Cancelling"
    hears = (*get_args(e.GivenEvent), e.SequencePaused, e.SequenceResumed, e.SequenceFinished)

    def __init__(self, recount: Recount) -> None:
        super().__init__(recount)
        self._due: list[tuple[int, int, str]] = []
        """A heap of times, in nanoseconds, each with its request and the event that is due then."""
        self._owed: dict[tuple[int, str], int] = {}
        """For each request and each event that is due, the time by which it is."""
        self._over: dict[tuple[int, str], tuple[int, int]] = {}
        """For those whose time is up: the facts since then, each a second after the last, and when the last came."""

    def see(self, record: e.Record) -> Iterator[Violation]:
        """Check new times, the facts that settle them, and the current time."""
        if record.cause is None:
            yield from self._pass(record)
        match record.event:
            case e.RequestReceived(sequence=number, options=options) if options.deadline is not None:
                self._owe(number, "DeadlineExpired", options.deadline)
            case e.SequencePaused(sequence=number) if self.recount.header is not None:
                if self.recount.header.limits.max_pause is not None:
                    self._owe(number, "PauseExpired", self.recount.header.limits.max_pause)
            case e.SequenceResumed(sequence=number) | e.PauseExpired(sequence=number):
                self._settled(number, "PauseExpired")
            case e.SequenceFinished(sequence=number) | e.SequenceForked(sequence=number):
                self._settled(number, "PauseExpired")
                self._settled(number, "DeadlineExpired")
            case _:
                pass

    def _owe(self, number: int, what: str, seconds: float) -> None:
        due = self.recount.now + round(seconds * _SECOND)
        self._owed[number, what] = due
        heappush(self._due, (due, number, what))

    def _settled(self, number: int, what: str) -> None:
        self._owed.pop((number, what), None)
        self._over.pop((number, what), None)

    def _pass(self, record: e.Record) -> Iterator[Violation]:
        now = self.recount.now
        while self._due and self._due[0][0] < now:
            due, number, what = heappop(self._due)
            if self._owed.get((number, what)) == due:
                self._over[number, what] = (0, now)
        for (number, what), (n_facts, last) in list(self._over.items()):
            if now - last > _SECOND:
                self._over[number, what] = (n_facts + 1, now)
                if n_facts + 1 == _MOST_FACTS and type(record.event).__name__ != what:
                    yield self.violation(record.n, f"{what} of sequence {number} before", "not yet")


class FailuresRule(Rule):
    """The effects of failures."""

    name = "failures"
    says = (
        "A failed decode that was not ended early on purpose ends the sequences of its batch, a token that cannot be "
        "sampled ends its sequence, and a failed engine ends all requests: each with that error, and no others."
    )
    source = "docs/runner-semantics.md, Faults"
    hears = (e.BatchDecoded, e.BatchFailed, e.EngineFailed, e.ActorFailed, e.SequenceFinished)

    def __init__(self, recount: Recount) -> None:
        super().__init__(recount)
        self._n = 0
        self._batch: tuple[int, tuple[int, ...], str] | None = None
        """The number of the failed batch, the sequences that it ends, and the kind of error."""
        self._owed: set[int] = set()

    def see(self, record: e.Record) -> Iterator[Violation]:
        """Check a failure and the ends that follow from it."""
        match record.event:
            case e.BatchDecoded() as decoded:
                self._n = record.n
                self._decoded(decoded)
            case e.BatchFailed() as failed:
                actual = failed.batch, failed.sequences, failed.failure.kind
                if actual != self._batch:
                    yield self.violation(record.n, _failed(self._batch), _failed(actual))
                self._batch = None
                self._owe(failed.sequences)
            case e.EngineFailed():
                self._n = record.n
                self._owe(tuple(self.recount.requests))
            case e.ActorFailed(failed=name):
                self._n = record.n
                live = self.recount.requests
                self._owe(tuple(number for number in live if name in {BATCHER, sequence_name(number)}))
            case e.SequenceFinished() as end:
                self._owed.discard(end.sequence)
                yield from self._ended(record, end)
            case _:
                pass

    def settle(self) -> Iterator[Violation]:
        """Check that all sequences concerned have ended."""
        if self._batch is not None and not self.recount.halted:
            yield self.violation(self._n, _failed(self._batch), "no end of its sequences")
        if self._owed:
            yield self.violation(self._n, f"an end of {sequences(self._owed)}", "none in this fact")
        self._batch = None
        self._owed.clear()

    def _decoded(self, decoded: e.BatchDecoded) -> None:
        plan = self.recount.in_flight
        if decoded.code != e.DONE and plan is not None and not (decoded.code == e.ABORTED and self.recount.aborting):
            kind = "internal_error" if decoded.code in {e.NO_ROOM, e.INVALID} else "sequence_failed"
            self._batch = plan.batch, tuple(sorted(part.sequence for part in plan.parts)), kind
        self._owe(tuple(sample.sequence for sample in decoded.samples if sample.fault is not None))
        self._owe(tuple(vector.sequence for vector in decoded.vectors if not vector.values))

    def _owe(self, numbers: tuple[int, ...]) -> None:
        self._owed.update(number for number in numbers if self.recount.is_live(number))

    def _ended(self, record: e.Record, end: e.SequenceFinished) -> Iterator[Violation]:
        cause = self.recount.cause(record)
        if isinstance(cause, e.BatchFailed) and end.sequence not in cause.sequences:
            yield self.violation(record.n, f"an end of {sequences(cause.sequences)}", f"one of {end.sequence}")
        if (
            isinstance(cause, e.BatchFailed | e.RequestRejected | e.RequestDisplaced | e.EngineFailed)
            and end.error != cause.failure
        ):
            actual = "none" if end.error is None else f"{end.error.kind}: {quoted(end.error.reason)}"
            yield self.violation(record.n, f"the error {cause.failure.kind}: {quoted(cause.failure.reason)}", actual)


class ActorsRule(Rule):
    """Actors that raise."""

    name = "actors"
    says = "No actor raises, whatever it receives."
    source = "ARCHITECTURE.md, section 2"
    hears = (e.ActorFailed,)

    def see(self, record: e.Record) -> Iterator[Violation]:
        """Report an actor that raised."""
        if isinstance(record.event, e.ActorFailed):
            yield self.violation(record.n, f"{record.event.failed} decides", f"it raised {record.event.error}")


def _failed(batch: tuple[int, tuple[int, ...], str] | None) -> str:
    return "no failed batch" if batch is None else f"{batch[2]} of batch {batch[0]}, {sequences(batch[1])}"
