"""The shell: trio, llama.cpp and files around the core.

The public names come from here, and are loaded when they are used, so that reading a log needs neither trio nor
llama.cpp: `open_runtime` and what it gives (`Runtime`, `Stream`, `Chunk`, `Completion`, `Statistics`), the engines
(`Engine`, `LlamaEngine`, `ScriptedEngine`), and the errors.
"""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from reenact.actors.errors import (
        EngineBroken,
        InternalError,
        InvalidRequest,
        LogBroken,
        Overloaded,
        ReenactError,
        SequenceFailed,
    )
    from reenact.runtime.api import open_runtime
    from reenact.runtime.engine import Engine
    from reenact.runtime.llama import LlamaEngine
    from reenact.runtime.scripted import ScriptedEngine
    from reenact.runtime.sources import Sources
    from reenact.runtime.streams import Chunk, Completion, Stream
    from reenact.runtime.tasks import Runtime, Statistics

_MODULE_OF = {
    "open_runtime": "reenact.runtime.api",
    "Runtime": "reenact.runtime.tasks",
    "Statistics": "reenact.runtime.tasks",
    "Stream": "reenact.runtime.streams",
    "Chunk": "reenact.runtime.streams",
    "Completion": "reenact.runtime.streams",
    "Engine": "reenact.runtime.engine",
    "LlamaEngine": "reenact.runtime.llama",
    "ScriptedEngine": "reenact.runtime.scripted",
    "Sources": "reenact.runtime.sources",
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
    "Engine",
    "EngineBroken",
    "InternalError",
    "InvalidRequest",
    "LlamaEngine",
    "LogBroken",
    "Overloaded",
    "ReenactError",
    "Runtime",
    "ScriptedEngine",
    "SequenceFailed",
    "Sources",
    "Statistics",
    "Stream",
    "open_runtime",
]


def __getattr__(name: str) -> object:
    if name not in _MODULE_OF:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_MODULE_OF[name]), name)
