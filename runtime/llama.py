"""The engine that computes: llama.cpp, on the CPU.

The rules that hold here:

* llama.cpp aborts the process on some batches; `is_valid` looks first, and so do the few checks that only this engine
  can make.
* What a step depends on is in its plan and its drawings; what llama.cpp keeps beside the cells (a copy or a shift that
  it applies at the next decode) never outlives the step that would show it.
* Short calls go through a second handle on the library that keeps the GIL; decoding and loading must not.
"""

import ctypes
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from threading import Lock
from typing import Any, Final
from zlib import crc32

import numpy as np

from reenact.actors.errors import EngineBroken
from reenact.actors.events import BatchDecoded, BatchPlanned, EngineFacts, Part, Vector
from reenact.actors.options import Options
from reenact.runtime.abortflag import AbortFlag
from reenact.runtime.draws import Draws
from reenact.runtime.engine import ContextSettings, Drawing, Loaded, Message, Tokenized, code_before, is_valid, refused
from reenact.runtime.library import ShortCalls, bindings, listen, llama_cpp, text_of
from reenact.runtime.loading import OnProgress, check_served, load_model, make_context, model_facts, read_facts
from reenact.runtime.rows import Rows
from reenact.runtime.template import renderer

_DRAWS: Final = "splitmix64(seed, index, attempt)"


class LlamaEngine:
    """A GGUF model in llama.cpp, on the CPU.

    Args:
        path: The model's file.
        on_progress: Told how loading goes.
    """

    computes = True

    def __init__(self, path: str | os.PathLike[str], *, on_progress: OnProgress | None = None) -> None:
        self._path = Path(path)
        self._on_progress = on_progress or (lambda _doing, _fraction: None)
        self._model: Any = None
        self._context: Any = None
        self._draws: Draws | None = None
        self._abort_flag = AbortFlag()
        self._claim = Lock()
        """Held from loading to closing."""

    def load(self, settings: ContextSettings) -> Loaded:
        """Take the file's digest, load the weights, make the context."""
        if not self._claim.acquire(blocking=False):
            raise EngineBroken("the engine is loaded already: it serves one runtime at a time")
        try:
            return self._load(settings)
        except BaseException:
            self.close()
            raise

    def _load(self, settings: ContextSettings) -> Loaded:
        size, sha256 = read_facts(self._path, self._on_progress)
        listen()
        llama_cpp.llama_backend_init()
        self._model = load_model(self._path, self._on_progress)
        check_served(self._model)
        self._context, self.context_facts = make_context(self._model, settings)
        self._memory: Any = llama_cpp.llama_get_memory(self._context)  # None in a model that only encodes
        self._abort_flag.attach(self._context)
        self._shifted = False
        """Whether cells were shifted that llama.cpp has not moved yet."""
        self._rows = Rows(self.context_facts.n_batch, self.context_facts.n_embd)
        self._calls = ShortCalls()
        self._vocabulary = llama_cpp.llama_model_get_vocab(self._model)
        self._draws = Draws(self._vocabulary, self._context, self._calls, self.context_facts.n_ctx)
        self._render = renderer(self._model)
        return Loaded(
            engine=EngineFacts(
                name="llama.cpp",
                versions={"llama-cpp-python": llama_cpp.__version__, "llama.cpp": text_of(bindings.llama_version())},
                system_info=text_of(llama_cpp.llama_print_system_info()),
            ),
            model=model_facts(self._model, self._path, size, sha256),
            context=self.context_facts,
            policies={"cache": settings.determinism, "determinism": settings.determinism, "draws": _DRAWS},
        )

    def tokenize(self, text: str, *, special: bool) -> Tokenized:
        """Return the tokens of ``text`` (``llama_tokenize`` with special tokens parsed)."""
        self._loaded()
        raw = text.encode()
        room = len(raw) + 8
        tokens = (llama_cpp.llama_token * room)()
        count = llama_cpp.llama_tokenize(self._vocabulary, raw, len(raw), tokens, room, special, True)
        if count < 0:
            # The one failure llama_tokenize knows is too little room, and it tells how much it wants.
            tokens = (llama_cpp.llama_token * -count)()
            count = llama_cpp.llama_tokenize(self._vocabulary, raw, len(raw), tokens, -count, special, True)
        adds_bos = special and bool(llama_cpp.llama_vocab_get_add_bos(self._vocabulary))
        bos_added = adds_bos and count > 0 and tokens[0] == llama_cpp.llama_vocab_bos(self._vocabulary)
        return Tokenized(tokens=tuple(tokens[:count]), bos_added=bos_added)

    def compile(self, options: Options) -> str | None:
        """Return the grammar in force, once llama.cpp has compiled it."""
        return self._loaded().compile(options)

    def render(self, messages: Iterable[Message]) -> str:
        """Render the model's own template; BOS is left out where `tokenize` adds it."""
        self._loaded()
        return self._render(messages)

    def step(self, planned: BatchPlanned, drawings: Mapping[int, Drawing]) -> BatchDecoded:
        """Change the cells, decode, draw or pool."""
        draws = self._loaded()
        if not self._takes(planned):
            return refused(planned)
        self._arrange(planned)
        code = self._decode(planned)
        samples, vectors, row = [], [], -1
        for part in planned.parts if code == 0 else ():
            row += len(part.inputs)
            if part.pool:
                vectors.append(self._vector(part))
            elif part.draw is not None:
                samples.append(draws.draw(row, part, drawings[part.sequence]))
        if self._memory and self._pools:
            for part in planned.parts:
                self._calls.llama_memory_seq_rm(self._memory, part.slot, -1, -1)
        return BatchDecoded(
            batch=planned.batch,
            code=code,
            samples=tuple(samples),
            vectors=tuple(vectors),
            positions=tuple((part.slot, self._last(part.slot)) for part in planned.parts),
        )

    def abort(self, batch: int) -> None:
        """Raise the flag that llama.cpp's abort callback reads."""
        self._abort_flag.ask(batch)

    def close(self) -> None:
        """Free samplers, context and model, in this order."""
        if self._draws is not None:
            self._draws.close()
            self._draws = None
        if self._context is not None:
            llama_cpp.llama_free(self._context)
            self._context = None
        if self._model is not None:
            llama_cpp.llama_model_free(self._model)
            self._model = None
        if self._claim.locked():
            self._claim.release()

    def _loaded(self) -> Draws:
        """Refuse a call for which there is no context: llama.cpp would read freed memory."""
        if self._draws is None:
            raise EngineBroken("the engine is not loaded")
        return self._draws

    # ------------------------------------------------------------ one step

    @property
    def _pools(self) -> bool:
        return self.context_facts.pooling != "none"

    def _takes(self, planned: BatchPlanned) -> bool:
        """Return whether a batch may be handed to this model's context.

        Generating and pooling are two kinds of contexts; and a text that is not pooled whole gives a wrong vector.
        """
        return (
            is_valid(planned, self.context_facts)
            and self._rows.fits(planned)
            and all(part.pool == self._pools and not (part.pool and part.draw is not None) for part in planned.parts)
        )

    def _last(self, slot: int) -> int:
        """Return the last position in a slot's cells, -1 for none."""
        return self._calls.llama_memory_seq_pos_max(self._memory, slot) if self._memory else -1

    def _arrange(self, planned: BatchPlanned) -> None:
        """Copy, trim and shift cells.

        llama.cpp notes copies and shifts, and carries them out when it next decodes, copies first, which is the order
        of the plan. With a stream a slot it copies whole slots or aborts the process (llama_memory_seq_cp).
        """
        if not self._memory:
            return
        memory, calls = self._memory, self._calls
        for copy in planned.copies:
            if copy.source != copy.slot:
                calls.llama_memory_seq_rm(memory, copy.slot, -1, -1)
                calls.llama_memory_seq_cp(memory, copy.source, copy.slot, -1, -1)
        for trim in planned.trims:
            calls.llama_memory_seq_rm(memory, trim.slot, trim.length, -1)
        for shift in planned.shifts:
            behind = shift.keep + shift.discard
            calls.llama_memory_seq_rm(memory, shift.slot, shift.keep, behind)
            calls.llama_memory_seq_add(memory, shift.slot, behind, -1, -shift.discard)
            self._shifted = True

    def _decode(self, planned: BatchPlanned) -> int:
        """Hand the rows to llama_decode, which encodes where there is no memory, and return its code."""
        if not planned.parts:
            return 0
        lengths = [self._last(part.slot) + 1 for part in planned.parts]
        if code := code_before(planned, lengths, self.context_facts):
            return code
        # An abort while cells are moved would leave them half moved, to be moved once more (llama_kv_cache::update).
        self._abort_flag.arm(planned.batch, heeded=not self._shifted)
        code = int(llama_cpp.llama_decode(self._context, self._rows.fill(planned)))
        self._shifted = False
        return code

    def _vector(self, part: Part) -> Vector:
        """Return the vector that was pooled from a text, or from a ranking its scores."""
        ranks = self.context_facts.pooling == "rank"
        width = (llama_cpp.llama_model_n_cls_out if ranks else llama_cpp.llama_model_n_embd_out)(self._model)
        pointer = self._calls.llama_get_embeddings_seq(self._context, part.slot)
        raw = ctypes.string_at(pointer, width * ctypes.sizeof(ctypes.c_float))
        values = np.frombuffer(raw, np.float32)
        finite = bool(np.isfinite(values).all())
        return Vector(sequence=part.sequence, values=tuple(values.tolist()) if finite else (), crc32=crc32(raw))
