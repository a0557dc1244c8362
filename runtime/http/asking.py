"""Asks a runtime for the text of a request, in either API.

The rule that holds here: a request is the same as an earlier one if it has that one's ``x-request-id``, and the server
was killed before the earlier one had its answer. Then its answer is the earlier one's, from the beginning.
"""

from collections.abc import Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from typing import Any, Protocol

from reenact.runtime.http.exchange import Trace
from reenact.runtime.http.models import InUse
from reenact.runtime.http.tools import Tools
from reenact.runtime.stream import Stream


class Asked(Protocol):
    """The fields of a request that say what to generate."""

    @property
    def messages(self) -> Sequence[Mapping[str, Any]] | None:
        """The messages of a chat; None for a completion."""

    @property
    def prompt(self) -> str | None:
        """The prompt of a completion."""

    @property
    def tools(self) -> Tools | None:
        """The tools of a chat."""

    @property
    def think(self) -> bool | None:
        """Whether to think."""

    @property
    def options(self) -> dict[str, Any]:
        """The options."""


def streaming(trace: Trace, asked: Asked, held: InUse) -> AbstractAsyncContextManager[Stream]:
    """Return the stream of a request."""
    runtime, names = held.runtime, trace.names()
    if runtime.waits_for_reader(trace.request_id):
        return runtime.resume(trace.request_id)
    if asked.messages is None:
        return runtime.stream(asked.prompt or "", **names, **asked.options)
    tools = () if asked.tools is None else asked.tools.shown
    return runtime.stream_chat(asked.messages, tools=tools, think=asked.think, **names, **asked.options)
