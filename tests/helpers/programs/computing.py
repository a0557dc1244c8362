"""A kernel beside a real engine, without trio: what the engine draws for each request, in company and alone."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from attrs import frozen

from reenact.actors import events as e
from reenact.actors.header import ContextFacts
from reenact.actors.options import Options
from reenact.replay.testing.kernel import Submission, header_of
from reenact.runtime.engine.protocol import Drawing
from reenact.runtime.engine.row_numbers import NO_NUMBERS
from reenact.runtime.llama.engine import LlamaEngine
from tests.helpers.engine_steps import emptied, part
from tests.helpers.programs.session import Session


@frozen
class Drawn:
    """A token, and what it was drawn from."""

    token: int
    logits_crc32: int | None
    eog: bool


class Computing(Session):
    """A session of an engine that computes.

    Args:
        engine: The engine; it is loaded, and what an earlier session left in it is removed.
        context: Its context.
    """

    def __init__(self, engine: LlamaEngine, context: ContextFacts) -> None:
        clear(engine, context)
        self.drawn: dict[int, list[Drawn]] = {}
        """What was drawn for each request, and not dropped."""
        super().__init__(engine, header_of(context, max_waiting=9))

    def ask(self, submission: Submission) -> None:
        """Give a request, tokenized."""
        number = self.submit(submission)
        self.drawn[number] = []
        self.tokenize(number)

    def outcome(self) -> e.BatchDecoded:
        """Return what becomes of the batch in flight, which comes to its end unless it was to be aborted."""
        decoded = super().outcome()
        assert decoded.code in {e.DONE, e.ABORTED}, f"llama_decode returned {decoded.code}"
        return decoded

    def give(self, fact: e.GivenEvent, *, t: int | None = None) -> list[e.Record]:
        """Give the kernel a fact, and keep what was drawn."""
        records = super().give(fact, t=t)
        samples = {sample.sequence: sample for sample in fact.samples} if isinstance(fact, e.BatchDecoded) else {}
        for record in records:
            if isinstance(record.event, e.TokenEmitted | e.EogSampled | e.StopMatched):
                sample = samples[record.event.sequence]
                self.drawn[sample.sequence].append(Drawn(sample.token, sample.logits_crc32, sample.eog))
        return records


def clear(engine: LlamaEngine, context: ContextFacts) -> None:
    """Empty all slots, and forget what is kept for draws."""
    trims = emptied(*range(context.n_slots))
    engine.step(e.BatchPlanned(batch=0, copies=(), trims=trims, shifts=(), parts=()), {}, NO_NUMBERS)
    engine.draws.close()
    engine.abort(-1)  # Numbers of batches come again: none of them is to end early for what was asked before.


def alone(engine: LlamaEngine, context: ContextFacts, submission: Submission, n_tokens: int) -> list[Drawn]:
    """Draw so many tokens for a request that has the engine for itself, without a kernel, and check each of them."""
    clear(engine, context)
    rows: list[Any] = []
    engine.watch(lambda _row, _part, logits, _sample: rows.append(logits.copy()))
    drawn: list[Drawn] = []
    inputs: tuple[Any, ...] = submission.prompt
    position = 0
    while len(drawn) < n_tokens:
        said = [one.token for one in drawn]
        drawing = Drawing(options=submission.options, grammar=None, prompt=submission.prompt, sampled=said)
        parts = [
            part(inputs[at : at + context.n_batch], position=position + at)
            for at in range(0, len(inputs), context.n_batch)
        ]
        for one in parts[:-1]:
            plan(engine, one, {})
        last = part(parts[-1].inputs, position=parts[-1].position, draw=len(drawn))
        (sample,) = plan(engine, last, {1: drawing}).samples
        check_draw(submission, said, sample.token, rows[-1], context.n_ctx)
        drawn.append(Drawn(sample.token, sample.logits_crc32, sample.eog))
        position += len(inputs)
        inputs = (sample.token,)
    engine.watch(None)
    return drawn


def plan(engine: LlamaEngine, one: e.Part, drawings: dict[int, Drawing]) -> e.BatchDecoded:
    """Evaluate one part."""
    decoded = engine.step(e.BatchPlanned(batch=0, copies=(), trims=(), shifts=(), parts=(one,)), drawings, NO_NUMBERS)
    assert decoded.code == e.DONE
    return decoded


def check_draw(submission: Submission, said: Sequence[int], token: int, row: Any, n_ctx: int) -> None:
    """Check that a token is one that may be drawn from a row, by penalties, temperature 0 and top_k alone."""
    weights = penalized(submission.options, (*submission.prompt, *said), row.astype(np.float64), n_ctx)
    if submission.options.temperature == 0:
        assert weights[token] >= weights.max() - 1e-4, "it is not the likeliest token"
    elif submission.options.top_k:
        least = np.sort(weights)[-min(submission.options.top_k, len(weights))]
        assert weights[token] >= least - 1e-4, "it is none of the top_k"


def penalized(options: Options, history: Sequence[Any], row: Any, n_ctx: int) -> Any:
    """Return a row after penalties, as the documentation of llama.cpp's options says it, a token at a time."""
    length = n_ctx if options.repeat_last_n == -1 else options.repeat_last_n
    window = list(history)[max(len(history) - length, 0) :]
    for token in set(window):
        row[token] = row[token] * options.repeat_penalty if row[token] <= 0 else row[token] / options.repeat_penalty
        row[token] -= window.count(token) * options.frequency_penalty + options.presence_penalty
    return row
