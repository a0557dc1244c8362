"""The engine that computes: llama.cpp, on the CPU.

Owns the model. `reenact.runtime.llama.determinism.policy` decides what is promised of its results; an `Evaluator` has
its cells and executes its batches.

The rule that holds here: engines of one process are loaded one at a time. Whether matrices are multiplied by tiles is
decided once for all of them, and a reason that llama.cpp logs must belong to the engine that is being loaded.
"""

import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from threading import Lock
from typing import Any, Final

from reenact.actors.batch import BatchDecoded, BatchPlanned
from reenact.actors.errors import EngineBroken
from reenact.actors.header import Numerics, Probed
from reenact.actors.inputs import Input
from reenact.actors.options import Options
from reenact.runtime.console import warn
from reenact.runtime.engine.protocol import ContextSettings, Drawing, Loaded, Message, Rendered, Tokenized
from reenact.runtime.engine.row_numbers import Numbers
from reenact.runtime.grammar.in_force import grammar_in_force
from reenact.runtime.llama.abort import AbortFlag
from reenact.runtime.llama.bindings import listen, llama_cpp
from reenact.runtime.llama.build import engine_facts
from reenact.runtime.llama.context import Evaluator, OnRow
from reenact.runtime.llama.determinism.cache_types import fastest_v
from reenact.runtime.llama.determinism.numerics import (
    Hardware,
    clamp_to_process,
    fix_for_process,
    known_obstacle,
    schedule_independent,
)
from reenact.runtime.llama.determinism.policy import Findings, promise
from reenact.runtime.llama.determinism.probe import SECONDS_AT_LOAD, OnCase, keep_probe, kept_probe, probe, probe_key
from reenact.runtime.llama.determinism.trial import OnWarning, Tried, repacks
from reenact.runtime.llama.loading import Basis, check_served, load_model, model_facts
from reenact.runtime.llama.model_metadata import ModelFile, OnProgress, read_model_file
from reenact.runtime.llama.sampler import Sampler
from reenact.runtime.llama.template import renderer
from reenact.runtime.llama.vocabulary import Vocabulary

_DRAWS: Final = "splitmix64(seed, index, attempt)"
_LOADING: Final = Lock()
"""Held while an engine of this process is being loaded."""


class LlamaEngine:
    """A GGUF model in llama.cpp, on the CPU.

    Args:
        path: The model's file.
        name: Its name in the log's header; the file's name if not given.
        on_progress: Called as loading goes on; an exception from it ends loading.
        on_warning: Called with a warning if llama.cpp turns out to die on this machine; structlog's by default.
    """

    computes = True
    batch_seconds = 0.0

    def __init__(
        self,
        path: str | os.PathLike[str],
        *,
        name: str | None = None,
        on_progress: OnProgress | None = None,
        on_warning: OnWarning = warn,
    ) -> None:
        self._path = Path(path)
        self._name = name
        self.chat_template = ""
        """The source of the model's chat template, once it is loaded."""
        self._on_progress = on_progress or (lambda _doing, _fraction: None)
        self._on_warning = on_warning
        self._model: Any = None
        self._repacked = False
        self._on_row: OnRow | None = None
        self._evaluator: Evaluator | None = None
        self._abort_flag = AbortFlag()
        self._claim = Lock()
        """Held from loading to closing."""

    def load(self, settings: ContextSettings) -> Loaded:
        """Take the file's digest, try the weights in a child process, load and probe them, make the context."""
        self._take()
        try:
            with _LOADING:
                return self._load(settings)
        except BaseException:
            self.close()
            raise

    def probe(self, n_threads: int, *, seconds: float | None, on_case: OnCase) -> Findings:
        """Compare all ways to schedule, keep the findings for later runs of the model, and close.

        An `abort` of the batch `reenact.runtime.llama.determinism.probe.BATCH` ends it.

        Args:
            n_threads: Threads that compute.
            seconds: How long it may take, without loading; None for as long as it takes.
            on_case: Called before each case; an exception from it ends the probe.

        Raises:
            OSError, InvalidRequest, EngineBroken: As `load`; EngineBroken also if it was aborted.
        """
        self._take()
        try:
            with _LOADING:
                return self._findings(n_threads, seconds=seconds, on_case=on_case)
        finally:
            self.close()

    def _take(self) -> None:
        if not self._claim.acquire(blocking=False):
            raise EngineBroken("the engine is loaded already: it serves one runtime at a time")

    def _load(self, settings: ContextSettings) -> Loaded:
        file = self._file()
        # A probe that finds nothing leads to the same tiles as one that finds something.
        machine = self._machine(file, settings.n_threads, promise(file, settings, Hardware(), lambda _: {}).numerics)
        promised = promise(file, settings, machine, lambda numerics: self._probed(file, settings.n_threads, numerics))
        self._have_model(file, promised.numerics)
        basis = Basis(policy=promised.facts.policy, numerics=promised.numerics)
        self._evaluator = Evaluator(self._model, file, settings, basis, self._abort_flag)
        self._evaluator.on_row = self._on_row
        self.context_facts = self._evaluator.facts
        self._vocabulary = Vocabulary(llama_cpp.llama_model_get_vocab(self._model))
        template = llama_cpp.llama_model_chat_template(self._model, None)
        self.chat_template = (template or b"").decode(errors="replace")
        self._render = renderer(template, self._vocabulary)
        return Loaded(
            engine=engine_facts(),
            model=model_facts(self._model, file, self._name),
            context=self.context_facts,
            determinism=promised.facts,
            policies={"draws": _DRAWS, "logits_hash": "crc32" if settings.logits_hash else "none"},
        )

    def tokenize(self, text: str | Rendered, *, after: Input | None = None) -> Tokenized:
        """Return the tokens of ``text`` (``llama_tokenize``)."""
        self._loaded()
        return self._vocabulary.tokenize(text, after=after)

    def compile(self, options: Options) -> str | None:
        """Return the grammar in force, and prepare the vocabulary for following it."""
        draws = self._loaded().draws
        grammar = grammar_in_force(options)
        if grammar is not None:
            _ = draws.texts  # Made now, so that no draw has to wait for it.
        return grammar

    def render(
        self, messages: Iterable[Message], tools: Sequence[dict[str, Any]] = (), *, think: bool | None = None
    ) -> Rendered:
        """Render the model's own template."""
        self._loaded()
        return self._render(messages, tools, think=think)

    def step(self, planned: BatchPlanned, drawings: Mapping[int, Drawing], numbers: Numbers) -> BatchDecoded:
        """Change the cells, decode, and draw or pool."""
        return self._loaded().step(planned, drawings, numbers)

    def watch(self, on_row: OnRow | None) -> None:
        """Pass each row of logits that a token is drawn from to ``on_row``, in later contexts too; None ends that."""
        self._on_row = on_row
        if self._evaluator is not None:
            self._evaluator.on_row = on_row

    @property
    def draws(self) -> Sampler:
        """The sampler of the rows of the last batch; valid only during a call of `watch`'s function."""
        return self._loaded().draws

    def abort(self, batch: int) -> None:
        """Raise the flag that llama.cpp's abort callback reads."""
        self._abort_flag.ask(batch)

    def close(self) -> None:
        """Free samplers, context and model, in this order."""
        if self._evaluator is not None:
            self._evaluator.close()
            self._evaluator = None
        self._drop_model()
        if self._claim.locked():
            self._claim.release()

    def _loaded(self) -> Evaluator:
        """Refuse a call for which there is no context: llama.cpp would read freed memory."""
        if self._evaluator is None:
            raise EngineBroken("the engine is not loaded")
        return self._evaluator

    # ------------------------------------------------------------ the model

    def _file(self) -> ModelFile:
        listen()
        llama_cpp.llama_backend_init()
        return read_model_file(self._path, self._on_progress)

    def _machine(self, file: ModelFile, n_threads: int, wished: Numerics) -> Hardware:
        """Return the findings about a file on this machine; a child process computes with the file first."""
        engine = engine_facts()
        tried = Tried(n_threads=n_threads, tiled=wished.tiled)
        repacked = repacks(file, engine, tried, self._on_progress, self._on_warning)
        return Hardware(repacks=repacked, type_v=fastest_v(file.head_size, engine))

    def _probed(self, file: ModelFile, n_threads: int, numerics: Numerics) -> dict[str, Probed]:
        """Return the findings of a probe, or of an earlier one."""
        key = probe_key(file.sha256, engine_facts(), numerics, n_threads)
        found = kept_probe(key, SECONDS_AT_LOAD)
        if found is not None:
            return found

        def on_case(_: str, fraction: float) -> None:
            self._on_progress("probing", fraction)

        found = self._probe(file, n_threads, numerics, seconds=SECONDS_AT_LOAD, thorough=False, on_case=on_case)
        return keep_probe(key, found, SECONDS_AT_LOAD)

    def _findings(self, n_threads: int, *, seconds: float | None, on_case: OnCase) -> Findings:
        file = self._file()
        types = file.matrix_types
        wished = clamp_to_process(schedule_independent(types, Hardware()), types, Hardware())
        machine = self._machine(file, n_threads, wished)
        numerics = clamp_to_process(schedule_independent(types, machine), types, machine)
        found: dict[str, Probed] = {}
        if not file.pools:
            found = self._probe(file, n_threads, numerics, seconds=seconds, thorough=True, on_case=on_case)
            found = keep_probe(probe_key(file.sha256, engine_facts(), numerics, n_threads), found, seconds)
        settings = ContextSettings(n_slots=1, n_ctx=1, n_batch=1, n_threads=n_threads)
        return Findings(
            file=file,
            engine=engine_facts(),
            n_threads=n_threads,
            numerics=numerics,
            probe=found,
            obstacle=None if file.pools else known_obstacle(file.matrix_types),
            facts=promise(file, settings, machine, lambda _: found).facts,
        )

    def _probe(
        self,
        file: ModelFile,
        n_threads: int,
        numerics: Numerics,
        *,
        seconds: float | None,
        thorough: bool,
        on_case: OnCase,
    ) -> dict[str, Probed]:
        self._have_model(file, numerics)
        basis = Basis(policy="schedule-independent", numerics=numerics)
        return probe(
            lambda settings: Evaluator(self._model, file, settings, basis, self._abort_flag),
            llama_cpp.llama_vocab_n_tokens(llama_cpp.llama_model_get_vocab(self._model)),
            n_threads,
            seconds=seconds,
            thorough=thorough,
            on_case=on_case,
        )

    def _have_model(self, file: ModelFile, numerics: Numerics) -> None:
        """Load the weights for these numerics, unless they are loaded for them already."""
        fix_for_process(numerics)
        if self._model is not None and self._repacked == numerics.repack:
            return
        self._drop_model()
        self._model = load_model(file.path, self._on_progress, repack=numerics.repack)
        self._repacked = numerics.repack
        check_served(self._model)

    def _drop_model(self) -> None:
        if self._model is not None:
            llama_cpp.llama_model_free(self._model)
            self._model = None
