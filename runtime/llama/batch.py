"""Fills a ``llama_batch`` with the rows of a plan.

The arrays of a ``llama_batch`` are filled through numpy, each row with one sequence id: this takes 0.03 us for a token,
against 0.4 field by field (docs/llama-cpp.md section 5). A batch has tokens or rows of numbers, and the pointer to the
other kind is NULL, which is how llama.cpp distinguishes the two.
"""

import ctypes
from typing import Any, Final

import numpy as np

from reenact.actors.batch import BatchPlanned
from reenact.actors.inputs import kind_of, rows_of
from reenact.runtime.engine.row_numbers import NUMBER_SIZE, Numbers
from reenact.runtime.llama.bindings import llama_cpp

_KINDS: Final[dict[str, Any]] = {field[0]: field[1] for field in llama_cpp.llama_batch._fields_}


class Rows:
    """A llama_batch that is filled anew for each plan.

    Args:
        n_batch: The most rows it can hold.
        width: The count of numbers in a row; 0 if the model takes no rows of numbers.
    """

    def __init__(self, n_batch: int, width: int) -> None:
        self._width = width
        self._tokens = np.zeros(n_batch, np.int32)
        self._numbers = np.zeros(0, np.float32)
        self._positions = np.zeros(n_batch, np.int32)
        self._counts = np.ones(n_batch, np.int32)
        self._slots = np.zeros(n_batch, np.int32)
        self._slot_pointers = (self._slots.ctypes.data + 4 * np.arange(n_batch)).astype(np.uintp)
        self._outputs = np.zeros(n_batch, np.int8)
        self._batch = llama_cpp.llama_batch()
        self._point("pos", self._positions)
        self._point("n_seq_id", self._counts)
        self._point("seq_id", self._slot_pointers)
        self._point("logits", self._outputs)

    def accepts(self, planned: BatchPlanned, numbers: Numbers) -> bool:
        """Return whether every row of numbers has the model's width; llama.cpp would read beyond a shorter one."""
        size = self._width * NUMBER_SIZE
        return all(len(numbers.get(row, b"")) == size > 0 for part in planned.parts for row in rows_of(part.inputs))

    def fill(self, planned: BatchPlanned, numbers: Numbers) -> Any:
        """Return the batch with the plan's rows, which `accepts` must have checked; it is valid until the next call."""
        end = 0
        for part in planned.parts:
            start, end = end, end + len(part.inputs)
            self._positions[start:end] = range(part.position, part.position + len(part.inputs))
            self._slots[start:end] = part.slot
            self._outputs[start:end] = part.pools  # A vector is pooled from the outputs of all its rows.
            self._outputs[end - 1] = part.pools or part.draw is not None
        inputs = [one for part in planned.parts for one in part.inputs]
        if kind_of(inputs[0]) == "token":
            self._tokens[:end] = [one for one in inputs if isinstance(one, int)]
            self._point("token", self._tokens)
            self._point("embd", None)
        else:
            # A number beyond float32 is infinite; the logits will show it.
            self._numbers = np.frombuffer(b"".join(numbers[row] for row in rows_of(inputs)), "<f4").astype(np.float32)
            self._point("embd", self._numbers)
            self._point("token", None)
        self._batch.n_tokens = end
        return self._batch

    def _point(self, name: str, array: "np.ndarray[Any, Any] | None") -> None:
        """Point a field of the batch at an array, which must outlive the call that reads it, or at NULL."""
        setattr(self._batch, name, ctypes.cast(0 if array is None else array.ctypes.data, _KINDS[name]))
