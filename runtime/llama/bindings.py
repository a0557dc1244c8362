"""llama.cpp as the rest of the runtime sees it: the only module that imports ``llama_cpp``.

Tested against the exact version that pyproject.toml pins: signatures move between minor versions.

The rules that hold here:

* Short calls go through a second handle on the library that keeps the GIL (`ShortCalls`); decoding, loading and
  compiling must not.
* llama.cpp has one log for the process. It comes here instead of going to stderr, once `listen` was called, and what
  was said last tells why a call failed.
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
    """Let the threads of libgomp, which reads this when it is loaded, soon sleep while they wait for each other.

    Threads that spin for long take the CPU from those that they wait for, where other programs use it too
    (``make measure-waiting``). What the user set counts, and who is started by this process sees no change.
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

_MAX_SAID: Final = 64
_PIECE_ROOM: Final = 64
"""Bytes that nearly every piece has room in."""

_said: Final[deque[bytes]] = deque(maxlen=_MAX_SAID)
"""What llama.cpp said last."""


class ShortCalls:
    """Calls of microseconds, through a handle that keeps the GIL.

    A call that gives the GIL away has to get it back from a busy event loop, which took up to 1.6 ms (docs/llama-cpp.md
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
    """Return calls of ggml that the bindings leave out; libllama has loaded the libraries that hold them.

    Args:
        signatures: What each call returns, and what it takes.
    """
    library = ctypes.CDLL(library_path())
    calls = {}
    for name, (returns, takes) in signatures.items():
        call = calls[name] = library[name]
        call.restype, call.argtypes = returns, takes
    return calls


def library_path() -> str:
    """Return where libllama lies; what it loads with it lies beside it."""
    path: str = bindings._lib._name  # the bindings keep the path nowhere else
    return path


@cache
def library_sha256() -> str:
    """Return the digest of the library that computes: builds of one version can differ."""
    libraries = {path.resolve() for path in Path(library_path()).parent.glob("*ggml-cpu*")}
    digest = hashlib.sha256()
    for path in sorted(libraries or {Path(library_path())}):
        digest.update(path.read_bytes())
    return digest.hexdigest()


def listen() -> None:
    """Take what llama.cpp would print, from now on (llama_log_set)."""
    llama_cpp.llama_log_set(_listener, ctypes.c_void_p(0))


def forget_complaints() -> None:
    """Forget what llama.cpp said so far, so that `complaint` speaks of what comes next."""
    _said.clear()


def complaint() -> str:
    """Return the reason that llama.cpp gave: its first line that speaks of an error, or else the last."""
    lines = [line.strip() for line in text_of(b"".join(_said)).splitlines() if line.strip()]
    errors = [line for line in lines if "error" in line]
    return (errors or lines[-1:] or ["llama.cpp gives no reason"])[0]


def piece_of(vocabulary: Any, token: int, *, special: bool = False) -> bytes:
    """Return a token's bytes, which can end in the middle of a character; a special token has none unless asked for."""
    piece, length = b"", -_PIECE_ROOM
    while length < 0:  # as long as it says, by a negative length, how much room it wants
        buffer = ctypes.create_string_buffer(-length)
        length = llama_cpp.llama_token_to_piece(vocabulary, token, buffer, -length, 0, special)
        piece = buffer.raw[: max(length, 0)]
    return piece


def text_of(raw: bytes) -> str:
    """Return what llama.cpp says as text."""
    return raw.decode("utf-8", "replace").strip()


def _listen(_level: int, text: bytes, _data: object) -> None:
    """Take a piece of the log; called from llama.cpp's own threads too."""
    _said.append(text)


_listener = llama_cpp.llama_log_callback(_listen)
"""The callback itself; llama.cpp holds no reference to it."""
