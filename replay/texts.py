"""Each sequence's prompt, text and end, read from a log.

The rule that holds here: a text is what went out to the caller, in order: of every `TokenEmitted`, of `StopMatched`,
and of `SequenceFinished`. Nothing that was held back and never released is in it.
"""

from collections.abc import Iterator
from typing import Any, Final
from unicodedata import category

import attrs
from attrs import define

from reenact.actors import events as e
from reenact.replay.fold import Entry
from reenact.replay.phrases import count, failure, plain, text
from reenact.replay.terminal import Spans


@define(kw_only=True)
class Told:
    """What a log tells of one sequence; it grows while the log is read."""

    sequence: int
    request_id: str | None
    prompt: str
    pieces: list[str] = attrs.Factory(list)
    n_prompt: int = 0
    n_sampled: int = 0
    end: e.SequenceFinished | None = None

    @property
    def text(self) -> str:
        """What went out to the caller."""
        return "".join(self.pieces)

    def as_json(self) -> dict[str, Any]:
        """Return what ``replay texts --json`` prints of a sequence."""
        end = self.end
        return {
            "sequence": self.sequence,
            "request_id": self.request_id,
            "prompt": self.prompt,
            "text": self.text,
            "finish_reason": None if end is None else end.finish_reason,
            "stop": None if end is None else end.stop,
            "n_prompt": self.n_prompt,
            "n_sampled": self.n_sampled,
            "error": None if end is None or end.error is None else attrs.asdict(end.error),
        }


class Texts:
    """The texts of a log, read record by record."""

    def __init__(self) -> None:
        self._told: dict[int, Told] = {}

    def add(self, entry: Entry) -> None:
        """Take up what a record tells of a text."""
        event = entry.record.event
        match event:
            case e.RequestReceived():
                self._told[event.sequence] = Told(
                    sequence=event.sequence, request_id=event.request_id, prompt=event.prompt
                )
            case e.PromptTokenized() | e.TokenEmitted() | e.StopMatched() | e.EogSampled() | e.SequenceFinished():
                told = self._told.get(event.sequence)
                if told is None:
                    raise entry.line.corrupt(f"there is no sequence {event.sequence}")
                _take_up(told, event)
            case _:
                pass

    def all(self) -> list[Told]:
        """Return what was told of each sequence, in the order of their numbers."""
        return [self._told[sequence] for sequence in sorted(self._told)]


def _take_up(
    told: Told, event: e.PromptTokenized | e.TokenEmitted | e.StopMatched | e.EogSampled | e.SequenceFinished
) -> None:
    if isinstance(event, e.PromptTokenized):
        told.n_prompt = len(event.tokens)
        return
    if isinstance(event, e.SequenceFinished):
        told.end = event
        told.n_prompt, told.n_sampled = event.n_prompt, event.n_sampled
    else:
        told.n_sampled = event.index + 1
    if not isinstance(event, e.EogSampled):
        told.pieces.append(event.text)


_MARGINS: Final = {"prompt": "dim", "text": ""}


def lines_of(told: Told) -> Iterator[Spans]:
    """Return a sequence's prompt and text as lines for people, with a margin, under a heading."""
    named = "" if told.request_id is None else f" ({plain(told.request_id)})"
    yield [(f"sequence {told.sequence}{named}: ", "bold"), _end(told)]
    for name, style in _MARGINS.items():
        for i, line in enumerate(getattr(told, name).split("\n")):
            yield [(f"  {name if i == 0 else '':<6} | ", "dim"), (_harmless(line), style)]


def _end(told: Told) -> tuple[str, str]:
    figures = f"{count(told.n_prompt, 'prompt token')}, {told.n_sampled:,} sampled"
    if told.end is None:
        return f"not finished in this log, {figures}", "yellow"
    stop = "" if told.end.stop is None else f" at {text(told.end.stop)}"
    error = "" if told.end.error is None else f" ({failure(told.end.error)})"
    return f"{told.end.finish_reason}{stop}{error}, {figures}", "red" if told.end.error else "green"


def _harmless(line: str) -> str:
    """Return a line without what would move a terminal's cursor: a model can write anything."""
    return "".join(c.encode("unicode_escape").decode() if category(c) == "Cc" and c != "\t" else c for c in line)
