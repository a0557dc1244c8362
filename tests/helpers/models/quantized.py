"""Models in other types of weights, made by llama.cpp: SmolLM2 from the installed file, kept in the cache folder.

SmolLM2 is quantized for the second time, so its texts are worse than they could be; the kernels that multiply its
matrices are the same.
"""

import ctypes
import os
from pathlib import Path
from secrets import token_hex
from typing import Final, Literal

from reenact.runtime.cli.default_model import installed_model
from reenact.runtime.llama.bindings import listen, llama_cpp
from reenact.runtime.user_cache import folder

Quantization = Literal["Q4_0", "Q8_0", "Q6_K", "Q4_K_M", "F16"]

_FTYPES: Final[dict[Quantization, int]] = {"F16": 1, "Q4_0": 2, "Q8_0": 7, "Q4_K_M": 15, "Q6_K": 18}
"""llama_ftype"""


def quantized(name: Quantization) -> Path:
    """Return the file; it is made once, which takes 0.5 to 3 seconds."""
    source = installed_model()
    path = folder() / "models" / f"{source.name.split('.')[0]}.{name}.gguf"
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        # Another process may make it too: whoever is last wins, and nobody opens half of it.
        new = path.with_suffix(f".{token_hex(4)}")
        try:
            _quantize(source, new, _FTYPES[name])
            new.replace(path)
        finally:
            new.unlink(missing_ok=True)
    return path


def requantized(source: Path, name: Quantization) -> Path:
    """Return a model in another type of weights, written beside it."""
    path = source.with_suffix(f".{name}.gguf")
    _quantize(source, path, _FTYPES[name])
    return path


def _quantize(source: Path, path: Path, ftype: int) -> None:
    listen()
    parameters = llama_cpp.llama_model_quantize_default_params()
    parameters.ftype, parameters.allow_requantize = ftype, True
    code = llama_cpp.llama_model_quantize(os.fsencode(source), os.fsencode(path), ctypes.byref(parameters))
    assert 0 == code
