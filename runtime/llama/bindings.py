"""Binds llama.cpp for the rest of the runtime: the only module that imports ``llama_cpp``.

It is tested against the exact version that pyproject.toml pins, because signatures change between minor versions.

The rules that hold here:

* Short calls use a second handle on the library that keeps the GIL (`ShortCalls`); decoding, loading and compiling
  must not keep it.
* llama.cpp has one log for the process. After `listen` its lines come here instead of stderr, and the last ones give
  the reason why a call failed.
"""

import ctypes
import hashlib
import os
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any, Final

_SPINS: Final = "GOMP_SPINCOUNT"


@contextmanager
def _spinning_briefly() -> Iterator[None]:
    """Make the threads of libgomp sleep soon while they wait for each other; it reads this when it is loaded.

    On a busy machine, threads that spin for long take the CPU from the threads that they wait for
    (``make measure-waiting``). A user's own setting takes precedence, and child processes see no change.
    """
    if _SPINS in os.environ or "OMP_WAIT_POLICY" in os.environ:
        yield
        return
    os.environ[_SPINS] = "1000"
    try:
        yield
    finally:
        del os.environ[_SPINS]


with _spinning_briefly():
    import llama_cpp
    from llama_cpp import llama_chat_format
    from llama_cpp import llama_cpp as bindings

__all__ = [
    "ShortCalls",
    "bind",
    "bindings",
    "complaint",
    "forget_complaints",
    "library_path",
    "library_sha256",
    "listen",
    "llama_chat_format",
    "llama_cpp",
    "piece_of",
    "text_of",
]

_SHORT: Final = (
    "llama_get_embeddings_seq",
    "llama_get_logits_ith",
    "llama_memory_seq_add",
    "llama_memory_seq_cp",
    "llama_memory_seq_pos_max",
    "llama_memory_seq_rm",
    "llama_sampler_accept",
    "llama_sampler_apply",
    "llama_sampler_chain_add",
    "llama_sampler_chain_init",
    "llama_sampler_chain_n",
    "llama_sampler_chain_remove",
    "llama_sampler_free",
    "llama_sampler_init_dist",
    "llama_sampler_init_min_p",
    "llama_sampler_init_penalties",
    "llama_sampler_init_temp",
    "llama_sampler_init_top_k",
    "llama_sampler_init_top_p",
    "llama_sampler_init_typical",
    "llama_sampler_sample",
    "llama_token_to_piece",
    "llama_vocab_is_eog",
)

_MAX_LOGGED: Final = 64
_PIECE_ROOM: Final = 64
"""Bytes that are enough for nearly every piece."""

_logged: Final[deque[bytes]] = deque(maxlen=_MAX_LOGGED)
"""The last texts that llama.cpp logged."""


class ShortCalls:
    """Calls of a few microseconds, through a handle that keeps the GIL.

    A call that releases the GIL has to get it back from a busy event loop, which took up to 1.6 ms (docs/llama-cpp.md
    section 4).
    """

    def __init__(self) -> None:
        library = ctypes.PyDLL(library_path())
        for name in _SHORT:
            call = library[name]
            bound = getattr(bindings, name)
            call.argtypes, call.restype = bound.argtypes, bound.restype
            setattr(self, name, call)

    def __getattr__(self, name: str) -> Callable[..., Any]:
        raise AttributeError(f"{name} is not among the short calls")


def bind(signatures: Mapping[str, tuple[Any, tuple[Any, ...]]]) -> dict[str, Any]:
    """Return calls of ggml that the bindings lack; libllama has loaded the libraries that contain them.

    Args:
        signatures: The return type of each call, and the types of its arguments.
    """
    library = ctypes.CDLL(library_path())
    calls = {}
    for name, (returns, takes) in signatures.items():
        call = calls[name] = library[name]
        call.restype, call.argtypes = returns, takes
    return calls


def library_path() -> str:
    """Return the path of libllama; the libraries that it loads are in the same folder."""
    path: str = bindings._lib._name  # the bindings keep the path nowhere else
    return path


@cache
def library_sha256() -> str:
    """Return the digest of the library that computes, because builds of one version can differ."""
    libraries = {path.resolve() for path in Path(library_path()).parent.glob("*ggml-cpu*")}
    digest = hashlib.sha256()
    for path in sorted(libraries or {Path(library_path())}):
        digest.update(path.read_bytes())
    return digest.hexdigest()


def listen() -> None:
    """Receive llama.cpp's log from now on, instead of having it printed (llama_log_set)."""
    llama_cpp.llama_log_set(_listener, ctypes.c_void_p(0))


def forget_complaints() -> None:
    """Forget the log so far, so that `complaint` reports only what comes next."""
    _logged.clear()


def complaint() -> str:
    """Return the reason that llama.cpp logged: the first line that contains "error", or else the last line."""
    lines = [line.strip() for line in text_of(b"".join(_logged)).splitlines() if line.strip()]
    errors = [line for line in lines if "error" in line]
    return (errors or lines[-1:] or ["llama.cpp gives no reason"])[0]


def piece_of(vocabulary: Any, token: int, *, special: bool = False) -> bytes:
    """Return a token's bytes, which can end within a character; a special token has some only where ``special``."""
    piece, length = b"", -_PIECE_ROOM
    while length < 0:  # a negative length is the room that it needs
        buffer = ctypes.create_string_buffer(-length)
        length = llama_cpp.llama_token_to_piece(vocabulary, token, buffer, -length, 0, special)
        piece = buffer.raw[: max(length, 0)]
    return piece


def text_of(raw: bytes) -> str:
    """Return bytes from llama.cpp as text."""
    return raw.decode("utf-8", "replace").strip()


def _listen(_level: int, text: bytes, _data: object) -> None:
    """Take a part of the log; called from llama.cpp's own threads too."""
    _logged.append(text)


_listener = llama_cpp.llama_log_callback(_listen)
"""Keeps the callback alive; llama.cpp holds no reference to it."""
