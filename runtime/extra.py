"""Words the error for a missing extra "llama"."""

from typing import Final

INSTALL: Final = "pip install '.[llama]'"
"""The command that installs it, in a checkout of reenact; no registry has reenact yet."""


def missing(error: ImportError) -> str:
    """Return an error text with the command that installs the extra."""
    return f"llama.cpp is not installed ({error}): {INSTALL} in a checkout of reenact compiles it"
