"""The trial of a file in a child process: what dies there, what is done about it, and what is kept."""

import subprocess
import sys
from pathlib import Path
from typing import Any, Final

import pytest

from reenact.actors.errors import EngineBroken
from reenact.runtime import LlamaEngine, open_runtime, trial
from reenact.runtime.engine import ContextSettings
from reenact.runtime.kept import FOLDER_NAME
from tests.fresh import fresh
from tests.measure.fuzz_models import outcome_of
from tests.model.damaged import files
from tests.model.tiny import tiny
from tests.support import FRESH_SEED

pytestmark = pytest.mark.model

SETTINGS: Final = ContextSettings(n_slots=1, n_ctx=64, n_batch=8, n_threads=1)

STAND_IN: Final = """
import ctypes, os, signal, sys

import llama_cpp

repacked = [True]
load, decode = llama_cpp.llama_model_load_from_file, llama_cpp.llama_decode


def loads(path, parameters):
    repacked[0] = bool(parameters.use_extra_bufts)
    return load(path, parameters)


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
    """Let llama_decode die in every child, where a condition holds."""

    def install(condition: str, death: str = ABORTS) -> None:
        written = tmp_path / "standing in" / "sitecustomize.py"
        written.parent.mkdir(exist_ok=True)
        written.write_text(STAND_IN.format(condition=condition, death=death))
        monkeypatch.setenv("PYTHONPATH", str(written.parent))

    return install


def opened(model: Path) -> tuple[Any, list[str]]:
    """Open a file; return what the engine says of itself, and what it warned of."""
    warnings: list[str] = []
    engine = LlamaEngine(model, on_warning=warnings.append)
    try:
        return engine.load(SETTINGS), warnings
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


def test_a_death_without_a_verdict_is_not_kept(model: Path, stand_in: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Who was killed for want of memory may live the next time."""
    stand_in("True", "os.kill(os.getpid(), signal.SIGKILL)")
    with pytest.raises(EngineBroken, match=r"SIGKILL.*too little memory"):
        opened(model)
    monkeypatch.delenv("PYTHONPATH")
    assert opened(model)[0].context.numerics.repack


DIES: Final = 44
"""A seed of damage of which llama.cpp aborts the process (``make measure-fuzz_models`` prints more)."""


def test_a_damaged_file_is_an_error(tmp_path: Path) -> None:
    """A file of which llama.cpp aborts the process is refused, with the file's name and llama.cpp's last words."""
    for _, path in files(tmp_path, range(DIES, DIES + 1)):
        with pytest.raises(EngineBroken) as raised:
            opened(path)
        assert f") when it loads {path}: the file is damaged" in str(raised.value)


def test_no_damage_ends_the_process(tmp_path: Path) -> None:
    """Whatever is wrong in a file's head, it is opened or refused, by an error of ours, and this process lives on."""
    ends = [outcome_of(path) for seeds in (range(20), fresh_seeds(5)) for _, path in files(tmp_path, seeds)]
    assert 25 == len(ends)


def fresh_seeds(n: int) -> range:
    """Return seeds that no run had before; the header of the tests says how to have them again."""
    return range(FRESH_SEED % 2**32, FRESH_SEED % 2**32 + n)


def test_what_a_child_raises_is_raised_here(model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file on which llama.cpp fails is opened by the child alone, and the error is the child's."""
    raw = model.read_bytes()
    model.write_bytes(raw.replace(b"gpt2.block_count", b"gpt2.block_c_unt"))
    monkeypatch.setattr("reenact.runtime.llama.load_model", None)
    with pytest.raises(EngineBroken, match=r"key not found in model: gpt2\.block_count"):
        opened(model)


def test_without_a_child_it_goes_on(model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where no process can be started the file is opened all the same."""
    monkeypatch.setattr(sys, "executable", "")
    assert opened(model)[0].context.numerics.repack


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
    (told,) = fresh("import os; from reenact.runtime import library; told = [os.environ.get('GOMP_SPINCOUNT')]")
    assert told is None


def test_the_installed_build_is_shown_to_compute(stand_in: Any) -> None:
    """The command by which the Makefile asks exits with 0 where llama.cpp computes, and with 1 where it dies."""
    command = (sys.executable, "-m", "reenact.runtime.trial")
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (0, "llama.cpp computes.\n") == (done.returncode, done.stdout)
    stand_in("True")
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (1, True) == (done.returncode, done.stdout.startswith("llama.cpp dies of SIGABRT when it decodes"))
