"""Delays Ctrl-C while a file is written, so that the file is complete."""

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from threading import Event, current_thread, main_thread


@contextmanager
def interrupts() -> Iterator[Event]:
    """Note Ctrl-C for the length of a block, and raise `KeyboardInterrupt` only after it.

    Outside the main thread it is never raised, and if the process ignores Ctrl-C, it stays ignored.
    """
    pressed = Event()
    before = signal.getsignal(signal.SIGINT)
    if current_thread() is not main_thread() or not callable(before):
        yield pressed
        return
    signal.signal(signal.SIGINT, lambda _number, _frame: pressed.set())
    try:
        yield pressed
    finally:
        signal.signal(signal.SIGINT, before)
    if pressed.is_set():
        raise KeyboardInterrupt
