"""A scripted engine as a made-up model: what its tokens follow from."""

import re
import subprocess
import sys
from typing import Any

import pytest

from reenact.actors.batch import Sample, Shift, Trim
from reenact.actors.errors import InvalidRequest, SequenceFailed
from reenact.actors.options import Options
from reenact.runtime.engine.protocol import ContextSettings, Determinism
from reenact.runtime.engine.scripted import EOG, NAN, PIECES, DrawsFrom, ScriptedEngine, drawn, row_of
from reenact.runtime.pytest_plugin import OpenScripted
from tests.helpers.engine_steps import ANY, emptied, part, step

PROMPT = tuple(b"Hello")


def settings(determinism: Determinism = "auto") -> ContextSettings:
    """Return a small context's settings."""
    return ContextSettings(n_slots=2, n_ctx=64, n_batch=16, n_threads=1, determinism=determinism)


def made_up(draws_from: DrawsFrom, determinism: Determinism = "recorded-schedule") -> ScriptedEngine:
    """Return a made-up model that is loaded."""
    engine = ScriptedEngine(draws_from=draws_from)
    engine.load(settings(determinism))
    return engine


def sampled(engine: ScriptedEngine, *parts: Any, **operations: Any) -> Sample:
    """Return what a batch's first part draws."""
    return step(engine, *parts, **operations).samples[0]


# ---------------------------------------------------------------- what a draw follows from


def test_a_cell_that_is_another_one_changes_the_row() -> None:
    """Whatever is trimmed, moved or evaluated beside the plan shows in the row behind it."""
    rows = set()
    for operations in ({}, {"trims": (Trim(slot=0, length=3),)}, {"shifts": (Shift(slot=0, keep=1, discard=2),)}):
        engine = made_up("history")
        step(engine, part(PROMPT))
        length = 5 if not operations else 3
        rows.add(sampled(engine, part((0,), position=length, draw=0), **operations).logits_crc32)
    assert 3 == len(rows)


def test_a_row_stands_for_the_cells() -> None:
    """The checksum is that of the cells, and what is drawn follows from it, the index and the options."""
    sample = sampled(made_up("history"), part(PROMPT, draw=3))
    assert row_of(PROMPT) == sample.logits_crc32
    piece = drawn(PIECES, row_of(PROMPT), 3, Options(seed=7, temperature=1.0))
    assert isinstance(piece, str | bytes)
    assert (piece.encode() if isinstance(piece, str) else piece) == sample.piece


@pytest.mark.parametrize(
    ("asked", "same"),
    [({"seed": 2}, False), ({"temperature": 0.5}, False), ({"num_predict": 3, "stop": ["x"], "priority": 1}, True)],
)
def test_the_options_that_a_draw_depends_on(asked: dict[str, Any], *, same: bool) -> None:
    """Another seed or temperature draws other tokens, and what is no matter of drawing changes none."""
    options = Options(**{"seed": 1, **asked})
    one, other = ([drawn(PIECES, 1234, index, of) for index in range(20)] for of in (ANY, options))
    assert same == (one == other)


def test_everything_is_drawn() -> None:
    """Each piece comes, what stands twice in the script twice as often, and now and then the text ends."""
    draws = [drawn(PIECES, row, 0, ANY) for row in range(2700)]
    assert set(PIECES) == set(draws)
    assert all(150 < draws.count(piece) < 260 for piece in PIECES if piece is not EOG)
    assert 60 < draws.count(EOG) < 140


def test_given_pieces_are_drawn() -> None:
    """What is drawn are the given pieces, in any order, and faults among them."""
    engine = ScriptedEngine(["yes", "no", NAN], draws_from="history")
    engine.load(settings())
    samples = [sampled(engine, part((n,), draw=0), trims=emptied(0)) for n in range(40)]
    assert {(b"yes", None), (b"no", None), (b"", "nan")} == {(one.piece, one.fault) for one in samples}


def test_another_process_draws_the_same() -> None:
    """What is drawn does not depend on `hash`, which is another one in every process."""
    code = "from tests.runtime.engine.test_scripted import *; print(sampled(made_up('batch'), part(PROMPT, draw=0)))"
    command = (sys.executable, "-c", code)
    said = [
        subprocess.run(command, env={"PYTHONHASHSEED": seed}, check=True, capture_output=True, text=True).stdout
        for seed in ("1", "2")
    ]
    assert [f"{sampled(made_up('batch'), part(PROMPT, draw=0))}\n"] * 2 == said


# ---------------------------------------------------------------- the batch's shape


def test_the_shape_of_a_batch_is_in_the_row() -> None:
    """How many rows the parts have, and which comes first, changes the row; what the others' rows hold does not."""
    mine, other = part(PROMPT, draw=0), part(PROMPT, sequence=2, slot=1)
    batches = {
        "alone": (mine,),
        "first": (mine, other),
        "second": (other, mine),
        "beside fewer": (mine, part(PROMPT[:2], sequence=2, slot=1)),
        "beside others": (mine, part(PROMPT[::-1], sequence=2, slot=1)),
    }
    rows = {name: sampled(made_up("batch"), *parts).logits_crc32 for name, parts in batches.items()}
    assert rows["first"] == rows.pop("beside others")
    assert 4 == len(set(rows.values()))
    history = {sampled(made_up("history"), *parts).logits_crc32 for parts in batches.values()}
    assert {row_of(PROMPT)} == history


def test_the_shape_stays_in_the_cells() -> None:
    """A prompt in two batches gives another row than in one, whatever comes after it."""
    whole, halves = made_up("batch"), made_up("batch")
    step(whole, part(PROMPT))
    step(halves, part(PROMPT[:2]))
    step(halves, part(PROMPT[2:], position=2))
    one, other = (sampled(engine, part((0,), position=5, draw=0)) for engine in (whole, halves))
    assert one.logits_crc32 != other.logits_crc32


# ---------------------------------------------------------------- what is promised


@pytest.mark.parametrize(
    ("draws_from", "asked", "policy", "reason"),
    [
        ("script", "auto", "schedule-independent", "nothing is computed"),
        ("history", "auto", "schedule-independent", "nothing is computed"),
        ("history", "recorded-schedule", "recorded-schedule", "nothing is computed"),
        ("batch", "auto", "recorded-schedule", "draws follow from the shapes of the batches"),
        ("batch", "recorded-schedule", "recorded-schedule", "draws follow from the shapes of the batches"),
    ],
)
def test_it_says_what_results_depend_on(draws_from: DrawsFrom, asked: Determinism, policy: str, reason: str) -> None:
    """The header says what a draw follows from, what that lets it promise, and why."""
    loaded = ScriptedEngine(draws_from=draws_from).load(settings(asked))
    facts = loaded.determinism
    assert (draws_from, asked, policy, reason) == (loaded.policies["draws"], facts.asked, facts.policy, facts.reason)


def test_a_promise_that_cannot_be_kept_is_refused() -> None:
    """Asked for by name, independence of the schedule is an error where draws depend on it; the engine can be used."""
    engine = ScriptedEngine(draws_from="batch")
    with pytest.raises(InvalidRequest, match="cannot be had: draws follow from the shapes of the batches") as caught:
        engine.load(settings("schedule-independent"))
    assert "determinism" == caught.value.field
    engine.load(settings())


def test_a_made_up_model_has_one_list_of_pieces() -> None:
    """A script for each prompt is refused where no script is followed."""
    with pytest.raises(TypeError, match="one list of pieces"):
        ScriptedEngine({"Hi": ["Hello"]}, draws_from="history")


# ---------------------------------------------------------------- what nothing is scripted for


async def test_a_prompt_without_a_script_fails_alone(scripted_runtime: OpenScripted) -> None:
    """Its request fails, with what is scripted and how to add this one; others go on, and so does the runtime."""
    async with scripted_runtime({"Hi": ["Hel", "lo"], "Bye": []}) as runtime, runtime.stream("Hi") as hi:
        missing = re.escape(
            """there is no script for the prompt 'Hey'; scripted are 'Hi', 'Bye': add {'Hey': ["pieces"]}"""
        )
        with pytest.raises(SequenceFailed, match=missing):
            await runtime.complete("Hey")
        assert ["Hel", "lo"] == [chunk.text async for chunk in hi]
        assert "" == (await runtime.complete("Bye")).text


async def test_a_text_without_a_vector_fails_alone(scripted_runtime: OpenScripted) -> None:
    """Its request fails, with which texts have one, and the next one is served."""
    async with scripted_runtime(vectors={"a": [3, 4]}) as runtime:
        missing = re.escape("there is no vector for the text 'b'; scripted are 'a': add {'b': [0.5, 0.5]}")
        with pytest.raises(SequenceFailed, match=missing):
            await runtime.embed(["b"])
        assert [(0.6, 0.8)] == [found.embedding for found in await runtime.embed(["a"])]


async def test_many_scripts_are_counted(scripted_runtime: OpenScripted) -> None:
    """An error names a few of the scripted prompts, each cut, and counts the rest."""
    async with scripted_runtime({"x" * 1000 + str(i): [] for i in range(9)}) as runtime:
        with pytest.raises(SequenceFailed, match=r"x…, 'x+…, 'x+…, 'x+…, 'x+… and 4 more: add") as raised:
            await runtime.complete("y" * 1000)
    assert len(str(raised.value)) < 700


@pytest.mark.parametrize(
    ("settings", "wrong"),
    [
        ({"scripts": "abc"}, "a script is a list of pieces, got 'abc'"),
        ({"scripts": {"Hi": "abc"}}, "the script for 'Hi' is a list of pieces, got 'abc'"),
        ({"scripts": {"Hi": None}}, "the script for 'Hi' is a list of pieces, got None"),
        ({"scripts": iter("abc")}, "a script is a list of pieces, got <"),
        ({"scripts": [5]}, "a script holds pieces, each a str, bytes, EOG, NAN or DEAD_END, got 5"),
        ({"scripts": {"Hi": ["a", None]}}, "the script for 'Hi' holds pieces, each a str, .*, got None"),
        ({"vectors": {"a": 5}}, "the vector for 'a' is a list of numbers, got 5"),
        ({"vectors": {"a": ["x"]}}, r"the vector for 'a' is a list of numbers, got \['x'\]"),
    ],
)
def test_a_script_of_the_wrong_type(settings: dict[str, Any], wrong: str) -> None:
    """What is no script or no vector is refused when the engine is made, by its prompt or text."""
    with pytest.raises(TypeError, match=wrong):
        ScriptedEngine(**settings)
