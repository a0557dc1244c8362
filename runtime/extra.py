"""The extra "llama": what an error says where it is missing."""

from typing import Final

INSTALL: Final = "pip install '.[llama]'"
"""The line that installs it, in a checkout of reenact; no registry has reenact yet."""


def missing(error: ImportError) -> str:
    """Return what is missing, and the line that installs it."""
    return f"llama.cpp is not installed ({error}): {INSTALL} in a checkout of reenact compiles it"
