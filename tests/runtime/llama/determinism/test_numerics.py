"""Settings by the types of a file's matrices, and what is decided once a process."""

import pytest

from reenact.runtime.llama.determinism.numerics import (
    Hardware,
    clamp_to_process,
    fastest,
    known_obstacle,
    schedule_independent,
)
from tests.helpers.subprocesses import fresh

SMOLLM2 = {"q4_1", "q8_0"}
Q4_K_M = {"q4_K", "q5_0", "q6_K", "q8_0"}
Q6_K = {"q6_K", "q8_0"}


@pytest.mark.parametrize(
    ("types", "repack"),
    [(SMOLLM2, True), ({"q4_0"}, True), (Q6_K, True), (Q4_K_M, False), ({"q2_K"}, False), ({"mxfp4", "q8_0"}, False)],
)
def test_weights_are_repacked_where_it_changes_nothing(types: set[str], repack: bool) -> None:
    """Of the types whose repacked kernels round by the number of rows not one is repacked; all others are."""
    assert repack == schedule_independent(types, Hardware()).repack
    assert fastest(types, Hardware()).repack


@pytest.mark.parametrize("type_v", ["f16", "q8_0"])
@pytest.mark.parametrize("types", [SMOLLM2, Q6_K, Q4_K_M, {"f16"}])
def test_attention_never_splits_or_tiles(types: set[str], type_v: str) -> None:
    """Whatever the types, flash attention is on and K quantized, V has the machine's type, and nothing is tiled."""
    numerics = schedule_independent(types, Hardware(type_v=type_v))
    assert ("q8_0", type_v, "enabled", False) == (
        numerics.type_k,
        numerics.type_v,
        numerics.flash_attn,
        numerics.tiled,
    )


@pytest.mark.parametrize(
    ("types", "named"), [({"q8_0", "f16"}, "f16"), ({"f32", "bf16"}, "bf16, f32"), ({"iq4_nl"}, "iq4_nl")]
)
def test_floats_cannot_be_helped(types: set[str], named: str) -> None:
    """Matrices of which a lone row is multiplied otherwise are an obstacle, which names their types and no others."""
    against = known_obstacle(types)
    assert against is not None
    assert f"by its matrices in {named}, whatever the settings" in against


def test_nothing_is_known_against_other_types() -> None:
    """Where settings help there is no obstacle."""
    assert [None] * 3 == [known_obstacle(types) for types in (SMOLLM2, {"q4_0"}, {"q5_1"})]


TOLD = """
from reenact.runtime.llama.determinism.numerics import (
    Hardware,
    clamp_to_process,
    fastest,
    fix_for_process,
    known_obstacle,
    schedule_independent,
)

k, plain = {"q4_K", "q6_K", "q8_0"}, {"q8_0"}


def state():
    return {
        "environment": __import__("os").environ.get("GGML_CPU_TILED_MM"),
        "fastest": fastest(k, Hardware()).tiled,
        "independent": clamp_to_process(schedule_independent(k, Hardware()), k, Hardware()).tiled,
        "obstacle": known_obstacle(k),
        "plain": known_obstacle(plain),
    }


told = [state()]
"""


def test_a_process_has_settled_nothing_before_its_first_model() -> None:
    """Then either can be had: tiles at the fastest, none where nothing may depend on the schedule."""
    expected = {"environment": None, "fastest": True, "independent": False, "obstacle": None, "plain": None}
    assert [expected] == fresh(TOLD)


def test_tiles_once_are_tiles_for_good() -> None:
    """After a model that took tiles they are an obstacle to those that would do without, and no matter to others."""
    before, after = fresh(
        TOLD
        + "fix_for_process(fastest(k, Hardware())); fix_for_process(schedule_independent(k, Hardware()));"
        + "told.append(state())"
    )
    assert before["obstacle"] is None
    assert ("1", True, True, None) == (after["environment"], after["fastest"], after["independent"], after["plain"])
    assert "its matrices in q4_K, q6_K are multiplied by tiles in this process" in after["obstacle"]
    assert "GGML_CPU_TILED_MM=0" in after["obstacle"]


def test_no_tiles_once_are_none_for_good() -> None:
    """After a model without tiles there are none at the fastest either, whatever that model's types."""
    _, after = fresh(
        TOLD
        + "fix_for_process(schedule_independent(plain, Hardware())); fix_for_process(fastest(k, Hardware()));"
        + "told.append(state())"
    )
    expected = {"environment": "0", "fastest": False, "independent": False, "obstacle": None, "plain": None}
    assert expected == after


def test_the_environment_may_forbid_tiles() -> None:
    """With the variable at 0 there are none at the fastest, and so no obstacle after that."""
    before, after = fresh(TOLD + "fix_for_process(fastest(k, Hardware())); told.append(state())", tiles="0")
    assert (False, None) == (before["fastest"], before["obstacle"])
    assert (False, None) == (after["fastest"], after["obstacle"])


def test_what_llama_cpp_dies_of_is_never_chosen() -> None:
    """Where repacked weights end the process they are left out of every choice, of a recorded session's too."""
    machine = Hardware(repacks=False)
    chosen = [schedule_independent(SMOLLM2, machine), fastest(SMOLLM2, machine)]
    chosen.append(clamp_to_process(fastest(SMOLLM2, Hardware()), SMOLLM2, machine))
    assert [False] * 3 == [numerics.repack for numerics in chosen]
