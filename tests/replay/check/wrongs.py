"""Sessions in which something is wrong on purpose: actors that do otherwise, and logs that others wrote."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from reenact.actors import events as e
from tests.helpers.sessions import read_fields, write_fields
from tests.mutants.change import found
from tests.replay import logs


@contextmanager
def broken(target: str, replacement: Callable[[Any], Any]) -> Iterator[None]:
    """Let a function of the program do otherwise for the length of a block."""
    owner, name, original = found(target)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(owner, name, replacement(original))
        yield


def nothing_is_held(_: object) -> Callable[..., int]:
    """Let out what may be the beginning of a stop string."""
    return lambda _pending, _stops: 0


HOLDS_NOTHING = ("reenact.actors.text:_beginning_of_stop", nothing_is_held)


def long_session(path: Path) -> Path:
    """Write a session of twelve requests, of which the seventh holds text back that may begin a stop string."""
    session = logs.Session(path, n_slots=3, n_ctx=64, n_batch=16, max_waiting=20)
    for number in range(1, 13):
        stop = ("</s>", "END") if number == 7 else ()
        session.request(f"prompt {number}", inputs=9, request_id=f"r{number}", stop=stop, num_predict=6)
    session.give(e.ReaderPaused(sequence=2))
    session.decode(code=-2)
    session.give(e.ReaderResumed(sequence=2))
    while session.planned is not None:
        session.decode({7: b" x<"})
    session.close()
    return path


def tampered(path: Path, change: Callable[[list[dict[str, Any]]], None]) -> Path:
    """Write the long session as other actors would."""
    lines = read_fields(long_session(path))
    change(lines)
    write_fields(path, lines)
    return path


def emitted(lines: list[dict[str, Any]]) -> dict[str, Any]:
    """Return the first token of sequence 7."""
    return next(fields for fields in lines if fields["type"] == "TokenEmitted" and fields["sequence"] == 7)


def other_text(lines: list[dict[str, Any]]) -> None:
    """Let out what is held."""
    emitted(lines)["text"] = " y"


def other_event(lines: list[dict[str, Any]]) -> None:
    """End the text where it goes on."""
    fields = emitted(lines)
    for name in ("text", "held", "held_by"):
        fields.pop(name, None)
    fields["type"] = "EogSampled"


def other_plan(lines: list[dict[str, Any]]) -> None:
    """Plan a row less."""
    fields = next(fields for fields in lines if fields["type"] == "BatchPlanned")
    fields["parts"][0]["inputs"].pop()


def missing(lines: list[dict[str, Any]]) -> None:
    """Leave out the first record that is the last one of its fact."""
    n = next(n for n in range(20, len(lines)) if "cause" in lines[n] and "cause" not in lines[n + 1])
    del lines[n]
    for fields in lines[n:]:
        fields["n"] -= 1


def too_many(lines: list[dict[str, Any]]) -> None:
    """Write a record after the last one of a fact."""
    n = next(n for n in range(20, len(lines)) if lines[n]["type"] == "InputQueued" and "cause" not in lines[n + 1])
    lines.insert(n + 1, {**lines[n], "type": "SequencePaused"})
    for name in ("inputs", "wants"):
        del lines[n + 1][name]
    lines[n + 1]["actor"] = f"sequence-{lines[n]['sequence']}"
    for fields in lines[n + 1 :]:
        fields["n"] += 1
