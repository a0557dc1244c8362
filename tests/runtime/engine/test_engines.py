"""What every engine must do; the scripted one, also as a made-up model, and the real one pass the same tests."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from reenact.actors.batch import Copy, Shift, Trim
from reenact.actors.errors import EngineBroken, InvalidRequest
from reenact.actors.options import Options
from reenact.runtime.cli.default_model import installed_model
from reenact.runtime.engine.protocol import ContextSettings, Determinism, Engine, Message
from reenact.runtime.engine.scripted import ScriptedEngine
from reenact.runtime.llama.engine import LlamaEngine
from tests.helpers.engine_steps import ANY, emptied, part, row, step, tokens_of
from tests.helpers.models.minilm import minilm

WIDTH = 576
"""Numbers in a row of SmolLM2's; the scripted engine takes any row."""

TEXTS = {"Hello": [1.0, 2.0], "Good day": [2.0, 1.0]}

kinds = ["scripted", "made up", pytest.param("llama", marks=pytest.mark.model)]
every = pytest.mark.parametrize("kind", kinds, scope="module")


def settings(determinism: Determinism = "schedule-independent") -> ContextSettings:
    """Return a small context's settings."""
    return ContextSettings(n_slots=3, n_ctx=100, n_batch=16, n_threads=2, determinism=determinism)


def made(kind: str) -> Engine:
    """Return an engine that generates."""
    if kind == "llama":
        return LlamaEngine(installed_model())
    return ScriptedEngine(["one", b" tw", b"o"], draws_from="history" if kind == "made up" else "script")


@pytest.fixture(scope="module")
def loaded_engine(kind: str) -> Iterator[Engine]:
    """Give an engine of each kind with a small context."""
    engine = made(kind)
    engine.load(settings())
    yield engine
    engine.close()


@pytest.fixture
def engine(loaded_engine: Engine) -> Engine:
    """Give an engine with empty slots."""
    step(loaded_engine, trims=emptied(0, 1, 2))
    return loaded_engine


@pytest.fixture
def moving(kind: str) -> Iterator[Engine]:
    """Give an engine that may move cells."""
    engine = made(kind)
    engine.load(settings("recorded-schedule"))
    yield engine
    engine.close()


@pytest.fixture
def pooling(kind: str, tmp_path: Path) -> Iterator[Engine]:
    """Give an engine for embeddings."""
    engine: Engine = LlamaEngine(minilm(tmp_path / "m.gguf")) if kind == "llama" else ScriptedEngine(vectors=TEXTS)
    engine.load(settings())
    yield engine
    engine.close()


@every
def test_settings_are_read_back(engine: Engine) -> None:
    """Loading gives back the context as it is, with at least the cells that were asked for."""
    assert isinstance(engine, ScriptedEngine | LlamaEngine)
    context = engine.context_facts
    assert context is not None
    assert (3, 100, 16, 2) == (context.n_slots, context.n_ctx, context.n_batch, context.n_threads)
    assert context.n_ctx_seq >= 100
    assert ("evaluate", "none") == (context.shift, context.pooling)


@every
def test_an_engine_says_what_its_results_depend_on(kind: str) -> None:
    """The policy is what was asked for, and only where the schedule may matter are cells moved."""
    engine = made(kind)
    loaded = engine.load(settings("recorded-schedule"))
    engine.close()
    assert ("recorded-schedule", "move") == (loaded.determinism.policy, loaded.context.shift)


@every
def test_tokens_of_a_text(engine: Engine) -> None:
    """A text has tokens, the same ones each time, and an empty text has none."""
    tokens = tokens_of(engine, "Hello world")
    assert tokens
    assert tokens == tokens_of(engine, "Hello world")
    assert () == tokens_of(engine, "")


@every
def test_a_long_text_is_tokenized_whole(engine: Engine) -> None:
    """Tokenizing has no length that it stops at."""
    assert len(tokens_of(engine, "a b " * 5000)) > 1000 * len(tokens_of(engine, "a b "))


@every
def test_a_grammar_is_prepared(engine: Engine) -> None:
    """A grammar that compiles comes back with the tokens; without one there is none."""
    grammar = 'root ::= "yes" | "no"'
    assert grammar == engine.compile(Options(seed=1, grammar=grammar))
    assert engine.compile(ANY) is None


@every
def test_a_bad_grammar_is_refused(engine: Engine) -> None:
    """A grammar without a root is the caller's mistake, and the error names the field."""
    with pytest.raises(InvalidRequest) as caught:
        engine.compile(Options(seed=1, grammar='answer ::= "yes"'))
    assert "grammar" == caught.value.field


@every
def test_a_chat_grows_at_its_end(engine: Engine) -> None:
    """A chat with an answer and another message begins as the chat before, and the answer follows."""
    messages: list[Message] = [{"role": "user", "content": "Hello"}]
    before = engine.render(messages).text
    messages += [{"role": "assistant", "content": "Good day"}, {"role": "user", "content": "Bye"}]
    assert "Hello" in before
    assert engine.render(messages).text.startswith(before + "Good day")


@every
def test_a_prompt_in_one_step(engine: Engine) -> None:
    """One part with a draw gives one sample and the slot's last position."""
    tokens = tokens_of(engine, "Hello")
    decoded = step(engine, part(tokens, draw=0))
    assert (5, 0, ((0, len(tokens) - 1),)) == (decoded.batch, decoded.code, decoded.positions)
    (sample,) = decoded.samples
    assert (1, False, None) == (sample.sequence, sample.eog, sample.fault)
    assert sample.piece
    assert sample.logits_crc32 is not None
    assert 0 <= sample.logits_crc32 < 2**32


@every
def test_a_prompt_in_chunks_gives_the_same_sample(engine: Engine) -> None:
    """Where a prompt is cut changes neither the token nor a bit of its logits."""
    tokens = tokens_of(engine, "Hello world")
    whole = step(engine, part(tokens, draw=0))
    first = step(engine, part(tokens[:1]), trims=emptied(0))
    rest = step(engine, part(tokens[1:], position=1, draw=0))
    assert () == first.samples
    assert whole.samples == rest.samples


@every
def test_company_and_slot_change_nothing(engine: Engine) -> None:
    """A sequence gets the same sample alone, beside others, and in another slot."""
    tokens, others = tokens_of(engine, "Hello"), tokens_of(engine, "Good day")
    (alone,) = step(engine, part(tokens, draw=0)).samples
    company = (part(others, sequence=2, slot=0, draw=0), part(tokens, slot=2, draw=0))
    _, beside = step(engine, *company, trims=emptied(0)).samples
    assert alone == beside


@every
def test_a_draw_is_repeated_by_its_seed_and_index(engine: Engine) -> None:
    """The same seed and index draw the same token."""
    tokens = tokens_of(engine, "Hello")
    one = step(engine, part(tokens, draw=0), seed=1)
    again = step(engine, part(tokens, draw=0), trims=emptied(0), seed=1)
    assert one.samples == again.samples


@every
def test_samples_come_in_the_order_of_the_parts(engine: Engine) -> None:
    """There is a sample for each part with a draw, in their order, and positions for every part."""
    tokens = tokens_of(engine, "Hello")
    parts = (
        part(tokens, sequence=9, slot=0, draw=0),
        part(tokens, sequence=3, slot=1),
        part(tokens, sequence=4, slot=2, draw=0),
    )
    decoded = step(engine, *parts)
    assert [9, 4] == [sample.sequence for sample in decoded.samples]
    assert [(slot, len(tokens) - 1) for slot in range(3)] == list(decoded.positions)


@every
def test_generation_goes_on_from_its_cells(engine: Engine) -> None:
    """A token decoded after its prompt is at the next position, and the next token can be drawn."""
    tokens = tokens_of(engine, "Hello")
    (sample,) = step(engine, part(tokens, draw=0)).samples
    decoded = step(engine, part((sample.token,), position=len(tokens), draw=1))
    assert ((0, len(tokens)),) == decoded.positions
    assert 1 == len(decoded.samples)


@every
@pytest.mark.parametrize(
    "bad",
    [
        {"position": 3},
        {"slot": 3},
        {"slot": -1},
        {"inputs": ()},
        {"inputs": (65,) * 17},
        {"inputs": (65, row((0.0,) * WIDTH))},
        {"draw": None, "pool": True},
    ],
    ids=["a gap", "slot 3", "slot -1", "no rows", "too many rows", "both kinds", "pooled"],
)
def test_an_invalid_batch_is_refused(engine: Engine, bad: dict[str, Any]) -> None:
    """What llama.cpp would not take, or not survive, has code -1, and the cells are as they were."""
    tokens = tokens_of(engine, "Hello")
    decoded = step(engine, part(**{"inputs": tokens, "draw": 0, **bad}))
    assert (-1, (), ()) == (decoded.code, decoded.samples, decoded.vectors)
    assert 0 == step(engine, part(tokens, draw=0)).code


@every
@pytest.mark.parametrize(
    "bad",
    [
        {"copies": (Copy(source=3, slot=0),)},
        {"copies": (Copy(source=0, slot=-1),)},
        {"trims": (Trim(slot=3, length=0),)},
        {"trims": (Trim(slot=0, length=-1),)},
        {"shifts": (Shift(slot=0, keep=1, discard=1),)},
    ],
    ids=["from slot 3", "to slot -1", "in slot 3", "length -1", "a shift"],
)
def test_an_invalid_operation_is_refused_with_all_others(engine: Engine, bad: dict[str, Any]) -> None:
    """Of a batch with an operation that cannot be nothing is done; here shifts are among those."""
    tokens = tokens_of(engine, "Hello world")
    step(engine, part(tokens))
    decoded = step(engine, **{"trims": emptied(0), **bad})
    assert -1 == decoded.code
    assert ((0, len(tokens)),) == step(engine, part(tokens[:1], position=len(tokens))).positions


@every
def test_slots_in_any_order_but_each_once(engine: Engine) -> None:
    """Rows in another order than that of the slots are evaluated all the same; a batch with a slot twice is invalid."""
    tokens = tokens_of(engine, "Hello")
    decoded = step(engine, part(tokens, slot=1), part(tokens, sequence=2, slot=0))
    assert (0, ((1, len(tokens) - 1), (0, len(tokens) - 1))) == (decoded.code, decoded.positions)
    assert -1 == step(engine, part(tokens, slot=2), part(tokens, sequence=2, slot=2)).code


@every
def test_a_full_slot_has_no_room(engine: Engine) -> None:
    """Rows beyond a slot's cells: code 1, and the cells are as they were."""
    (token,) = tokens_of(engine, "x")[:1]
    for position in range(0, 256, 16):
        assert 0 == step(engine, part((token,) * 16, position=position)).code
    decoded = step(engine, part((token,), position=256, draw=0))
    assert (1, (), ((0, 255),)) == (decoded.code, decoded.samples, decoded.positions)


@every
def test_an_emptied_slot_starts_again(engine: Engine) -> None:
    """Emptying a slot and the first rows of its next sequence are one step."""
    tokens = tokens_of(engine, "Hello")
    before = step(engine, part(tokens, draw=0))
    after = step(engine, part(tokens, sequence=2, draw=0), trims=emptied(0))
    assert before.samples[0].logits_crc32 == after.samples[0].logits_crc32


@every
def test_a_trimmed_slot_goes_on_from_what_is_left(engine: Engine) -> None:
    """What is evaluated behind a trim gives the same sample as if nothing else had ever been there."""
    tokens, others = tokens_of(engine, "Hello world"), tokens_of(engine, "Hello there, you")
    (fresh,) = step(engine, part(tokens, draw=0)).samples
    step(engine, part(tokens[:1] + others[1:]), trims=emptied(0))
    decoded = step(engine, part(tokens[1:], position=1, draw=0), trims=(Trim(slot=0, length=1),))
    assert (fresh,) == decoded.samples
    assert ((0, len(tokens) - 1),) == decoded.positions


@every
def test_a_copy_goes_on_like_its_source(engine: Engine) -> None:
    """A slot is copied in place of what the other one held, trimmed, and continued; the source is as it was."""
    tokens, others = tokens_of(engine, "Hello world"), tokens_of(engine, "Bye")
    (fresh,) = step(engine, part(tokens, slot=2, draw=0)).samples
    step(engine, part(tokens), part(others, sequence=2, slot=1))
    fork = part(tokens[-1:], slot=1, position=len(tokens) - 1, draw=0)
    again = part(tokens[-1:], sequence=2, slot=2, position=len(tokens) - 1, draw=0)
    copies = (Copy(source=0, slot=1), Copy(source=1, slot=2))
    trims = (Trim(slot=1, length=len(tokens) - 1), Trim(slot=2, length=len(tokens) - 1))
    decoded = step(engine, fork, again, copies=copies, trims=trims)
    assert [fresh.logits_crc32] * 2 == [sample.logits_crc32 for sample in decoded.samples]
    assert ((0, len(tokens)),) == step(engine, part(tokens[:1], position=len(tokens))).positions


@every
def test_a_batch_without_parts_does_what_it_is_for(engine: Engine) -> None:
    """Operations alone are a step; it has no positions to tell, and the next one rests on it."""
    tokens = tokens_of(engine, "Hello world")
    (fresh,) = step(engine, part(tokens, draw=0)).samples
    decoded = step(engine, copies=(Copy(source=0, slot=1),), trims=emptied(0))
    assert (0, (), ()) == (decoded.code, decoded.samples, decoded.positions)
    last = part(tokens[-1:], slot=1, position=len(tokens) - 1, draw=0)
    assert (fresh,) == step(engine, last, trims=(Trim(slot=1, length=len(tokens) - 1),)).samples
    assert 0 == step(engine, part(tokens)).code


@every
def test_cells_move_down(moving: Engine) -> None:
    """After a shift so many cells are fewer, and the next inputs follow those that moved."""
    tokens = tokens_of(moving, "one two three four five six")[:6]
    step(moving, part(tokens))
    for _ in range(3):
        shift = Shift(slot=0, keep=1, discard=2)
        decoded = step(moving, part(tokens[:2], position=4, draw=0), shifts=(shift,))
        assert (0, ((0, 5),)) == (decoded.code, decoded.positions)
    assert -1 == step(moving, part(tokens[:1], position=6), shifts=(Shift(slot=0, keep=1, discard=2),)).code


@every
def test_an_aborted_batch_can_be_finished(engine: Engine) -> None:
    """An abort that comes first counts: no samples, true positions, and the same sample from what is missing."""
    tokens = tokens_of(engine, "Hello world")
    (fresh,) = step(engine, part(tokens, draw=0)).samples
    engine.abort(6)
    decoded = step(engine, part(tokens, draw=0), batch=6, trims=emptied(0))
    ((slot, last),) = decoded.positions
    assert (2, (), 0) == (decoded.code, decoded.samples, slot)
    kept = min(last + 1, len(tokens) - 1)
    rest = part(tokens[kept:], position=kept, draw=0)
    assert (fresh,) == step(engine, rest, batch=7, trims=(Trim(slot=0, length=kept),)).samples


@every
def test_an_abort_is_for_its_batch(engine: Engine) -> None:
    """An abort of a batch that is over, or not yet there, leaves another alone."""
    tokens = tokens_of(engine, "Hello")
    engine.abort(4)
    assert 0 == step(engine, part(tokens), batch=5).code
    engine.abort(7)
    assert 0 == step(engine, part(tokens, slot=1), batch=6).code
    assert 2 == step(engine, part(tokens, slot=2), batch=7).code


@every
def test_rows_take_the_place_of_tokens(engine: Engine) -> None:
    """Rows of numbers are evaluated like tokens, before and after them; the same ones give the same sample."""
    tokens = tokens_of(engine, "Hello")
    rows = [row((column * factor % 7 - 3) / 10 for column in range(WIDTH)) for factor in (1, 2)]

    def sampled(first: Any, second: Any) -> int | None:
        step(engine, part((first, second)), trims=emptied(0))
        decoded = step(engine, part(tokens, position=2, draw=0))
        assert ((0, 1 + len(tokens)),) == decoded.positions
        return decoded.samples[0].logits_crc32

    assert sampled(*rows) == sampled(*rows)
    assert sampled(*rows) != sampled(*reversed(rows))


@every
def test_a_text_is_pooled(pooling: Engine) -> None:
    """A pooled part gives one vector, the same one each time, and leaves no cells."""
    tokens = tokens_of(pooling, "Hello")
    one, again = (step(pooling, part(tokens, pool=True)) for _ in range(2))
    assert (0, (), ((0, -1),)) == (one.code, one.samples, one.positions)
    (vector,) = one.vectors
    assert 1 == vector.sequence
    assert any(vector.values)
    assert one.vectors == again.vectors


@every
def test_vectors_come_in_the_order_of_the_parts(pooling: Engine) -> None:
    """Texts in one batch each have their own vector."""
    texts = [tokens_of(pooling, text) for text in TEXTS]
    alone = [step(pooling, part(tokens, pool=True)).vectors[0].values for tokens in texts]
    parts = [part(tokens, sequence=9 - i, slot=i, pool=True) for i, tokens in enumerate(texts)]
    together = step(pooling, *parts).vectors
    assert [9, 8] == [vector.sequence for vector in together]
    for one, other in zip(alone, together, strict=True):
        assert pytest.approx(one, abs=0.1) == other.values
    assert alone[0] != alone[1]


@every
def test_an_engine_for_embeddings_does_not_generate(pooling: Engine) -> None:
    """A draw, or rows whose vector is not wanted, are refused by an engine that pools."""
    tokens = tokens_of(pooling, "Hello")
    assert -1 == step(pooling, part(tokens, draw=0)).code
    assert -1 == step(pooling, part(tokens)).code


NOT_LOADED: list[Callable[[Engine], object]] = [
    lambda engine: engine.tokenize("x"),
    lambda engine: step(engine, part((1,), draw=0)),
]


@pytest.mark.parametrize("engine", [ScriptedEngine(), LlamaEngine("unread.gguf")])
def test_an_engine_that_is_not_loaded_refuses(engine: Engine) -> None:
    """Before loading and after closing there is nothing to call: EngineBroken, and no crash."""
    engine.abort(1)
    for call in NOT_LOADED:
        with pytest.raises(EngineBroken, match="not loaded"):
            call(engine)


@every
def test_an_engine_can_be_loaded_again(kind: str) -> None:
    """An engine serves one runtime at a time, and after that another; an abort from before is forgotten."""
    engine = made(kind)
    engine.load(settings())
    with pytest.raises(EngineBroken, match="loaded already"):
        engine.load(settings())
    engine.abort(0)
    engine.close()
    engine.load(settings())
    assert 0 == step(engine, part((65,)), batch=0).code
    engine.close()


def test_closing_twice_is_closing_once() -> None:
    """An engine can be closed without having been loaded, and twice."""
    for engine in (ScriptedEngine(), LlamaEngine("unread.gguf")):
        engine.close()
        engine.close()
