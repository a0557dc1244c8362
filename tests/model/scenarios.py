"""Sessions on real models, each small and each about one thing: run by tests/model, and recorded in tests/golden.

A scenario is a function that records a session; what its log must show stands in `SHOWS`, so that the golden logs are
held to the same.
"""

import json
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from contextlib import asynccontextmanager
from itertools import pairwise
from pathlib import Path
from typing import Any, Final

import trio

from reenact.actors.batch import BatchDecoded, BatchPlanned
from reenact.runtime import LlamaEngine, Runtime, open_runtime
from reenact.runtime.cli.default_model import installed_model
from tests.helpers.models.minilm import minilm

Lines = list[dict[str, Any]]

STORY: Final = "Once upon a time, in a small village by the sea, there lived an old man who mended nets. Every morning"
RULES: Final = (
    "You answer letters for a lighthouse. Be brief and kind. Never promise a visit, never speak of the weather, and "
    "sign as the keeper. If somebody asks for the way, name the harbour, the bridge and the two hundred steps. If "
    "somebody asks for the price, say that there is none, but that the lamp is glad of oil. Here is the letter:\n"
)
SCHEMA: Final = {
    "type": "object",
    "properties": {
        "name": {"type": "string", "maxLength": 12},
        "kind": {"enum": ["cat", "dog", "bird"]},
        "legs": {"type": "integer", "minimum": 0, "maximum": 8},
    },
    "required": ["name", "kind", "legs"],
}


class WatchedEngine(LlamaEngine):
    """llama.cpp, with a word to the tests whenever a step begins."""

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        self._token = trio.lowlevel.current_trio_token()
        self._begun: dict[int, trio.Event] = {}

    async def begun(self, batch: int) -> None:
        """Wait until this batch is being computed."""
        await self._begun.setdefault(batch, trio.Event()).wait()

    def step(self, planned: BatchPlanned, drawings: Any, numbers: Any) -> BatchDecoded:
        """Tell, and step."""
        self._token.run_sync_soon(lambda: self._begun.setdefault(planned.batch, trio.Event()).set())
        return super().step(planned, drawings, numbers)


@asynccontextmanager
async def smollm2(log: Path, **settings: Any) -> AsyncIterator[Runtime]:
    """Open a runtime on the installed model, small."""
    async with open_runtime(installed_model(), log=log, **({"n_ctx": 256, "n_slots": 2} | settings)) as runtime:
        yield runtime


async def together(runtime: Runtime, prompts: Iterable[str], **options: Any) -> None:
    """Complete prompts concurrently, each with its number as the seed."""
    async with trio.open_nursery() as nursery:
        for i, prompt in enumerate(prompts):
            nursery.start_soon(_one, runtime, prompt, options | {"seed": i})


async def _one(runtime: Runtime, prompt: str, options: dict[str, Any]) -> None:
    await runtime.complete(prompt, **options)


# ---------------------------------------------------------------- the scenarios


async def company(log: Path) -> None:
    """Four sequences share batches, one of them with a stop string."""
    async with smollm2(log, n_slots=4) as runtime:
        await together(runtime, [STORY, "The capital of France is", "To make tea, first", "2 + 2 ="], num_predict=10)
        await runtime.complete("The capital of France is", temperature=0, stop=["Par", "\n"], num_predict=10)


async def shift(log: Path) -> None:
    """A generation goes through its context again and again; what is kept is evaluated again."""
    async with smollm2(log, n_ctx=24) as runtime:
        await runtime.complete(STORY[:48], seed=1, num_keep=4, num_predict=220)
        await runtime.complete(STORY[:48], seed=1, num_keep=4, num_predict=220, shift=False)


async def shift_moving(log: Path) -> None:
    """The same with llama.cpp's own shift, which moves cells."""
    async with smollm2(log, n_ctx=24, determinism="recorded-schedule") as runtime:
        await runtime.complete(STORY[:48], seed=1, num_keep=4, num_predict=220)


async def truncation(log: Path) -> None:
    """A prompt that is longer than the context loses its middle."""
    async with smollm2(log, n_ctx=48) as runtime:
        await runtime.complete(RULES, seed=1, num_keep=8, num_predict=4)


async def fork(log: Path) -> None:
    """Two letters under the same rules: the second one begins with a copy of the first one's cells."""
    async with smollm2(log, n_slots=3) as runtime:
        async with runtime.stream(RULES + "Dear keeper, may I come?", seed=1, num_predict=12) as stream:
            await stream.__anext__()
            await runtime.complete(RULES + "Dear keeper, how far is it?", seed=2, num_predict=4)
            async for _ in stream:
                pass


async def reuse(log: Path) -> None:
    """The same prompt again, and one that goes on from an answer."""
    async with smollm2(log) as runtime:
        first = await runtime.complete(STORY, seed=1, num_predict=12)
        await runtime.complete(STORY, seed=1, num_predict=12)
        await runtime.complete(STORY + first.text + " Then", seed=2, num_predict=4)


async def preemption(log: Path) -> None:
    """A sequence makes room for one of a higher priority, and goes on after it."""
    async with (
        smollm2(log, n_slots=1, max_reader_lag=4) as runtime,
        runtime.stream(STORY, seed=1, num_predict=20) as low,
    ):
        await low.__anext__()
        await runtime.complete("Quickly:", seed=2, num_predict=4, priority=1)
        async for _ in low:
            pass


async def grammar(log: Path) -> None:
    """Text in the form of a grammar, of a schema, and of JSON."""
    async with smollm2(log) as runtime:
        await runtime.complete("Is the sea wet? ", seed=1, grammar='root ::= "yes" | "no" | "perhaps"')
        await runtime.complete("An animal: ", seed=2, format=SCHEMA)
        await runtime.complete("A list of numbers: ", seed=3, format="json", num_predict=24)


async def logprobs(log: Path) -> None:
    """Penalties, and how likely each token was."""
    async with smollm2(log) as runtime:
        await runtime.complete("The capital of France is", seed=1, num_predict=8, logprobs=True, top_logprobs=3)
        await runtime.complete("na na na na", seed=1, num_predict=8, repeat_penalty=1.5, presence_penalty=1.0)


async def chat(log: Path) -> None:
    """Three turns of a chat."""
    messages = [{"role": "user", "content": "Name a colour."}]
    async with smollm2(log, n_ctx=512) as runtime:
        for turn in range(3):
            answer = await runtime.chat(messages, seed=turn, num_predict=24)
            messages += [{"role": "assistant", "content": answer.text}, {"role": "user", "content": "Another one."}]


async def cancel_in_prefill(log: Path) -> None:
    """A caller leaves while its prompt is evaluated; it comes back, and finds what was prefilled."""
    engine = WatchedEngine(installed_model())
    async with open_runtime(engine, log=log, n_ctx=768, n_slots=2, n_batch=128) as runtime:
        with trio.CancelScope() as scope:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(_one, runtime, RULES * 4, {"seed": 1})
                await engine.begun(1)
                scope.cancel()
        await runtime.complete(RULES * 4, seed=1, num_predict=2)


async def deadline(log: Path) -> None:
    """A sequence ends when its time is over, in the middle of a prefill or later."""
    async with smollm2(log, max_reader_lag=4) as runtime, runtime.stream(STORY, seed=1, deadline=0.2):
        await runtime.complete("While nobody reads,", seed=2, num_predict=200, deadline=0.3)


async def embeddings(log: Path) -> None:
    """Texts become vectors, one of them too long for the context."""
    path = minilm(log.with_suffix(".gguf"))
    async with open_runtime(path, log=log, n_ctx=32, n_slots=2) as runtime:
        await runtime.embed(["A cat.", "A kitten.", "The price of oil rose."], dimensions=6)
        await runtime.embed([STORY * 2], dimensions=6)


SCENARIOS: Final[dict[str, Callable[[Path], Awaitable[None]]]] = {
    scenario.__name__: scenario
    for scenario in (
        company,
        shift,
        shift_moving,
        truncation,
        fork,
        reuse,
        preemption,
        grammar,
        logprobs,
        chat,
        cancel_in_prefill,
        deadline,
        embeddings,
    )
}


# ---------------------------------------------------------------- what their logs show


def of(lines: Lines, kind: str) -> Lines:
    """Return the records of one type."""
    return [fields for fields in lines if fields["type"] == kind]


def text_of(lines: Lines, sequence: int) -> str:
    """Return the text of a sequence."""
    return "".join(fields["text"] for fields in lines if "text" in fields and fields["sequence"] == sequence)


def _company(lines: Lines) -> bool:
    widest = max(len(fields["parts"]) for fields in of(lines, "BatchPlanned"))
    return (4, "Par") == (widest, of(lines, "StopMatched")[0]["stop"])


def _shift(lines: Lines) -> bool:
    reasons = [fields["finish_reason"] for fields in of(lines, "SequenceFinished")]
    trims = [trim for fields in of(lines, "BatchPlanned") for trim in fields.get("trims", ())]
    return len(of(lines, "ContextShifted")) >= 20 and ["length", "context_full"] == reasons and len(trims) >= 20


def _shift_moving(lines: Lines) -> bool:
    return len([shift for fields in of(lines, "BatchPlanned") for shift in fields.get("shifts", ())]) >= 20


def _truncation(lines: Lines) -> bool:
    (truncated,) = of(lines, "PromptTruncated")
    return (8, 48) == (truncated["keep"], len(of(lines, "InputQueued")[0]["inputs"]))


def _fork(lines: Lines) -> bool:
    copies = [copy for fields in of(lines, "BatchPlanned") for copy in fields.get("copies", ())]
    return [{"source": 0, "slot": 1}] == copies and of(lines, "SlotAssigned")[1]["reused"] >= 64


def _reuse(lines: Lines) -> bool:
    n_prompt = [len(fields["inputs"]) for fields in of(lines, "PromptTokenized")]
    reused = [fields["reused"] for fields in of(lines, "SlotAssigned")]
    return [0, n_prompt[1] - 1] == reused[:2] and reused[2] > n_prompt[0] and text_of(lines, 1) == text_of(lines, 2)


def _preemption(lines: Lines) -> bool:
    (preempted,) = of(lines, "SequencePreempted")
    order = [fields["sequence"] for fields in of(lines, "SequenceFinished")]
    return (1, 2) == (preempted["sequence"], preempted["by"]) and [2, 1] == order


def _grammar(lines: Lines) -> bool:
    answer, animal = text_of(lines, 1), json.loads(text_of(lines, 2))
    return answer in {"yes", "no", "perhaps"} and {"name", "kind", "legs"} == animal.keys()


def _logprobs(lines: Lines) -> bool:
    samples = [sample for fields in of(lines, "BatchDecoded") for sample in fields.get("samples", ())]
    return [3] * 8 == [len(sample["top"]) for sample in samples if "logprob" in sample]


def _chat(lines: Lines) -> bool:
    continues = [fields["continues"] for fields in of(lines, "RequestReceived")]
    prompts = [fields["inputs"] for fields in of(lines, "PromptTokenized")]
    return [None, 1, 2] == continues and all(after[: len(before)] == before for before, after in pairwise(prompts))


def _cancel_in_prefill(lines: Lines) -> bool:
    codes = [fields["code"] for fields in of(lines, "BatchDecoded")]
    return 2 in codes and len(of(lines, "AbortRequested")) == 1 and of(lines, "SlotAssigned")[1]["reused"] >= 128


def _deadline(lines: Lines) -> bool:
    return ["deadline"] * 2 == [fields["finish_reason"] for fields in of(lines, "SequenceFinished")]


def _embeddings(lines: Lines) -> bool:
    lengths = [len(fields["embedding"]) for fields in of(lines, "EmbeddingComputed")]
    return [6] * 4 == lengths and len(of(lines, "PromptTruncated")) == 1


SHOWS: Final[dict[str, Callable[[Lines], bool]]] = {
    "company": _company,
    "shift": _shift,
    "shift_moving": _shift_moving,
    "truncation": _truncation,
    "fork": _fork,
    "reuse": _reuse,
    "preemption": _preemption,
    "grammar": _grammar,
    "logprobs": _logprobs,
    "chat": _chat,
    "cancel_in_prefill": _cancel_in_prefill,
    "deadline": _deadline,
    "embeddings": _embeddings,
}
