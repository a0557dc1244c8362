"""Measures which type of V cells is faster on this machine, for results that must not depend on the schedule.

The rules that hold here:

* K in q8_0 with V in f16 or in q8_0 rounds the same under any schedule (docs/llama-cpp.md section 2). The CPU decides
  which is faster: with AVX512-FP16, llama.cpp handles V in f16 of heads below 128 numbers in a scalar loop, which takes
  ten times as long; elsewhere f16 is faster.
* The times are measured with llama.cpp's own attention on made-up cells, once for each build, CPU and size of heads,
  and the result is kept. q8_0 is taken only if f16 takes far longer, so that a noisy machine decides like an idle one.
"""

import ctypes
from functools import cache
from time import perf_counter
from typing import Any, Final, Literal

import orjson
from attrs import asdict

from reenact.actors.header import EngineFacts
from reenact.runtime import user_cache
from reenact.runtime.llama.bindings import bind

TypeV = Literal["f16", "q8_0"]

_FAR_LONGER: Final = 1.5
_N_TRIES: Final = 5
_N_ROWS, _N_CELLS, _N_HEADS = 8, 256, 4
"""The size of the attention that is measured, like that of eight sequences that generate."""
_LARGEST: Final = 1024
"""The most numbers in a head: no model has more, and a damaged file may claim any count."""
_BLOCK: Final = 32
"""Numbers in a block of q8_0; a head must be a multiple of it."""
_GGML_TYPES: Final[dict[TypeV, int]] = {"f16": 1, "q8_0": 8}
_F32, _Q8_0 = 0, 8
"""ggml_type"""
_KIND: Final = "attention"


def fastest_v(head_size: int | None, engine: EngineFacts) -> TypeV:
    """Return the type of V that is fastest with K in q8_0.

    Args:
        head_size: The count of numbers in a head's V; None if the file does not have it.
        engine: The facts of the build and the machine.
    """
    if head_size is None or head_size % _BLOCK or head_size > _LARGEST:
        return "f16"
    key = _key(head_size, engine)
    known = (user_cache.read(_KIND, key) or {}).get("type_v")
    for kind in _GGML_TYPES:
        if kind == known:
            return kind
    seconds = {kind: _attention(kind, head_size) for kind in _GGML_TYPES}
    found: TypeV = "q8_0" if seconds["f16"] > _FAR_LONGER * seconds["q8_0"] else "f16"
    keep_v(found, head_size, engine)
    return found


def keep_v(type_v: TypeV, head_size: int, engine: EngineFacts) -> None:
    """Record this type as the fastest one."""
    user_cache.write(_KIND, _key(head_size, engine), {"type_v": type_v})


def _key(head_size: int, engine: EngineFacts) -> str:
    values = {"engine": asdict(engine), "head_size": head_size}
    return orjson.dumps(values, option=orjson.OPT_SORT_KEYS).decode()


class _Parameters(ctypes.Structure):
    """``ggml_init_params``."""

    _fields_ = (("mem_size", ctypes.c_size_t), ("mem_buffer", ctypes.c_void_p), ("no_alloc", ctypes.c_bool))


def _attention(kind: TypeV, head_size: int) -> float:
    """Return the seconds that one attention takes: the shortest of several tries."""
    ggml = _ggml()
    room = 8 * head_size * _N_HEADS * (_N_CELLS + 4 * _N_ROWS) + (1 << 22)
    context = ggml["ggml_init"](_Parameters(mem_size=room, mem_buffer=None, no_alloc=False))
    try:
        shapes = ((_F32, _N_ROWS), (_Q8_0, _N_CELLS), (_GGML_TYPES[kind], _N_CELLS))
        tensors = [ggml["ggml_new_tensor_4d"](context, of, head_size, n, _N_HEADS, 1) for of, n in shapes]
        for tensor in tensors:
            ctypes.memset(ggml["ggml_get_data"](tensor), 0, ggml["ggml_nbytes"](tensor))
        graph = ggml["ggml_new_graph"](context)
        ggml["ggml_build_forward_expand"](graph, ggml["ggml_flash_attn_ext"](context, *tensors, None, 1.0, 0.0, 0.0))
        taken = []
        for _ in range(_N_TRIES):
            started = perf_counter()
            ggml["ggml_graph_compute_with_ctx"](context, graph, 1)
            taken.append(perf_counter() - started)
        return min(taken)
    finally:
        ggml["ggml_free"](context)


@cache
def _ggml() -> dict[str, Any]:
    """Return ggml's calls that compute one attention."""
    pointer, number, real = ctypes.c_void_p, ctypes.c_int64, ctypes.c_float
    signatures: dict[str, tuple[Any, tuple[Any, ...]]] = {
        "ggml_init": (pointer, (_Parameters,)),
        "ggml_free": (None, (pointer,)),
        "ggml_new_tensor_4d": (pointer, (pointer, ctypes.c_int, number, number, number, number)),
        "ggml_get_data": (pointer, (pointer,)),
        "ggml_nbytes": (ctypes.c_size_t, (pointer,)),
        "ggml_flash_attn_ext": (pointer, (pointer, pointer, pointer, pointer, pointer, real, real, real)),
        "ggml_new_graph": (pointer, (pointer,)),
        "ggml_build_forward_expand": (None, (pointer, pointer)),
        "ggml_graph_compute_with_ctx": (ctypes.c_int, (pointer, pointer, ctypes.c_int)),
    }
    return bind(signatures)
