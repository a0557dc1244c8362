"""What is wrong in a log, as a question that can be asked of any facts: do they show it, and after how many of them?

The rules that hold here:

* A rule is broken by what today's actors make of the facts; whatever the log holds, it is not asked.
* A log that other actors wrote is asked for one record only, the first that today's actors decide otherwise. In a
  smaller session that one is put in place of theirs, and nothing stands behind it.
* That record stays as right or wrong as it is: it may break no rule there that it keeps in the whole log.
* Numbers of requests are those of the smaller session. Slots and batches are not translated: where they are what
  differs, a smaller session must come to the same ones.
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
    """A session that shows what is wrong."""

    n_needed: int
    """Happenings that it takes."""
    played: list[Played]
    """All that happened, up to the record that is wrong."""


Wrong = Callable[[Facts], Shows | None]
"""Lets facts happen until what is wrong shows; None where it does not."""


class Breaks:
    """A rule that is broken.

    Args:
        rule: Its name.
        patience: How long to look for it.
    """

    def __init__(self, rule: str, patience: Patience) -> None:
        self._rule = rule
        self._patience = patience
        self._kind: type[e.Event] | None = None
        """The kind of the record at which it is, once that is known: it stays the same."""

    def __call__(self, facts: Facts) -> Shows | None:
        """Let facts happen until it is broken."""
        checks, told, kinds = Checks([self._rule]), list[Played](), list[type[e.Event]]()
        for played in self._patience.within(Play(facts).run()):
            told.append(played)
            kinds += [type(record.event) for record in played.records]
            # What a fact owes shows when the next one comes, as in a log: that may have been cut short.
            for violation in [one for record in played.records for one in checks.add(record, played.t)]:
                if self._kind in {None, kinds[violation.n]}:
                    self._kind = kinds[violation.n]
                    return Shows(played.index + 1, told)
        return None


class Parts:
    """A record that today's actors decide otherwise, or a fact that they cannot take.

    The facts that are asked end with the one that it follows from.

    Args:
        divergence: Where the log and today's actors part.
        first: The number of the given record that both sides follow from.
        following: The fact that comes next in the log, if one does.
        patience: How long to look for it.

    Raises:
        LogNotComparable: It is not a record of today's kinds, or not its event that differs.
    """

    def __init__(self, divergence: Divergence, first: int, following: Happening | None, patience: Patience) -> None:
        self._expected = _record(divergence.expected or {})
        self._actual = None if divergence.actual is None else _record(divergence.actual)
        self._refused = bool(divergence.note)
        self._first = first
        self._following = following
        self._patience = patience
        self._broken: set[str] | None = None
        """The rules that the log's record breaks, once that is known."""
        ours = None if self._actual is None else self._actual.event
        if isinstance(ours, e.SessionClosed) or self._expected.event == ours:
            what = "the digest" if isinstance(ours, e.SessionClosed) else "its number, its cause or its time"
            raise LogNotComparable(f"at record {divergence.n} only {what} differs: no smaller session can show that")

    def __call__(self, facts: Facts) -> Shows | None:
        """Let facts happen and put the log's record where today's actors part from it."""
        play = Play(facts)
        told = list(self._patience.within(play.run()))
        n_needed = len(facts.happenings)
        if not told or told[-1].index != n_needed - 1 or (told[-1].error is not None) != self._refused:
            return None
        if self._refused:
            return Shows(n_needed, told)
        told[-1] = changed(told[-1], records=list(self._parted(play, told[-1])))
        if not told[-1].records or not self._is_as_right(told):
            return None
        return Shows(n_needed, told)

    def _is_as_right(self, told: list[Played]) -> bool:
        """Return whether the log's record breaks no rule that it does not break in the whole log."""
        checks = Checks()
        found = [
            one
            for played in self._patience.within(told)
            for record in played.records
            for one in checks.add(record, played.t)
        ]
        broken = {violation.rule for violation in found if violation.n == told[-1].records[-1].n}
        if self._broken is None:
            self._broken = broken
        return broken <= self._broken

    def _parted(self, play: Play, last: Played) -> Iterator[e.Record]:
        """Return what follows from the last fact, up to the log's record; nothing where it has no place."""
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
                instead = None if self._following is None else play.told(self._following.what)
            elif here is not None and type(here) is type(wanted):
                instead = _as_parted(record.event, here, wanted)
            if instead is not None and instead != record.event:
                yield from (*records[:i], e.Record(record.n, instead, expected.cause and record.cause))
                return


def _record(side: Fields) -> e.Record:
    try:
        return decode(side)
    except UnreadableRecord as error:
        raise LogNotComparable(f"what differs is no record of today's kinds: {error}") from None


def _as_parted(event: e.Event, expected: e.Event, actual: e.Event) -> e.Event | None:
    """Return an event with the fields of ``expected`` in which that differs from ``actual``.

    None where the event is another one than ``actual`` in these fields already.
    """
    names = [one.name for one in fields(type(actual)) if getattr(expected, one.name) != getattr(actual, one.name)]
    if any(getattr(event, name) != getattr(actual, name) for name in names):
        return None
    return changed(event, **{name: getattr(expected, name) for name in names})


def _here(play: Play, event: e.Event) -> e.Event | None:
    """Return an event with the numbers that its requests have here; None where one of them never came."""
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
