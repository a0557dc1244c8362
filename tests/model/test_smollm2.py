"""The whole, on a real model: SmolLM2-135M."""

import math
from pathlib import Path

import pytest
import trio

from reenact.actors.batch import BatchPlanned, Draw, Part, Trim
from reenact.actors.options import Options
from reenact.replay import replay_log
from reenact.runtime import Completion, EngineBroken, LlamaEngine, Runtime, open_runtime
from reenact.runtime.cli.default_model import installed_model
from reenact.runtime.engine.protocol import ContextSettings, Drawing
from reenact.runtime.engine.row_numbers import NO_NUMBERS
from tests.helpers.sessions import read_fields

pytestmark = pytest.mark.model

PROMPTS = [
    "The capital of France is",
    "Once upon a time",
    "To make tea, first",
    "The moon is",
    "Water boils when",
    "A good friend",
    "In the morning",
    "The number seven",
]


async def all_at_once(runtime: Runtime, prompts: list[str], **options: object) -> list[Completion]:
    """Complete prompts concurrently, each with its number as the seed."""
    completions: list[Completion | None] = [None] * len(prompts)

    async def one(i: int) -> None:
        completions[i] = await runtime.complete(prompts[i], seed=i, **options)  # type: ignore[arg-type]

    async with trio.open_nursery() as nursery:
        for i in range(len(prompts)):
            nursery.start_soon(one, i)
    return [completion for completion in completions if completion is not None]


async def test_eight_at_once_with_one_cancelled_and_one_unread(session_log: Path) -> None:
    """Eight sequences share batches; one that is left and one that is not read change nothing for the others."""
    async with open_runtime(installed_model(), n_slots=8, n_ctx=256) as runtime:
        alone = [await runtime.complete(prompt, seed=i, num_predict=24) for i, prompt in enumerate(PROMPTS[:6])]
    async with (
        open_runtime(installed_model(), log=session_log, n_slots=8, n_ctx=256, max_reader_lag=4) as runtime,
        runtime.stream("Nobody reads this:", num_predict=100) as unread,
    ):

        async def leave() -> None:
            async with runtime.stream("This one is left after three words:") as stream:
                for _ in range(3):
                    await stream.__anext__()

        async with trio.open_nursery() as nursery:
            nursery.start_soon(leave)
            together = await all_at_once(runtime, PROMPTS[:6], num_predict=24)
        assert 8 == runtime.statistics().n_requests
        paused = [fields["sequence"] for fields in read_fields(session_log) if fields["type"] == "SequencePaused"]
        assert [unread.sequence] == paused
    assert [c.tokens for c in alone] == [c.tokens for c in together]
    assert [c.text for c in alone] == [c.text for c in together]
    assert max(len(f["parts"]) for f in read_fields(session_log) if f["type"] == "BatchPlanned") == 8
    reasons = {f["sequence"]: f["finish_reason"] for f in read_fields(session_log) if f["type"] == "SequenceFinished"}
    assert ["cancelled"] * 2 == [reasons[n] for n in reasons if reasons[n] == "cancelled"]


async def test_eight_share_their_batches(session_log: Path) -> None:
    """While eight sequences generate, a batch serves at least six of them on average, and all eight finish."""
    async with open_runtime(installed_model(), log=session_log, n_slots=8, n_ctx=256) as runtime:
        completions = await all_at_once(runtime, PROMPTS, num_predict=32)
    tally = replay_log(session_log).tally
    assert (8, 8) == (len(completions), tally.statistics.n_finished)
    assert tally.statistics.sequences_per_batch.mean >= 6


async def test_logits_do_not_depend_on_the_schedule(session_log: Path, tmp_path: Path) -> None:
    """Alone in small chunks or with seven others: every row that is drawn from has the same bits."""
    prompts = [prompt * 8 for prompt in PROMPTS]

    async def hashes(log: Path, *, together: bool, n_slots: int, n_batch: int) -> dict[tuple[str, int], int]:
        async with open_runtime(installed_model(), log=log, n_ctx=512, n_slots=n_slots, n_batch=n_batch) as runtime:
            if together:
                await all_at_once(runtime, prompts, num_predict=8)
            else:
                for i, prompt in enumerate(prompts):
                    await runtime.complete(prompt, seed=i, num_predict=8)
        replay_log(log).raise_for_divergence()
        lines = read_fields(log)
        prompt_of = {f["sequence"]: f["prompt"] for f in lines if f["type"] == "RequestReceived"}
        counts = dict.fromkeys(prompt_of, 0)
        found = {}
        for fields in lines:
            for sample in fields.get("samples", []):
                found[prompt_of[sample["sequence"]], counts[sample["sequence"]]] = sample["logits_crc32"]
                counts[sample["sequence"]] += 1
        return found

    together = await hashes(session_log, together=True, n_slots=8, n_batch=64)
    alone = await hashes(tmp_path / "alone.jsonl", together=False, n_slots=1, n_batch=7)
    assert 64 == len(together)
    assert together == alone


async def test_a_seed_repeats_a_text_and_another_does_not(session_log: Path) -> None:
    """The same request with the same seed gives the same text; other seeds give other texts."""
    async with open_runtime(installed_model(), log=session_log, n_ctx=256) as runtime:
        one = await runtime.complete("My favourite colour is", seed=1, num_predict=24)
        again = await runtime.complete("My favourite colour is", seed=1, num_predict=24)
        others = {(await runtime.complete("My favourite colour is", seed=n, num_predict=24)).text for n in range(2, 6)}
    assert one.text == again.text
    assert len(others - {one.text}) >= 3


def test_draws_depend_on_seed_and_index() -> None:
    """From the same logits other seeds draw other tokens, and so do other indices."""
    engine = LlamaEngine(installed_model())
    engine.load(ContextSettings(n_slots=1, n_ctx=64, n_batch=16, n_threads=2))
    tokens = engine.tokenize("My favourite colour is").tokens

    def draw(seed: int, index: int) -> tuple[int | None, int]:
        part = Part(sequence=1, slot=0, position=0, inputs=tokens, wants=Draw(index))
        options = Options(seed=seed, temperature=1.5)
        drawing = Drawing(options=options, grammar=None, prompt=tokens, sampled=[0] * index)
        planned = BatchPlanned(batch=0, copies=(), trims=(Trim(slot=0, length=0),), shifts=(), parts=(part,))
        (sample,) = engine.step(planned, {1: drawing}, NO_NUMBERS).samples
        return sample.logits_crc32, sample.token

    drawn = {(seed, index): draw(seed, index) for seed in range(10) for index in range(10)}
    engine.close()
    assert 1 == len({crc for crc, _ in drawn.values()})
    assert min(len({drawn[seed, index][1] for seed in range(10)}) for index in range(10)) > 3
    assert min(len({drawn[seed, index][1] for index in range(10)}) for seed in range(10)) > 3


async def test_an_engine_is_claimed_by_one_runtime(session_log: Path) -> None:
    """Of two runtimes that open the same engine one is refused, and the other one computes on."""
    engine = LlamaEngine(installed_model())
    outcomes: list[str] = []

    async def use(log: Path | None) -> None:
        try:
            async with open_runtime(engine, log=log, n_ctx=64) as runtime:
                outcomes.append((await runtime.complete("Once", num_predict=8)).finish_reason)
        except EngineBroken as error:
            outcomes.append(str(error))

    async with trio.open_nursery() as nursery:
        nursery.start_soon(use, None)
        nursery.start_soon(use, session_log)
    assert ["length", "the engine is loaded already: it serves one runtime at a time"] == sorted(outcomes)
    await use(None)
    assert "length" == outcomes[-1]


async def test_greedy_ignores_the_seed(session_log: Path) -> None:
    """With temperature 0 the likeliest token is taken, whatever the seed."""
    async with open_runtime(installed_model(), log=session_log, n_ctx=256) as runtime:
        texts = {
            (await runtime.complete("The capital of France is", seed=n, num_predict=8, temperature=0)).text
            for n in range(3)
        }
    assert 1 == len(texts)
    assert "Paris" in texts.pop()


async def test_a_stop_string_across_tokens(session_log: Path) -> None:
    """A stop string that the model writes in several tokens cuts the text before it."""
    async with open_runtime(installed_model(), log=session_log, n_ctx=256) as runtime:
        whole = await runtime.complete("The capital of France is", temperature=0, num_predict=24)
        stop = whole.text[10:22]
        cut = await runtime.complete("The capital of France is", temperature=0, num_predict=24, stop=[stop])
    assert (whole.text[: whole.text.index(stop)], "stop", stop) == (cut.text, cut.finish_reason, cut.stop)


async def test_the_model_ends_its_answer(session_log: Path) -> None:
    """In the model's own chat format an answer ends with an end-of-generation token, which is not in the text."""
    system = "You are a helpful AI assistant named SmolLM, trained by Hugging Face"
    prompt = "".join(f"<|im_start|>{role}\n{text}<|im_end|>\n" for role, text in (("system", system), ("user", "Hi")))
    async with open_runtime(installed_model(), log=session_log, n_ctx=256) as runtime:
        completion = await runtime.complete(f"{prompt}<|im_start|>assistant\n", temperature=0)
    assert ("stop", None) == (completion.finish_reason, completion.stop)
    assert completion.n_sampled == len(completion.tokens) + 1
    assert "<|im_end|>" not in completion.text


async def test_the_context_of_a_sequence_is_exactly_as_asked(session_log: Path) -> None:
    """The engine pads its cells, the actors do not: n_ctx cells are used and no more."""
    async with open_runtime(installed_model(), log=session_log, n_slots=2, n_ctx=20) as runtime:
        completion = await runtime.complete("Once upon a time", seed=1, temperature=1.5, shift=False)
        assert 256 == runtime.header.context.n_ctx_seq
    assert "context_full" == completion.finish_reason
    assert 20 - completion.n_prompt + 1 == completion.n_sampled
    released = [fields["length"] for fields in read_fields(session_log) if fields["type"] == "SlotReleased"]
    assert [20] == released


async def test_the_header_tells_what_computed(session_log: Path) -> None:
    """Record 0 names the weights by digest, the builds, and the context as read back."""
    async with open_runtime(installed_model(), log=session_log, n_slots=3, n_ctx=300, n_batch=32) as runtime:
        await runtime.complete("Hello", num_predict=1)
    header = read_fields(session_log)[0]
    assert {"llama-cpp-python": "0.3.36"}.items() <= header["engine"]["versions"].items()
    assert installed_model().stat().st_size == header["model"]["size"]
    assert 64 == len(header["model"]["sha256"])
    assert (3, 300, 512, 32) == tuple(header["context"][name] for name in ("n_slots", "n_ctx", "n_ctx_seq", "n_batch"))


async def test_generating_goes_on_beside_a_long_prompt(session_log: Path) -> None:
    """While a long prompt is evaluated in chunks, a sequence that generates gets a token in every batch."""
    async with open_runtime(installed_model(), log=session_log, n_slots=2, n_ctx=1024, n_batch=64) as runtime:
        async with runtime.stream("Once upon a time", num_predict=200) as stream:
            await stream.__anext__()
            long = await runtime.complete("word " * 600, num_predict=1)
        plans = [fields for fields in read_fields(session_log) if fields["type"] == "BatchPlanned"]
    prefills = [plan for plan in plans if {2} <= {part["sequence"] for part in plan["parts"]}]
    assert math.ceil(long.n_prompt / 63) == len(prefills)
    assert all({1, 2} == {part["sequence"] for part in plan["parts"]} for plan in prefills)
    assert all(64 == sum(len(part["inputs"]) for part in plan["parts"]) for plan in prefills[:-1])
