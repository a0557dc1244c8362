"""Which settings make results independent of the schedule, by what a model's file holds.

The rules (docs/llama-cpp.md section 2), each for one cause by which another schedule gives other bits:

* Attention: flash attention, and K quantised, so that neither the split of the KV range by thread nor the tiled kernel
  is ever taken: both want K and V of one type of floats. Which type V has is a matter of speed
  (`reenact.runtime.llama.determinism.cache_types`). A stream for each slot is set in `reenact.runtime.llama.loading`.
* Weights whose repacked kernels round otherwise by the number of rows: they are not repacked.
* Weights that are multiplied by tiles from 8 rows on: no tiles. llama.cpp asks that once a process, from the
  environment, so the first model decides for all.
* Matrices of floats, and of IQ4_NL: no setting helps, because a lone row is multiplied by another kernel.

What costs nothing for a file is left at the fastest. What llama.cpp dies of on this machine is never chosen
(`reenact.runtime.llama.determinism.trial`).
"""

import os
from collections.abc import Collection
from typing import Final

from attrs import define, frozen
from attrs import evolve as changed

from reenact.actors.header import Numerics

TILES_NAME: Final = "GGML_CPU_TILED_MM"
"""The environment variable by which ggml decides (ggml_tiled_matmul_enabled)."""

_TILED: Final = frozenset(
    # ggml_tiled_supported
    {"q2_K", "q3_K", "q4_K", "q5_K", "q6_K", "iq1_s", "iq1_m", "iq2_xxs", "iq2_xs", "iq2_s", "iq3_xxs", "iq3_s"}
    | {"iq4_xs"}
)
_REPACKED: Final = frozenset({"q2_K", "q4_K", "q5_K", "mxfp4"})
"""Types that are repacked on x86-64 (ggml_repack_get_optimal_repack_type), but for Q4_0: its kernels agree."""
_LONE: Final = frozenset({"f16", "bf16", "f32", "iq4_nl"})
"""Types of which a lone row is multiplied by another kernel (``reenact probe`` shows it)."""


@define
class _Process:
    """What holds for all models of this process."""

    tiled: bool | None = None
    """Whether it multiplies by tiles; None before the first model."""


_PROCESS: Final = _Process()


@frozen(kw_only=True)
class Hardware:
    """What a file can have, and what is fastest for it, on this machine and build."""

    repacks: bool = True
    """Whether llama.cpp computes with weights that are repacked, instead of ending the process."""
    type_v: str = "f16"
    """The type of V that is fastest beside K in q8_0."""


def independent(types: Collection[str], machine: Hardware) -> Numerics:
    """Return the fastest settings under which results do not depend on the schedule, as far as is known."""
    repack = machine.repacks and _REPACKED.isdisjoint(types)
    return Numerics(type_k="q8_0", type_v=machine.type_v, flash_attn="enabled", repack=repack, tiled=False)


def fastest(types: Collection[str], machine: Hardware) -> Numerics:
    """Return llama.cpp's fastest settings, as far as this process has them."""
    tiled = not _TILED.isdisjoint(types) and _PROCESS.tiled is not False and os.environ.get(TILES_NAME) != "0"
    return Numerics(type_k="f16", type_v="f16", flash_attn="auto", repack=machine.repacks, tiled=tiled)


def obstacle(types: Collection[str]) -> str | None:
    """Return why no settings make results independent of the schedule; None where nothing is known against it."""
    if lone := sorted(_LONE.intersection(types)):
        return f"a lone row is multiplied otherwise by its matrices in {', '.join(lone)}, whatever the settings"
    if not _allows(types, tiled=False):
        return (
            f"its matrices in {', '.join(sorted(_TILED.intersection(types)))} are multiplied by tiles in this process,"
            f" as a model before it wanted: open this one first, or set {TILES_NAME}=0 in the environment"
        )
    return None


def possible(numerics: Numerics, types: Collection[str], machine: Hardware) -> Numerics:
    """Return these settings as far as this process and machine can have them."""
    tiled = numerics.tiled if _allows(types, tiled=numerics.tiled) else not numerics.tiled
    return changed(numerics, tiled=tiled, repack=numerics.repack and machine.repacks)


def _allows(types: Collection[str], *, tiled: bool) -> bool:
    """Return whether this process can multiply by tiles, or without them, as far as it matters to these types."""
    return _TILED.isdisjoint(types) or _PROCESS.tiled in {None, tiled}


def settle(numerics: Numerics) -> None:
    """Let the whole process multiply by tiles or not, if no model did so before.

    ggml reads the environment at its first computation, whatever the model.
    """
    if _PROCESS.tiled is None:
        _PROCESS.tiled = numerics.tiled
        os.environ[TILES_NAME] = "1" if numerics.tiled else "0"
