"""Predicates for the shrinker: do these facts reproduce a log's fault, and how many of them does it take?

The rules that hold here:

* A rule is checked on the records that today's actors make of the facts; the log's own records are ignored.
* In a log that other actors wrote, one record alone is the fault: the first that today's actors decide differently. In
  a smaller session it takes the place of theirs, and no record follows it.
* The fault of that record must stay the same: in a smaller session it may break no rule that it keeps in the whole log.
* Numbers of requests are those of the smaller session. Slots and batches are not translated: where they are the
  difference, a smaller session must come to the same ones.
"""

from collections.abc import Callable, Iterator

from attrs import evolve as changed
from attrs import fields, frozen

from reenact.actors import events as e
from reenact.actors.errors import LogNotComparable
from reenact.replay.check.runner import Checks
from reenact.replay.divergence import Divergence
from reenact.replay.facts import Facts, Happening, Play, Played
from reenact.replay.shrink.patience import Patience
from reenact.runtime.log.codec import Fields, UnreadableRecord, decode


@frozen
class Shows:
    """A session that shows the fault."""

    n_needed: int
    """How many happenings it takes."""
    played: list[Played]
    """Everything that happened, up to the faulty record."""


Wrong = Callable[[Facts], Shows | None]
"""A function that lets facts happen until the fault shows; None if it does not show."""


class Breaks:
    """A predicate: do facts break a rule?

    Args:
        rule: The name of the rule.
        patience: The limit on how long one attempt may take.
    """

    def __init__(self, rule: str, patience: Patience) -> None:
        self._rule = rule
        self._patience = patience
        self._kind: type[e.Event] | None = None
        """The kind of the record that breaks the rule, once that is known: it stays the same."""

    def __call__(self, facts: Facts) -> Shows | None:
        """Let facts happen until the rule is broken."""
        checks, history, kinds = Checks([self._rule]), list[Played](), list[type[e.Event]]()
        for played in self._patience.within(Play(facts).run()):
            history.append(played)
            kinds += [type(record.event) for record in played.records]
            # A fact's obligations are checked when the next one comes, as in a log, which may have been cut short.
            for violation in [one for record in played.records for one in checks.add(record, played.t)]:
                if self._kind in {None, kinds[violation.n]}:
                    self._kind = kinds[violation.n]
                    return Shows(played.index + 1, history)
        return None


class Diverges:
    """A predicate: do today's actors decide a record differently than the log, or refuse a fact of it?

    The facts end with the one from which that record follows.

    Args:
        divergence: The difference between the log and today's actors.
        first: The number of the given record from which both sides follow.
        following: The next fact in the log, if there is one.
        patience: The limit on how long one attempt may take.

    Raises:
        LogNotComparable: The record is not of today's kinds, or its event does not differ.
    """

    def __init__(self, divergence: Divergence, first: int, following: Happening | None, patience: Patience) -> None:
        self._expected = _record(divergence.expected or {})
        self._actual = None if divergence.actual is None else _record(divergence.actual)
        self._refused = bool(divergence.note)
        self._first = first
        self._following = following
        self._patience = patience
        self._broken: set[str] | None = None
        """The rules that the log's record breaks, once they are known."""
        ours = None if self._actual is None else self._actual.event
        if isinstance(ours, e.SessionClosed) or self._expected.event == ours:
            what = "the digest" if isinstance(ours, e.SessionClosed) else "the number, the cause or the time"
            raise LogNotComparable(f"at record {divergence.n} only {what} differs: no smaller session can show that")

    def __call__(self, facts: Facts) -> Shows | None:
        """Let facts happen and put the log's record where today's actors differ from it."""
        play = Play(facts)
        history = list(self._patience.within(play.run()))
        n_needed = len(facts.happenings)
        if not history or history[-1].index != n_needed - 1 or (history[-1].error is not None) != self._refused:
            return None
        if self._refused:
            return Shows(n_needed, history)
        history[-1] = changed(history[-1], records=list(self._parted(play, history[-1])))
        if not history[-1].records or not self._is_as_right(history):
            return None
        return Shows(n_needed, history)

    def _is_as_right(self, history: list[Played]) -> bool:
        """Return whether the log's record breaks no rule that it keeps in the whole log."""
        checks = Checks()
        found = [
            one
            for played in self._patience.within(history)
            for record in played.records
            for one in checks.add(record, played.t)
        ]
        broken = {violation.rule for violation in found if violation.n == history[-1].records[-1].n}
        if self._broken is None:
            self._broken = broken
        return broken <= self._broken

    def _parted(self, play: Play, last: Played) -> Iterator[e.Record]:
        """Return the records of the last fact, up to the log's record; none if that has no place there."""
        expected, actual, records = self._expected, self._actual, last.records
        here = _here(play, expected.event)
        if actual is None:
            cause = records[0].n + (expected.cause or 0) - self._first
            if here is not None and cause <= records[-1].n:
                yield from (*records, e.Record(records[-1].n + 1, here, cause))
            return
        wanted = _here(play, actual.event)
        for i, record in enumerate(records[1:], 1):
            if type(record.event) is not type(wanted):
                continue
            instead: e.Event | None = here
            if expected.cause is None:
                instead = None if self._following is None else play.event_of(self._following.what)
            elif here is not None and type(here) is type(wanted):
                instead = _as_parted(record.event, here, wanted)
            if instead is not None and instead != record.event:
                yield from (*records[:i], e.Record(record.n, instead, expected.cause and record.cause))
                return


def _record(side: Fields) -> e.Record:
    try:
        return decode(side)
    except UnreadableRecord as error:
        raise LogNotComparable(f"the differing record is not of today's kinds: {error}") from None


def _as_parted(event: e.Event, expected: e.Event, actual: e.Event) -> e.Event | None:
    """Return an event with those fields of ``expected`` that differ from ``actual``.

    None if the event itself differs from ``actual`` in these fields already.
    """
    names = [one.name for one in fields(type(actual)) if getattr(expected, one.name) != getattr(actual, one.name)]
    if any(getattr(event, name) != getattr(actual, name) for name in names):
        return None
    return changed(event, **{name: getattr(expected, name) for name in names})


def _here(play: Play, event: e.Event) -> e.Event | None:
    """Return an event with the numbers of its requests in this session; None if one of them was never received."""
    numbers = play.numbers
    match event:
        case e.BatchPlanned(parts=parts):
            if not all(part.sequence in numbers for part in parts):
                return None
            return changed(event, parts=tuple(changed(part, sequence=numbers[part.sequence]) for part in parts))
        case e.BatchFailed(sequences=sequences):
            if not all(number in numbers for number in sequences):
                return None
            return changed(event, sequences=tuple(numbers[number] for number in sequences))
        case e.SequencePreempted(by=by) | e.RequestDisplaced(by=by):
            return None if by not in numbers else play.renumbered(changed(event, by=numbers[by]))
        case _:
            return play.renumbered(event) if hasattr(event, "sequence") else event
