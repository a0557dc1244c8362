"""Redacts the facts of a session, one after the other.

The rule that holds here: of each field, what `reenact.replay.redact.decisions` says becomes of it.
"""

from collections.abc import Sequence
from typing import Final

from attrs import define
from attrs import evolve as changed

from reenact.actors import events as e
from reenact.actors.errors import Failure
from reenact.actors.inputs import Input
from reenact.actors.options import Options
from reenact.replay.redact.hashes import Hashes
from reenact.replay.redact.letters import Alphabet, Letters
from reenact.runtime.log.codec import FORMAT, SCHEMA

LEFT_OUT: Final = "left out"
"""The text in place of an error's message."""


@define
class _Known:
    """The state of a sequence's text."""

    letters: Letters
    label: bytes = b""
    """The label of its last input."""


class Redaction:
    """Redacts facts.

    Args:
        hashes: The hashes of inputs.
    """

    def __init__(self, hashes: Hashes) -> None:
        self._hashes = hashes
        self._key = hashes.key
        self._alphabet = Alphabet(self._key)
        self._known: dict[int, _Known] = {}
        """The sequences that have not ended."""
        self.n_prompts = 0
        self.n_tokens = 0
        """The count of drawn tokens."""

    def redacted(self, given: e.GivenEvent, follows: Sequence[e.Event]) -> e.GivenEvent:
        """Return the fact that takes a fact's place; of `SessionClosed` the digest is still to be set.

        Args:
            given: The fact.
            follows: The events that followed from it.
        """
        made = self._fact(given, follows)
        for event in follows:
            if isinstance(event, e.SequenceFinished):
                self._known.pop(event.sequence, None)
        return made

    def _fact(self, given: e.GivenEvent, follows: Sequence[e.Event]) -> e.GivenEvent:
        match given:
            case e.SessionOpened():
                policies = {**given.policies, "logits_hash": "none"} if given.policies else given.policies
                return changed(given, format=FORMAT, schema=SCHEMA, policies=policies, redacted=True)
            case e.RequestReceived():
                return self._request(given)
            case e.RequestRefused(failure=failure):
                left = Failure(kind=failure.kind, field=failure.field, reason=LEFT_OUT)
                return changed(given, request_id=self._name(given.request_id), failure=left)
            case e.PromptTokenized():
                grammar = None if given.grammar is None else self._key.name("grammar", given.grammar)
                return changed(given, inputs=self._inputs(given, follows), grammar=grammar)
            case e.TokenizeFailed() | e.EngineFailed():
                return changed(given, error=LEFT_OUT)
            case e.BatchDecoded():
                samples = tuple(map(self._sample, given.samples))
                return changed(given, samples=samples, vectors=tuple(map(_vector, given.vectors)))
            case e.SequenceForked():
                if given.sequence in self._known:
                    self._known[given.sequence].letters.also(given.options.stop)
                return changed(given, options=self._options(given.options))
            case _:
                return given

    def _name(self, request_id: str | None) -> str | None:
        return None if request_id is None else self._key.name("id", request_id)

    def _request(self, request: e.RequestReceived) -> e.RequestReceived:
        self.n_prompts += 1
        self._known[request.sequence] = _Known(Letters(self._alphabet, request.options.stop))
        return changed(
            request,
            request_id=self._name(request.request_id),
            prompt=self._key.name("prompt", request.prompt),
            options=self._options(request.options),
            said=None,
            traceparent=None,
        )

    def _options(self, options: Options) -> Options:
        form, grammar = options.format, options.grammar
        if form is not None and form != "json":
            form = f'{{"$id": "{self._key.name("format", form)}"}}'
        return changed(
            options,
            stop=tuple(map(self._alphabet.text, options.stop)),
            format=form,
            grammar=None if grammar is None else self._key.name("grammar", grammar),
        )

    def _inputs(self, tokenized: e.PromptTokenized, follows: Sequence[e.Event]) -> tuple[Input, ...]:
        """Return the inputs of a prompt; those that it goes on with have only each other before them."""
        keep, stop = len(tokenized.inputs), len(tokenized.inputs)
        for event in follows:
            if isinstance(event, e.PromptTruncated):
                keep, stop = event.keep, event.keep + event.discard
        inputs = tokenized.inputs
        first = self._hashes.labels(b"", inputs[:keep])
        end = first[-1] if first else b""
        left_out = self._hashes.labels(self._key.hash("left out", end), inputs[keep:stop])
        last = self._hashes.labels(end, inputs[stop:])
        if tokenized.sequence in self._known:
            self._known[tokenized.sequence].label = last[-1] if last else end
        labels = [*first, *left_out, *last]
        return tuple(self._hashes.put(label, one) for label, one in zip(labels, inputs, strict=True))

    def _sample(self, sample: e.Sample) -> e.Sample:
        """Return a draw without its row's checksum and its probabilities, which would confirm a guess."""
        known = self._known.get(sample.sequence)
        bare = e.Sample(
            sequence=sample.sequence, index=sample.index, token=sample.token, eog=sample.eog, fault=sample.fault
        )
        if sample.fault is not None:
            return bare
        self.n_tokens += 1
        before = self._key.hash("dropped", b"") if known is None else known.label
        label = self._hashes.label(before, sample.token)
        letters = Letters(self._alphabet, ()) if known is None or sample.eog else known.letters
        if known is not None and not sample.eog:
            known.label = label
        return changed(bare, token=self._hashes.token(label), piece=letters.put(sample.piece, label))


def _vector(vector: e.Vector) -> e.Vector:
    """Return a vector of the same length that is the same for all."""
    n_values = len(vector.values)
    return e.Vector(sequence=vector.sequence, values=(1.0, *[0.0] * (n_values - 1)) if n_values else (), crc32=0)
