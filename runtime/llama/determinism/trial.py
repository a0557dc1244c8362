"""Tries a model's first batches in a child process, so that a crash of llama.cpp does not kill the application.

The rules that hold here:

* The first time that a file is opened on a build and a machine, with these threads and tiles, a child process loads it,
  tokenizes a character that it does not know, and decodes a row, eight rows and 64 rows, with either policy's cells.
  The verdict is kept, and from then on costs nothing.
* A trial has succeeded only if the child reports that it is done. Only the verdict of such a trial is kept.
* Repacked weights are blamed only if a signal of the CPU or of ``abort`` ends a child that lays out weights or decodes.
  A second child does without them (``use_extra_bufts``). If that one computes, the file is not repacked on this machine
  any more; if it dies too, the file is refused.
* An error that a child raises is raised here, so that a file on which llama.cpp fails is not opened a second time. If
  a child is killed from outside (for want of memory, say), opening the file fails with an error.
* If no child can be started, or Python fails in it, the verdict is unknown: a warning reports it, and the application
  goes on. An installation (``python -m reenact.runtime.llama.determinism.trial``) fails instead.
"""

import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable, Iterable, Iterator
from importlib.metadata import version
from pathlib import Path
from tempfile import TemporaryFile
from typing import IO, TYPE_CHECKING, Any, Final

import orjson
from attrs import asdict, frozen
from attrs import evolve as changed

from reenact.actors.errors import EngineBroken, InvalidRequest
from reenact.runtime import user_cache

if TYPE_CHECKING:  # The parent of a trial does not load llama.cpp.
    from reenact.actors.header import EngineFacts
    from reenact.runtime.llama.context import Evaluator
    from reenact.runtime.llama.model_metadata import ModelFile, OnProgress

OnWarning = Callable[[str], None]
"""Called once with the reason why llama.cpp dies here, and the consequence."""

FLAGS: Final = "CMAKE_ARGS=\"-DCMAKE_CXX_FLAGS='-fno-dse -fno-tree-dse'\""
"""With these flags gcc up to 12.3 compiles llama.cpp's AMX code correctly (docs/llama-cpp.md section 7)."""

COMPUTES, DIES, NOT_KNOWN = 0, 3, 4
"""Exit codes of ``python -m reenact.runtime.llama.determinism.trial``; Python itself ends with others if it fails."""

_KIND: Final = "trials"
_N_SLOTS, _N_ROWS, _N_CTX = 8, 64, 256
_CRASHES: Final = frozenset({"SIGSEGV", "SIGILL", "SIGBUS", "SIGFPE", "SIGABRT"})
"""Signals that a process causes itself; others come from outside."""
_LAYS_OUT, _DECODES = "lays out the weights of", "decodes"
_COMPUTING: Final = frozenset({_LAYS_OUT, _DECODES})
"""The stages at which repacked weights can be the cause of a child's end."""
_START: Final = "import json, sys; asked = json.loads(sys.argv[1]); sys.path[:] = asked['sys_path'];"
_COMMAND: Final = f"{_START} from reenact.runtime.llama.determinism.trial import main; main(asked)"
_FOLDERS: Final = re.compile(r"\S*/(?=[^/\s]+:\d+: )")
"""The folders of the source file that an assertion names, which are those of the machine that compiled it."""


@frozen(kw_only=True)
class Tried:
    """The settings of a session that decide which of llama.cpp's code runs."""

    n_threads: int
    tiled: bool
    """Whether matrices are multiplied by tiles, which holds for a whole process."""


@frozen(kw_only=True)
class _End:
    """The end of a child that did not report that it was done."""

    how: str
    """The cause: a signal's name, or words."""
    doing: str = "starts with"
    """Its stage, as a verb."""
    reason: str = ""
    """The reason that it wrote to standard error."""

    @property
    def crashed(self) -> bool:
        """Whether llama.cpp crashed."""
        return self.how in _CRASHES

    @property
    def killed(self) -> bool:
        """Whether a signal came from outside."""
        return self.how.startswith("SIG") and not self.crashed

    def describe(self, name: object) -> str:
        """Return a clause about a file."""
        reason = f" ({self.reason})" if self.reason else ""
        if self.crashed:
            return f"llama.cpp dies of {self.how}{reason} when it {self.doing} {name}"
        return f"the process that {self.doing} {name} {'was ended by ' if self.killed else ''}{self.how}{reason}"


def repacks(
    file: "ModelFile", engine: "EngineFacts", tried: Tried, on_progress: "OnProgress", on_warning: OnWarning
) -> bool:
    """Return whether llama.cpp computes with the file's weights repacked; if that is unknown, whether it may try.

    Raises:
        InvalidRequest, EngineBroken: As in a child; EngineBroken also if llama.cpp dies either way, or is killed.
    """
    facts = {"sha256": file.sha256, "engine": asdict(engine), "tried": asdict(tried)}
    key = orjson.dumps(facts, option=orjson.OPT_SORT_KEYS).decode()
    known = (user_cache.read(_KIND, key) or {}).get("repacks")
    if isinstance(known, bool):
        return known
    repacked = True
    end = first = _tried(file.path, tried, repack=repacked, on_progress=on_progress)
    if first is not None and first.crashed and first.doing in _COMPUTING:
        repacked = False
        end = _tried(file.path, tried, repack=repacked, on_progress=on_progress)
    if end is not None and (end.crashed or end.killed):
        raise EngineBroken(_refusal(file.path, end, engine))
    if end is not None:
        on_warning(f"whether llama.cpp computes with {file.path.name} is not known: {end.describe('it')}")
    elif first is not None:
        died = changed(first, reason="").describe(file.path.name)
        on_warning(f"{died} with repacked weights, so they are not repacked, which is slower. {_cure()}")
    if end is None:
        user_cache.write(_KIND, key, {"repacks": repacked})
    return repacked


def _refusal(path: Path, end: _End, engine: "EngineFacts") -> str:
    died = end.describe(path)
    if end.killed:
        memory = "; there may be too little memory for it" if end.how == "SIGKILL" else ""
        return f"{died}{memory}: so the trial has no result; open the file again"
    if end.doing not in _COMPUTING:
        return f"{died}: the file is damaged, or of a kind that this llama.cpp does not know"
    return f"{died}, with repacked weights and without. It was compiled for: {engine.system_info}. {_cure()}"


def _cure() -> str:
    """Return the command that compiles llama.cpp anew."""
    package = f"llama-cpp-python=={version('llama-cpp-python')}"
    return f"To compile it anew: {FLAGS} pip install --force-reinstall --no-deps --no-cache-dir {package}"


def _tried(path: Path, tried: Tried, *, repack: bool, on_progress: "OnProgress") -> _End | None:
    """Have a child open a file and decode; return its end, or None if it was done.

    Raises:
        InvalidRequest, EngineBroken: As in the child.
    """
    asked = {"path": os.fsencode(path.resolve()).hex(), "tried": asdict(tried), "repack": repack}
    reported: dict[str, Any] = {"doing": "starts with"}
    try:
        errors = TemporaryFile()  # noqa: SIM115  # an OSError below has other causes
    except OSError as error:
        return _not_started(error)
    with errors:
        try:
            child = _started(asked, errors)
        except OSError as error:
            return _not_started(error)
        with child:
            try:
                for message in _messages(child.stdout or ()):
                    reported |= message
                    on_progress("trying", reported.get("fraction", 0.0))
            except BaseException:
                child.kill()
                raise
        errors.seek(0)
        lines = errors.read()[-4096:].decode(errors="replace").split("\n")
    if raised := reported.get("raised"):
        raise InvalidRequest(**raised) if "field" in raised else EngineBroken(raised["reason"])
    if reported.get("done"):
        return None
    return _End(how=_how(child.returncode), doing=reported["doing"], reason=_reason(lines))


def _started(asked: dict[str, Any], errors: IO[bytes]) -> "subprocess.Popen[bytes]":
    """Start a child, in a process session of its own, so that Ctrl-C reaches the application only.

    It imports from the same places as this process, and not from the current folder. The debugger that ggml would start
    when it aborts is turned off.

    Raises:
        OSError: There is no Python to start, or no process can be made.
    """
    if not sys.executable or getattr(sys, "frozen", False):
        raise OSError("there is no Python beside this program")
    asked = asked | {"sys_path": sys.path}
    command = (sys.executable, "-I" if sys.flags.isolated else "-P", "-c", _COMMAND, json.dumps(asked, default=str))
    return subprocess.Popen(  # noqa: S603  # this very Python
        command,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=errors,
        env=os.environ | {"GGML_NO_BACKTRACE": "1"},
        start_new_session=True,
    )


def _not_started(error: OSError) -> _End:
    return _End(how=f"cannot be started: {error}", doing="is to try")


def _how(code: int) -> str:
    """Return the meaning of an exit code."""
    if code >= 0:
        return f"ended with exit code {code}"
    try:
        return signal.Signals(-code).name
    except ValueError:
        return f"SIGNAL {-code}"


def _messages(lines: Iterable[bytes]) -> Iterator[dict[str, Any]]:
    for line in lines:
        try:
            message = orjson.loads(line)
        except ValueError:
            continue  # Half a line of a child that died, or what a library prints.
        if isinstance(message, dict):
            yield message


def _reason(lines: list[str]) -> str:
    """Return the last line that reports an assertion, or else the last one with text."""
    texts = [line.strip() for line in lines if line.strip()]
    asserted = [line for line in texts if "GGML_ASSERT" in line]
    return _FOLDERS.sub("", (asserted or texts or [""])[-1])


def _show() -> int:
    """Try the installed build on the installed model, print the verdict, and return its exit code."""
    from reenact.runtime.cli.default_model import installed_model
    from reenact.runtime.terminal import print_block

    path = installed_model()
    end = _tried(path, Tried(n_threads=2, tiled=False), repack=True, on_progress=lambda _doing, _fraction: None)
    if end is None:
        print_block("llama.cpp computes.\n")
        return COMPUTES
    if end.crashed:
        print_block(f"{end.describe(path.name)}.\n")
        return DIES
    print_block(f"Whether llama.cpp computes is not known: {end.describe(path.name)}.\n")
    return NOT_KNOWN


# ---------------------------------------------------------------- in the child


def main(asked: dict[str, Any]) -> None:
    """Open a file, decode, and print each stage as a JSON object on a line."""
    from contextlib import suppress

    with suppress(ImportError, OSError, ValueError):
        import resource

        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    try:
        _first_batches(Path(os.fsdecode(bytes.fromhex(asked["path"]))), Tried(**asked["tried"]), repack=asked["repack"])
        _print(done=True)
    except InvalidRequest as error:
        _print(raised={"field": error.field, "reason": error.reason})
    except EngineBroken as error:
        _print(raised={"reason": str(error)})


def _print(**message: object) -> None:
    sys.stdout.buffer.write(orjson.dumps(message) + b"\n")
    sys.stdout.buffer.flush()


def _first_batches(path: Path, tried: Tried, *, repack: bool) -> None:
    """Load a file, and decode with the cells of either policy."""
    from reenact.runtime.engine.protocol import ContextSettings
    from reenact.runtime.llama.abort import AbortFlag
    from reenact.runtime.llama.bindings import llama_cpp
    from reenact.runtime.llama.build import engine_facts
    from reenact.runtime.llama.context import Evaluator
    from reenact.runtime.llama.determinism.cache_types import fastest_v
    from reenact.runtime.llama.determinism.numerics import Hardware, fastest, fix_for_process, schedule_independent
    from reenact.runtime.llama.loading import Basis, check_served, load_model
    from reenact.runtime.llama.model_metadata import read_model_file
    from reenact.runtime.llama.vocabulary import UNKNOWN, Vocabulary

    _print(doing="reads")
    llama_cpp.llama_backend_init()
    file = read_model_file(path, lambda _doing, _fraction: None)
    _print(doing="attends for")
    machine = Hardware(type_v=fastest_v(file.head_size, engine_facts()))
    types = file.matrix_types
    choices = (schedule_independent(types, machine), fastest(types, machine))
    numerics = [changed(one, repack=repack, tiled=tried.tiled) for one in choices]
    fix_for_process(numerics[0])
    _print(doing="loads")
    model = load_model(file.path, lambda _, fraction: _print(doing=_LAYS_OUT, fraction=fraction), repack=repack)
    check_served(model)
    _print(doing="tokenizes with")
    Vocabulary(llama_cpp.llama_model_get_vocab(model)).tokenize(UNKNOWN)
    settings = ContextSettings(n_slots=_N_SLOTS, n_ctx=_N_CTX, n_batch=_N_ROWS, n_threads=tried.n_threads)
    refused: list[EngineBroken] = []
    for one in numerics:
        _print(doing="makes a context for")
        basis = Basis(policy="schedule-independent", numerics=one)
        try:
            evaluator = Evaluator(model, file, settings, basis, AbortFlag())
        except EngineBroken as error:
            refused.append(error)  # The session may use the other one.
            continue
        _print(doing=_DECODES, fraction=1.0)
        _decode(evaluator, pools=file.pools)
        evaluator.close()
    if len(refused) == len(numerics):
        raise refused[0]


def _decode(evaluator: "Evaluator", *, pools: bool) -> None:
    """Decode one row, then a row for each of eight sequences, then 64 rows of one sequence."""
    from reenact.actors.batch import BatchPlanned, Draw, Part, Pool, Trim
    from reenact.actors.options import Options
    from reenact.runtime.engine.protocol import Drawing
    from reenact.runtime.engine.row_numbers import NO_NUMBERS

    drawing = Drawing(options=Options(seed=0, temperature=0), grammar=None, prompt=(), sampled=())
    n_rows = min(_N_ROWS, evaluator.facts.n_ctx_seq)
    for n_parts, length in ((1, 1), (_N_SLOTS, 1), (1, n_rows)):
        parts = [
            Part(sequence=slot + 1, slot=slot, position=0, inputs=(0,) * length, wants=Pool() if pools else Draw(0))
            for slot in range(n_parts)
        ]
        trims = tuple(Trim(slot=slot, length=0) for slot in range(_N_SLOTS))
        planned = BatchPlanned(batch=0, copies=(), trims=trims, shifts=(), parts=tuple(parts))
        evaluator.step(planned, {part.sequence: drawing for part in parts}, NO_NUMBERS)


if __name__ == "__main__":
    sys.exit(_show())
