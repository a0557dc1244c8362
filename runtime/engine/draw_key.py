"""Computes the key of each draw: its randomness is a function of (seed, token index, attempt).

So a draw does not depend on the draws of other sequences, and it can be repeated alone.
"""

from typing import Final

_MASK: Final = 2**64 - 1
_FROM_SYSTEM: Final = 0xFFFFFFFF
"""llama.cpp's LLAMA_DEFAULT_SEED: with this key ``llama_sampler_init_dist`` draws from the operating system."""


def draw_key(seed: int, index: int, attempt: int = 0) -> int:
    """Return the 32-bit key of one draw.

    Neighbouring seeds and indices must not give related keys (``seed + index`` would make seed s + 1 the shifted stream
    of seed s), so the three are mixed with splitmix64's finalizer, one after the other.

    Args:
        seed: The sequence's seed.
        index: The token's index among the sequence's sampled tokens.
        attempt: The count of earlier draws of the same token.
    """
    key = 0
    for value in (seed, index, attempt):
        key = _splitmix64(key ^ value)
    key &= 0xFFFFFFFF
    return key if key != _FROM_SYSTEM else 0


def _splitmix64(value: int) -> int:
    value = (value + 0x9E3779B97F4A7C15) & _MASK
    value = ((value ^ (value >> 30)) * 0xBF58476D1CE4E5B9) & _MASK
    value = ((value ^ (value >> 27)) * 0x94D049BB133111EB) & _MASK
    return value ^ (value >> 31)
