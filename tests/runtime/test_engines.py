"""What every engine must do; the scripted one and the real one pass the same tests."""

from collections.abc import Iterator
from functools import partial

import pytest

from reenact.actors.errors import EngineBroken
from reenact.actors.events import BatchDecoded, BatchPlanned, Part
from reenact.actors.options import Options
from reenact.runtime import Engine, LlamaEngine, ScriptedEngine
from reenact.runtime.engine import ContextSettings
from reenact.runtime.models import installed_model

SETTINGS = ContextSettings(n_slots=3, n_ctx=100, n_batch=16, n_threads=2)


@pytest.fixture(scope="module", params=["scripted", pytest.param("llama", marks=pytest.mark.model)])
def loaded_engine(request: pytest.FixtureRequest) -> Iterator[Engine]:
    """Give an engine of each kind with a small context."""
    path = installed_model()
    engine: Engine = ScriptedEngine(["one", b" tw", b"o"]) if request.param == "scripted" else LlamaEngine(path)
    engine.load(SETTINGS)
    yield engine
    engine.close()


@pytest.fixture
def engine(loaded_engine: Engine) -> Engine:
    """Give an engine with empty slots."""
    loaded_engine.step(BatchPlanned(batch=0, clears=(0, 1, 2), parts=()), {})
    return loaded_engine


def part(
    tokens: tuple[int, ...], *, sequence: int = 1, slot: int = 0, position: int = 0, draw: int | None = None
) -> Part:
    """Return a part of a batch."""
    return Part(sequence=sequence, slot=slot, position=position, tokens=tokens, draw=draw)


def step(
    engine: Engine, *parts: Part, clears: tuple[int, ...] = (), seed: int = 7, temperature: float = 1.0
) -> BatchDecoded:
    """Let an engine do one step, all sequences with the same options."""
    options = {part.sequence: Options(seed=seed, temperature=temperature) for part in parts}
    return engine.step(BatchPlanned(batch=5, clears=clears, parts=parts), options)


def test_settings_are_read_back(engine: Engine) -> None:
    """Loading gives back the context as it is, with at least the cells that were asked for."""
    assert isinstance(engine, ScriptedEngine | LlamaEngine)
    context = engine.context_facts
    assert context is not None
    assert (3, 100, 16, 2) == (context.n_slots, context.n_ctx, context.n_batch, context.n_threads)
    assert context.n_ctx_seq >= 100


def test_tokens_of_a_text(engine: Engine) -> None:
    """A text has tokens, the same ones each time, and an empty text has none."""
    tokens = engine.tokenize("Hello world").tokens
    assert tokens
    assert tokens == engine.tokenize("Hello world").tokens
    assert () == engine.tokenize("").tokens


def test_a_long_text_is_tokenised_whole(engine: Engine) -> None:
    """Tokenising has no length that it stops at."""
    word = engine.tokenize("a b ").tokens
    assert len(engine.tokenize("a b " * 5000).tokens) > 1000 * len(word)


def test_a_prompt_in_one_step(engine: Engine) -> None:
    """One part with a draw gives one sample and the slot's last position."""
    tokens = engine.tokenize("Hello").tokens
    decoded = step(engine, part(tokens, draw=0))
    assert (5, 0, ((0, len(tokens) - 1),)) == (decoded.batch, decoded.code, decoded.positions)
    (sample,) = decoded.samples
    assert (1, False, False) == (sample.sequence, sample.eog, sample.nan)
    assert sample.piece
    assert 0 <= sample.logits_crc32 < 2**32


def test_a_prompt_in_chunks_gives_the_same_sample(engine: Engine) -> None:
    """Where a prompt is cut changes neither the token nor a bit of its logits."""
    tokens = engine.tokenize("Hello world").tokens
    whole = step(engine, part(tokens, draw=0))
    first = step(engine, part(tokens[:1]), clears=(0,))
    rest = step(engine, part(tokens[1:], position=1, draw=0))
    assert () == first.samples
    assert whole.samples == rest.samples


def test_company_and_slot_change_nothing(engine: Engine) -> None:
    """A sequence gets the same sample alone, beside others, and in another slot."""
    tokens, others = engine.tokenize("Hello").tokens, engine.tokenize("Good day").tokens
    (alone,) = step(engine, part(tokens, draw=0)).samples
    company = (part(others, sequence=2, slot=0, draw=0), part(tokens, slot=2, draw=0))
    _, beside = step(engine, *company, clears=(0,)).samples
    assert alone == beside


def test_a_draw_is_repeated_by_its_seed_and_index(engine: Engine) -> None:
    """The same seed and index draw the same token."""
    tokens = engine.tokenize("Hello").tokens
    one = step(engine, part(tokens, draw=0), seed=1)
    again = step(engine, part(tokens, draw=0), clears=(0,), seed=1)
    assert one.samples == again.samples


def test_samples_come_in_the_order_of_the_parts(engine: Engine) -> None:
    """There is a sample for each part with a draw, in their order, and positions for every part."""
    tokens = engine.tokenize("Hello").tokens
    parts = (
        part(tokens, sequence=9, slot=0, draw=0),
        part(tokens, sequence=3, slot=1),
        part(tokens, sequence=4, slot=2, draw=0),
    )
    decoded = step(engine, *parts)
    assert [9, 4] == [sample.sequence for sample in decoded.samples]
    assert [(slot, len(tokens) - 1) for slot in range(3)] == list(decoded.positions)


def test_generation_goes_on_from_its_cells(engine: Engine) -> None:
    """A token decoded after its prompt is at the next position, and the next token can be drawn."""
    tokens = engine.tokenize("Hello").tokens
    (sample,) = step(engine, part(tokens, draw=0)).samples
    decoded = step(engine, part((sample.token,), position=len(tokens), draw=1))
    assert ((0, len(tokens)),) == decoded.positions
    assert 1 == len(decoded.samples)


@pytest.mark.parametrize(
    "bad",
    [
        {"position": 3},
        {"slot": 3},
        {"slot": -1},
        {"tokens": ()},
        {"tokens": (65,) * 17},
    ],
)
def test_an_invalid_batch_is_refused(engine: Engine, bad: dict[str, int]) -> None:
    """A gap, a slot that is not there, no rows or too many: code -1, and the cells are as they were."""
    tokens = engine.tokenize("Hello").tokens
    decoded = step(engine, part(**{"tokens": tokens, "draw": 0, **bad}))  # type: ignore[arg-type]
    assert (-1, ()) == (decoded.code, decoded.samples)
    assert 0 == step(engine, part(tokens, draw=0)).code


def test_descending_slots_are_refused(engine: Engine) -> None:
    """Rows go by slot number: a batch in another order, or with a slot twice, is invalid."""
    tokens = engine.tokenize("Hello").tokens
    assert -1 == step(engine, part(tokens, slot=1), part(tokens, sequence=2, slot=0)).code
    assert -1 == step(engine, part(tokens), part(tokens, sequence=2)).code


def test_a_full_slot_has_no_room(engine: Engine) -> None:
    """Rows beyond a slot's cells: code 1, and the cells are as they were."""
    (token,) = engine.tokenize("x").tokens[:1]
    for position in range(0, 256, 16):
        assert 0 == step(engine, part((token,) * 16, position=position)).code
    decoded = step(engine, part((token,), position=256, draw=0))
    assert (1, (), ((0, 255),)) == (decoded.code, decoded.samples, decoded.positions)


def test_an_emptied_slot_starts_again(engine: Engine) -> None:
    """Emptying a slot and the first rows of its next sequence are one step."""
    tokens = engine.tokenize("Hello").tokens
    before = step(engine, part(tokens, draw=0))
    after = step(engine, part(tokens, sequence=2, draw=0), clears=(0,))
    assert before.samples[0].logits_crc32 == after.samples[0].logits_crc32


@pytest.mark.parametrize("engine", [ScriptedEngine(), LlamaEngine("unread.gguf")])
def test_an_engine_that_is_not_loaded_refuses(engine: Engine) -> None:
    """Before loading and after closing there is nothing to call: EngineBroken, and no crash."""
    for call in (partial(engine.tokenize, "x"), partial(step, engine, part((1,), draw=0))):
        with pytest.raises(EngineBroken, match="not loaded"):
            call()


def test_closing_twice_is_closing_once() -> None:
    """An engine can be closed without having been loaded, and twice."""
    path = installed_model()
    for engine in (ScriptedEngine(), LlamaEngine(path)):
        engine.close()
        engine.close()
