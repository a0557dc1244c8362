"""Chooses the settings that make results independent of the schedule, by the types of a model's matrices.

The rules (docs/llama-cpp.md section 2), one for each cause of bits that differ between schedules:

* Attention: flash attention and a quantized K. Then llama.cpp never splits the KV range by threads and never takes the
  tiled kernel, because both need K and V of the same type of floats. The type of V is a matter of speed
  (`reenact.runtime.llama.determinism.cache_types`). `reenact.runtime.llama.loading` gives each slot its own stream.
* Weights whose repacked kernels round differently by the number of rows: they are not repacked.
* Weights that are multiplied by tiles from 8 rows on: no tiles. llama.cpp reads that setting from the environment once
  in a process, so the first model decides for all.
* Matrices of floats, and of IQ4_NL: no setting helps, because a lone row is multiplied by another kernel.

A setting that makes no difference to a file's results keeps its fastest value. A setting with which llama.cpp dies on
this machine is never chosen (`reenact.runtime.llama.determinism.trial`).
"""

import os
from collections.abc import Collection
from typing import Final

from attrs import define, frozen
from attrs import evolve as changed

from reenact.actors.header import Numerics

TILES_NAME: Final = "GGML_CPU_TILED_MM"
"""The environment variable that ggml reads for it (ggml_tiled_matmul_enabled)."""

_TILED: Final = frozenset(
    # ggml_tiled_supported
    {"q2_K", "q3_K", "q4_K", "q5_K", "q6_K", "iq1_s", "iq1_m", "iq2_xxs", "iq2_xs", "iq2_s", "iq3_xxs", "iq3_s"}
    | {"iq4_xs"}
)
_REPACKED: Final = frozenset({"q2_K", "q4_K", "q5_K", "mxfp4"})
"""Types that are repacked on x86-64 (ggml_repack_get_optimal_repack_type), except Q4_0, whose kernels agree."""
_LONE: Final = frozenset({"f16", "bf16", "f32", "iq4_nl"})
"""Types of matrices that multiply a lone row by another kernel (``reenact probe`` shows it)."""


@define
class _Process:
    """The setting that holds for all models of this process."""

    tiled: bool | None = None
    """Whether it multiplies by tiles; None before the first model."""


_PROCESS: Final = _Process()


@frozen(kw_only=True)
class Hardware:
    """The abilities of this machine and build for one file."""

    repacks: bool = True
    """Whether llama.cpp computes with repacked weights; if not, they would end the process."""
    type_v: str = "f16"
    """The type of V that is fastest with K in q8_0."""


def schedule_independent(types: Collection[str], machine: Hardware) -> Numerics:
    """Return the fastest settings under which results do not depend on the schedule, as far as this module knows."""
    repack = machine.repacks and _REPACKED.isdisjoint(types)
    return Numerics(type_k="q8_0", type_v=machine.type_v, flash_attn="enabled", repack=repack, tiled=False)


def fastest(types: Collection[str], machine: Hardware) -> Numerics:
    """Return llama.cpp's fastest settings, as far as this process can have them."""
    tiled = not _TILED.isdisjoint(types) and _PROCESS.tiled is not False and os.environ.get(TILES_NAME) != "0"
    return Numerics(type_k="f16", type_v="f16", flash_attn="auto", repack=machine.repacks, tiled=tiled)


def known_obstacle(types: Collection[str]) -> str | None:
    """Return the reason why no settings make results independent of the schedule; None if none is known."""
    if lone := sorted(_LONE.intersection(types)):
        return f"a lone row is multiplied differently by its matrices in {', '.join(lone)}, whatever the settings"
    if not _allows(types, tiled=False):
        return (
            f"its matrices in {', '.join(sorted(_TILED.intersection(types)))} are multiplied by tiles in this process,"
            f" because of a model opened before: open this one first, or set {TILES_NAME}=0 in the environment"
        )
    return None


def clamp_to_process(numerics: Numerics, types: Collection[str], machine: Hardware) -> Numerics:
    """Return these settings as far as this process and machine can have them."""
    tiled = numerics.tiled if _allows(types, tiled=numerics.tiled) else not numerics.tiled
    return changed(numerics, tiled=tiled, repack=numerics.repack and machine.repacks)


def _allows(types: Collection[str], *, tiled: bool) -> bool:
    """Return whether this process can multiply by tiles, or without; true if it does not matter to these types."""
    return _TILED.isdisjoint(types) or _PROCESS.tiled in {None, tiled}


def fix_for_process(numerics: Numerics) -> None:
    """Fix whether this process multiplies by tiles, unless an earlier model has fixed it.

    ggml reads the environment at its first computation, for all models.
    """
    if _PROCESS.tiled is None:
        _PROCESS.tiled = numerics.tiled
        os.environ[TILES_NAME] = "1" if numerics.tiled else "0"
