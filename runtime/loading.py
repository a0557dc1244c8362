"""How a GGUF file becomes a context, and what the log's header says of both.

The rules that hold here:

* Where results may not depend on the schedule, the cache is so from the start (docs/llama-cpp.md section 2): a stream a
  slot, flash attention, and K and V of different types, so that neither the split of the KV range by thread nor the
  tiled kernel is ever taken. Where they may, K and V are both F16 and cells can be moved.
* A text that is pooled is never chunked, because it may attend to all of itself: an embedding model's batches and
  ubatches hold a whole context.
* A model that cannot give single cells back, or that wants an encoder first, is refused: what is asked of an engine
  rests on both.
"""

import ctypes
import hashlib
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final, Literal

from attrs import frozen

from reenact.actors.errors import EngineBroken, InvalidRequest
from reenact.actors.events import ContextFacts, ModelFacts
from reenact.runtime.engine import ContextSettings, padded
from reenact.runtime.library import bindings, complaint, forget_complaints, llama_cpp, text_of

OnProgress = Callable[[str, float], None]
"""Told what is being done and how much of it, from 0 to 1; called in the compute thread."""

_HASH_BLOCK: Final = 1 << 22

_MAX_UBATCH: Final = 512
"""llama.cpp's own default."""

_POOLINGS: Final = {
    bindings.LLAMA_POOLING_TYPE_NONE: "none",
    bindings.LLAMA_POOLING_TYPE_MEAN: "mean",
    bindings.LLAMA_POOLING_TYPE_CLS: "cls",
    bindings.LLAMA_POOLING_TYPE_LAST: "last",
    bindings.LLAMA_POOLING_TYPE_RANK: "rank",
}


def read_facts(path: Path, on_progress: OnProgress) -> tuple[int, str]:
    """Return the file's size and SHA-256.

    Raises:
        OSError: It cannot be read.
        InvalidRequest: It is not a GGUF file.
    """
    digest = hashlib.sha256()
    with path.open("rb") as file:
        size = os.fstat(file.fileno()).st_size
        block = file.read(_HASH_BLOCK)
        if not block.startswith(b"GGUF"):
            raise InvalidRequest("model", f"{path} is not a GGUF file")
        done = 0
        while block:
            digest.update(block)
            done += len(block)
            on_progress("reading", done / size)
            block = file.read(_HASH_BLOCK)
    return size, digest.hexdigest()


def load_model(path: Path, on_progress: OnProgress) -> Any:
    """Return the model, on the CPU; its owner frees it.

    Raises:
        EngineBroken: llama.cpp cannot load it.
    """

    def progress(fraction: float, _: object) -> bool:
        on_progress("loading", fraction)
        return True

    parameters = llama_cpp.llama_model_default_params()
    parameters.n_gpu_layers = 0
    parameters.progress_callback = callback = bindings.llama_progress_callback(progress)
    forget_complaints()
    model = llama_cpp.llama_model_load_from_file(os.fsencode(path), parameters)
    del callback  # Alive until here: llama.cpp called it.
    if model is None:
        raise EngineBroken(f"{path} cannot be loaded: {complaint()}")
    return model


def check_served(model: Any) -> None:
    """Refuse a model of a kind that this engine cannot serve.

    Raises:
        InvalidRequest: It is recurrent (``llama_memory_seq_rm`` takes all or nothing), or it has an encoder (without
            whose output ``llama_decode`` is not to be called).
    """
    if llama_cpp.llama_model_is_recurrent(model) or llama_cpp.llama_model_is_hybrid(model):
        raise InvalidRequest("model", "it is recurrent, and cells of such a model cannot be given back one by one")
    if llama_cpp.llama_model_has_encoder(model):
        raise InvalidRequest("model", "it has an encoder beside its decoder, which is not supported")


def model_facts(model: Any, path: Path, size: int, sha256: str) -> ModelFacts:
    """Return what the log's header says of the model."""
    description = ctypes.create_string_buffer(256)
    llama_cpp.llama_model_desc(model, description, len(description))
    name = os.fsencode(path.name).decode(errors="backslashreplace")
    return ModelFacts(name=name, size=size, sha256=sha256, description=text_of(description.value))


@frozen
class _Cache:
    """What decides how results depend on the schedule."""

    type_k: int
    type_v: int
    flash_attn: int
    names: tuple[str, str, str]
    """Of the three, for the log."""


_INDEPENDENT: Final = _Cache(
    bindings.GGML_TYPE_Q8_0,
    bindings.GGML_TYPE_F16,
    bindings.LLAMA_FLASH_ATTN_TYPE_ENABLED,
    ("q8_0", "f16", "enabled"),
)
_FASTEST: Final = _Cache(
    bindings.GGML_TYPE_F16, bindings.GGML_TYPE_F16, bindings.LLAMA_FLASH_ATTN_TYPE_AUTO, ("f16", "f16", "auto")
)


_SEVERAL_POSITIONS: Final = frozenset(
    {bindings.LLAMA_ROPE_TYPE_MROPE, bindings.LLAMA_ROPE_TYPE_IMROPE, bindings.LLAMA_ROPE_TYPE_VISION}
)
"""How models turn positions that want several for a row of numbers; llama_decode would read beyond the one it gets."""


def make_context(model: Any, settings: ContextSettings) -> tuple[Any, ContextFacts]:
    """Return a context, which its owner frees, and its parameters as read back.

    Raises:
        EngineBroken: llama.cpp cannot make it.
    """
    pools = _pools(model)
    independent = settings.determinism == "schedule-independent"
    # A text that is pooled is alone where nothing may change its vector, so its cache need not be independent too.
    cache = _INDEPENDENT if independent and not pools else _FASTEST
    n_batch = _whole_texts(settings) if pools else settings.n_batch
    parameters = llama_cpp.llama_context_default_params()
    parameters.n_ctx = settings.n_slots * padded(settings.n_ctx)
    parameters.n_batch = n_batch
    # More rows than n_ubatch abort the process in a model that attends both ways.
    parameters.n_ubatch = n_batch if pools else min(n_batch, _MAX_UBATCH)
    parameters.n_seq_max = settings.n_slots
    parameters.n_threads = parameters.n_threads_batch = settings.n_threads
    parameters.kv_unified = False
    parameters.type_k, parameters.type_v, parameters.flash_attn_type = cache.type_k, cache.type_v, cache.flash_attn
    parameters.offload_kqv = parameters.op_offload = False
    parameters.embeddings = pools
    if pools and _said_of(model, "pooling_type") in {"", "0"}:
        parameters.pooling_type = bindings.LLAMA_POOLING_TYPE_MEAN
    forget_complaints()
    context = llama_cpp.llama_init_from_model(model, parameters)
    if context is None:
        raise EngineBroken(f"no context of {settings.n_slots} x {settings.n_ctx} cells for it: {complaint()}")
    return context, _context_facts(model, context, settings, cache)


def _context_facts(model: Any, context: Any, settings: ContextSettings, cache: _Cache) -> ContextFacts:
    pools = _pools(model)
    takes_rows = not pools and llama_cpp.llama_model_rope_type(model) not in _SEVERAL_POSITIONS
    independent = settings.determinism == "schedule-independent"
    n_ctx, n_ctx_seq = settings.n_ctx, llama_cpp.llama_n_ctx_seq(context)
    if pools or llama_cpp.llama_model_rope_type(model) == bindings.LLAMA_ROPE_TYPE_NONE:
        # Positions may be looked up in a table as long as the trained context; ggml_get_rows aborts the process beyond.
        trained = llama_cpp.llama_model_n_ctx_train(model)
        n_ctx, n_ctx_seq = min(n_ctx, trained), min(n_ctx_seq, trained)
    type_k, type_v, flash_attn = cache.names
    return ContextFacts(
        n_slots=llama_cpp.llama_n_seq_max(context),
        n_ctx=n_ctx,
        n_ctx_seq=n_ctx_seq,
        n_batch=llama_cpp.llama_n_batch(context),
        n_ubatch=llama_cpp.llama_n_ubatch(context),
        n_threads=llama_cpp.llama_n_threads(context),
        type_k=type_k,
        type_v=type_v,
        flash_attn=flash_attn,
        kv_unified=False,
        shift=_shift(context, independent=independent or pools),
        n_embd=llama_cpp.llama_model_n_embd_inp(model) if takes_rows else 0,
        pooling=_POOLINGS[llama_cpp.llama_pooling_type(context)] if pools else "none",
        alone=pools and independent,
    )


def _whole_texts(settings: ContextSettings) -> int:
    """Return the rows of a batch that holds any text whole."""
    rows = max(settings.n_batch, padded(settings.n_ctx))
    # If n_seq_max does not divide n_ubatch, the process is aborted (llm_graph_context::build_pooling, in the reserve).
    return -(-rows // settings.n_slots) * settings.n_slots


def _shift(context: Any, *, independent: bool) -> Literal["move", "evaluate"]:
    """Return how room is made: cells that were moved are no function of their tokens, so only where that is allowed."""
    memory = llama_cpp.llama_get_memory(context)
    return "evaluate" if independent or not memory or not llama_cpp.llama_memory_can_shift(memory) else "move"


def _pools(model: Any) -> bool:
    """Return whether a model is for embeddings: it says how to pool, or that it attends both ways."""
    return _said_of(model, "pooling_type") not in {"", "0"} or _said_of(model, "attention.causal") == "false"


def _said_of(model: Any, name: str) -> str:
    """Return what the file says of the architecture's ``name``, or nothing."""
    architecture = _metadata(model, "general.architecture")
    return _metadata(model, f"{architecture}.{name}")


def _metadata(model: Any, key: str) -> str:
    value = ctypes.create_string_buffer(256)
    # Below 0 where there is no such key (llama_model_meta_val_str).
    found = llama_cpp.llama_model_meta_val_str(model, key.encode(), value, len(value))
    return text_of(value.value) if found >= 0 else ""
