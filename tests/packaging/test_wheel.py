import subprocess
from importlib.metadata import version
from pathlib import Path

import trio
from trio.testing import MockClock

from tests.helpers.sessions import eventful_session

FOLDERS = ("actors", "replay", "runtime")
PROBE = "import importlib.util, sys; print(*(name for name in sys.argv[1:] if importlib.util.find_spec(name)))"


def test_wheel_holds_the_tree(root: Path, modules_of_wheel: list[str]) -> None:
    """The wheel holds every module and every py.typed of the three folders, as reenact.*, and nothing more."""
    tree = [
        f"reenact/{path.relative_to(root).as_posix()}"
        for folder in FOLDERS
        for path in (root / folder).rglob("*")
        if path.suffix == ".py" or path.name == "py.typed"
    ]
    assert sorted(tree) == modules_of_wheel


def test_every_package_is_typed(modules_of_wheel: list[str]) -> None:
    """Each of the three packages tells type checkers that it has types."""
    assert {f"reenact/{folder}/py.typed" for folder in FOLDERS} <= set(modules_of_wheel)


def test_replay_runs_in_an_empty_environment(empty_environment: Path, tmp_path: Path) -> None:
    """Installed alone, `replay` says its version."""
    done = subprocess.run(
        [empty_environment / "replay", "--version"], check=False, capture_output=True, text=True, cwd=tmp_path
    )
    assert (0, "") == (done.returncode, done.stderr)
    assert version("reenact") in done.stdout


def test_light_installation_has_no_llama_cpp(empty_environment: Path, tmp_path: Path) -> None:
    """Without the extra `llama`, reenact comes with trio, and with neither llama.cpp nor numpy nor pytest."""
    names = ["reenact.runtime", "trio", "llama_cpp", "numpy", "pytest"]
    done = subprocess.run(
        [empty_environment / "python", "-c", PROBE, *names], check=False, capture_output=True, text=True, cwd=tmp_path
    )
    assert (["reenact.runtime", "trio"], "") == (done.stdout.split(), done.stderr)


def test_light_installation_replays_a_log(empty_environment: Path, tmp_path: Path) -> None:
    """Without the extra `llama` a log is replayed, and neither trio nor llama.cpp is imported for it."""
    log = tmp_path / "session.jsonl"
    trio.run(eventful_session, log, clock=MockClock(autojump_threshold=0))
    command: list[str | Path] = [empty_environment / "python", "-X", "importtime", "-m", "reenact.replay", "run", log]
    done = subprocess.run(command, check=False, capture_output=True, text=True, cwd=tmp_path)
    imported = {line.rpartition("|")[2].strip().partition(".")[0] for line in done.stderr.splitlines()}
    assert (0, set()) == (done.returncode, imported & {"trio", "llama_cpp", "numpy", "structlog", "rich"})
    assert {"reenact", "cattrs"} <= imported
    assert done.stdout.startswith(f"same: {log}: ")
