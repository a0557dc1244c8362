"""Collects the history that each sequence's draws depend on, from records: live, and when a log is executed again.

The rule that holds here: a `Drawing` is a function of the records. It leaves out the truncated part of a prompt,
end-of-generation tokens and tokens whose draw failed.
"""

from attrs import define, field

from reenact.actors import events as e
from reenact.actors.inputs import Input
from reenact.actors.options import Options
from reenact.runtime.engine.protocol import Drawing


@define
class _Drawn:
    """The history that a sequence's next draw depends on."""

    options: Options
    grammar: str | None = None
    prompt: tuple[Input, ...] = ()
    sampled: list[int] = field(factory=list)
    """Always the same list, which only grows, so that a grammar need not compare it."""


class Drawings:
    """The histories of the sequences that have not ended."""

    def __init__(self) -> None:
        self._histories: dict[int, _Drawn] = {}

    def add(self, event: e.Event) -> None:
        """Add a record."""
        match event:
            case e.RequestReceived():
                self._histories[event.sequence] = _Drawn(event.options)
            case e.SequenceForked():
                self._histories[event.sequence].options = event.options
            case e.PromptTokenized() if event.sequence in self._histories:
                self._histories[event.sequence].grammar = event.grammar
            case e.InputQueued(wants=e.Pool() | e.Draw(index=0)):
                self._histories[event.sequence].prompt = event.inputs
            case e.BatchDecoded():
                for sample in event.samples:
                    if sample.sequence in self._histories and sample.fault is None and not sample.eog:
                        self._histories[sample.sequence].sampled.append(sample.token)
            case e.SequenceFinished():
                self._histories.pop(event.sequence, None)
            case _:
                pass

    def of(self, planned: e.BatchPlanned) -> dict[int, Drawing]:
        """Return the drawing of each sequence of a batch that a token is drawn for."""
        return {part.sequence: self.one(part.sequence) for part in planned.parts if part.draw is not None}

    def one(self, sequence: int) -> Drawing:
        """Return the drawing of a sequence."""
        history = self._histories[sequence]
        return Drawing(options=history.options, grammar=history.grammar, prompt=history.prompt, sampled=history.sampled)
