"""Reads a model file's metadata before it is loaded: its digest, the types of its matrices, its kind.

The rules that hold here:

* Nothing is loaded: ggml reads the head of the file. The rest is read only if the head is a model's.
* The digest of a file is kept by its path, size and time of change (`reenact.runtime.user_cache`), because reading a
  large file as a whole takes longer than loading it.
"""

import ctypes
import hashlib
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any, BinaryIO, Final

from attrs import frozen

from reenact.actors.errors import EngineBroken, InvalidRequest
from reenact.runtime.llama.bindings import bind, complaint, forget_complaints, listen, text_of
from reenact.runtime.regular import opened
from reenact.runtime.user_cache import keep_sha256, kept_sha256

OnProgress = Callable[[str, float], None]
"""Called with what is being done and how much of it is done, from 0 to 1, in the thread that loads."""

_HASH_BLOCK: Final = 1 << 22
_MAX_DIMENSIONS: Final = 4
"""GGML_MAX_DIMS"""
_UINT32, _BOOL, _STRING = 4, 7, 8
"""gguf_type"""
_LOOKED_UP: Final = frozenset({"position_embd.weight", "token_types.weight"})
"""Tables whose rows are added and never multiplied (ggml_get_rows)."""
_TOKENS, _OUTPUT = "token_embd.weight", "output.weight"
"""The first one is such a table too; it is also multiplied if there is no second one."""


@frozen(kw_only=True)
class ModelFile:
    """A GGUF file."""

    path: Path
    size: int
    """Bytes."""
    sha256: str
    matrix_types: frozenset[str]
    """The types of the matrices that are multiplied, by ggml's names."""
    pooling_type: int | None
    """The kind of pooling; None if the file does not name one."""
    is_causal: bool
    """Whether a token attends only to the tokens before it."""
    head_size: int | None
    """The count of numbers in a head's V; None if the file has no value for all layers."""

    @property
    def pools(self) -> bool:
        """Whether it is for embeddings: it names a kind of pooling, or attends both ways."""
        return bool(self.pooling_type) or not self.is_causal


def read_model_file(path: Path, on_progress: OnProgress) -> ModelFile:
    """Return a file's metadata.

    Raises:
        OSError: The file cannot be read.
        InvalidRequest: It is not a GGUF file.
        EngineBroken: It begins like a GGUF file, and ggml cannot read it.
    """
    with opened(path, "a model is mapped into memory, which only a file can be: save it to one") as file:
        if file.read(4) != b"GGUF":
            raise InvalidRequest("model", f"{path} is not a GGUF file")
        with _head(path) as head:
            status = os.fstat(file.fileno())
            sha256 = kept_sha256(path, status)
            if sha256 is None:
                file.seek(0)
                sha256 = _digest(file, status.st_size, on_progress)
                keep_sha256(path, status, sha256)
            architecture = _value(head, "general.architecture", _STRING)
            name = "" if architecture is None else text_of(architecture)
            return ModelFile(
                path=path,
                size=status.st_size,
                sha256=sha256,
                matrix_types=frozenset(_matrix_types(head)),
                pooling_type=_value(head, f"{name}.pooling_type", _UINT32),
                is_causal=_value(head, f"{name}.attention.causal", _BOOL) is not False,
                head_size=_head_size(head, name),
            )


@contextmanager
def _head(path: Path) -> Iterator[Any]:
    """Have ggml read the head of a file.

    Raises:
        EngineBroken: It cannot read it.
    """
    calls = _calls()
    listen()
    forget_complaints()
    head = calls["gguf_init_from_file"](os.fsencode(path), _Parameters(no_alloc=True, ctx=None))
    if not head:
        raise EngineBroken(f"{path} cannot be loaded: {complaint()}")
    try:
        yield head
    finally:
        calls["gguf_free"](head)


def _digest(file: BinaryIO, size: int, on_progress: OnProgress) -> str:
    digest, done = hashlib.sha256(), 0
    while block := file.read(_HASH_BLOCK):
        digest.update(block)
        done += len(block)
        on_progress("reading", done / size)
    return digest.hexdigest()


def _matrix_types(head: Any) -> Iterator[str]:
    calls = _calls()
    names = [text_of(calls["gguf_get_tensor_name"](head, i)) for i in range(calls["gguf_get_n_tensors"](head))]
    looked_up = _LOOKED_UP | ({_TOKENS} if _OUTPUT in names else set())
    for i, name in enumerate(names):
        lengths = calls["gguf_get_tensor_ne"](head, i)[:_MAX_DIMENSIONS]
        if name not in looked_up and sum(length > 1 for length in lengths) > 1:
            yield text_of(calls["ggml_type_name"](calls["gguf_get_tensor_type"](head, i)))


def _head_size(head: Any, name: str) -> int | None:
    own: int | None = _value(head, f"{name}.attention.value_length", _UINT32)
    width, n_heads = (
        _value(head, f"{name}.embedding_length", _UINT32),
        _value(head, f"{name}.attention.head_count", _UINT32),
    )
    return own or (width // n_heads if width and n_heads else None)


def _value(head: Any, key: str, kind: int) -> Any:
    """Return the value of a key, or None if it has none of this type."""
    calls = _calls()
    i = calls["gguf_find_key"](head, key.encode())
    if i < 0 or calls["gguf_get_kv_type"](head, i) != kind:
        return None
    getter = {_UINT32: "gguf_get_val_u32", _BOOL: "gguf_get_val_bool", _STRING: "gguf_get_val_str"}[kind]
    return calls[getter](head, i)


class _Parameters(ctypes.Structure):
    """``gguf_init_params``."""

    _fields_ = (("no_alloc", ctypes.c_bool), ("ctx", ctypes.c_void_p))


@cache
def _calls() -> dict[str, Any]:
    """Return ggml's calls that read a file's head."""
    pointer, number, text = ctypes.c_void_p, ctypes.c_int64, ctypes.c_char_p
    signatures: dict[str, tuple[Any, tuple[Any, ...]]] = {
        "gguf_init_from_file": (pointer, (text, _Parameters)),
        "gguf_free": (None, (pointer,)),
        "gguf_find_key": (number, (pointer, text)),
        "gguf_get_kv_type": (ctypes.c_int, (pointer, number)),
        "gguf_get_val_u32": (ctypes.c_uint32, (pointer, number)),
        "gguf_get_val_bool": (ctypes.c_bool, (pointer, number)),
        "gguf_get_val_str": (text, (pointer, number)),
        "gguf_get_n_tensors": (number, (pointer,)),
        "gguf_get_tensor_name": (text, (pointer, number)),
        "gguf_get_tensor_type": (ctypes.c_int, (pointer, number)),
        "gguf_get_tensor_ne": (ctypes.POINTER(number), (pointer, number)),
        "ggml_type_name": (text, (ctypes.c_int,)),
    }
    return bind(signatures)
