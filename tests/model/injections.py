"""Logs that lie, each in one way: recorded by an engine that does something else than it says, or edited afterwards.

An edited log is derived anew: its given events are changed, today's actors decide on them, and the lines are sealed. So
the decide tier finds nothing, and only a re-execution can tell.
"""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final

import trio
from attrs import evolve as changed

from reenact.actors import events as e
from reenact.actors.kernel import Kernel
from reenact.actors.routing import ROUTES, Origin
from reenact.runtime import LlamaEngine, open_runtime
from reenact.runtime.cli.default_model import installed_model
from reenact.runtime.engine.protocol import ContextSettings, Drawing, Loaded
from reenact.runtime.llama.determinism.numerics import Hardware, fastest
from reenact.runtime.llama.model_metadata import read_model_file
from reenact.runtime.log.reader import LogFile, entries
from reenact.runtime.log.writer import Journal
from tests.model.scenarios import RULES, STORY

Edit = Callable[[e.GivenEvent], e.GivenEvent]

TYPES: Final = read_model_file(installed_model(), lambda _doing, _fraction: None).matrix_types
DEEP: Final = RULES * 4
"""Beyond 256 tokens, from where on a lone row's attention may be split by thread."""


class LyingEngine(LlamaEngine):
    """llama.cpp with settings of its own, which it does not tell."""

    def __init__(self, **settings: Any) -> None:
        super().__init__(installed_model())
        self._lies = settings

    def load(self, settings: ContextSettings) -> Loaded:
        """Load with other settings, and say that they are those that were asked for."""
        honest = super().load(settings)
        super().close()
        lied = super().load(changed(settings, **self._lies))
        context = changed(
            honest.context, numerics=honest.context.numerics, n_threads=settings.n_threads, shift=lied.context.shift
        )
        return changed(lied, context=context, determinism=honest.determinism)


class ReversingEngine(LlamaEngine):
    """llama.cpp with the rows of each batch in another order."""

    def step(self, planned: e.BatchPlanned, drawings: Mapping[int, Drawing], numbers: Any) -> e.BatchDecoded:
        """Evaluate the last slot first."""
        decoded = super().step(changed(planned, parts=planned.parts[::-1]), drawings, numbers)
        return changed(decoded, samples=decoded.samples[::-1], positions=decoded.positions[::-1])


class ForgetfulEngine(LlamaEngine):
    """llama.cpp with a copy left out."""

    def step(self, planned: e.BatchPlanned, drawings: Mapping[int, Drawing], numbers: Any) -> e.BatchDecoded:
        """Copy nothing."""
        return super().step(changed(planned, copies=()), drawings, numbers)


async def record(log: Path, prompts: list[str], *, engine: LlamaEngine | None = None, **settings: Any) -> None:
    """Record a session in which prompts are completed at once."""
    options: dict[str, Any] = {"num_predict": 12, **settings.pop("options", {})}
    async with (
        open_runtime(engine or installed_model(), log=log, **({"n_ctx": 256, "n_threads": 2} | settings)) as runtime,
        trio.open_nursery() as nursery,
    ):
        for i, prompt in enumerate(prompts):

            async def ask(prompt: str = prompt, seed: int = i + 11) -> None:
                await runtime.complete(prompt, seed=seed, **options)

            nursery.start_soon(ask)


async def record_fork(log: Path, engine: LlamaEngine) -> None:
    """Record a session in which a slot that was used is overwritten by a copy of another."""
    async with open_runtime(engine, log=log, n_ctx=512, n_slots=2, n_threads=2) as runtime:
        async with runtime.stream(RULES + "Dear keeper, may I come?", seed=1, num_predict=24) as stream:
            await stream.__anext__()
            await runtime.complete((STORY + " ") * 5, seed=2, num_predict=2)
            await runtime.complete(RULES + "Dear keeper, how far is it?", seed=3, num_predict=8)
            async for _ in stream:
                pass


def derive(log: Path, edited: Path, edit: Edit) -> None:
    """Write a log anew with its given events edited, and all that follows from them decided by today's actors."""
    kernel, journal, planned = Kernel(), Journal(edited), None
    with LogFile(log) as lines:
        for entry in entries(lines):
            given: Any = entry.record.event
            if ROUTES[type(given)].origin is not Origin.GIVEN:
                continue
            given = edit(given)
            if isinstance(given, e.BatchDecoded) and planned is not None:
                ends = [-1 if part.pools else part.position + len(part.inputs) - 1 for part in planned.parts]
                slots = [part.slot for part in planned.parts]
                given = changed(given, positions=tuple(zip(slots, ends, strict=True)))
            if isinstance(given, e.SessionClosed):
                given = e.SessionClosed(digest=kernel.digest())
            records = kernel.handle(given)
            planned = next((one.event for one in records if isinstance(one.event, e.BatchPlanned)), planned)
            journal.append(records, entry.t)
    journal.close()


def with_options(sequence: int, **options: Any) -> Edit:
    """Return an edit of a request's options."""

    def edit(given: e.GivenEvent) -> e.GivenEvent:
        if isinstance(given, e.RequestReceived) and given.sequence == sequence:
            return changed(given, options=changed(given.options, **options))
        return given

    return edit


def with_token(batch: int, sequence: int, token: int, piece: bytes) -> Edit:
    """Return an edit of one sampled token: to this one, or to the next where it is this one already."""

    def edited(sample: e.Sample) -> e.Sample:
        if sample.sequence != sequence:
            return sample
        return changed(sample, token=token + (sample.token == token), piece=piece)

    def edit(given: e.GivenEvent) -> e.GivenEvent:
        if isinstance(given, e.BatchDecoded) and given.batch == batch:
            samples = [edited(sample) for sample in given.samples]
            return changed(given, samples=tuple(samples))
        return given

    return edit


def with_sample(batch: int, **values: Any) -> Edit:
    """Return an edit of the first sample of a batch."""

    def edit(given: e.GivenEvent) -> e.GivenEvent:
        if isinstance(given, e.BatchDecoded) and given.batch == batch:
            return changed(given, samples=(changed(given.samples[0], **values), *given.samples[1:]))
        return given

    return edit


def with_vector(**values: Any) -> Edit:
    """Return an edit of every vector."""

    def edit(given: e.GivenEvent) -> e.GivenEvent:
        if isinstance(given, e.BatchDecoded):
            return changed(given, vectors=tuple(changed(vector, **values) for vector in given.vectors))
        return given

    return edit


def with_prompt_cut(sequence: int, count: int) -> Edit:
    """Return an edit by which a prompt loses its last tokens."""

    def edit(given: e.GivenEvent) -> e.GivenEvent:
        if isinstance(given, e.PromptTokenized) and given.sequence == sequence:
            return changed(given, inputs=given.inputs[:-count])
        return given

    return edit


FASTEST: Final = fastest(TYPES, Hardware())
