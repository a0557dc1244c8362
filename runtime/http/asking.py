"""Asks a runtime for the text of a request, in either API.

The rule that holds here: a request is the same as an earlier one if it has that one's ``x-request-id``, prompt and
options, and the server was killed before the earlier one had its answer. Then its answer is the earlier one's, from the
beginning. An id alone is not enough: clients that count theirs use them again.
"""

from collections.abc import Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from typing import Any, Protocol, cast

from reenact.actors.errors import InvalidRequest
from reenact.actors.options import RequestOptions, options_of
from reenact.runtime.http.exchange import Trace
from reenact.runtime.http.models import InUse
from reenact.runtime.http.tools import Tools
from reenact.runtime.request import Request
from reenact.runtime.runtime import Runtime
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


async def streaming(trace: Trace, asked: Asked, held: InUse) -> AbstractAsyncContextManager[Stream]:
    """Return the stream of a request."""
    runtime, names = held.runtime, trace.names()
    for earlier in runtime.earlier_requests(trace.request_id):
        # Another client may have come first meanwhile.
        if await _is_same(asked, earlier, runtime) and runtime.earlier_requests(earlier.sequence):
            return runtime.resume(earlier.sequence)
    if asked.messages is None:
        return runtime.stream(asked.prompt or "", **names, **asked.options)
    return runtime.stream_chat(asked.messages, tools=_shown(asked), think=asked.think, **names, **asked.options)


async def _is_same(asked: Asked, earlier: Request, runtime: Runtime) -> bool:
    """Return whether a request asks for what an earlier one asked for; the seed counts only where it is given."""
    known = {"seed": earlier.options.seed}
    if asked.messages is not None:
        known["num_keep"] = earlier.options.num_keep  # A chat has its own where none is given.
    options: dict[str, Any] = known | asked.options
    try:
        if earlier.embedding or options_of(cast("RequestOptions", options), seed=int) != earlier.options:
            return False
        if asked.messages is None:
            return asked.prompt == earlier.prompt
        prompt = await runtime.rendered(asked.messages, tools=_shown(asked), think=asked.think, **options)
    except InvalidRequest:  # It is told and recorded where it is asked for.
        return False
    return prompt == earlier.prompt


def _shown(asked: Asked) -> tuple[dict[str, Any], ...]:
    return () if asked.tools is None else asked.tools.shown
