"""Wraps the core in trio, llama.cpp and files, and exports the public names.

The names are loaded on first use, so that reading a log needs neither trio nor llama.cpp: `open_runtime` and its
results (`Runtime`, `Stream`, `Chunk`, `Completion`, `Logprob`, `Embedding`, `Statistics`), the engines (`Engine`,
`LlamaEngine`, `ScriptedEngine`), the errors, and `installed_model`, the model of the examples.
"""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from reenact.actors.batch import Likely
    from reenact.actors.errors import (
        EngineBroken,
        InternalError,
        InvalidRequest,
        LogBroken,
        Overloaded,
        ReenactError,
        SequenceFailed,
    )
    from reenact.actors.metrics import Distribution, Statistics, Times
    from reenact.runtime.api import open_runtime
    from reenact.runtime.cli.default_model import installed_model
    from reenact.runtime.engine.protocol import Engine
    from reenact.runtime.engine.scripted import ScriptedEngine
    from reenact.runtime.llama.engine import LlamaEngine
    from reenact.runtime.results import Chunk, Completion, Embedding, Logprob
    from reenact.runtime.runtime import Runtime
    from reenact.runtime.sources import Sources
    from reenact.runtime.stream import Stream

_MODULE_OF = {
    "open_runtime": "reenact.runtime.api",
    "Runtime": "reenact.runtime.runtime",
    "Stream": "reenact.runtime.stream",
    "Chunk": "reenact.runtime.results",
    "Completion": "reenact.runtime.results",
    "Embedding": "reenact.runtime.results",
    "Logprob": "reenact.runtime.results",
    "Statistics": "reenact.actors.metrics",
    "Times": "reenact.actors.metrics",
    "Distribution": "reenact.actors.metrics",
    "Likely": "reenact.actors.batch",
    "Engine": "reenact.runtime.engine.protocol",
    "LlamaEngine": "reenact.runtime.llama.engine",
    "ScriptedEngine": "reenact.runtime.engine.scripted",
    "Sources": "reenact.runtime.sources",
    "installed_model": "reenact.runtime.cli.default_model",
    "ReenactError": "reenact.actors.errors",
    "InvalidRequest": "reenact.actors.errors",
    "Overloaded": "reenact.actors.errors",
    "SequenceFailed": "reenact.actors.errors",
    "EngineBroken": "reenact.actors.errors",
    "LogBroken": "reenact.actors.errors",
    "InternalError": "reenact.actors.errors",
}

__all__ = [
    "Chunk",
    "Completion",
    "Distribution",
    "Embedding",
    "Engine",
    "EngineBroken",
    "InternalError",
    "InvalidRequest",
    "Likely",
    "LlamaEngine",
    "LogBroken",
    "Logprob",
    "Overloaded",
    "ReenactError",
    "Runtime",
    "ScriptedEngine",
    "SequenceFailed",
    "Sources",
    "Statistics",
    "Stream",
    "Times",
    "installed_model",
    "open_runtime",
]


def __getattr__(name: str) -> object:
    if name not in _MODULE_OF:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_MODULE_OF[name]), name)
