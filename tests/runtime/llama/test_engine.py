"""What only the real engine does."""

import math
from collections.abc import Iterator, Sequence
from pathlib import Path
from threading import Timer
from time import perf_counter

import gguf
import pytest
from attrs import evolve as changed

from reenact.actors.batch import BatchDecoded, Copy, Shift, Trim
from reenact.actors.errors import EngineBroken, InvalidRequest
from reenact.runtime.cli.default_model import installed_model
from reenact.runtime.engine.protocol import ContextSettings, Determinism, Message
from reenact.runtime.llama.engine import _LOADING, LlamaEngine
from reenact.runtime.llama.model_metadata import read_model_file
from tests.helpers.engine_steps import emptied, part, row, step, tokens_of
from tests.helpers.models.minilm import DIMENSIONS, minilm
from tests.helpers.models.tiny import tiny

pytestmark = pytest.mark.model

PROSE = "The lighthouse keeper climbed the stairs every evening, and every evening he counted them again. "


def settings(
    *, n_slots: int = 3, n_ctx: int = 512, n_batch: int = 512, determinism: Determinism = "schedule-independent"
) -> ContextSettings:
    """Return a context's settings."""
    return ContextSettings(n_slots=n_slots, n_ctx=n_ctx, n_batch=n_batch, n_threads=2, determinism=determinism)


@pytest.fixture(scope="module")
def loaded() -> Iterator[LlamaEngine]:
    """Give the engine, loaded."""
    engine = LlamaEngine(installed_model())
    engine.load(settings())
    yield engine
    engine.close()


@pytest.fixture
def engine(loaded: LlamaEngine) -> LlamaEngine:
    """Give the engine with empty slots."""
    step(loaded, trims=emptied(0, 1, 2))
    return loaded


@pytest.fixture(scope="module")
def embedding_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Give the file of an embedding model."""
    return minilm(tmp_path_factory.mktemp("model") / "minilm.gguf")


@pytest.fixture(scope="module")
def pooling(embedding_model: Path) -> Iterator[LlamaEngine]:
    """Give an engine for embeddings."""
    engine = LlamaEngine(embedding_model)
    engine.load(settings(n_ctx=2048))
    yield engine
    engine.close()


def crcs(decoded: BatchDecoded) -> list[int | None]:
    """Return the checksums of the logits that were drawn from."""
    return [sample.logits_crc32 for sample in decoded.samples]


def prose(engine: LlamaEngine, count: int) -> tuple[int, ...]:
    """Return so many tokens of prose."""
    return tokens_of(engine, PROSE * 40)[:count]


# ---------------------------------------------------------------- cells


def test_a_forked_prefix_is_as_good_as_an_evaluated_one(engine: LlamaEngine) -> None:
    """A copy that is cut to a common prefix and continued has the same logits as a prompt evaluated as a whole."""
    common, tail = prose(engine, 60), tokens_of(engine, "But one evening the light")
    fresh = step(engine, part(common + tail, slot=2, draw=0))
    step(engine, part(common + tokens_of(engine, "Nobody knew that there were more of them"), draw=0))
    fork = part(tail, sequence=2, slot=1, position=len(common), draw=0)
    neighbour = part(common[:3], sequence=3, slot=2)
    copies, trims = (Copy(source=0, slot=1),), (Trim(slot=1, length=len(common)), Trim(slot=2, length=0))
    assert crcs(fresh) == crcs(step(engine, fork, neighbour, copies=copies, trims=trims))


@pytest.mark.parametrize("n_cells", [40, *(pytest.param(n, marks=pytest.mark.long) for n in (200, 300, 500))])
def test_a_copy_is_as_if_it_had_been_evaluated(engine: LlamaEngine, n_cells: int) -> None:
    """Rows behind a copy, of some cells or of a whole slot, have the bits that they have behind a fresh prefill."""
    tokens = tokens_of(engine, PROSE * 40)[:n_cells]
    n_common = n_cells - 10
    rows = tokens[n_common - 1 : n_cells]
    step(engine, part(tokens, slot=0))
    step(engine, part(tokens[:30], slot=1))
    trim = Trim(slot=1, length=n_common - 1)
    forked = step(
        engine, part(rows, slot=1, position=n_common - 1, draw=0), copies=(Copy(source=0, slot=1),), trims=(trim,)
    )
    fresh = step(engine, part(tokens, slot=2, draw=0))
    assert fresh.samples[0].logits_crc32 == forked.samples[0].logits_crc32


@pytest.mark.parametrize(
    "lengths", [(50, 60), *(pytest.param(one, marks=pytest.mark.long) for one in ((300, 50), (50, 300)))]
)
def test_copies_of_one_step_are_made_in_their_order(engine: LlamaEngine, lengths: tuple[int, int]) -> None:
    """A slot is copied on before it is overwritten, also where one copy is of a whole slot and one of some cells."""
    tokens = tokens_of(engine, PROSE * 40)
    first, second = tokens[: lengths[0]], tokens[5 : 5 + lengths[1]]
    step(engine, part(first, slot=0))
    step(engine, part(second, slot=1))
    copies = (Copy(source=0, slot=2), Copy(source=1, slot=0), Copy(source=2, slot=1))
    lasts = [part(tokens[:1], slot=slot, position=lengths[slot == 0], draw=0, sequence=slot) for slot in (0, 1)]
    moved = step(engine, *lasts, copies=copies)
    step(engine, trims=emptied(0, 1, 2))
    fresh = [step(engine, part((*inputs, tokens[0]), slot=2, draw=0), trims=emptied(2)) for inputs in (second, first)]
    assert [one.samples[0].logits_crc32 for one in fresh] == [one.logits_crc32 for one in moved.samples]


def test_a_source_may_change_in_the_step_that_copies_it(engine: LlamaEngine) -> None:
    """Cells are copied as they were before the step's rows, also where the source is emptied and filled at once."""
    common, tail = prose(engine, 40), tokens_of(engine, "But one evening")
    fresh = step(engine, part(common + tail, draw=0))
    step(engine, part(common), trims=emptied(0))
    other = part(tail, sequence=2, slot=0)
    fork = part(tail, slot=1, position=len(common), draw=0)
    assert crcs(fresh) == crcs(step(engine, other, fork, copies=(Copy(source=0, slot=1),), trims=emptied(0)))


def test_the_last_cell_again(engine: LlamaEngine) -> None:
    """Removing the last cell and evaluating it again gives the same logits: so a full hit is drawn from."""
    tokens = prose(engine, 50)
    fresh = step(engine, part(tokens, draw=0))
    again = part(tokens[-1:], position=len(tokens) - 1, draw=0)
    assert crcs(fresh) == crcs(step(engine, again, trims=(Trim(slot=0, length=len(tokens) - 1),)))


@pytest.mark.parametrize("n_shifts", [4, pytest.param(20, marks=pytest.mark.long)])
def test_cells_move_again_and_again(n_shifts: int) -> None:
    """A slot is shifted again and again; each time its rows follow, and in another slot they are the same."""
    engine = LlamaEngine(installed_model())
    context = engine.load(settings(n_slots=2, n_ctx=64, n_batch=64, determinism="recorded-schedule")).context
    assert ("move", "f16", "f16") == (context.shift, context.numerics.type_k, context.numerics.type_v)
    tokens = prose(engine, 24)

    def history(slot: int) -> list[int | None]:
        seen = crcs(step(engine, part(tokens, slot=slot, draw=0)))
        for _ in range(n_shifts):
            shift = Shift(slot=slot, keep=4, discard=4)
            decoded = step(engine, part(tokens[:4], slot=slot, position=20, draw=0), shifts=(shift,))
            assert (0, ((slot, 23),)) == (decoded.code, decoded.positions)
            seen += crcs(decoded)
        return seen

    one, other = history(0), history(1)
    engine.close()
    assert one == other
    assert n_shifts + 1 == len(set(one))


def test_a_batch_that_moves_cells_is_not_aborted() -> None:
    """An abort while cells are moved would leave some of them moved: such a batch goes on to its end, and only that."""
    engine = LlamaEngine(installed_model())
    engine.load(settings(n_slots=2, n_ctx=64, n_batch=64, determinism="recorded-schedule"))
    tokens = prose(engine, 20)
    shift = (Shift(slot=0, keep=4, discard=8),)

    def moved(*, asked: int) -> BatchDecoded:
        step(engine, part(tokens), trims=emptied(0))
        engine.abort(asked)
        step(engine, shifts=shift)
        return step(engine, part(tokens[:5], position=12, draw=0), batch=7)

    assert moved(asked=1) == moved(asked=7)
    assert 2 == step(engine, part(tokens[:5], position=17), batch=7).code
    engine.close()


# ---------------------------------------------------------------- aborting


def test_a_long_prefill_stops_soon(engine: LlamaEngine) -> None:
    """An abort in the middle of a large batch ends it at once, and the slot can be used as if it had not been."""
    tokens = prose(engine, 500)
    asked: list[float] = []

    def abort() -> None:
        asked.append(perf_counter())
        engine.abort(8)

    timer = Timer(0.03, abort)
    timer.start()
    decoded = step(engine, part(tokens, draw=0), batch=8)
    took = perf_counter() - asked[0]
    timer.join()
    assert (2, (), ((0, -1),)) == (decoded.code, decoded.samples, decoded.positions)
    assert took < 0.25  # about 5 ms on an idle machine
    assert 0 == step(engine, part(tokens[:8], draw=0), batch=9).code


def test_what_was_evaluated_before_an_abort_stays(engine: LlamaEngine) -> None:
    """Positions tell which rows an aborted batch evaluated; evaluating the others gives the logits of all of them."""
    short, long = prose(engine, 3), prose(engine, 300)
    fresh = step(engine, part(short, draw=0), part(long, sequence=2, slot=1, draw=0))
    step(engine, trims=emptied(0, 1))
    # The two have an equal number of rows in the first ubatch, three; the others of the longer one are the second.
    timer = Timer(0.05, engine.abort, [8])
    timer.start()
    decoded = step(engine, part(short, draw=0), part(long, sequence=2, slot=1, draw=0), batch=8)
    timer.join()
    assert 2 == decoded.code
    kept = [last + 1 for _, last in decoded.positions]
    assert kept in ([0, 0], [3, 3])
    again = [min(kept[0], 2), kept[1]]
    trims = (Trim(slot=0, length=again[0]),)
    rest = (
        part(short[again[0] :], position=again[0], draw=0),
        part(long[again[1] :], sequence=2, slot=1, position=again[1], draw=0),
    )
    assert crcs(fresh) == crcs(step(engine, *rest, batch=9, trims=trims))


# ---------------------------------------------------------------- rows of numbers


def test_a_tokens_own_row_stands_for_it(engine: LlamaEngine) -> None:
    """Rows of the model's own token embeddings give, bit by bit, the logits of the tokens."""
    (table,) = (one for one in gguf.GGUFReader(installed_model()).tensors if one.name == "token_embd.weight")
    tokens = prose(engine, 12)
    numbers = gguf.quants.dequantize(table.data[list(tokens[:8])], table.tensor_type).tolist()
    fresh = step(engine, part(tokens, draw=0))
    step(engine, part(map(row, numbers)), trims=emptied(0))
    assert crcs(fresh) == crcs(step(engine, part(tokens[8:], position=8, draw=0)))


@pytest.mark.parametrize("width", [0, 1, 575, 577])
def test_a_row_of_another_width_is_refused(engine: LlamaEngine, width: int) -> None:
    """Rows are as wide as the model's embedding, or nothing is done."""
    assert -1 == step(engine, part([row((0.5,) * width)])).code


@pytest.mark.parametrize("number", [math.nan, math.inf, 1e300])
def test_numbers_that_lead_nowhere_are_told_by_the_logits(engine: LlamaEngine, number: float) -> None:
    """A row with NaN, infinity or a number beyond float32 ends in logits without a token, and hurts no other."""
    tokens = tokens_of(engine, "Hello")
    (fresh,) = step(engine, part(tokens, slot=1, draw=0)).samples
    decoded = step(engine, part([row((number,) * 576)], draw=0))
    assert ["nan"] == [sample.fault for sample in decoded.samples]
    assert (fresh,) == step(engine, part(tokens, slot=1, draw=0), trims=emptied(1)).samples


# ---------------------------------------------------------------- embeddings


def similarity(one: Sequence[float], other: Sequence[float]) -> float:
    """Return the cosine of two vectors."""
    return sum(a * b for a, b in zip(one, other, strict=True)) / math.hypot(*one) / math.hypot(*other)


def vector(engine: LlamaEngine, text: str) -> tuple[float, ...]:
    """Return the vector of a text, pooled alone."""
    return step(engine, part(tokens_of(engine, text), pool=True)).vectors[0].values


def test_an_embedding_model_is_told_from_its_file(embedding_model: Path) -> None:
    """Its context pools, holds whole texts, and no more of them than the positions it was trained with."""
    engine = LlamaEngine(embedding_model)
    context = engine.load(settings(n_ctx=600)).context
    engine.close()
    assert ("mean", True, "evaluate") == (context.pooling, context.alone, context.shift)
    assert (512, 512, 3) == (context.n_ctx, context.n_ctx_seq, context.n_slots)
    assert context.n_ubatch == context.n_batch >= 512


def test_texts_may_share_a_batch_where_the_schedule_may_matter(embedding_model: Path) -> None:
    """Under a recorded schedule a text that is pooled need not be alone."""
    engine = LlamaEngine(embedding_model)
    context = engine.load(settings(determinism="recorded-schedule")).context
    engine.close()
    assert not context.alone


def test_similar_texts_have_similar_vectors(pooling: LlamaEngine) -> None:
    """A vector has the model's dimensions and says what a text is about."""
    eating, meal = vector(pooling, "A man is eating food."), vector(pooling, "A man eats a meal.")
    stocks = vector(pooling, "The stock market fell sharply.")
    assert DIMENSIONS == len(eating)
    assert similarity(eating, meal) > 0.8
    assert similarity(eating, stocks) < 0.2


def test_a_vector_is_not_normalized(pooling: LlamaEngine) -> None:
    """The engine gives what the model gives; its length is not 1."""
    assert math.hypot(*vector(pooling, "A man is eating food.")) > 2


def test_a_text_alone_has_the_same_vector_always(pooling: LlamaEngine) -> None:
    """Neither the slot nor what was pooled before changes a bit."""
    tokens = tokens_of(pooling, PROSE)
    first = step(pooling, part(tokens, pool=True)).vectors
    step(pooling, part(tokens_of(pooling, "Something else"), slot=1, pool=True))
    assert first == step(pooling, part(tokens, slot=2, pool=True)).vectors


def test_the_longest_text_fits(pooling: LlamaEngine) -> None:
    """A text of as many tokens as there are positions is pooled in one batch; one more has no room."""
    tokens = tokens_of(pooling, PROSE * 60)
    assert 1 == len(step(pooling, part(tokens[:512], pool=True)).vectors)
    decoded = step(pooling, part(tokens[:513], pool=True))
    assert (1, (), ((0, -1),)) == (decoded.code, decoded.vectors, decoded.positions)


def test_operations_on_a_model_without_cells_do_nothing(pooling: LlamaEngine) -> None:
    """A model that only encodes has no memory to copy or to trim."""
    decoded = step(pooling, copies=(Copy(source=0, slot=1),), trims=emptied(0, 1))
    assert (0, ()) == (decoded.code, decoded.positions)


def test_an_embedding_can_be_aborted(pooling: LlamaEngine) -> None:
    """An aborted text has no vector, and can be pooled again."""
    tokens = tokens_of(pooling, PROSE)
    fresh = step(pooling, part(tokens, pool=True))
    pooling.abort(8)
    aborted = step(pooling, part(tokens, pool=True), batch=8)
    assert (2, (), ((0, -1),)) == (aborted.code, aborted.vectors, aborted.positions)
    assert fresh.vectors == step(pooling, part(tokens, pool=True)).vectors


def test_rows_are_not_pooled(pooling: LlamaEngine) -> None:
    """A model for embeddings takes tokens only."""
    assert -1 == step(pooling, part([row((0.5,) * DIMENSIONS)], pool=True)).code


def test_special_tokens_are_added_where_they_are_wanted(pooling: LlamaEngine) -> None:
    """A vocabulary that begins texts with BOS does so when asked to, and says so."""
    whole = pooling.tokenize("hello world")
    bare = pooling.tokenize("hello world", after=whole.tokens[1])
    assert (True, False) == (whole.bos_added, bare.bos_added)
    assert bare.tokens == whole.tokens[1:-1]


# ---------------------------------------------------------------- chats


def test_a_chat_of_ten_turns_grows_at_its_end(engine: LlamaEngine) -> None:
    """Rendering with an answer and another message extends what was rendered before, whatever blanks they hold."""
    messages: list[Message] = []
    for turn in range(10):
        messages.append({"role": "user", "content": f" question {turn}?\n "})
        before, answer = engine.render(messages).text, f"  answer {turn}\n\n"
        messages.append({"role": "assistant", "content": answer})
        assert engine.render([*messages, {"role": "user", "content": "next"}]).text.startswith(before + answer)


def test_a_chat_is_put_as_the_model_wants_it(engine: LlamaEngine) -> None:
    """The template's markers stand around each message, and they are tokens."""
    text = engine.render([{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Hi"}]).text
    turns = ("<|im_start|>system\nBe brief.<|im_end|>", "<|im_start|>user\nHi<|im_end|>", "<|im_start|>assistant\n")
    assert "\n".join(turns) == text
    assert len(tokens_of(engine, text)) < 20


def test_messages_that_a_template_refuses(engine: LlamaEngine) -> None:
    """A message without a role or a content, and a model without a template, are the caller's mistake."""
    for wrong in ({"role": "user"}, {"content": "Hi"}, {"role": "user", "content": None}):
        with pytest.raises(InvalidRequest, match="the model's chat template refuses them"):
            engine.render([wrong])  # type: ignore[list-item]


def test_a_model_without_a_template(pooling: LlamaEngine) -> None:
    """There is nothing to render a chat with."""
    with pytest.raises(InvalidRequest, match="no chat template"):
        pooling.render([{"role": "user", "content": "Hi"}])


# ---------------------------------------------------------------- loading


@pytest.mark.parametrize(("logits_hash", "policy"), [(True, "crc32"), (False, "none")])
def test_checksums_can_be_left_out(engine: LlamaEngine, logits_hash: bool, policy: str) -> None:
    """Without them samples carry none, the header's policies say so, and the tokens are the same."""
    tokens = prose(engine, 12)
    (expected,) = step(engine, part(tokens, draw=0)).samples
    other = LlamaEngine(installed_model())
    loaded = other.load(changed(settings(n_slots=1, n_ctx=64, n_batch=64), logits_hash=logits_hash))
    samples = step(other, part(tokens, draw=0)).samples
    other.close()
    assert policy == loaded.policies["logits_hash"]
    assert (changed(expected, logits_crc32=expected.logits_crc32 if logits_hash else None),) == samples


def test_one_engine_is_loaded_at_a_time(tmp_path: Path) -> None:
    """While an engine is being loaded or probed no other one can be: what a process has once is settled by one."""
    held: dict[str, bool] = {}

    def look(doing: str, _: float) -> None:
        held[doing] = _LOADING.locked()

    engine = LlamaEngine(tiny(tmp_path / "tiny.gguf", n_positions=64), on_progress=look)
    engine.load(settings(n_slots=1, n_ctx=64, n_batch=64))
    engine.close()
    engine.probe(1, seconds=0, on_case=look)
    assert {"loading", "one by one"} <= set(held)
    assert {True} == set(held.values())
    assert not _LOADING.locked()


def test_what_is_raised_on_the_way_ends_loading(tmp_path: Path) -> None:
    """The callback of progress can end it, at once; the engine can be loaded after that."""
    model = tiny(tmp_path / "tiny.gguf", n_positions=64)
    patient = False
    told: list[str] = []

    def on_progress(doing: str, _: float) -> None:
        told.append(doing)
        if doing == "loading" and not patient:
            raise KeyboardInterrupt

    engine = LlamaEngine(model, on_progress=on_progress)
    with pytest.raises(KeyboardInterrupt):
        engine.load(settings())
    assert 1 == told.count("loading")
    patient = True
    assert 64 == engine.load(settings()).context.n_ctx
    with pytest.raises(EngineBroken, match="loaded already"):
        engine.probe(1, seconds=0, on_case=lambda _case, _fraction: None)
    engine.close()


def test_only_matrices_that_are_multiplied_count(tmp_path: Path) -> None:
    """Tables that rows are looked up in are not among a file's types: nothing is multiplied by them."""
    model = tiny(tmp_path / "tiny.gguf", n_positions=64)
    kinds = {f"{one.name}: {one.tensor_type.name}" for one in gguf.GGUFReader(model).tensors if len(one.shape) > 1}
    assert "position_embd.weight: F32" in kinds
    assert {"q8_0"} == read_model_file(model, lambda _doing, _fraction: None).matrix_types


def test_a_file_that_is_no_model(tmp_path: Path) -> None:
    """What does not begin as GGUF is the caller's mistake; what does and goes on otherwise cannot be loaded."""
    path = tmp_path / "text.gguf"
    path.write_bytes(b"Once upon a time")
    with pytest.raises(InvalidRequest, match="is not a GGUF file"):
        LlamaEngine(path).load(settings())
    path.write_bytes(b"GGUF, or nearly so")
    with pytest.raises(EngineBroken, match="cannot be loaded"):
        LlamaEngine(path).load(settings())


@pytest.mark.parametrize("n_slots", [1, 3, 5, 7])
def test_an_embedding_model_takes_any_number_of_slots(embedding_model: Path, n_slots: int) -> None:
    """Slots need not divide the rows of a text."""
    engine = LlamaEngine(embedding_model)
    context = engine.load(settings(n_slots=n_slots, n_ctx=100, n_batch=16)).context
    engine.close()
    assert n_slots == context.n_slots
    assert context.n_batch >= 100
