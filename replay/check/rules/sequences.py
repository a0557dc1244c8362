"""Rules of one sequence: its inputs, its shifts, its tokens, its reader, its vector.

The rule that holds here: the formulas are those of docs/runner-semantics.md, not those of the actors.
"""

import math
from collections.abc import Iterator
from typing import Final

from reenact.actors import events as e
from reenact.actors.inputs import Input
from reenact.actors.routing import BATCHER, sequence_name
from reenact.replay.check.recount import Recount, RecountedRequest
from reenact.replay.check.rule import Rule, Violation
from reenact.replay.render.values import count, inputs, sequences, wanted

_EXACT: Final = 1e-9
"""The largest difference between two values of a vector of length 1 that were computed in different orders."""


class InputsRule(Rule):
    """The inputs of a sequence."""

    name = "inputs"
    says = (
        "A sequence has the inputs of its prompt (if that is too long, the first num_keep and the last ones), then "
        "each token that it emits, and never more than n_ctx; it asks for at most num_predict tokens, and after each "
        "token it goes on, pauses or ends."
    )
    source = "docs/runner-semantics.md, Admission"
    hears = (
        e.PromptTokenized,
        e.PromptTruncated,
        e.TokenEmitted,
        e.ContextShifted,
        e.InputQueued,
        e.SequencePaused,
        e.SequenceFinished,
    )

    def __init__(self, recount: Recount) -> None:
        super().__init__(recount)
        self._owed: dict[int, int] = {}
        """For each sequence that has to go on, the number of the record that requires it."""
        self._truncated: set[int] = set()

    def see(self, record: e.Record) -> Iterator[Violation]:
        """Check the inputs that a sequence queues."""
        match record.event:
            case e.PromptTokenized(sequence=number):
                if self.recount.is_live(number):
                    self._owed[number] = record.n
            case e.PromptTruncated() as truncated:
                request = self.recount.request(truncated.sequence)
                if truncated.sequence in self._truncated:
                    yield self.violation(record.n, "a prompt truncated once", "twice")
                self._truncated.add(truncated.sequence)
                keep, discard = request.keep, len(request.prompt or ()) - request.n_ctx
                if (keep, discard) != (truncated.keep, truncated.discard) or not request.options.truncate:
                    expected = f"keep {keep}, discard {discard} if it may be truncated"
                    yield self.violation(record.n, expected, f"keep {truncated.keep}, discard {truncated.discard}")
            case e.InputQueued() as queued:
                self._owed.pop(queued.sequence, None)
                yield from self._queued(record.n, queued, self.recount.request(queued.sequence))
            case e.TokenEmitted(sequence=number) | e.ContextShifted(sequence=number):
                self._owed[number] = record.n
            case e.SequencePaused(sequence=number) | e.SequenceFinished(sequence=number):
                self._owed.pop(number, None)
            case _:
                pass

    def settle(self) -> Iterator[Violation]:
        """Check that each sequence that emitted a token goes on, pauses or ends."""
        for number, n in self._owed.items():
            if not {BATCHER, sequence_name(number)} & self.recount.failed:
                yield self.violation(n, f"sequence {number} goes on, pauses or ends", "nothing of it in this fact")
        self._owed.clear()
        self._truncated.clear()

    def _queued(self, n: int, queued: e.InputQueued, request: RecountedRequest) -> Iterator[Violation]:
        if request.last_token is None:
            due, wants = self._prompt(request), e.Pool() if request.embedding else e.Draw(0)
            if (len(request.prompt or ()) > request.n_ctx) != (request.number in self._truncated):
                yield self.violation(n, "PromptTruncated before a prompt that is too long, and only there", "otherwise")
        else:
            due, wants = (request.last_token,), e.Draw(request.n_sampled)
        if (due, wants) != (queued.inputs, queued.wants):
            actual = f"{inputs(queued.inputs)}, then {wanted(queued.wants)}"
            yield self.violation(n, f"{inputs(due)}, then {wanted(wants)}", actual)
        n_inputs = len(request.inputs) + len(queued.inputs)
        if n_inputs > request.n_ctx:
            yield self.violation(n, f"{count(request.n_ctx, 'input')} at most", str(n_inputs))
        if isinstance(wants, e.Draw) and request.n_sampled >= request.limit:
            yield self.violation(n, f"{count(request.limit, 'token')} at most", "one more is asked for")

    def _prompt(self, request: RecountedRequest) -> tuple[Input, ...]:
        prompt = request.prompt or ()
        if len(prompt) <= request.n_ctx:
            return prompt
        return prompt[: request.keep] + prompt[len(prompt) - (request.n_ctx - request.keep) :]


class ShiftsRule(Rule):
    """How a full context makes room."""

    name = "shifts"
    says = (
        "A context is shifted when the next input would not fit and the request allows it: max(max((n_ctx - keep) / "
        "2, 1) - (n_ctx - length), 0) inputs after num_keep are dropped; where cells are moved, they are dropped from "
        "the cells too."
    )
    source = "docs/runner-semantics.md, Context shift"
    hears = (e.ContextShifted, e.InputsDropped, e.BatchPlanned)

    def __init__(self, recount: Recount) -> None:
        super().__init__(recount)
        self._owed: dict[int, int] = {}
        """For each sequence that is shifted, the number of the record that shifts it."""

    def see(self, record: e.Record) -> Iterator[Violation]:
        """Check a shift and its effect on the cells."""
        match record.event:
            case e.ContextShifted() as shifted:
                if shifted.sequence in self._owed:
                    yield self.violation(record.n, "one shift at a time", "another one")
                self._owed[shifted.sequence] = record.n
                yield from self._amount(record.n, shifted)
            case e.InputsDropped() as dropped:
                self._owed.pop(dropped.sequence, None)
                cause = self.recount.cause(record)
                due = (cause.keep, cause.discard) if isinstance(cause, e.ContextShifted) else (0, 0)
                if due != (dropped.keep, dropped.discard):
                    expected = f"keep {due[0]}, discard {due[1]}"
                    yield self.violation(record.n, expected, f"keep {dropped.keep}, discard {dropped.discard}")
            case e.BatchPlanned(shifts=shifts):
                slots = enumerate(self.recount.slots)
                wanted = [(number, *slot.gap) for number, slot in slots if slot.gap is not None]
                planned = [(shift.slot, shift.keep, shift.discard) for shift in shifts]
                if wanted != planned:
                    yield self.violation(
                        record.n, f"(slot, keep, discard) {wanted} moved down", f"{planned or 'none'} moved down"
                    )
            case _:
                pass

    def settle(self) -> Iterator[Violation]:
        """Check that the inputs of every shifted context were dropped."""
        for number, n in self._owed.items():
            if BATCHER not in self.recount.failed:
                yield self.violation(n, f"inputs of sequence {number} dropped", "none in this fact")
        self._owed.clear()

    def _amount(self, n: int, shifted: e.ContextShifted) -> Iterator[Violation]:
        request = self.recount.request(shifted.sequence)
        n_ctx, keep, length = request.n_ctx, request.keep, len(request.inputs)
        discard = max(max((n_ctx - keep) // 2, 1) - (n_ctx - length), 0)
        if (keep, discard) != (shifted.keep, shifted.discard):
            yield self.violation(
                n, f"keep {keep}, discard {discard}", f"keep {shifted.keep}, discard {shifted.discard}"
            )
        if length < n_ctx or not request.options.shift:
            expected = f"a full context of {n_ctx} that may be shifted"
            yield self.violation(n, expected, f"{length} inputs, shift {request.options.shift}")


class TokensRule(Rule):
    """The fate of each sampled token."""

    name = "tokens"
    says = (
        "Every sampled token is emitted, completes a stop string, ends the text, or is dropped because its sequence "
        "ended: exactly one of these, once, with its index, which counts from 0."
    )
    source = "docs/runner-semantics.md, Sampling"
    hears = (e.BatchDecoded, e.TokenEmitted, e.StopMatched, e.EogSampled, e.TokenDropped)

    def __init__(self, recount: Recount) -> None:
        super().__init__(recount)
        self._n = 0
        self._sampled: dict[int, e.Sample] = {}
        """For each sequence the token that is not accounted for yet."""

    def see(self, record: e.Record) -> Iterator[Violation]:
        """Check the sampled tokens and the records made of them."""
        match record.event:
            case e.BatchDecoded(samples=samples):
                self._n = record.n
                self._sampled |= {sample.sequence: sample for sample in samples if sample.fault is None}
            case e.TokenEmitted() | e.StopMatched() | e.EogSampled() | e.TokenDropped() as event:
                yield from self._accounted(record.n, event)
            case _:
                pass

    def settle(self) -> Iterator[Violation]:
        """Check that every token is accounted for."""
        if self._sampled:
            excused = BATCHER in self.recount.failed
            lost = {number for number in self._sampled if sequence_name(number) not in self.recount.failed}
            if lost and not excused:
                yield self.violation(self._n, f"a record of the tokens of {sequences(lost)}", "none")
            self._sampled.clear()

    def _accounted(
        self, n: int, event: e.TokenEmitted | e.StopMatched | e.EogSampled | e.TokenDropped
    ) -> Iterator[Violation]:
        sample = self._sampled.pop(event.sequence, None)
        actual = f"{type(event).__name__} of token {event.index}, id {event.token}"
        if sample is None:
            yield self.violation(n, "nothing: no token was sampled", actual)
            return
        is_live, n_sampled = self.recount.is_live(event.sequence), self.recount.request(event.sequence).n_sampled
        kinds: tuple[type[e.Event], ...] = (e.TokenDropped,)
        if is_live:
            kinds = (e.EogSampled,) if sample.eog else (e.TokenEmitted, e.StopMatched)
        if (sample.index, sample.token) != (event.index, event.token) or not isinstance(event, kinds):
            names = " or ".join(kind.__name__ for kind in kinds)
            yield self.violation(n, f"{names} of token {sample.index}, id {sample.token}", actual)
        if is_live and event.index != n_sampled:
            yield self.violation(n, f"token {n_sampled}", f"token {event.index}")


class ReadersRule(Rule):
    """The pauses of readers."""

    name = "readers"
    says = (
        "A sequence pauses if its reader has paused, and only then; it asks for no token until the reader resumes, and "
        "then it goes on at once. If it pauses longer than max_pause, it gives up its slot, and only then."
    )
    source = "docs/runner-semantics.md, Cancelling"
    hears = (
        e.ReaderResumed,
        e.PauseExpired,
        e.SequencePaused,
        e.SequenceResumed,
        e.SlotYielded,
        e.InputQueued,
        e.SequenceFinished,
    )

    def __init__(self, recount: Recount) -> None:
        super().__init__(recount)
        self._owed: dict[int, int] = {}
        """For each sequence that has to go on, the number of the record that requires it."""
        self._expired: tuple[int, int] | None = None
        """The number of the record that makes a sequence give up its slot, and the sequence."""

    def see(self, record: e.Record) -> Iterator[Violation]:
        """Check a pause, its end, and the sequences that go on."""
        match record.event:
            case e.ReaderResumed(sequence=number):
                if self.recount.is_live(number) and self.recount.request(number).paused:
                    self._owed[number] = record.n
            case e.PauseExpired(sequence=number):
                if self.recount.is_live(number) and self._keeps_slot(number):
                    self._expired = record.n, number
            case e.SlotYielded(sequence=number):
                if self._expired is None or self._expired[1] != number:
                    yield self.violation(record.n, f"sequence {number} keeps its slot", "it gives it up")
                self._expired = None
            case e.SequenceFinished(sequence=number):
                self._owed.pop(number, None)
            case e.SequencePaused(sequence=number):
                if not self.recount.request(number).reader_paused or self.recount.request(number).paused:
                    yield self.violation(record.n, f"sequence {number} goes on, or has paused", "it pauses")
            case e.SequenceResumed(sequence=number):
                if not self.recount.request(number).paused or self.recount.request(number).reader_paused:
                    yield self.violation(record.n, f"sequence {number} was paused and its reader reads", "it is not so")
            case e.InputQueued(sequence=number):
                self._owed.pop(number, None)
                request = self.recount.request(number)
                if request.inputs and (request.reader_paused or request.paused):
                    yield self.violation(record.n, f"sequence {number} paused, as its reader is", "it goes on")
            case _:
                pass

    def settle(self) -> Iterator[Violation]:
        """Check that each sequence that has to go on did so."""
        for number, n in self._owed.items():
            if sequence_name(number) not in self.recount.failed:
                yield self.violation(n, f"sequence {number} goes on, as its reader does", "it does not")
        self._owed.clear()
        if self._expired is not None and BATCHER not in self.recount.failed:
            yield self.violation(self._expired[0], f"sequence {self._expired[1]} gives up its slot", "it keeps it")
        self._expired = None

    def _keeps_slot(self, number: int) -> bool:
        request = self.recount.request(number)
        return request.slot is not None and request.kept_back


class VectorsRule(Rule):
    """The evaluation of pooled texts."""

    name = "vectors"
    says = (
        "A pooled text is evaluated whole, and alone where neighbours would change it; its embedding consists of as "
        "many of the first values of its vector as were asked for, and has length 1, or 0 for a vector of zeros."
    )
    source = "docs/runner-semantics.md, Embeddings"
    hears = (e.BatchPlanned, e.BatchDecoded, e.EmbeddingComputed)

    def __init__(self, recount: Recount) -> None:
        super().__init__(recount)
        self._vectors: dict[int, tuple[float, ...]] = {}

    def see(self, record: e.Record) -> Iterator[Violation]:
        """Check texts in a batch, vectors, and embeddings."""
        match record.event:
            case e.BatchPlanned(parts=parts):
                for part in parts:
                    if part.pools:
                        yield from self._part(record.n, part, len(parts))
            case e.BatchDecoded(vectors=vectors):
                self._vectors = {vector.sequence: vector.values for vector in vectors}
            case e.EmbeddingComputed() as computed:
                options = self.recount.request(computed.sequence).options
                due = _unit(self._vectors.get(computed.sequence, ())[: options.dimensions])
                actual = computed.embedding
                if len(due) != len(actual) or any(
                    abs(one - other) > _EXACT for one, other in zip(due, actual, strict=True)
                ):
                    yield self.violation(record.n, _shown(due), _shown(actual))
            case _:
                pass

    def _part(self, n: int, part: e.Part, n_parts: int) -> Iterator[Violation]:
        n_inputs = len(self.recount.request(part.sequence).inputs)
        if (part.position, len(part.inputs)) != (0, n_inputs):
            yield self.violation(n, f"rows 0 to {n_inputs - 1}", f"{len(part.inputs)} rows from {part.position} on")
        if n_parts > 1 and self.recount.header is not None and self.recount.header.context.alone:
            yield self.violation(n, f"sequence {part.sequence} alone", count(n_parts, "text"))


def _unit(values: tuple[float, ...]) -> tuple[float, ...]:
    """Return the values divided by their Euclidean length; they are scaled first, so that no square is out of range."""
    largest = max(map(abs, values), default=0.0)
    if not largest:
        return values
    scaled = [value / largest for value in values]
    length = math.sqrt(math.fsum(value * value for value in scaled))
    return tuple(value / length for value in scaled)


def _shown(values: tuple[float, ...]) -> str:
    shown = ", ".join(f"{value:.6g}" for value in values[:4])
    return f"{count(len(values), 'value')} [{shown}{', …' if values[4:] else ''}]"
