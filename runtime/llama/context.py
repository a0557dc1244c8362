"""One context of llama.cpp: holds its cells and executes batches in it.

The rules that hold here:

* llama.cpp aborts the process on some batches. So `is_valid` checks each batch first, and this module adds the few
  checks that need the model.
* A step depends only on its plan and its drawings. What llama.cpp keeps beside the cells (a copy or a shift that it
  applies at the next decode) is carried out before any step that would notice.
* Short calls use a second handle on the library that keeps the GIL; decoding must not keep it.
"""

import ctypes
from collections.abc import Callable, Mapping
from typing import Any, Final
from zlib import crc32

import numpy as np

from reenact.actors.batch import BatchDecoded, BatchPlanned, Copy, Part, Sample, Vector
from reenact.actors.limits import PICKED_CELL
from reenact.runtime.engine.protocol import ContextSettings, Drawing, code_before, is_valid, refused
from reenact.runtime.engine.row_numbers import Numbers
from reenact.runtime.llama.abort import AbortFlag
from reenact.runtime.llama.batch import Rows
from reenact.runtime.llama.bindings import ShortCalls, llama_cpp
from reenact.runtime.llama.loading import SEVERAL_POSITIONS, Basis, make_context
from reenact.runtime.llama.matcher import Weights
from reenact.runtime.llama.model_metadata import ModelFile
from reenact.runtime.llama.sampler import Sampler

_BEYOND: Final = 2**30
"""A position that no cell has."""

OnRow = Callable[[int, Part, Weights, Sample], None]
"""Called with each row of logits that a token was drawn from, and its number in the batch; the row is valid until the
call returns."""


class Evaluator:
    """A context of a model.

    Args:
        model: The model, which must outlive it.
        file: Its file's metadata.
        settings: The settings asked for.
        basis: The policy and numerics that results rest on.
        abort_flag: The flag that ends a decode in progress.
    """

    def __init__(
        self, model: Any, file: ModelFile, settings: ContextSettings, basis: Basis, abort_flag: AbortFlag
    ) -> None:
        self._model = model
        self._context, self.facts = make_context(model, file, settings, basis)
        self._memory: Any = llama_cpp.llama_get_memory(self._context)  # None in a model that only encodes
        self._abort_flag = abort_flag
        self._abort_flag.attach(self._context)
        self._shifted = False
        """Whether llama.cpp has yet to carry out a shift."""
        self._copied = False
        """Whether llama.cpp has yet to carry out a copy of a whole slot."""
        # llama_kv_cache::state_write leaves out cells outside of a sliding window, which a trim can bring back into it.
        self._picks = llama_cpp.llama_model_n_swa(model) == 0
        """Whether the cells in use can be copied without the rest of the slot."""
        # llama_kv_cache::seq_add aborts the process where a token has several positions.
        self._mends_heads = llama_cpp.llama_model_rope_type(model) not in SEVERAL_POSITIONS
        """Whether the cells can be restored after a batch that was cut short; if not, no batch is aborted."""
        self._rows = Rows(self.facts.n_batch, self.facts.n_embd)
        self._calls = ShortCalls()
        vocabulary = llama_cpp.llama_model_get_vocab(model)
        self.draws = Sampler(vocabulary, self._context, self._calls, self.facts.n_ctx, logits_hash=settings.logits_hash)
        self.on_row: OnRow | None = None

    def step(self, planned: BatchPlanned, drawings: Mapping[int, Drawing], numbers: Numbers) -> BatchDecoded:
        """Change the cells, decode, and draw or pool."""
        if not self._accepts(planned, numbers):
            return refused(planned)
        self._move_cells(planned)
        code = self._decode(planned, numbers)
        samples, vectors, row = [], [], -1
        for part in planned.parts if code == 0 else ():
            row += len(part.inputs)
            if part.pools:
                vectors.append(self._vector(part))
            elif part.draw is not None:
                sample = self.draws.draw(row, part, drawings[part.sequence])
                samples.append(sample)
                if self.on_row is not None:
                    self.on_row(row, part, self.draws.logits(row), sample)
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

    def use_threads(self, n_threads: int) -> None:
        """Compute with this number of threads from now on."""
        llama_cpp.llama_set_n_threads(self._context, n_threads, n_threads)

    def close(self) -> None:
        """Free samplers and context, in this order."""
        self.draws.close()
        llama_cpp.llama_free(self._context)

    @property
    def _pools(self) -> bool:
        return self.facts.pooling != "none"

    def _accepts(self, planned: BatchPlanned, numbers: Numbers) -> bool:
        """Return whether a batch may be handed to this model's context.

        A context either generates or pools, and a text that is pooled in parts gives a wrong vector.
        """
        return (
            is_valid(planned, self.facts)
            and self._rows.accepts(planned, numbers)
            and all(part.pools == self._pools for part in planned.parts)
        )

    def _last(self, slot: int) -> int:
        """Return the last position in a slot's cells, or -1 if they are empty."""
        return self._calls.llama_memory_seq_pos_max(self._memory, slot) if self._memory else -1

    def _move_cells(self, planned: BatchPlanned) -> None:
        """Copy, trim and shift cells.

        llama.cpp notes shifts and copies of whole slots, and carries them out when it next decodes: copies first, as
        the plan does.
        """
        if not self._memory:
            return
        memory, calls = self._memory, self._calls
        for copy in planned.copies:
            if copy.source != copy.slot:
                calls.llama_memory_seq_rm(memory, copy.slot, -1, -1)
                self._copy(copy)
        for trim in planned.trims:
            calls.llama_memory_seq_rm(memory, trim.slot, trim.length, -1)
        for shift in planned.shifts:
            behind = shift.keep + shift.discard
            calls.llama_memory_seq_rm(memory, shift.slot, shift.keep, behind)
            calls.llama_memory_seq_add(memory, shift.slot, behind, -1, -shift.discard)
            self._shifted = True

    def _copy(self, copy: Copy) -> None:
        """Copy the cells in use, or the whole slot where that is faster, into an empty slot.

        Where each slot has a stream of its own, llama_memory_seq_cp copies whole slots (or aborts the process), and
        does so at the next decode. A copy that comes after such a copy must not be made before it.
        """
        n_cells = self._last(copy.source) + 1
        if self._copied or self._shifted or not self._picks or n_cells * PICKED_CELL >= self.facts.n_ctx_seq:
            self._calls.llama_memory_seq_cp(self._memory, copy.source, copy.slot, -1, -1)
            self._copied = True
        elif n_cells:
            size = llama_cpp.llama_state_seq_get_size(self._context, copy.source)
            cells = (ctypes.c_uint8 * size)()
            llama_cpp.llama_state_seq_get_data(self._context, cells, size, copy.source)
            llama_cpp.llama_state_seq_set_data(self._context, cells, size, copy.slot)

    def _decode(self, planned: BatchPlanned, numbers: Numbers) -> int:
        """Return llama_decode's code for the rows; it encodes them if the model has no memory."""
        if not planned.parts:
            return 0
        lengths = [self._last(part.slot) + 1 for part in planned.parts]
        if code := code_before(planned, lengths, self.facts):
            return code
        # An abort during a shift would leave some cells moved and then move them again (llama_kv_cache::update).
        self._abort_flag.arm(planned.batch, heeded=self._mends_heads and not self._shifted)
        code = int(llama_cpp.llama_decode(self._context, self._rows.fill(planned, numbers)))
        self._shifted = self._copied = False
        if code and self._memory and self._mends_heads:
            self._mend_heads(planned)
        return code

    def _mend_heads(self, planned: BatchPlanned) -> None:
        """Restart the search for free cells in each slot of a batch that was cut short.

        llama_kv_cache::prepare gives a stream the head of another one, and a slot whose rows were not evaluated keeps
        it. Its later rows would then take cells in another order, and attention rounds by that order. A move of no
        cells (llama_kv_cache::seq_add beyond the last position) resets the head.
        """
        for part in planned.parts:
            self._calls.llama_memory_seq_add(self._memory, part.slot, _BEYOND, -1, 1)

    def _vector(self, part: Part) -> Vector:
        """Return the vector that was pooled from a text, or the scores of a ranking model."""
        ranks = self.facts.pooling == "rank"
        width = (llama_cpp.llama_model_n_cls_out if ranks else llama_cpp.llama_model_n_embd_out)(self._model)
        pointer = self._calls.llama_get_embeddings_seq(self._context, part.slot)
        raw = ctypes.string_at(pointer, width * ctypes.sizeof(ctypes.c_float))
        values = np.frombuffer(raw, np.float32)
        finite = bool(np.isfinite(values).all())
        return Vector(sequence=part.sequence, values=tuple(values.tolist()) if finite else (), crc32=crc32(raw))
