"""Reads each sequence's prompt, text and end from a log.

The rule that holds here: a text consists of the emitted texts, in order: those of every `TokenEmitted`, of
`StopMatched`, and of `SequenceFinished`. Text that was held back and never released is not part of it.
"""

from collections.abc import Iterator
from typing import Any

import attrs
from attrs import define

from reenact.actors import events as e
from reenact.actors.errors import LogCorrupt
from reenact.actors.metrics import Metrics, Timeline
from reenact.replay.render.endings import end_notes
from reenact.replay.render.events import options_of
from reenact.replay.render.values import count, failure, named, text, vector
from reenact.runtime.log.reader import EmptyLog, Entry, LogFile, entries
from reenact.runtime.terminal import Spans


@define(kw_only=True)
class SequenceText:
    """A log's text of one sequence; it grows while the log is read."""

    request: e.RequestReceived
    timeline: Timeline
    pieces: list[str] = attrs.Factory(list)
    embedding: tuple[float, ...] | None = None
    n_prompt: int = 0
    n_sampled: int = 0
    end: e.SequenceFinished | None = None

    @property
    def text(self) -> str:
        """The text that the caller received."""
        return "".join(self.pieces)

    def as_json(self) -> dict[str, Any]:
        """Return the sequence as ``replay texts --json`` prints it."""
        end = self.end
        return {
            "sequence": self.request.sequence,
            "request_id": self.request.request_id,
            "continues": self.request.continues,
            "prompt": self.request.prompt,
            "text": self.text,
            "embedding": self.embedding,
            "finish_reason": None if end is None else end.finish_reason,
            "stop": None if end is None else end.stop,
            "n_prompt": self.n_prompt,
            "n_cached": self.timeline.n_cached,
            "n_truncated": self.timeline.n_truncated,
            "n_sampled": self.n_sampled,
            "n_shifts": self.timeline.n_shifts,
            "error": None if end is None or end.error is None else attrs.asdict(end.error),
        }


class Texts:
    """The texts of a log, read record by record."""

    def __init__(self) -> None:
        self._texts: dict[int, SequenceText] = {}
        self._metrics = Metrics()
        self._closed = False

    def add(self, entry: Entry) -> None:
        """Add a record to the text of its sequence."""
        event = entry.record.event
        self._closed = isinstance(event, e.SessionClosed)
        try:
            self._metrics.add(event, entry.t)
            if isinstance(event, e.RequestReceived):
                timeline = self._metrics.timelines[event.sequence]
                self._texts[event.sequence] = SequenceText(request=event, timeline=timeline)
            else:
                self._take_up(event)
        except KeyError as error:
            raise entry.line.corrupt(f"there is no sequence {error} that it can be about") from None

    def all(self) -> list[SequenceText]:
        """Return the text of each sequence, in the order of their numbers."""
        return [self._texts[sequence] for sequence in sorted(self._texts)]

    def end(self, n_torn: int) -> list[str]:
        """Return the notes on the end of the log, which is followed by ``n_torn`` bytes."""
        return end_notes(self._metrics.n_records, closed=self._closed, n_torn=n_torn)

    def _take_up(self, event: e.Event) -> None:
        match event:
            case e.PromptTokenized():
                one = self._texts[event.sequence]
                one.n_prompt = one.n_prompt if one.end else len(event.inputs)
            case e.TokenEmitted() | e.StopMatched():
                one = self._texts[event.sequence]
                one.n_sampled = event.index + 1
                one.pieces.append(event.text)
            case e.EogSampled():
                self._texts[event.sequence].n_sampled = event.index + 1
            case e.EmbeddingComputed():
                self._texts[event.sequence].embedding = event.embedding
            case e.SequenceFinished():
                one = self._texts[event.sequence]
                one.end = event
                one.n_prompt, one.n_sampled = event.n_prompt, event.n_sampled
                one.pieces.append(event.text)
            case _:
                pass


def texts_of(log: LogFile) -> tuple[Texts, LogCorrupt | None]:
    """Read the texts of a log.

    Returns:
        The texts, and the error because of which the log could not be read to its end, if there is one.

    Raises:
        LogCorrupt: The first line is corrupt.
        LogNotComparable: The log has no record, or its schema is too new.
    """
    texts, n_records = Texts(), 0
    try:
        for entry in entries(log):
            texts.add(entry)
            n_records += 1
    except LogCorrupt as error:
        if not n_records:
            raise
        return texts, error
    if not n_records:
        raise EmptyLog
    return texts, None


def lines_of(one: SequenceText) -> Iterator[Spans]:
    """Return a sequence's prompt and text as lines for people, with a margin, under a heading."""
    request = one.request
    chat = "" if request.continues is None else f", continuing sequence {request.continues}"
    yield [(f"sequence {request.sequence}{named(request.request_id)}{chat}: ", "bold"), _end(one)]
    yield from _with_margin("prompt", request.prompt, "dim")
    options = ", ".join(options_of(request.options, {"seed"} if request.embedding else ()))
    if options:
        yield from _with_margin("with", options, "dim")
    if request.embedding:
        values = "none" if one.embedding is None else vector(one.embedding)
        yield from _with_margin("vector", values, "")
    else:
        yield from _with_margin("text", one.text, "")


def _with_margin(name: str, value: str, style: str) -> Iterator[Spans]:
    for i, line in enumerate(value.split("\n")):
        yield [(f"  {name if i == 0 else '':<6} | ", "dim"), (line, style)]


def _end(one: SequenceText) -> tuple[str, str]:
    figures = _figures(one)
    if one.end is None:
        return f"not finished in this log, {figures}", "yellow"
    stop = "" if one.end.stop is None else f" at {text(one.end.stop)}"
    error = "" if one.end.error is None else f" ({failure(one.end.error)})"
    return f"{one.end.finish_reason}{stop}{error}, {figures}", "red" if one.end.error else "green"


def _figures(one: SequenceText) -> str:
    of = one.timeline
    seldom = [(of.n_cached, "cached"), (of.n_truncated, "left out")]
    prompt = ", ".join(f"{number:,} {what}" for number, what in seldom if number)
    figures = [count(one.n_prompt, "prompt token") + (f" ({prompt})" if prompt else "")]
    if not one.request.embedding:
        figures.append(f"{one.n_sampled:,} sampled")
    if of.n_shifts:
        figures.append(count(of.n_shifts, "context shift"))
    if of.n_preempted:
        figures.append(f"{of.n_preempted:,} times preempted" if of.n_preempted > 1 else "preempted once")
    return ", ".join(figures)
