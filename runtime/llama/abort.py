"""Ends a decode in progress from another thread, by a flag.

llama.cpp calls a callback before each node of its graph. Here the callback is libc's ``strlen`` and the flag is its
string, which has one character or none: so a decode of any length ends within milliseconds, and no thread waits for
Python or the GIL (docs/llama-cpp.md section 4).

An abort is for one batch. If it comes before the batch's decode it counts; if it comes later it does not affect the
next batch.
"""

import ctypes
from typing import Any, Final

from reenact.runtime.llama.bindings import bindings, llama_cpp

_CLEAR: Final = b"\0"
_SET: Final = b"\1"


class AbortFlag:
    """The flag, and the context that reads it; the flag must outlive the context."""

    def __init__(self) -> None:
        self._context: Any = None
        self._flag = ctypes.create_string_buffer(2)
        self._asked: int | None = None
        self._heeded = False
        self._never = bindings.ggml_abort_callback()  # NULL
        self._strlen = ctypes.cast(ctypes.CDLL(None).strlen, bindings.ggml_abort_callback)

    def attach(self, context: Any) -> None:
        """Serve a new context, for which no abort was asked yet."""
        self._context, self._asked, self._heeded = context, None, False

    def ask(self, batch: int) -> None:
        """Ask the decode of a batch to end; from any thread."""
        # `arm` writes and reads these in the opposite order: whichever runs last sees the other's write.
        self._asked = batch
        self._flag[0] = _SET

    def arm(self, batch: int, *, heeded: bool) -> None:
        """Prepare the flag for the decode of a batch, in the thread that decodes.

        Args:
            batch: Its number.
            heeded: Whether the decode may be ended at all.
        """
        self._flag[0] = _CLEAR
        if self._asked == batch:
            self._flag[0] = _SET
        if heeded != self._heeded:
            self._heeded = heeded
            callback = self._strlen if heeded else self._never
            llama_cpp.llama_set_abort_callback(self._context, callback, ctypes.addressof(self._flag))
