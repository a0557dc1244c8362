"""Divides an answer into the model's thinking and its text, by the tags of the model's chat template.

The rule that holds here: the recorded text stays what it is. Only a response has it in two fields, without the tags and
the whitespace around them.
"""

from attrs import frozen

from reenact.runtime.engine.think_tags import ThinkTags, think_tags
from reenact.runtime.stream import Stream


@frozen
class Thought:
    """The part of an answer that became known."""

    thinking: str = ""
    text: str = ""


class ThinkingReader:
    """Divides an answer as it grows.

    Args:
        tags: The tags around thinking; None if nothing is divided.
        begun: Whether the prompt ends within thinking.
    """

    def __init__(self, tags: ThinkTags | None, *, begun: bool = False) -> None:
        self._tags = tags or ThinkTags("", "")
        self._thinks: bool | None = False if tags is None else begun or None
        """Whether the answer is within thinking; None before it is known."""
        self._held = ""
        """The characters that may belong to a tag, or to the whitespace beside one."""
        self._strips = tags is not None
        """Whether whitespace is dropped that comes next."""

    def take(self, more: str) -> Thought:
        """Add text, and return the part that can go out."""
        self._held += more
        if self._thinks is None:
            self._begin()
        thinking = self._thought() if self._thinks else ""
        return Thought(thinking, self._text() if self._thinks is False else "")

    def rest(self) -> Thought:
        """Return the remaining part once the answer has ended."""
        held, self._held = self._held, ""
        return Thought(held.rstrip(), "") if self._thinks else Thought("", held)

    def whole(self, text: str) -> Thought:
        """Return a whole answer in its two parts."""
        first, last = self.take(text), self.rest()
        return Thought(first.thinking + last.thinking, first.text + last.text)

    def _begin(self) -> None:
        """Find out whether the answer begins with a tag."""
        begins = self._held.lstrip()
        if begins.startswith(self._tags.begin):
            self._thinks, self._held = True, begins[len(self._tags.begin) :]
        elif not self._tags.begin.startswith(begins):
            self._thinks, self._strips = False, False

    def _thought(self) -> str:
        """Return the certain part of the thinking: without whitespace and the beginning of a tag at its end."""
        self._strip()
        found, end, behind = self._held.partition(self._tags.end)
        if end:
            self._thinks, self._held, self._strips = False, behind, True
            return found.rstrip()
        n_held = _n_of_tag(self._held, self._tags.end)
        sent = self._held[: len(self._held) - n_held].rstrip()
        self._held = self._held[len(sent) :]
        return sent

    def _strip(self) -> None:
        if self._strips:
            self._held = self._held.lstrip()
            self._strips = not self._held

    def _text(self) -> str:
        self._strip()
        text, self._held = self._held, ""
        return text


def _n_of_tag(text: str, tag: str) -> int:
    """Return the count of characters at the end of a text with which a tag may begin."""
    return next((n for n in range(min(len(tag) - 1, len(text)), 0, -1) if text.endswith(tag[:n])), 0)


def thinking_reader(stream: Stream, template: str) -> ThinkingReader:
    """Return the reader for the answer to a chat.

    Args:
        stream: The stream of the answer.
        template: The source of the model's chat template.
    """
    tags = think_tags(template)
    return ThinkingReader(tags, begun=tags is not None and stream.prompt.rstrip().endswith(tags.begin))
