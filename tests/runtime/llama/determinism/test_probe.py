"""The probe: what it compares, how long it takes, what is kept of it, and what it decides."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from attrs import evolve as changed

from reenact.actors.errors import EngineBroken, InvalidRequest
from reenact.actors.header import Numerics, Probed
from reenact.runtime import open_runtime, user_cache
from reenact.runtime.cli.default_model import installed_model
from reenact.runtime.engine.protocol import ContextSettings, Determinism
from reenact.runtime.llama.abort import AbortFlag
from reenact.runtime.llama.bindings import llama_cpp
from reenact.runtime.llama.build import engine_facts
from reenact.runtime.llama.context import Evaluator
from reenact.runtime.llama.determinism.numerics import Hardware, fastest, fix_for_process, schedule_independent
from reenact.runtime.llama.determinism.probe import (
    _CASES,
    BATCH,
    CASES,
    OnCase,
    keep_probe,
    kept_probe,
    probe,
    probe_key,
)
from reenact.runtime.llama.engine import LlamaEngine
from reenact.runtime.llama.loading import Basis, load_model
from reenact.runtime.llama.model_metadata import read_model_file
from tests.helpers.models.here import numerics_here
from tests.helpers.models.quantized import Quantization, quantized, requantized
from tests.helpers.models.tiny import LETTERS, tiny
from tests.helpers.subprocesses import fresh

pytestmark = pytest.mark.model

ONE_THREAD = [name for name in CASES if "one thread" in name]
SHALLOW = [name for name in CASES if "512" not in name]


def silent(_case: str, _fraction: float) -> None:
    """Be told nothing."""


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Let nothing be kept before the test."""
    path = tmp_path / "cache"
    monkeypatch.setenv(user_cache.FOLDER_NAME, str(path))
    return path


@contextmanager
def opened(path: Path, numerics: Numerics) -> Iterator[Any]:
    """Give what makes contexts of a model."""
    file = read_model_file(path, silent)
    fix_for_process(numerics)
    model = load_model(path, silent, repack=numerics.repack)
    basis = Basis(policy="schedule-independent", numerics=numerics)
    yield lambda settings: Evaluator(model, file, settings, basis, AbortFlag())
    llama_cpp.llama_model_free(model)


def probed(
    path: Path,
    *,
    numerics: Numerics | None = None,
    n_threads: int = 1,
    seconds: float | None = None,
    thorough: bool = True,
    on_case: OnCase = silent,
) -> dict[str, Probed]:
    """Return what a probe of a model finds, under the numerics for its types if no others are given."""
    with opened(path, numerics or numerics_here(path)) as make:
        return probe(make, 40, n_threads, seconds=seconds, thorough=thorough, on_case=on_case)


# ---------------------------------------------------------------- what it compares


@pytest.mark.long
@pytest.mark.parametrize("type_v", ["f16", "q8_0"])
def test_smollm2_does_not_depend_on_the_schedule(type_v: str) -> None:
    """Under the settings for its types every way to schedule gives the same bits, whichever type V has."""
    numerics = changed(numerics_here(installed_model()), type_v=type_v)
    assert dict.fromkeys(CASES, "same") == probed(installed_model(), n_threads=2, numerics=numerics)


@pytest.mark.long
def test_the_fastest_settings_depend_on_it() -> None:
    """The control: under llama.cpp's fastest settings the same probe finds other bits; it need not go on after them."""
    numerics = fastest(read_model_file(installed_model(), silent).matrix_types, Hardware())
    found = probed(installed_model(), numerics=numerics)
    differing = [case for case, outcome in found.items() if outcome == "differs"]
    assert {"same", "differs"} == set(found.values())
    first = probed(installed_model(), numerics=numerics, thorough=False)
    cases = list(found)
    assert {**found, **dict.fromkeys(cases[cases.index(differing[0]) + 1 :], "not tried")} == first


def test_one_thread_is_not_compared_with_itself() -> None:
    """Where one thread is asked for, the cases of one thread are left out."""
    told: list[str] = []
    found = probed(installed_model(), seconds=0, on_case=lambda case, _: told.append(case))
    assert [case for case in CASES if case not in ONE_THREAD] == list(found) == told


@pytest.mark.parametrize(("n_positions", "cases"), [(16, []), (64, SHALLOW[:-1]), (512, SHALLOW), (520, list(CASES))])
def test_no_more_cells_than_positions(tmp_path: Path, n_positions: int, cases: list[str]) -> None:
    """A model that looks positions up is probed as far as its table goes, beyond which llama.cpp ends the process."""
    path = tiny(tmp_path / "tiny.gguf", n_positions=n_positions)
    expected = {case: "same" for case in cases if case not in ONE_THREAD}
    assert expected == probed(path)


def test_what_cannot_be_evaluated_is_not_the_same(tmp_path: Path) -> None:
    """Where llama.cpp refuses a batch, here for tokens that are none, there are no bits to compare."""
    path = tiny(tmp_path / "tiny.gguf", n_positions=64)
    with opened(path, schedule_independent({"q8_0"}, Hardware())) as make:
        found = probe(make, 10**6, 1, seconds=None, thorough=True, on_case=silent)
    assert {"not tried"} == set(found.values())


@pytest.mark.parametrize(
    ("case", "first", "other"),
    [
        ("in chunks of 8", (1, 24), (3, 24)),
        ("beside 7 neighbours", (1, 24), (2 + 8, 24 + 7 * 10)),
        ("from a copied slot", (1, 24), (1 + 8, 24 + 8)),
        ("at 512 cells beside a neighbour", (2, 520), (8, 8 + 8)),
    ],
)
def test_what_a_way_takes_is_known_before(case: str, first: tuple[int, int], other: tuple[int, int]) -> None:
    """Its batches and rows count neighbours' rows and a source's, and not the cells that are there already."""
    assert (first, other) == tuple(way.size for way in _CASES[case])


# ---------------------------------------------------------------- how long it takes


def test_without_time_nothing_is_tried() -> None:
    """A limit of 0 seconds leaves every case as not tried, and no batch is evaluated."""
    evaluators: list[Evaluator] = []
    cells: list[int] = []
    with opened(installed_model(), schedule_independent({"q4_1", "q8_0"}, Hardware())) as make:

        def watched(settings: ContextSettings) -> Evaluator:
            evaluators.append(make(settings))
            return evaluators[-1]

        def look(_case: str, _fraction: float) -> None:
            cells.extend(evaluators[-1]._last(slot) for slot in range(evaluators[-1].facts.n_slots))

        found = probe(watched, 40, 2, seconds=0, thorough=True, on_case=look)
    assert (dict.fromkeys(CASES, "not tried"), {-1}) == (found, set(cells))


class Enough(Exception):
    pass


@pytest.mark.parametrize("at", ["reading", "loading", "in chunks of 8", "in chunks of 64"])
def test_what_is_raised_on_the_way_ends_it(cache: Path, tmp_path: Path, at: str) -> None:
    """The callback of progress can end it at any place: nothing of the probe is kept, and it can go again."""

    def told(doing: str, _: float) -> None:
        if doing == at:
            raise Enough

    path = tiny(tmp_path / "tiny.gguf", n_positions=128)
    engine = LlamaEngine(path, on_progress=told)
    with pytest.raises(Enough):
        engine.probe(1, seconds=None, on_case=told)
    assert not (cache / "probes").exists()
    assert {"same"} == set(LlamaEngine(path).probe(1, seconds=None, on_case=silent).probe.values())


@pytest.mark.parametrize("at", ["in chunks of 8", pytest.param("alone at 512 cells", marks=pytest.mark.long)])
def test_an_abort_ends_it(cache: Path, at: str) -> None:
    """An abort of its batches ends a probe with an error, whichever one is being computed, and nothing is kept."""
    engine = LlamaEngine(installed_model())

    def on_case(case: str, _: float) -> None:
        if case == at:
            engine.abort(BATCH)

    with pytest.raises(EngineBroken, match="the probe was aborted"):
        engine.probe(1, seconds=None, on_case=on_case)
    assert not (cache / "probes").exists()


# ---------------------------------------------------------------- what is kept

WHOLE: dict[str, Probed] = dict.fromkeys(CASES, "same")
PART: dict[str, Probed] = {**WHOLE, CASES[-1]: "not tried"}
DIFFERS: dict[str, Probed] = {**dict.fromkeys(CASES, "not tried"), CASES[0]: "same", CASES[1]: "differs"}


@pytest.mark.parametrize(
    ("found", "given", "counts"),
    [
        (WHOLE, 1, True),
        (WHOLE, None, True),
        (DIFFERS, 1, True),
        (PART, 1, False),
        (PART, 9.9, False),
        (PART, 10, True),
        (PART, 11, True),
        (PART, None, True),
    ],
)
def test_more_time_may_find_more(cache: Path, found: dict[str, Probed], given: float | None, counts: bool) -> None:
    """What was found counts, unless no difference is known and something was not tried in less time than there is."""
    assert found == keep_probe("key", found, given)
    assert (found if counts else None) == kept_probe("key", 10)


def test_what_is_not_tried_stays_known(cache: Path) -> None:
    """A probe of less time takes nothing away from a longer one, in whichever order they come."""
    keep_probe("key", PART, 5)
    nothing: dict[str, Probed] = dict.fromkeys(CASES, "not tried")
    assert PART == keep_probe("key", nothing, 0)
    assert (PART, None) == (kept_probe("key", 5), kept_probe("key", 6))
    assert WHOLE == keep_probe("key", WHOLE, None)
    assert WHOLE == keep_probe("key", nothing, 1)
    assert WHOLE == kept_probe("key", 10**6)


def test_what_is_tried_again_counts(cache: Path) -> None:
    """What a later probe compares is in place of what an earlier one found."""
    keep_probe("key", DIFFERS, None)
    assert WHOLE == keep_probe("key", WHOLE, 1)
    assert WHOLE == kept_probe("key", 10)


@pytest.mark.parametrize(
    "values",
    [
        {},
        {"probe": {}, "seconds": None},
        {"probe": None, "seconds": None},
        {"probe": WHOLE},
        {"probe": WHOLE, "seconds": "10"},
        {"probe": WHOLE, "seconds": True},
        {"probe": {**WHOLE, "another": "same"}, "seconds": None},
        {"probe": {**WHOLE, CASES[0]: "perhaps"}, "seconds": None},
        {"probe": {**WHOLE, CASES[0]: ["same"]}, "seconds": None},
    ],
)
def test_what_no_probe_wrote_is_not_known(cache: Path, values: dict[str, Any]) -> None:
    """What is kept is looked at before it is believed, and probed anew where it is not what a probe writes."""
    user_cache.write("probes", "key", values)
    assert kept_probe("key", 10) is None
    assert WHOLE == keep_probe("key", WHOLE, 10) == kept_probe("key", 10)


def test_another_model_machine_setting_or_thread_is_another_probe() -> None:
    """A verdict is kept by all that it depends on."""
    engine, numerics = engine_facts(), schedule_independent({"q8_0"}, Hardware())
    keys = {
        probe_key("a", engine, numerics, 2),
        probe_key("b", engine, numerics, 2),
        probe_key("a", changed(engine, cpu="another"), numerics, 2),
        probe_key("a", changed(engine, library_sha256="another"), numerics, 2),
        probe_key("a", engine, changed(numerics, repack=False), 2),
        probe_key("a", engine, numerics, 1),
    }
    assert 6 == len(keys)


# ---------------------------------------------------------------- what it decides


def loaded(path: Path, determinism: Determinism = "auto") -> tuple[Any, set[str]]:
    """Return what an engine says of itself once it is loaded, and what it did until then."""
    doings: set[str] = set()
    engine = LlamaEngine(path, on_progress=lambda doing, _: doings.add(doing))
    said = engine.load(ContextSettings(n_slots=1, n_ctx=64, n_batch=8, n_threads=1, determinism=determinism))
    engine.close()
    return said, doings


def test_a_model_is_probed_once(cache: Path, tmp_path: Path) -> None:
    """Opened for the first time it is probed, and after that not again; its digest is taken once too."""
    path = tiny(tmp_path / "tiny.gguf", n_positions=64)
    said, first = loaded(path)
    again, second = loaded(path)
    assert ({"reading", "trying", "loading", "probing"}, {"loading"}) == (first, second)
    assert said == again
    assert ("schedule-independent", "same") == (said.determinism.policy, said.determinism.verdict)


def test_a_probe_in_full_counts_when_the_model_is_opened(cache: Path, tmp_path: Path) -> None:
    """What `LlamaEngine.probe` finds is what is known at the next load."""
    path = tiny(tmp_path / "tiny.gguf", n_positions=64)
    findings = LlamaEngine(path).probe(1, seconds=None, on_case=silent)
    said, doings = loaded(path)
    assert {"loading"} == doings
    assert (findings.facts, findings.probe) == (said.determinism, said.determinism.probe)


@pytest.mark.parametrize("determinism", ["auto", "schedule-independent"])
async def test_a_difference_that_was_found_decides(cache: Path, determinism: Determinism) -> None:
    """Where other bits are known of the very model, build, machine and settings, only the recorded schedule is had."""
    file = read_model_file(installed_model(), silent)
    keep_probe(probe_key(file.sha256, engine_facts(), numerics_here(installed_model()), 1), DIFFERS, 1)
    opening = open_runtime(installed_model(), n_slots=1, n_ctx=64, n_batch=8, n_threads=1, determinism=determinism)
    if determinism == "auto":
        async with opening as runtime:
            facts = runtime.header.determinism
        assert ("recorded-schedule", "differs") == (facts.policy, facts.verdict)
        assert "a probe found other bits one by one" == facts.reason
    else:
        with pytest.raises(InvalidRequest, match="one by one"):
            await opening.__aenter__()


@pytest.mark.long
async def test_floats_have_the_recorded_schedule(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Lone rows of an F16 model have other bits: "auto" takes the recorded schedule, and by name it is refused."""
    monkeypatch.undo()
    path = quantized("F16")
    monkeypatch.setenv(user_cache.FOLDER_NAME, str(cache))
    findings = LlamaEngine(path).probe(1, seconds=None, on_case=silent)
    assert ("differs", "same") == (findings.probe["one by one"], findings.probe["in chunks of 8"])
    async with open_runtime(path, n_slots=1, n_ctx=64, n_batch=8, n_threads=1) as runtime:
        assert (findings.facts, "recorded-schedule") == (runtime.header.determinism, runtime.header.determinism.policy)
        assert findings.obstacle == runtime.header.determinism.reason
    with pytest.raises(InvalidRequest) as raised:
        async with open_runtime(path, n_slots=1, n_ctx=64, n_batch=8, determinism="schedule-independent"):
            pass
    assert "determinism" == raised.value.field


def made(model: str, name: Quantization, folder: Path) -> Path:
    """Return a model in another type of weights; a tiny one is as wide as K-quants want it."""
    if model == "tiny":
        # Of one layer: whether other rounding reaches the logits depends on the weights, and in these it does.
        pieces = [*LETTERS, *(f"word {i}" for i in range(200))]
        return requantized(tiny(folder / "tiny.gguf", n_positions=520, width=256, pieces=pieces), name)
    return quantized(name)


IN_FULL = """
from reenact.runtime.llama.engine import LlamaEngine

findings = LlamaEngine(arguments[0]).probe(1, seconds=None, on_case=lambda *_: None)
told = {"probe": findings.probe, "policy": findings.facts.policy, "repack": findings.numerics.repack}
"""


@pytest.mark.parametrize("model", ["tiny", pytest.param("SmolLM2", marks=pytest.mark.long)])
@pytest.mark.parametrize(("name", "repack"), [("Q4_K_M", False), ("Q6_K", True)])
def test_k_quants_do_not_depend_on_the_schedule(
    name: Quantization, model: str, tmp_path: Path, *, repack: bool
) -> None:
    """Without tiles, and Q4_K without repacked weights too, every way to schedule gives the same bits."""
    expected = {case: "same" for case in CASES if case not in ONE_THREAD}
    found = fresh(IN_FULL, made(model, name, tmp_path))
    assert {"probe": expected, "policy": "schedule-independent", "repack": repack} == found


OTHERWISE = """
from pathlib import Path

from attrs import evolve as changed

from reenact.runtime.llama.model_metadata import read_model_file
from reenact.runtime.llama.determinism.numerics import Hardware, schedule_independent
from tests.runtime.llama.determinism.test_probe import probed, silent

path, name = Path(arguments[0]), arguments[1]
numerics = changed(schedule_independent(read_model_file(path, silent).matrix_types, Hardware()), **{name: True})
told = probed(path, numerics=numerics, thorough=False)
"""


@pytest.mark.parametrize(
    ("model", "name", "setting"),
    [
        ("tiny", "Q4_K_M", "tiled"),
        ("tiny", "Q4_K_M", "repack"),
        *(
            pytest.param("SmolLM2", *one, marks=pytest.mark.long)
            for one in (("Q4_K_M", "tiled"), ("Q6_K", "tiled"), ("Q4_K_M", "repack"))
        ),
    ],
)
def test_k_quants_need_their_settings(model: str, name: Quantization, setting: str, tmp_path: Path) -> None:
    """The control: with tiles, or Q4_K with repacked weights, the same probe finds other bits."""
    assert "differs" in fresh(OTHERWISE, made(model, name, tmp_path), setting).values()


AFTER_ANOTHER = """
from reenact.runtime.engine.protocol import ContextSettings
from reenact.runtime.llama.engine import LlamaEngine


def load(path, determinism):
    engine = LlamaEngine(path)
    said = engine.load(ContextSettings(n_slots=1, n_ctx=64, n_batch=8, n_threads=1, determinism=determinism))
    engine.close()
    return said.determinism


load(arguments[0], "recorded-schedule")
facts = load(arguments[1], "auto")
findings = LlamaEngine(arguments[1]).probe(1, seconds=0, on_case=lambda *_: None)
told = [facts.policy, facts.reason, facts == findings.facts, findings.numerics.tiled]
"""


@pytest.mark.long
def test_tiles_that_another_model_wanted_are_told() -> None:
    """A model whose matrices are multiplied by tiles already has the recorded schedule, and a probe says by tiles."""
    policy, reason, same, tiled = fresh(AFTER_ANOTHER, quantized("Q4_K_M"), quantized("Q6_K"))
    assert ("recorded-schedule", True, True) == (policy, same, tiled)
    assert "its matrices in q6_K are multiplied by tiles in this process" in reason
