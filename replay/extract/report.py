"""The result of an extraction: which requests a log keeps of another."""

from typing import Any

from attrs import asdict, frozen

from reenact.actors.header import Parent
from reenact.replay.extract.own import RequestHistory
from reenact.replay.render.values import count, named, sequences
from reenact.runtime.terminal import Spans


@frozen(kw_only=True)
class ExtractedSequence:
    """A request that was kept."""

    number: int
    """Its number in the new log."""
    history: RequestHistory

    def as_json(self) -> dict[str, Any]:
        """Return it as ``replay extract --json`` prints it."""
        end = self.history.end
        return {
            "sequence": self.number,
            "in_parent": self.history.number,
            "request_id": self.history.request.request_id,
            "finish_reason": None if end is None else end.finish_reason,
            "n_prompt": None if end is None else end.n_prompt,
            "n_sampled": None if end is None else end.n_sampled,
        }

    def __str__(self) -> str:
        end = self.history.end
        ending = (
            "not ended when the log did"
            if end is None
            else f"{end.finish_reason}, {count(end.n_prompt, 'prompt token')}, {end.n_sampled:,} sampled"
        )
        return f"sequence {self.number}{named(self.history.request.request_id)}: {ending}"


@frozen(kw_only=True)
class Extracted:
    """A log that keeps some requests of another."""

    path: str
    """The new log."""
    session: str
    """Its session."""
    parent: Parent
    sequences: tuple[ExtractedSequence, ...]
    n_records: int
    computed: bool
    """Whether llama.cpp computed it, so that it can be executed again."""

    def as_json(self) -> dict[str, Any]:
        """Return the result as ``replay extract --json`` prints it."""
        return {
            "log": self.path,
            "session": self.session,
            "parent": asdict(self.parent),
            "records": self.n_records,
            "sequences": [one.as_json() for one in self.sequences],
        }

    def lines(self) -> list[Spans]:
        """Return the lines that ``replay extract`` prints."""
        kept = sequences(self.parent.sequences)
        head = f"extracted: {self.path}: {kept} of session {self.parent.session}, alone; {self.n_records:,} records"
        command = f"  replay run {self.path}{' --compute' if self.computed else ''}"
        return [
            [(head, "bold green")],
            *([(f"  {one}", "")] for one in self.sequences),
            [(command, "")],
        ]
