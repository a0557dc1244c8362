"""A terminal of the test's own, and a command that runs on it."""

import os
import pty
import select
import signal
import subprocess
import termios
from collections.abc import Sequence
from types import TracebackType
from typing import Any, Final, Self

MAX_SECONDS: Final = 60.0
"""How long a command may print nothing."""


class OnATerminal:
    """A command whose standard streams are a terminal; leaving the block ends it.

    Args:
        command: The command.
        folder: Where it runs.
    """

    def __init__(self, command: Sequence[str], folder: str | os.PathLike[str]) -> None:
        self._leader, self._follower = pty.openpty()
        self.settings = self.settings_now()
        environment = {name: value for name, value in os.environ.items() if name != "INPUTRC"}
        environment |= {"TERM": "vt100", "NO_COLOR": "1", "PYTHONUTF8": "1"}
        streams: Any = dict.fromkeys(("stdin", "stdout", "stderr"), self._follower)
        self._process = subprocess.Popen(command, cwd=folder, env=environment, **streams)
        self._rest = b""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._process.kill()
        self._process.wait()
        os.close(self._leader)
        os.close(self._follower)

    def settings_now(self) -> list[Any]:
        """Return the settings of the terminal, such as whether it echoes."""
        return termios.tcgetattr(self._follower)

    def until(self, awaited: str) -> str:
        """Read until ``awaited`` was printed, and return all before it."""
        while awaited.encode() not in self._rest:
            self._rest += self._read()
        before, _, self._rest = self._rest.partition(awaited.encode())
        return before.decode().replace("\r\n", "\n")

    def type(self, text: str) -> None:
        """Type text; character 4 is Ctrl-D."""
        os.write(self._leader, text.encode())

    def interrupt(self) -> None:
        """Send what Ctrl-C sends."""
        self._process.send_signal(signal.SIGINT)

    def end(self) -> tuple[int, str]:
        """Wait for the end, and return the exit code and what was printed last."""
        code = self._process.wait(MAX_SECONDS)
        while select.select([self._leader], [], [], 0)[0]:
            self._rest += self._read()
        return code, self._rest.decode().replace("\r\n", "\n")

    def _read(self) -> bytes:
        if not select.select([self._leader], [], [], MAX_SECONDS)[0]:
            raise TimeoutError(f"nothing comes after {self._rest!r}")
        return os.read(self._leader, 4096)
