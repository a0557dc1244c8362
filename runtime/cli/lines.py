"""Reads the messages of a conversation: from a person at a terminal, or line by line from a pipe or a file.

The rules that hold here:

* A thread waits for each line, so that the runtime goes on meanwhile. Ctrl-C abandons that thread. So it holds no lock
  of Python's streams, which the interpreter needs at its end, and the terminal's settings are restored here.
* A message of a person that begins with three quotation marks goes on until three more, over several lines; a message
  from a pipe is one line, whatever it contains.
"""

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Final

import trio

from reenact.actors.errors import InvalidRequest
from reenact.runtime.terminal import print_block

_QUOTES: Final = '"""'
_BLOCK: Final = 1 << 16


class TypedMessages:
    """The messages of a person at a terminal; a line can be edited, and earlier ones come back by the arrow keys."""

    def __init__(self) -> None:
        with suppress(ImportError):
            import readline  # noqa: F401  # `input` uses it once it is imported

    async def next(self) -> str | None:
        """Return the next message, or None at the end."""
        line = await _typed(">>> ")
        if line is None or not line.startswith(_QUOTES):
            return line
        lines = [line.removeprefix(_QUOTES)]
        while not lines[-1].endswith(_QUOTES):
            line = await _typed("... ")
            if line is None:
                return None
            lines.append(line)
        return "\n".join(lines).removesuffix(_QUOTES)


async def _typed(prompt: str) -> str | None:
    """Return a line that is typed, or None after Ctrl-D; after Ctrl-C or Ctrl-D the next output begins a new line."""
    try:
        return await trio.to_thread.run_sync(input, prompt, abandon_on_cancel=True)
    except EOFError:
        print_block("\n")
        return None
    except KeyboardInterrupt:
        print_block("\n")
        raise


class PipedMessages:
    """The lines of standard input that is not a terminal; empty ones are left out."""

    def __init__(self) -> None:
        self._raw = b""
        self._ended = False

    async def next(self) -> str | None:
        """Return the next message, or None at the end.

        Raises:
            InvalidRequest: A line is not text in the encoding of the locale.
        """
        while not self._ended or self._raw:
            line, newline, rest = self._raw.partition(b"\n")
            if not newline and not self._ended:
                block = await trio.to_thread.run_sync(os.read, sys.stdin.fileno(), _BLOCK, abandon_on_cancel=True)
                self._raw += block
                self._ended = not block
                continue
            self._raw = rest
            if line.strip():
                return _decoded(line.removesuffix(b"\r"))
        return None


def _decoded(line: bytes) -> str:
    encoding = sys.stdin.encoding
    try:
        return line.decode(encoding)
    except UnicodeDecodeError:
        raise InvalidRequest("standard input", f"a line is not text in {encoding}") from None


@contextmanager
def restored_terminal() -> Iterator[None]:
    """Restore the settings of the terminal, because a thread that reads a line with echo off may be abandoned."""
    try:
        import termios
    except ImportError:  # Not on Windows.
        yield
        return
    settings = termios.tcgetattr(sys.stdin)
    try:
        yield
    finally:
        termios.tcsetattr(sys.stdin, termios.TCSADRAIN, settings)
