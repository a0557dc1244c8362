"""The result of a redaction."""

from typing import Any

from attrs import frozen

from reenact.replay.render.values import count
from reenact.runtime.terminal import Spans


@frozen(kw_only=True)
class Redacted:
    """A log whose texts and tokens were replaced."""

    path: str
    """The new log."""
    session: str
    """Its session, which is that of the log."""
    n_records: int
    n_prompts: int
    n_tokens: int
    """The count of drawn tokens."""
    why_by_token: str
    """The reason why equal tokens have equal ids everywhere; empty if an id depends on all tokens before it."""
    refused: bool
    """Whether the actors could not take the last fact, here as in the log."""

    def as_json(self) -> dict[str, Any]:
        """Return the result as ``replay redact --json`` prints it."""
        return {
            "log": self.path,
            "session": self.session,
            "records": self.n_records,
            "prompts": self.n_prompts,
            "tokens": self.n_tokens,
            "by_token": bool(self.why_by_token),
            "refused": self.refused,
        }

    def lines(self) -> list[Spans]:
        """Return the lines that ``replay redact`` prints."""
        what = f"{count(self.n_prompts, 'prompt')} and {count(self.n_tokens, 'token')} replaced"
        head = f"redacted: {self.path}: {what}; {count(self.n_records, 'record')} of session {self.session}"
        lines: list[Spans] = [[(head, "bold green")]]
        if self.why_by_token:
            lines.append([(f"  {self.why_by_token}", "yellow")])
        if self.refused:
            lines.append([("  its last fact is one that the actors cannot take, as in the log", "yellow")])
        return [*lines, [(f"  replay run {self.path}", "")]]
