"""Loads a GGUF file, makes its context, and describes both for the log's header.

The rules that hold here:

* Under any policy, each slot has a stream of its own. `reenact.runtime.llama.determinism.numerics` decides how numbers
  are rounded; cells are moved only if results may depend on the schedule.
* A text that is pooled is never split into chunks, because each token may attend to all of it: batches and ubatches of
  an embedding model have room for a whole context.
* A model that cannot free single cells, or that needs an encoder first, is refused: the runtime relies on both.
"""

import ctypes
import os
from pathlib import Path
from typing import Any, Final, Literal

from attrs import frozen

from reenact.actors.errors import EngineBroken, InvalidRequest
from reenact.actors.header import ContextFacts, ModelFacts, Numerics, Policy
from reenact.runtime.engine.protocol import ContextSettings, padded
from reenact.runtime.llama.bindings import bindings, complaint, forget_complaints, llama_cpp, text_of
from reenact.runtime.llama.model_metadata import ModelFile, OnProgress
from reenact.runtime.regular import text_of_name

_MAX_UBATCH: Final = 512
"""llama.cpp's own default."""

_POOLINGS: Final = {
    bindings.LLAMA_POOLING_TYPE_NONE: "none",
    bindings.LLAMA_POOLING_TYPE_MEAN: "mean",
    bindings.LLAMA_POOLING_TYPE_CLS: "cls",
    bindings.LLAMA_POOLING_TYPE_LAST: "last",
    bindings.LLAMA_POOLING_TYPE_RANK: "rank",
}


@frozen(kw_only=True)
class Basis:
    """The policy and numerics that results rest on."""

    policy: Policy
    numerics: Numerics


def load_model(path: Path, on_progress: OnProgress, *, repack: bool) -> Any:
    """Return the model, loaded for the CPU; the caller must free it.

    Args:
        path: Its file.
        on_progress: Called as loading goes on; an exception from it ends loading and is raised here.
        repack: Rearrange the weights for faster kernels.

    Raises:
        EngineBroken: llama.cpp cannot load it.
    """
    raised: list[BaseException] = []

    def progress(fraction: float, _: object) -> bool:
        try:
            on_progress("loading", fraction)
        except BaseException as error:  # noqa: BLE001  # ctypes would print it and go on
            raised.append(error)
        return not raised

    parameters = llama_cpp.llama_model_default_params()
    parameters.n_gpu_layers = 0
    parameters.use_extra_bufts = repack
    parameters.progress_callback = callback = bindings.llama_progress_callback(progress)
    forget_complaints()
    model = llama_cpp.llama_model_load_from_file(os.fsencode(path), parameters)
    del callback  # It had to live until here: llama.cpp called it.
    if raised:
        if model is not None:
            llama_cpp.llama_model_free(model)
        raise raised[0]
    if model is None:
        raise EngineBroken(f"{path} cannot be loaded: {complaint()}")
    return model


def check_served(model: Any) -> None:
    """Refuse a model of a kind that this engine cannot serve.

    Raises:
        InvalidRequest: It is recurrent (``llama_memory_seq_rm`` removes all cells or none), or it has an encoder
            (``llama_decode`` must not be called without its output).
    """
    if llama_cpp.llama_model_is_recurrent(model) or llama_cpp.llama_model_is_hybrid(model):
        raise InvalidRequest("model", "it is recurrent, and such a model cannot free single cells")
    if llama_cpp.llama_model_has_encoder(model):
        raise InvalidRequest("model", "it has an encoder beside its decoder, which is not supported")


def model_facts(model: Any, file: ModelFile, name: str | None) -> ModelFacts:
    """Return the model's facts for the log's header, under this name or its file's."""
    description = ctypes.create_string_buffer(256)
    llama_cpp.llama_model_desc(model, description, len(description))
    name = name or text_of_name(file.path.name)
    return ModelFacts(name=name, size=file.size, sha256=file.sha256, description=text_of(description.value))


_TYPES: Final = {"q8_0": bindings.GGML_TYPE_Q8_0, "f16": bindings.GGML_TYPE_F16}
_FLASH_ATTN: Final = {
    "enabled": bindings.LLAMA_FLASH_ATTN_TYPE_ENABLED,
    "auto": bindings.LLAMA_FLASH_ATTN_TYPE_AUTO,
}

_IN_OTHER_FIELDS: Final = frozenset(
    {"n_ctx", "n_batch", "n_ubatch", "n_seq_max", "n_threads", "kv_unified", "type_k", "type_v", "flash_attn_type"}
    | {"pooling_type"}
)
"""Parameters that have fields of their own in `ContextFacts`."""

SEVERAL_POSITIONS: Final = frozenset(
    {bindings.LLAMA_ROPE_TYPE_MROPE, bindings.LLAMA_ROPE_TYPE_IMROPE, bindings.LLAMA_ROPE_TYPE_VISION}
)
"""Kinds of RoPE that need several positions for a row of numbers; llama_decode would read beyond the one it gets."""


def make_context(model: Any, file: ModelFile, settings: ContextSettings, basis: Basis) -> tuple[Any, ContextFacts]:
    """Return a context, which the caller must free, and its parameters as read back from it.

    Args:
        model: The model.
        file: Its file's metadata.
        settings: The settings asked for.
        basis: The policy and numerics chosen.

    Raises:
        EngineBroken: llama.cpp cannot make it.
    """
    n_batch = _whole_texts(settings) if file.pools else settings.n_batch
    numerics = basis.numerics
    parameters = llama_cpp.llama_context_default_params()
    parameters.n_ctx = settings.n_slots * padded(settings.n_ctx)
    parameters.n_batch = n_batch
    # A model that attends both ways aborts the process on a batch of more rows than n_ubatch.
    parameters.n_ubatch = settings.n_ubatch or (n_batch if file.pools else min(n_batch, _MAX_UBATCH))
    parameters.n_seq_max = settings.n_slots
    parameters.n_threads = parameters.n_threads_batch = settings.n_threads
    parameters.kv_unified = False
    parameters.type_k, parameters.type_v = (_known(_TYPES, kind) for kind in (numerics.type_k, numerics.type_v))
    parameters.flash_attn_type = _known(_FLASH_ATTN, numerics.flash_attn)
    parameters.offload_kqv = parameters.op_offload = False
    parameters.embeddings = file.pools
    if file.pools and not file.pooling_type:
        parameters.pooling_type = bindings.LLAMA_POOLING_TYPE_MEAN
    forget_complaints()
    context = llama_cpp.llama_init_from_model(model, parameters)
    if context is None:
        raise EngineBroken(f"no context of {settings.n_slots} x {settings.n_ctx} cells for it: {complaint()}")
    return context, _facts(model, context, file, settings, basis=basis, given=_given(parameters))


def _facts(
    model: Any, context: Any, file: ModelFile, settings: ContextSettings, *, basis: Basis, given: dict[str, str]
) -> ContextFacts:
    takes_rows = not file.pools and llama_cpp.llama_model_rope_type(model) not in SEVERAL_POSITIONS
    independent = basis.policy == "schedule-independent"
    n_ctx, n_ctx_seq = settings.n_ctx, llama_cpp.llama_n_ctx_seq(context)
    if file.pools or llama_cpp.llama_model_rope_type(model) == bindings.LLAMA_ROPE_TYPE_NONE:
        # Positions may be looked up in a table of the trained length; beyond it ggml_get_rows aborts.
        trained = llama_cpp.llama_model_n_ctx_train(model)
        n_ctx, n_ctx_seq = min(n_ctx, trained), min(n_ctx_seq, trained)
    return ContextFacts(
        n_slots=llama_cpp.llama_n_seq_max(context),
        n_ctx=n_ctx,
        n_ctx_seq=n_ctx_seq,
        n_batch=llama_cpp.llama_n_batch(context),
        n_ubatch=llama_cpp.llama_n_ubatch(context),
        n_threads=llama_cpp.llama_n_threads(context),
        numerics=basis.numerics,
        kv_unified=False,
        shift=_shift(context, independent=independent or file.pools),
        n_embd=llama_cpp.llama_model_n_embd_inp(model) if takes_rows else 0,
        pooling=_POOLINGS[llama_cpp.llama_pooling_type(context)] if file.pools else "none",
        alone=file.pools and independent,
        parameters=given,
    )


def _given(parameters: Any) -> dict[str, str]:
    """Return the other parameters of a context, by llama.cpp's names, without pointers."""
    plain = (bool, int, float)
    names = (name for name, *_ in parameters._fields_ if name not in _IN_OTHER_FIELDS)
    values = {name: getattr(parameters, name) for name in names}
    return {name: f"{value}" for name, value in values.items() if isinstance(value, plain)}


def _known(values: dict[str, int], name: str) -> int:
    """Return llama.cpp's value for a name in a header, which may contain any name."""
    if name not in values:
        raise EngineBroken(f"the numerics of a context can be {' or '.join(values)}, and not {name[:40]!r}")
    return values[name]


def _whole_texts(settings: ContextSettings) -> int:
    """Return the count of rows that a batch needs to hold any text whole."""
    rows = max(settings.n_batch, padded(settings.n_ctx))
    # llm_graph_context::build_pooling aborts the process, at the reserve, if n_seq_max does not divide n_ubatch.
    return -(-rows // settings.n_slots) * settings.n_slots


def _shift(context: Any, *, independent: bool) -> Literal["move", "evaluate"]:
    """Return how a full slot makes room: moved cells depend on more than their tokens, which must be allowed."""
    memory = llama_cpp.llama_get_memory(context)
    return "evaluate" if independent or not memory or not llama_cpp.llama_memory_can_shift(memory) else "move"
