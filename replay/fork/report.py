"""The result of a fork: how each sequence went on, and which requests were left out."""

from collections.abc import Iterator, Mapping
from typing import Any

from attrs import asdict, frozen

from reenact.actors.header import Parent
from reenact.replay.look.texts import SequenceText, lines_of
from reenact.replay.render.values import count, named, sequences
from reenact.runtime.terminal import Spans


@frozen(kw_only=True)
class Continued:
    """A sequence that went on in the child."""

    in_child: SequenceText
    """The whole sequence in the child."""
    changed: Mapping[str, tuple[Any, Any]]
    """The options that changed, by name, each with the old and the new value."""
    before: str
    """The text that had been emitted when the session was cut."""

    @property
    def after(self) -> str:
        """The text that was emitted in the child."""
        return self.in_child.text.removeprefix(self.before)

    def as_json(self) -> dict[str, Any]:
        """Return the sequence as in ``replay texts --json``, with its changes."""
        return self.in_child.as_json() | {"changed": self.changed, "before": self.before, "after": self.after}

    def lines(self) -> Iterator[Spans]:
        """Return the sequence as lines for people."""
        yield next(lines_of(self.in_child))
        options = ", ".join(f"{name} {_shown(old)} -> {_shown(new)}" for name, (old, new) in self.changed.items())
        for name, text, style in (("with", options, "bold"), ("before", self.before, "dim"), ("after", self.after, "")):
            for i, line in enumerate(text.split("\n") if text else ()):
                yield [(f"  {name if i == 0 else '':<6} | ", "dim"), (line, style)]


def _shown(value: object) -> str:
    return repr(list(value)) if isinstance(value, tuple) else str(value)


@frozen(kw_only=True)
class LeftOut:
    """A request that came to the parent after the cut."""

    sequence: int
    request_id: str | None


@frozen(kw_only=True)
class Forked:
    """A session that was forked."""

    path: str
    """The child's log."""
    session: str
    """The child's session."""
    parent: Parent
    sequences: tuple[Continued, ...]
    left_out: tuple[LeftOut, ...]
    notes: tuple[str, ...]
    """Further remarks on the texts."""

    def as_json(self) -> dict[str, Any]:
        """Return the result as ``replay fork --json`` prints it."""
        return {
            "log": self.path,
            "session": self.session,
            "parent": {"session": self.parent.session, "n": self.parent.n},
            "sequences": [one.as_json() for one in self.sequences],
            "left_out": [asdict(one) for one in self.left_out],
            "notes": self.notes,
        }

    def lines(self) -> list[Spans]:
        """Return the lines that ``replay fork`` prints."""
        forked = sequences([one.in_child.request.sequence for one in self.sequences])
        head = (
            f"forked: {self.path}: before record {self.parent.n:,} of session {self.parent.session}; {forked} went on"
        )
        lines: list[Spans] = [[(head, "bold green")], *(line for one in self.sequences for line in one.lines())]
        if self.left_out:
            names = ", ".join(f"{one.sequence}{named(one.request_id)}" for one in self.left_out)
            lines.append([(f"left out: {count(len(self.left_out), 'request')} that came later: {names}", "yellow")])
        return lines + [[(note, "yellow")] for note in self.notes]
