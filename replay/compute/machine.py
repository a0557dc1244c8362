"""Opens the model on which a log is executed again, with the header's settings, and lists what differs here.

The rules that hold here:

* The engine gets the parameters of the log's header, whatever this program would choose today.
* Everything that decides results must be equal: the model, the build, its compiler flags, the context. The rest (which
  CPU, which Python) is reported where results differ.
* This is the one module of `reenact.replay` that loads llama.cpp, and it does so only when a log is executed again.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Final, Self

from attrs import asdict, frozen

from reenact.actors import events as e
from reenact.actors.errors import LogNotComparable, ReenactError
from reenact.actors.limits import MAX_BATCH
from reenact.replay.render.values import plain
from reenact.runtime.extra import missing
from reenact.runtime.log.codec import flat

if TYPE_CHECKING:
    from reenact.actors.header import Numerics
    from reenact.runtime.engine.protocol import ContextSettings, Loaded
    from reenact.runtime.llama.engine import LlamaEngine
    from reenact.runtime.llama.matcher import Weights

OnProgress = Callable[[str, float], None]
"""A callback that receives the current activity and the fraction done, from 0 to 1."""

_IDENTITY: Final = frozenset({"model.name", "model.size", "model.description", "engine.cpu", "engine.library_sha256"})
"""Fields that need not be equal, because they do not decide results by themselves."""

_SIZES: Final = ("n_slots", "n_ctx", "n_ctx_seq", "n_batch")
"""Fields of the context without which a log's batches cannot be evaluated at all."""


@frozen
class MachineDifference:
    """A field of the header that is not the same here."""

    name: str
    recorded: Any
    here: Any
    decides: bool
    """Whether results may differ because of this field alone."""

    def __str__(self) -> str:
        return f"{self.name} is {_short(self.here)} here, and {_short(self.recorded)} in the log"


def _short(value: Any) -> str:  # noqa: ANN401  # a field of the header
    written = plain(f"{value}")
    return written if len(written) <= 40 else f"{written[:16]}…{written[-16:]}"  # noqa: PLR2004  # half a line


@frozen(kw_only=True)
class ModelHere:
    """An engine, opened for a log."""

    engine: "LlamaEngine"
    differences: tuple[MachineDifference, ...]
    loaded: "Loaded"
    """The engine's own report of the model and the context."""
    warnings: tuple[str, ...] = ()
    """The warnings that the engine gave while it was loaded."""
    _settings: "ContextSettings"

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.engine.close()

    @property
    def obstacles(self) -> list[MachineDifference]:
        """The differences because of which results cannot be compared."""
        return [difference for difference in self.differences if difference.decides]

    def renew(self) -> None:
        """Give the engine a new context, with empty cells."""
        self.engine.close()
        self.engine.load(self._settings)


@contextmanager
def needs_llama() -> Iterator[None]:
    """Raise an error that names the package to install if the extra that computes is missing.

    Raises:
        LogNotComparable: The extra is missing.
    """
    try:
        yield
    except ImportError as error:
        raise LogNotComparable(missing(error)) from None


@needs_llama()
def open_machine(
    header: e.SessionOpened,
    model: Path,
    on_progress: OnProgress | None = None,
    *,
    numerics: "Numerics | None" = None,
    n_threads: int | None = None,
    n_ubatch: int | None = None,
) -> ModelHere:
    """Open a model with the settings of a log's header; the result's block closes the engine, or else the caller does.

    Args:
        header: The log's first record.
        model: The model's file.
        on_progress: A callback for the progress of loading.
        numerics: Numerics in place of the log's.
        n_threads: A number of threads in place of the log's.
        n_ubatch: A size of micro-batches in place of the log's.

    Raises:
        OSError, ReenactError: The model cannot be opened; LogNotComparable if llama.cpp is not installed.
    """
    from reenact.runtime.engine.protocol import ContextSettings
    from reenact.runtime.llama.engine import LlamaEngine

    context = header.context
    settings = ContextSettings(
        n_slots=context.n_slots,
        n_ctx=context.n_ctx,
        n_batch=min(context.n_batch, MAX_BATCH),  # Where texts are pooled, the engine makes it larger again.
        n_ubatch=n_ubatch or context.n_ubatch,
        n_threads=n_threads or context.n_threads,
        determinism=header.determinism.policy,
        numerics=numerics or context.numerics,
    )
    warnings: list[str] = []
    engine = LlamaEngine(model, on_progress=on_progress, on_warning=warnings.append)
    loaded = engine.load(settings)
    return ModelHere(
        engine=engine,
        differences=tuple(_differences(header, loaded)),
        loaded=loaded,
        warnings=tuple(warnings),
        settings=settings,
    )


def numerics_of(model: Path, besides: "Numerics") -> list["Numerics"]:
    """Return the numerics that a session on this file could have had, except ``besides``."""
    from attrs import evolve as changed

    from reenact.runtime.llama.determinism.numerics import Hardware, fastest, schedule_independent
    from reenact.runtime.llama.model_metadata import read_model_file

    types = read_model_file(model, lambda _doing, _fraction: None).matrix_types
    # Logs come from other machines too, which may choose another type for V.
    kinds = [Hardware(type_v=kind) for kind in ("f16", "q8_0")]
    found = [*(schedule_independent(types, kind) for kind in kinds), fastest(types, kinds[0])]
    found += [changed(one, repack=not one.repack) for one in found]
    caches = [changed(besides, type_k=one.type_k, type_v=one.type_v, flash_attn=one.flash_attn) for one in found]
    return [one for one in dict.fromkeys([*caches, *found]) if one != besides]


def save_row(path: Path, logits: "Weights") -> None:
    """Write a row of logits as a NumPy array.

    Raises:
        OSError: The file cannot be written.
    """
    import numpy as np

    with path.open("wb") as file:
        np.save(file, logits)


def _differences(header: e.SessionOpened, loaded: "Loaded") -> Iterator[MachineDifference]:
    for group in ("model", "engine", "context"):
        recorded, here = (dict(flat(asdict(getattr(side, group)), f"{group}.")) for side in (header, loaded))
        for name in dict.fromkeys([*recorded, *here]):
            if recorded.get(name) != here.get(name):
                yield MachineDifference(name, recorded.get(name), here.get(name), name not in _IDENTITY)


def token_obstacles(differences: tuple[MachineDifference, ...]) -> list[MachineDifference]:
    """Return the differences that prevent even a comparison of tokens: another model, or other sizes of the context."""
    wanted = {"model.sha256", "engine.name", *(f"context.{name}" for name in _SIZES)}
    return [difference for difference in differences if difference.name in wanted]


@needs_llama()
def no_model_here(header: e.SessionOpened) -> str | None:
    """Return the reason why a log's model cannot be opened here, as far as that shows without opening it.

    Args:
        header: The log's first record.
    """
    try:
        with needs_llama():
            if find_spec("llama_cpp") is None:
                raise ModuleNotFoundError("No module named 'llama_cpp'")  # as an import does
        chosen_model(header, None)
    except ReenactError as error:
        return str(error)
    return None


def chosen_model(header: e.SessionOpened, written: Path | None) -> Path:
    """Return the file of a model given by its path or its name; by default that of the model that the log names.

    Raises:
        InvalidRequest: There is no such model.
        ModelNotFound: As for `recorded_model`.
    """
    from reenact.runtime.model_store import named_model, recorded_model

    return recorded_model(header.model) if written is None else named_model(written).path
