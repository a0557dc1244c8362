"""Leaves out of a line what the lines before it give, and puts it back when the line is read.

A line may leave out, and then has all the same:

* ``actor``: the owner of its event.
* ``t`` and ``cause`` of a derived record: the time and the number of the last given record.
* options of a request that are at a default. Record 0 has these under ``defaults``, so that a log keeps the defaults
  of the program that wrote it.
* ``index`` and ``token`` of a `TokenEmitted`: those of the sequence's sample in the last given record.
* ``inputs`` and ``wants`` of an `InputQueued`: that token and the next draw; or the prompt that is the last given
  record, and the first draw.
* in a batch, what `reenact.runtime.log.columns` leaves out.

The rules that hold here:

* A line may contain what it could leave out, and then its own value counts. So every record can be written, and a line
  that leaves out nothing can be read.
* What earlier lines give follows from their records alone (`Earlier`), whether they were written, read or decided. No
  actor decides it: what a log means does not depend on the rules of the actors that read it.
* It is bounded: by the inputs of the sequences that have not ended, the last given record and the last plan.
"""

from typing import Final

from attrs import Factory, define, frozen

from reenact.actors import events as e
from reenact.actors.inputs import Input
from reenact.actors.options import Options
from reenact.actors.routing import EVENT_TYPES, ROUTES, Origin, Role, sequence_name
from reenact.runtime.log.codec import ENVELOPE, Fields, UnreadableRecord, payload, same
from reenact.runtime.log.columns import (
    short_outcome,
    short_plan,
    whole_outcome,
    whole_parts,
    written_inputs,
    written_wants,
)

MOST_ROWS: Final = 256
"""The rows, for each record of a log, that its plans may leave out. A row takes 8 bytes of a reader's memory and a
record about 1,000, so that a log of short lines makes no reader much larger than one of long lines."""


_NAMES: Final = {kind: route.name for kind, route in ROUTES.items()}
_EMITTED: Final = _NAMES[e.TokenEmitted]
_QUEUED: Final = _NAMES[e.InputQueued]
_USUAL_EMITTED: Final = {"n", "type", "sequence", "text"}
_USUAL_QUEUED: Final = {"n", "type", "sequence"}
_DEFAULTS: Final[Fields] = {name: value for name, value in payload(Options(seed=0)).items() if name != "seed"}


@define
class KnownSequence:
    """The facts about a live sequence that its lines need not repeat."""

    inputs: list[Input] = Factory(list)
    wants: e.Wants = None
    slot: int | None = None
    position: int | None = None
    """The position of its next row, if nothing unusual happens."""

    def rows(self, position: int, count: int) -> tuple[Input, ...] | None:
        """Return ``count`` inputs from ``position`` on; None if it has not so many."""
        if position < 0 or count < 0 or position + count > len(self.inputs):
            return None
        return tuple(self.inputs[position : position + count])

    def wanted(self, end: int) -> e.Wants:
        """Return the wanted outcome of rows that end before position ``end``."""
        return self.wants if end == len(self.inputs) else None


@frozen
class Queued:
    """Inputs to queue, and the wanted outcome of them."""

    sequence: int
    inputs: tuple[Input, ...]
    wants: e.Draw | e.Pool


GIVEN: Final = frozenset(kind for kind, route in ROUTES.items() if route.origin is Origin.GIVEN)
"""The types of given events."""
NOTHING: Final = KnownSequence()


@define
class Earlier:
    """The facts that the lines of a log so far give; `note` adds a record."""

    t: int = 0
    """The time of the last given record."""
    given: int = 0
    """Its number."""
    plan: e.BatchPlanned | None = None
    """The last plan."""
    _sequences: dict[int, KnownSequence] = Factory(dict)
    _drawn: dict[int, e.Sample] = Factory(dict)
    """The samples of the last given record, by sequence, as far as their tokens are not queued yet."""
    _prompt: e.PromptTokenized | None = None
    """The last given record, if it is a prompt that is not queued yet."""
    _n: int = 0
    _n_rows: int = 0

    def sequence(self, number: object) -> KnownSequence:
        """Return the known facts about a sequence; none if it is not live."""
        return self._sequences.get(number, NOTHING) if isinstance(number, int) else NOTHING

    def drawn(self, sequence: object) -> e.Sample | None:
        """Return the sample of a sequence in the last given record, if its token is not queued yet."""
        return self._drawn.get(sequence) if isinstance(sequence, int) else None

    def queued(self, sequence: object) -> Queued | None:
        """Return the inputs that a sequence queues after the last given record if nothing unusual happens; or None."""
        if (sample := self.drawn(sequence)) is not None:
            return Queued(sample.sequence, (sample.token,), e.Draw(sample.index + 1))
        if self._prompt is not None and self._prompt.sequence == sequence:
            return Queued(self._prompt.sequence, self._prompt.inputs, e.Draw(0))
        return None

    def may_leave_out(self, n_rows: int) -> bool:
        """Return whether the next plan may leave out so many rows; see `MOST_ROWS`."""
        return self._n_rows + n_rows <= MOST_ROWS * (self._n + MOST_ROWS)

    def note(self, record: e.Record, t: int) -> None:
        """Add a record.

        Args:
            record: The record.
            t: Its time.
        """
        event = record.event
        self._n = record.n + 1
        if type(event) is e.TokenEmitted:
            return  # The most frequent one; no line refers to it.
        if type(event) in GIVEN:
            self.given, self.t, self._drawn, self._prompt = record.n, t, {}, None
        match event:
            case e.InputQueued():
                # Once only, so that short lines cannot make a sequence long.
                self._drawn.pop(event.sequence, None)
                self._prompt = None
                known = self._sequences.get(event.sequence)
                if known is None:
                    known = self._sequences[event.sequence] = KnownSequence()
                known.inputs += event.inputs
                known.wants = event.wants
            case e.BatchPlanned():
                self._planned(event)
            case e.BatchDecoded():
                self._drawn = {sample.sequence: sample for sample in event.samples}
                self._reach(event)
            case e.PromptTokenized():
                self._prompt = event
            case e.InputsDropped() if event.sequence in self._sequences:
                known = self._sequences[event.sequence]
                del known.inputs[event.keep : event.keep + event.discard]
                known.position = min(known.position or 0, event.keep)
            case e.SlotAssigned() if event.sequence in self._sequences:
                known = self._sequences[event.sequence]
                known.slot, known.position = event.slot, event.reused
            case e.SequenceFinished():
                self._sequences.pop(event.sequence, None)
            case _:
                pass

    def _planned(self, planned: e.BatchPlanned) -> None:
        self.plan = planned
        for part in planned.parts:
            self._n_rows += len(part.inputs)
            if part.sequence in self._sequences:
                self._sequences[part.sequence].position = part.position + len(part.inputs)

    def _reach(self, decoded: e.BatchDecoded) -> None:
        """Continue from the positions that the engine reports of a batch that was not done."""
        if decoded.code != e.DONE and self.plan is not None:
            reached = dict(decoded.positions)
            for part in self.plan.parts:
                if part.slot in reached and part.sequence in self._sequences:
                    self._sequences[part.sequence].position = reached[part.slot] + 1


@define
class Shorthand:
    """The short form of a log's records; each record is passed to `note` after it was written or read."""

    _earlier: Earlier = Factory(Earlier)
    _defaults: Fields = Factory(dict)
    """The options that requests leave out."""

    @property
    def t(self) -> int:
        """The time of the last given record, which is that of the records that follow from it."""
        return self._earlier.t

    def note(self, record: e.Record, t: int) -> None:
        """Add a record to those that later lines may refer to.

        Args:
            record: The record.
            t: Its time.
        """
        self._earlier.note(record, t)

    def short(self, record: e.Record, t: int) -> Fields:
        """Return a record as the plain values of its line, without the checksum.

        Args:
            record: The record.
            t: The time in nanoseconds since the session opened.
        """
        event, earlier = record.event, self._earlier
        kind = type(event)
        given = kind in GIVEN
        line: Fields = {"n": record.n, "type": _NAMES[kind]}
        if given or t != earlier.t:
            line = {"n": record.n, "t": t, "type": _NAMES[kind]}
        if record.cause != (None if given else earlier.given):
            line["cause"] = record.cause
        match event:
            case e.TokenEmitted() if not event.held and not event.held_by and self._drew(event):
                line["sequence"], line["text"] = event.sequence, event.text
            case e.InputQueued(inputs=(token,), wants=e.Draw(index=index)) if (
                (sample := earlier.drawn(event.sequence)) is not None
                and sample.token == token
                and sample.index + 1 == index
            ):
                line["sequence"] = event.sequence
            case e.InputQueued():
                line["sequence"] = event.sequence
                due = earlier.queued(event.sequence)
                if due is None or due.inputs != event.inputs:
                    line["inputs"] = written_inputs(event.inputs)
                if due is None or due.wants != event.wants:
                    line["wants"] = written_wants(event.wants)
            case _:
                line.update(self._short_event(event))
        return line

    def _drew(self, event: e.TokenEmitted) -> bool:
        """Return whether the last given record has the token as the sequence's sample."""
        sample = self._earlier.drawn(event.sequence)
        return sample is not None and sample.index == event.index and sample.token == event.token

    def _short_event(self, event: e.Event) -> Fields:
        earlier = self._earlier
        match event:
            case e.TokenEmitted() if self._drew(event):
                fields = payload(event)
                del fields["index"], fields["token"]
                return fields
            case e.BatchPlanned():
                return short_plan(event, earlier)
            case e.BatchDecoded():
                return short_outcome(event, earlier)
            case e.RequestReceived() | e.SequenceForked():
                fields = payload(event)
                defaults = self._defaults
                fields["options"] = {
                    name: value
                    for name, value in fields["options"].items()
                    if name not in defaults or not same(defaults[name], value)
                }
                return fields
            case e.SessionOpened():
                self._defaults = _DEFAULTS
                return {**payload(event), "defaults": _DEFAULTS}
            case _:
                return payload(event)

    def usual(self, fields: Fields) -> e.Record | None:
        """Return the record of a line of the usual form of the two most frequent types; None for any other line."""
        n, name, sequence = fields.get("n"), fields.get("type"), fields.get("sequence")
        event: e.Event
        if name == _EMITTED and fields.keys() == _USUAL_EMITTED:
            sample, text = self._earlier.drawn(sequence), fields["text"]
            if sample is None or type(text) is not str:
                return None
            event = e.TokenEmitted(sequence=sample.sequence, index=sample.index, token=sample.token, text=text)
        elif name == _QUEUED and fields.keys() == _USUAL_QUEUED:
            due = self._earlier.queued(sequence)
            if due is None:
                return None
            event = e.InputQueued(sequence=due.sequence, inputs=due.inputs, wants=due.wants)
        else:
            return None
        return e.Record(n, event, self._earlier.given) if type(n) is int and type(sequence) is int else None

    def whole(self, fields: Fields) -> Fields:
        """Return the plain values of a line with all that it left out; what nothing gives is still missing.

        Raises:
            UnreadableRecord: What is there of a batch or of defaults is malformed.
        """
        name = fields.get("type")
        kind = EVENT_TYPES.get(name) if isinstance(name, str) else None
        if kind is None:
            return fields
        rest = self._whole_event(kind, {key: value for key, value in fields.items() if key not in ENVELOPE})
        owner, earlier = ROUTES[kind].owner, self._earlier
        given = {"actor": sequence_name(rest.get("sequence", 0)) if owner is Role.SEQUENCE else owner.value}
        if kind not in GIVEN:
            given |= {"t": earlier.t, "cause": earlier.given}
        given |= fields
        return {key: given[key] for key in ENVELOPE if key in given} | rest

    def _whole_event(self, kind: type[e.Event], fields: Fields) -> Fields:
        earlier = self._earlier
        if kind is e.TokenEmitted:
            if "index" in fields or "token" in fields or (sample := earlier.drawn(fields.get("sequence"))) is None:
                return fields
            return {"sequence": sample.sequence, "index": sample.index, "token": sample.token} | fields
        if kind is e.InputQueued:
            return self._whole_input(fields)
        if kind is e.BatchPlanned and isinstance(fields.get("parts"), dict):
            return {**fields, "parts": whole_parts(fields["parts"], earlier)}
        if kind is e.BatchDecoded:
            return whole_outcome(fields, earlier)
        if kind in (e.RequestReceived, e.SequenceForked) and isinstance(fields.get("options"), dict):
            return {**fields, "options": {**self._defaults, **fields["options"]}}
        if kind is e.SessionOpened and "defaults" in fields:
            self._defaults = _checked(fields["defaults"])
            return {name: value for name, value in fields.items() if name != "defaults"}
        return fields

    def _whole_input(self, fields: Fields) -> Fields:
        due = self._earlier.queued(fields.get("sequence"))
        if due is None or ("inputs" in fields and "wants" in fields):
            return fields
        return {
            "sequence": fields["sequence"],
            "inputs": written_inputs(due.inputs),
            "wants": written_wants(due.wants),
        } | fields


def _checked(defaults: object) -> Fields:
    """Return the defaults of options, none of which is long: each request that leaves them out has its own copy."""
    if not isinstance(defaults, dict):
        raise UnreadableRecord("SessionOpened: defaults: expected an object")
    for name, value in defaults.items():
        if not (value is None or value == [] or isinstance(value, bool | int | float)):
            raise UnreadableRecord(f"SessionOpened: defaults: {name}: expected a number, true, false, null or []")
    return defaults
