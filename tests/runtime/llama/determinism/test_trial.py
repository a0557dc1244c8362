"""The trial of a file in a child process: what dies there, what is done about it, and what is kept."""

import subprocess
import sys
from pathlib import Path
from typing import Any, Final

import pytest
from attrs import evolve as changed

from reenact.actors.errors import EngineBroken
from reenact.runtime import LlamaEngine, open_runtime
from reenact.runtime.engine.protocol import ContextSettings
from reenact.runtime.llama.determinism import trial
from reenact.runtime.user_cache import FOLDER_NAME
from tests.helpers.models.damaged import files
from tests.helpers.models.tiny import tiny
from tests.helpers.properties import FRESH_SEED
from tests.helpers.subprocesses import fresh
from tests.measure.fuzz_models import outcome_of

pytestmark = pytest.mark.model

SETTINGS: Final = ContextSettings(n_slots=1, n_ctx=64, n_batch=8, n_threads=1)

STAND_IN: Final = """
import ctypes, os, signal, sys

import llama_cpp

repacked = [True]
load, decode = llama_cpp.llama_model_load_from_file, llama_cpp.llama_decode


def loads(path, parameters):
    repacked[0] = bool(parameters.use_extra_bufts)
    model = load(path, parameters)
    if {loaded}:
        {death}
    return model


def dies(context, batch):
    if {condition}:
        {death}
    return decode(context, batch)


llama_cpp.llama_model_load_from_file, llama_cpp.llama_decode = loads, dies
"""
"""Python runs it when it starts, so in the child and not here."""

ABORTS: Final = "ctypes.CDLL(None).abort()"


@pytest.fixture(autouse=True)
def nothing_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let nothing be known of any file."""
    monkeypatch.setenv(FOLDER_NAME, str(tmp_path / "cache"))


@pytest.fixture
def model(tmp_path: Path) -> Path:
    """Give a file."""
    return tiny(tmp_path / "tiny.gguf", n_positions=64)


@pytest.fixture
def stand_in(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Let llama_decode die in every child, where a condition holds, or loading at its end, where another one does."""

    def install(condition: str, death: str = ABORTS, loaded: str = "False") -> None:
        written = tmp_path / "standing in" / "sitecustomize.py"
        written.parent.mkdir(exist_ok=True)
        written.write_text(STAND_IN.format(condition=condition, death=death, loaded=loaded))
        monkeypatch.setenv("PYTHONPATH", str(written.parent))

    return install


@pytest.fixture
def children(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """Count the children: what was asked of each."""
    asked: list[dict[str, Any]] = []
    start = trial._started

    def started(what: dict[str, Any], errors: Any) -> Any:
        asked.append(what)
        return start(what, errors)

    monkeypatch.setattr(trial, "_started", started)
    return asked


def opened(model: Path, settings: ContextSettings = SETTINGS) -> tuple[Any, list[str]]:
    """Open a file; return what the engine says of itself, and what it warned of."""
    warnings: list[str] = []
    engine = LlamaEngine(model, on_warning=warnings.append)
    try:
        return engine.load(settings), warnings
    finally:
        engine.close()


def test_a_file_that_computes(model: Path) -> None:
    """Where the child lives nothing is said, and the weights are repacked as ever."""
    loaded, warnings = opened(model)
    assert (True, "a probe found no other bits", []) == (
        loaded.context.numerics.repack,
        loaded.determinism.reason,
        warnings,
    )


def test_what_dies_of_repacked_weights_does_without(model: Path, stand_in: Any) -> None:
    """Where a child dies of them and another lives without, they are left out, and the header says why."""
    stand_in("repacked[0]")
    loaded, (warning,) = opened(model)
    assert not loaded.context.numerics.repack
    assert loaded.determinism.reason.endswith(
        "; weights are not repacked, because llama.cpp dies of that on this machine"
    )
    assert warning.startswith("llama.cpp dies of SIGABRT when it decodes tiny.gguf with repacked weights")
    assert "-fno-dse -fno-tree-dse'\" pip install --force-reinstall --no-deps --no-cache-dir" in warning


def test_what_dies_while_it_repacks_does_without(model: Path, stand_in: Any) -> None:
    """Laying the weights out is repacking too: a file that dies of it is opened without."""
    stand_in("False", loaded="repacked[0]")
    loaded, (warning,) = opened(model)
    assert (False, True) == (
        loaded.context.numerics.repack,
        warning.startswith("llama.cpp dies of SIGABRT when it lays out the weights of tiny.gguf with repacked weights"),
    )


@pytest.mark.parametrize(
    ("death", "told"),
    [
        ("raise MemoryError", "exit code 1 (MemoryError)"),
        ("sys.exit(7)", "exit code 7"),
        ("os._exit(0)", "exit code 0"),
    ],
)
def test_who_does_not_say_that_it_is_done_has_not_computed(
    model: Path, stand_in: Any, children: list[dict[str, Any]], death: str, told: str
) -> None:
    """A child that ends otherwise shows nothing: that is told, the file is opened, and the next one tries again."""
    stand_in("True", death)
    loaded, (warning,) = opened(model)
    said = f"whether llama.cpp computes with tiny.gguf is not known: the process that decodes it ended with {told}"
    assert (True, said) == (loaded.context.numerics.repack, warning)
    opened(model)
    assert 2 == len(children)


def test_a_child_imports_nothing_from_the_folder_that_it_is_in(model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A module of the application's folder that has the name of Python's own is not run."""
    (model.parent / "json.py").write_text("raise SystemExit(7)")
    monkeypatch.chdir(model.parent)
    assert [] == opened(model)[1]


def test_other_settings_are_tried_anew(model: Path, children: list[dict[str, Any]]) -> None:
    """A verdict is about the number of threads too; of slots and cells it is not."""
    for settings in (SETTINGS, changed(SETTINGS, n_slots=2, n_ctx=128), changed(SETTINGS, n_threads=2)):
        opened(model, settings)
    assert [1, 2] == [asked["tried"]["n_threads"] for asked in children]


def test_it_is_told_once(model: Path, stand_in: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """What was found out is kept: the next one that opens the file starts no child, and warns of nothing."""
    stand_in("repacked[0]")
    opened(model)
    monkeypatch.setattr(trial, "_started", None)
    loaded, warnings = opened(model)
    assert (False, []) == (loaded.context.numerics.repack, warnings)


def test_what_always_dies_is_an_error(model: Path, stand_in: Any) -> None:
    """Where nothing lives the application does: the error names the signal, the build's flags and the cure."""
    stand_in("True", "os.kill(os.getpid(), signal.SIGSEGV)")
    with pytest.raises(EngineBroken) as raised:
        opened(model)
    assert f"llama.cpp dies of SIGSEGV when it decodes {model}, with repacked weights and without" in str(raised.value)
    assert "It was compiled for: CPU : " in str(raised.value)
    assert "To compile it anew: CMAKE_ARGS=" in str(raised.value)


@pytest.mark.parametrize(
    ("name", "told"),
    [("SIGKILL", r"ended by SIGKILL; there may be too little memory"), ("SIGTERM", "ended by SIGTERM")],
)
def test_repacking_is_not_blamed_for_a_signal_from_outside(
    model: Path, stand_in: Any, monkeypatch: pytest.MonkeyPatch, name: str, told: str
) -> None:
    """A child that was killed for want of memory while it repacked may live the next time."""
    stand_in("repacked[0]", f"os.kill(os.getpid(), signal.{name})")
    with pytest.raises(EngineBroken, match=told):
        opened(model)
    monkeypatch.delenv("PYTHONPATH")
    assert opened(model)[0].context.numerics.repack


DIES: Final = 526
"""A seed of damage of which llama.cpp aborts the process (``make measure-fuzz_models`` prints more)."""


def test_a_damaged_file_is_an_error(tmp_path: Path) -> None:
    """A file of which llama.cpp aborts the process is refused, with the file's name and llama.cpp's last words."""
    for _, path in files(tmp_path, range(DIES, DIES + 1)):
        with pytest.raises(EngineBroken) as raised:
            opened(path)
        assert f") when it loads {path}: the file is damaged" in str(raised.value)


def test_an_assertion_is_quoted_and_seen_once(model: Path, children: list[dict[str, Any]]) -> None:
    """The error has the assertion by which llama.cpp ends, no debugger's words, and no second child tries that file."""
    raw, key = model.read_bytes(), b"gpt2.block_count"
    at = raw.index(key) + len(key) + 4
    model.write_bytes(raw[:at] + bytes(4) + raw[at + 4 :])
    with pytest.raises(EngineBroken, match=r"of SIGABRT \(llama-model\.cpp:\d+: GGML_ASSERT\(.*\) failed\) when"):
        opened(model)
    assert 1 == len(children)


@pytest.mark.parametrize(("n_fixed", "n_fresh"), [(4, 1), pytest.param(20, 10, marks=pytest.mark.long)])
def test_no_damage_ends_the_process(tmp_path: Path, n_fixed: int, n_fresh: int) -> None:
    """Whatever is wrong in a file's head, it is opened or refused, by an error of ours, and this process lives on."""
    ends = [outcome_of(path) for seeds in (range(n_fixed), fresh_seeds(n_fresh)) for _, path in files(tmp_path, seeds)]
    assert n_fixed + n_fresh == len(ends)


def fresh_seeds(n: int) -> range:
    """Return seeds that no run had before; the header of the tests says how to have them again."""
    return range(FRESH_SEED % 2**32, FRESH_SEED % 2**32 + n)


def test_what_a_child_raises_is_raised_here(model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file on which llama.cpp fails is opened by the child alone, and the error is the child's."""
    raw = model.read_bytes()
    model.write_bytes(raw.replace(b"gpt2.block_count", b"gpt2.block_c_unt"))
    monkeypatch.setattr("reenact.runtime.llama.engine.load_model", None)
    with pytest.raises(EngineBroken, match=r"key not found in model: gpt2\.block_count"):
        opened(model)


def test_without_a_child_it_goes_on(model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where no process can be started that is told, and the file is opened all the same."""
    monkeypatch.setattr(sys, "executable", "")
    loaded, (warning,) = opened(model)
    assert (True, True) == (loaded.context.numerics.repack, "cannot be started: there is no Python" in warning)


def test_who_leaves_ends_the_child(model: Path, stand_in: Any) -> None:
    """What the callback for progress raises ends the child, and is raised."""
    stand_in("True", "__import__('threading').Event().wait()")

    def leave(doing: str, fraction: float) -> None:
        if (doing, fraction) == ("trying", 1.0):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        LlamaEngine(model, on_progress=leave).load(SETTINGS)


async def test_an_application_lives_on(model: Path, stand_in: Any) -> None:
    """A service that opens a file which kills llama.cpp gets an error, and can open another one."""
    stand_in("True")
    with pytest.raises(EngineBroken, match="SIGABRT"):
        async with open_runtime(model, n_ctx=64):
            pass


def test_the_environment_stays_as_it_was() -> None:
    """Threads of libgomp spin briefly by a variable that is set only while the library is loaded."""
    (told,) = fresh("import os; import reenact.runtime.llama.bindings; told = [os.environ.get('GOMP_SPINCOUNT')]")
    assert told is None


def test_the_installed_build_is_shown_to_compute(stand_in: Any) -> None:
    """The Makefile's question is answered by exit code 0 where llama.cpp computes, 3 where it dies, and 4 otherwise."""
    command = (sys.executable, "-m", "reenact.runtime.llama.determinism.trial")
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (0, "llama.cpp computes.\n") == (done.returncode, done.stdout)
    stand_in("True")
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (3, True) == (done.returncode, done.stdout.startswith("llama.cpp dies of SIGABRT when it decodes"))
    stand_in("True", "sys.exit(7)")
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (4, True) == (done.returncode, done.stdout.startswith("Whether llama.cpp computes is not known: "))


def test_who_asks_does_not_load_the_build() -> None:
    """A build that dies when it is loaded ends a child, and not the process that asks."""
    assert [] == fresh(
        "import sys, reenact.runtime.llama.determinism.trial; told = [n for n in sys.modules if 'llama_cpp' in n]"
    )
