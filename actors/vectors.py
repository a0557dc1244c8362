"""Embeddings: from what a model pools to what a caller gets.

The rules (docs/runner-semantics.md section 2, "Embeddings"): the first so many values, of Euclidean length 1; a vector
of zeros stays one.
"""

import math


def normalised(values: tuple[float, ...], dimensions: int | None) -> tuple[float, ...]:
    """Return the first ``dimensions`` values, or all, divided by their Euclidean length."""
    first = values[:dimensions]
    # hypot() is exact to the last bit or nearly so, and cannot overflow on the way.
    length = math.hypot(*first)
    return tuple(value / length for value in first) if length else first
