"""What is promised, by a file's types and what a probe finds of it."""

from pathlib import Path

import pytest
from attrs import evolve as changed

from reenact.actors.errors import InvalidRequest
from reenact.actors.header import Numerics, Probed
from reenact.runtime.engine.protocol import ContextSettings, Determinism
from reenact.runtime.llama.determinism.numerics import Hardware, fastest, schedule_independent
from reenact.runtime.llama.determinism.policy import Promise, promise
from reenact.runtime.llama.model_metadata import ModelFile

TYPES = frozenset({"q4_1", "q8_0"})

QUANTIZED = ModelFile(
    path=Path("model.gguf"), size=1, sha256="0", matrix_types=TYPES, pooling_type=None, is_causal=True, head_size=64
)
FLOATS = changed(QUANTIZED, matrix_types=frozenset({"f16", "q8_0"}))
POOLS = changed(QUANTIZED, matrix_types=frozenset({"f32"}), pooling_type=1, is_causal=False)

SAME: dict[str, Probed] = {"one by one": "same", "beside 1 neighbour": "same"}
OUT_OF_TIME: dict[str, Probed] = {"one by one": "same", "beside 1 neighbour": "not tried"}
DIFFERS: dict[str, Probed] = {"one by one": "same", "beside 1 neighbour": "differs", "in another slot": "not tried"}


def promised(
    file: ModelFile, asked: Determinism, found: dict[str, Probed] | None, *, numerics: Numerics | None = None
) -> Promise:
    """Return what is promised where a probe finds this; with None nothing may be probed."""
    settings = ContextSettings(n_slots=1, n_ctx=64, n_batch=8, n_threads=1, determinism=asked, numerics=numerics)

    def ask(probed: Numerics) -> dict[str, Probed]:
        assert found is not None, "nothing is to be probed"
        assert schedule_independent(file.matrix_types, Hardware()) == probed
        return found

    return promise(file, settings, Hardware(), ask)


@pytest.mark.parametrize("asked", ["auto", "schedule-independent"])
@pytest.mark.parametrize(
    ("found", "verdict", "reason"),
    [
        (SAME, "same", "a probe found no other bits"),
        (OUT_OF_TIME, "not probed", "nothing is known against it; the probe's time ran out"),
        ({}, "not probed", "nothing is known against it"),
    ],
)
def test_without_a_difference_nothing_depends_on_the_schedule(
    asked: Determinism, found: dict[str, Probed], verdict: str, reason: str
) -> None:
    """That is promised where a probe finds no difference, also where it ran out of time; the reason says which."""
    made = promised(QUANTIZED, asked, found)
    assert (schedule_independent(TYPES, Hardware()), "schedule-independent") == (made.numerics, made.facts.policy)
    assert (asked, found, verdict, reason) == (
        made.facts.asked,
        made.facts.probe,
        made.facts.verdict,
        made.facts.reason,
    )


def test_a_difference_leaves_the_recorded_schedule() -> None:
    """Where a probe finds one, "auto" gives way to the fastest settings, and the header says which one it was."""
    made = promised(QUANTIZED, "auto", DIFFERS)
    assert (fastest(TYPES, Hardware()), "recorded-schedule", "differs") == (
        made.numerics,
        made.facts.policy,
        made.facts.verdict,
    )
    assert ("a probe found other bits beside 1 neighbour", DIFFERS) == (made.facts.reason, made.facts.probe)


@pytest.mark.parametrize(
    ("file", "found", "why"),
    [(QUANTIZED, DIFFERS, "a probe found other bits beside 1 neighbour"), (FLOATS, None, "its matrices in f16")],
)
def test_by_name_it_is_had_or_refused(file: ModelFile, found: dict[str, Probed] | None, why: str) -> None:
    """What was asked for by name and cannot be had is the caller's mistake: the error says why and what to do."""
    with pytest.raises(InvalidRequest) as raised:
        promised(file, "schedule-independent", found)
    assert "determinism" == raised.value.field
    assert why in raised.value.reason
    assert 'determinism="auto" takes "recorded-schedule" here' in raised.value.reason


def test_what_is_known_is_not_probed() -> None:
    """Types that no settings help need no probe."""
    made = promised(FLOATS, "auto", None)
    assert ("recorded-schedule", {}, "not probed") == (made.facts.policy, made.facts.probe, made.facts.verdict)
    assert "its matrices in f16" in made.facts.reason


@pytest.mark.parametrize("file", [QUANTIZED, FLOATS, POOLS])
def test_the_recorded_schedule_can_be_had_always(file: ModelFile) -> None:
    """Asked for by name it has the fastest settings, and nothing is probed."""
    made = promised(file, "recorded-schedule", None)
    assert (fastest(file.matrix_types, Hardware()), "recorded-schedule") == (made.numerics, made.facts.policy)
    assert "it was asked for" == made.facts.reason


@pytest.mark.parametrize("asked", ["auto", "schedule-independent"])
def test_a_text_that_is_pooled_is_alone(asked: Determinism) -> None:
    """A model for embeddings needs neither a probe nor slower attention, whatever its types."""
    made = promised(POOLS, asked, None)
    assert ("schedule-independent", "a text is alone in its batch") == (made.facts.policy, made.facts.reason)
    assert fastest(POOLS.matrix_types, Hardware()) == made.numerics


@pytest.mark.parametrize("asked", ["schedule-independent", "recorded-schedule"])
@pytest.mark.parametrize("file", [QUANTIZED, FLOATS, POOLS])
def test_a_recorded_session_has_its_own_numerics(file: ModelFile, asked: Determinism) -> None:
    """Executed again it has the policy and the numerics of its log, whatever this program would choose."""
    recorded = Numerics(type_k="f16", type_v="f16", flash_attn="enabled", repack=False, tiled=False)
    made = promised(file, asked, None, numerics=recorded)
    assert (recorded, asked, "as recorded") == (made.numerics, made.facts.policy, made.facts.reason)
