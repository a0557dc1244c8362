"""A model's first batches, in a process of their own: what kills llama.cpp there does not kill the application.

The rules that hold here:

* The first time that a file is opened on a build and a machine, a child process loads it and decodes a row, eight rows
  and 64 rows. The verdict is kept, and costs nothing after that.
* The weights are repacked in the first child. Where it dies, a second one does without (``use_extra_bufts``), and where
  that one lives, nothing is repacked here from then on. Where both die the file is refused, and nothing is kept.
* What a child raises is raised here, so that a file on which llama.cpp fails is not opened a second time.
* A trial is a net, not a condition: where no child can be started, the application goes on without it.
"""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterable, Iterator
from importlib.metadata import version
from pathlib import Path
from tempfile import TemporaryFile
from typing import IO, Any, Final

import orjson
from attrs import asdict, frozen
from attrs import evolve as changed

from reenact.actors.errors import EngineBroken, InvalidRequest
from reenact.actors.header import EngineFacts
from reenact.runtime import kept
from reenact.runtime.modelfile import ModelFile, OnProgress

OnWarning = Callable[[str], None]
"""Told once what llama.cpp dies of here, and what is done about it."""

FLAGS: Final = "CMAKE_ARGS=\"-DCMAKE_CXX_FLAGS='-fno-dse -fno-tree-dse'\""
"""With these flags llama.cpp's AMX code is compiled rightly by gcc up to 12.3 (docs/llama-cpp.md section 7)."""

_KIND: Final = "trials"
_N_SLOTS, _N_ROWS, _N_CTX = 8, 64, 256
_START: Final = "import json, sys; asked = json.loads(sys.argv[1]); sys.path[:] = asked['sys_path'];"
_COMMAND: Final = f"{_START} from reenact.runtime.trial import main; main(asked)"


@frozen(kw_only=True)
class _Death:
    """How a child ended that was killed."""

    signal: str
    doing: str
    """What it was at."""
    said: str
    """The last that it wrote."""


def repacks(file: ModelFile, engine: EngineFacts, on_progress: OnProgress, on_warning: OnWarning) -> bool:
    """Return whether llama.cpp computes with the file's weights repacked.

    Raises:
        InvalidRequest, EngineBroken: As a child did; EngineBroken also where llama.cpp dies either way.
    """
    key = orjson.dumps({"sha256": file.sha256, "engine": asdict(engine)}, option=orjson.OPT_SORT_KEYS).decode()
    known = (kept.read(_KIND, key) or {}).get("repacks")
    if isinstance(known, bool):
        return known
    death = _tried(file.path, repack=True, on_progress=on_progress)
    if death is not None:
        other = _tried(file.path, repack=False, on_progress=on_progress)
        if other is not None:
            raise EngineBroken(_refusal(file.path, other, engine))
        on_warning(
            f"llama.cpp dies of {death.signal} when it {death.doing} {file.path.name} with repacked weights, so they"
            f" are not repacked, which is slower. {_cure()}"
        )
    kept.write(_KIND, key, {"repacks": death is None})
    return death is None


def _refusal(path: Path, death: _Death, engine: EngineFacts) -> str:
    said = f" ({death.said})" if death.said else ""
    died = f"llama.cpp dies of {death.signal}{said} when it {death.doing} {path}"
    if death.signal == "SIGKILL":
        return f"{died}; there may be too little memory for it"
    if death.doing != "decodes":
        return f"{died}: the file is damaged, or of a kind that this llama.cpp does not know"
    return f"{died}, with repacked weights and without. It was compiled for: {engine.system_info}. {_cure()}"


def _cure() -> str:
    """Return the line that compiles llama.cpp anew."""
    package = f"llama-cpp-python=={version('llama-cpp-python')}"
    return f"To compile it anew: {FLAGS} pip install --force-reinstall --no-deps --no-cache-dir {package}"


def _tried(path: Path, *, repack: bool, on_progress: OnProgress) -> _Death | None:
    """Let a child open a file and decode; return how it died, or None where it lived.

    Raises:
        InvalidRequest, EngineBroken: As the child did.
    """
    asked = {"sys_path": sys.path, "path": os.fsencode(path.resolve()).hex(), "repack": repack}
    doing, raised = "starts with", None
    with TemporaryFile() as errors:
        try:
            child = _started(asked, errors)
        except OSError:
            return None
        with child:
            try:
                for message in _messages(child.stdout or ()):
                    raised = message.get("raised", raised)
                    doing = message.get("doing", doing)
                    on_progress("trying", message.get("fraction", 0.0))
            except BaseException:
                child.kill()
                raise
        errors.seek(0)
        said = errors.read()[-4096:].decode(errors="replace").split("\n")
    if raised is not None:
        raise InvalidRequest(**raised) if "field" in raised else EngineBroken(raised["reason"])
    if child.returncode >= 0:
        return None
    return _Death(signal=_name(-child.returncode), doing=doing, said=_last(said))


def _started(asked: dict[str, Any], errors: IO[bytes]) -> "subprocess.Popen[bytes]":
    """Start a child, in a session of its own: Ctrl-C is for the application.

    Raises:
        OSError: There is no Python to start, or no process to be had.
    """
    if not sys.executable or getattr(sys, "frozen", False):
        raise OSError
    command = (sys.executable, "-c", _COMMAND, json.dumps(asked))
    return subprocess.Popen(  # noqa: S603  # this very Python
        command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=errors, start_new_session=True
    )


def _name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"


def _messages(lines: Iterable[bytes]) -> Iterator[dict[str, Any]]:
    for line in lines:
        try:
            message = orjson.loads(line)
        except ValueError:
            continue  # Half a line of a child that died, or what a library prints.
        if isinstance(message, dict):
            yield message


def _last(lines: list[str]) -> str:
    """Return the last line that says something."""
    return next((line.strip() for line in reversed(lines) if line.strip()), "")


def _show() -> int:
    """Try the installed build on the installed model, and print how it went; the exit code is 1 where it died."""
    from reenact.runtime.models import installed_model
    from reenact.runtime.terminal import print_block

    path = installed_model()
    death = _tried(path, repack=True, on_progress=lambda _doing, _fraction: None)
    verdict = "computes" if death is None else f"dies of {death.signal} when it {death.doing} {path.name}"
    print_block(f"llama.cpp {verdict}.\n")
    return 0 if death is None else 1


# ---------------------------------------------------------------- in the child


def main(asked: dict[str, Any]) -> None:
    """Open a file, decode, and print how it goes, a JSON object a line."""
    from contextlib import suppress

    with suppress(ImportError, OSError, ValueError):
        import resource

        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    try:
        _first_batches(Path(os.fsdecode(bytes.fromhex(asked["path"]))), repack=asked["repack"])
    except InvalidRequest as error:
        _print(raised={"field": error.field, "reason": error.reason})
    except EngineBroken as error:
        _print(raised={"reason": str(error)})


def _print(**message: object) -> None:
    sys.stdout.buffer.write(orjson.dumps(message) + b"\n")
    sys.stdout.buffer.flush()


def _first_batches(path: Path, *, repack: bool) -> None:
    """Decode a row, then a row of each of eight sequences, then 64 rows of one."""
    from reenact.actors.events import BatchPlanned, Part, Trim
    from reenact.actors.options import Options
    from reenact.runtime.abortflag import AbortFlag
    from reenact.runtime.build import engine_facts
    from reenact.runtime.cachetypes import fastest_v
    from reenact.runtime.engine import ContextSettings, Drawing
    from reenact.runtime.evaluator import Evaluator
    from reenact.runtime.library import llama_cpp
    from reenact.runtime.loading import Basis, check_served, load_model
    from reenact.runtime.modelfile import read_model_file
    from reenact.runtime.numerics import Machine, independent, settle

    _print(doing="reads")
    llama_cpp.llama_backend_init()
    file = read_model_file(path, lambda _doing, _fraction: None)
    _print(doing="attends for")
    machine = Machine(repacks=repack, type_v=fastest_v(file.head_size, engine_facts()))
    numerics = changed(independent(file.matrix_types, machine), repack=repack)
    settle(numerics)
    _print(doing="loads")
    model = load_model(file.path, lambda _, fraction: _print(fraction=fraction), repack=repack)
    check_served(model)
    settings = ContextSettings(n_slots=_N_SLOTS, n_ctx=_N_CTX, n_batch=_N_ROWS, n_threads=2)
    basis = Basis(policy="schedule-independent", numerics=numerics)
    evaluator = Evaluator(model, file, settings, basis, AbortFlag())
    _print(doing="decodes", fraction=1.0)
    drawing = Drawing(options=Options(seed=0, temperature=0), grammar=None, prompt=(), sampled=())
    n_rows = min(_N_ROWS, evaluator.facts.n_ctx_seq)
    for n_parts, length in ((1, 1), (_N_SLOTS, 1), (1, n_rows)):
        parts = [
            Part(
                sequence=slot + 1,
                slot=slot,
                position=0,
                inputs=(0,) * length,
                draw=None if file.pools else 0,
                pool=file.pools,
            )
            for slot in range(n_parts)
        ]
        trims = tuple(Trim(slot=slot, length=0) for slot in range(_N_SLOTS))
        planned = BatchPlanned(batch=0, copies=(), trims=trims, shifts=(), parts=tuple(parts))
        evaluator.step(planned, {part.sequence: drawing for part in parts})


if __name__ == "__main__":
    sys.exit(_show())
