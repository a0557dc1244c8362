"""What `reenact generate` shows, on a terminal and in a pipe, of texts that hold anything."""

import io
import json
import re
import sys
from typing import Final

import pytest
import structlog

from reenact.actors.errors import SequenceFailed
from reenact.runtime.cli import main as cli
from reenact.runtime.cli.display import Display, JsonDisplay, PlainDisplay, TerminalDisplay

HOSTILE: Final = "\x00\x1b[31m\x07\r\x7f\x85\x9b7m\xad\u202e\u2066\u200b\ufeff\U000e0041[red]x[/]:smile:"
COLOURS: Final = re.compile(r"\x1b\[[0-9;?]*[mhlKA]|\r")


class Stream(io.StringIO):
    """A stream that looks like a terminal, or like a pipe."""

    def __init__(self, *, is_terminal: bool) -> None:
        super().__init__()
        self._is_terminal = is_terminal

    def isatty(self) -> bool:
        """Say which."""
        return self._is_terminal


def shown(monkeypatch: pytest.MonkeyPatch, kind: type[Display], *, is_terminal: bool) -> str:
    """Let a prompt, a growing text and an error be shown, and return what was written."""
    stream = Stream(is_terminal=is_terminal)
    monkeypatch.setattr(sys, "stdout", stream)
    monkeypatch.setattr(sys, "stderr", stream)
    monkeypatch.setenv("COLUMNS", "200")
    with kind([HOSTILE, HOSTILE]) as display:
        display.loading(HOSTILE, 0.5)
        display.loaded()
        for i in (0, 1):
            display.grow(i, HOSTILE)
            display.finish(i, SequenceFailed(HOSTILE))
    return stream.getvalue()


@pytest.mark.parametrize("kind", [PlainDisplay, TerminalDisplay])
def test_a_terminal_gets_nothing_raw(monkeypatch: pytest.MonkeyPatch, kind: type[Display]) -> None:
    """A model's text, a prompt and an error move nothing on a terminal and are no markup of rich's."""
    out = shown(monkeypatch, kind, is_terminal=True)
    assert [] == [c for c in HOSTILE if not " " <= c <= "~" and c in COLOURS.sub("", out)]
    assert "[red]x[/]:smile:" in out
    assert "\\u202e" in out


def test_a_pipe_gets_the_text(monkeypatch: pytest.MonkeyPatch) -> None:
    """In a pipe a text is as the model wrote it."""
    assert f"\n{HOSTILE}{HOSTILE}\n" in shown(monkeypatch, PlainDisplay, is_terminal=False)


def test_json_is_ascii(monkeypatch: pytest.MonkeyPatch) -> None:
    """JSON holds the same text, in ASCII."""
    out = shown(monkeypatch, JsonDisplay, is_terminal=False)
    assert [] == [c for c in out if not " " <= c <= "~" and c != "\n"]
    assert [HOSTILE] * 2 == [json.loads(line)["text"] for line in out.splitlines()]


def test_the_console_prints_nothing_raw(monkeypatch: pytest.MonkeyPatch) -> None:
    """With ``--verbose`` a request's name and an engine's error are escaped."""
    stream = Stream(is_terminal=True)
    monkeypatch.setattr(sys, "stderr", stream)
    try:
        cli._configure_console()
        structlog.get_logger("reenact").error("EngineFailed", n=3, request_id=HOSTILE, event_=SequenceFailed(HOSTILE))
    finally:
        structlog.reset_defaults()
    assert [] == [c for c in HOSTILE if not " " <= c <= "~" and c in COLOURS.sub("", stream.getvalue())]
    assert "\\u202e" in stream.getvalue()
