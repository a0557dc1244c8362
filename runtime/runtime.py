"""Serves callers: completions, chats, embeddings.

It turns arguments into a recorded request, and the request's events into a result. Arguments are checked before the
request is recorded; if they are refused, the refusal is recorded instead.
"""

from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import Any, Unpack

import trio
from attrs import evolve as changed
from attrs import frozen

from reenact.actors import events as e
from reenact.actors.errors import InvalidRequest, ReenactError, SequenceFailed
from reenact.actors.header import DeterminismFacts
from reenact.actors.metrics import Statistics
from reenact.actors.options import Options, RequestOptions, check_text, check_traceparent, options_of
from reenact.runtime.chats import Chats, checked, checked_tools
from reenact.runtime.fitting import Fitted, fit
from reenact.runtime.ki_protection import protected_context
from reenact.runtime.live_requests import LiveRequest
from reenact.runtime.pieces import Piece
from reenact.runtime.prompts import Prompt, pieces_of, text_of, texts_of
from reenact.runtime.request import Request
from reenact.runtime.results import Completion, Embedding
from reenact.runtime.session import Session
from reenact.runtime.sources import Sources
from reenact.runtime.stream import Stream


class Runtime:
    """A loaded model that serves requests; `reenact.runtime.open_runtime` makes one."""

    def __init__(self, session: Session, sources: Sources) -> None:
        self.header = session.header
        """Record 0: the engine, the model, the settings and the limits of this session, as read back."""
        self._session = session
        self._sources = sources
        self._chats = Chats()

    @property
    def determinism(self) -> DeterminismFacts:
        """The policy that holds for results, and its reason."""
        return self.header.determinism

    async def complete(
        self,
        prompt: Prompt,
        *,
        request_id: str | None = None,
        traceparent: str | None = None,
        **options: Unpack[RequestOptions],
    ) -> Completion:
        """Generate a completion and return it whole.

        Args:
            prompt: The text to continue. Special tokens in it are parsed. Or a list of texts and of rows of numbers, in
                which each row takes the place of a token (a part of a picture, from a projector of one's own).
            request_id: The caller's name for this request, which the log contains.
            traceparent: The caller's place in a distributed trace, as W3C Trace Context writes it, for the log.
            **options: See `reenact.actors.options.Options`.

        Raises:
            InvalidRequest: An argument is wrong; the error names its field.
            Overloaded: Too many requests are waiting.
            SequenceFailed, EngineBroken, LogBroken, InternalError: The completion failed.
            trio.ClosedResourceError: The runtime was left.
        """
        return await _whole(self.stream(prompt, request_id=request_id, traceparent=traceparent, **options))

    @protected_context
    async def stream(
        self,
        prompt: Prompt,
        *,
        request_id: str | None = None,
        traceparent: str | None = None,
        **options: Unpack[RequestOptions],
    ) -> AsyncIterator[Stream]:
        """Generate a completion and read it as it grows: ``async with runtime.stream(...) as stream``.

        Leaving the block before the end cancels the sequence. A reader that stops reading pauses only its own sequence,
        after ``max_reader_lag`` unread chunks. Arguments and errors are those of `complete`.
        """
        caller = _Caller(since=trio.current_time(), request_id=request_id, traceparent=traceparent)
        with self._session.refusals(request_id):
            pieces = pieces_of(prompt, self.header.context)
            ready = await self._ready(pieces, self._options(options), caller)
        async with self._asked(ready) as live:
            yield Stream(live, self._session.resume_reader)

    async def chat(
        self,
        messages: Iterable[Mapping[str, Any]],
        *,
        tools: Sequence[Mapping[str, Any]] = (),
        think: bool | None = None,
        request_id: str | None = None,
        traceparent: str | None = None,
        **options: Unpack[RequestOptions],
    ) -> Completion:
        """Generate the assistant's answer to a chat and return it whole.

        If the messages continue a chat that this runtime has answered (its messages, then
        ``{"role": "assistant", "content": completion.text}``, then more), the tokens of that chat are used as they
        were, and only the new part is tokenized.

        If a chat does not fit into the context with room for its answer, its oldest messages are left out whole,
        except system messages and the last message; if that is not enough, the last message loses its beginning.
        `Completion.n_left_out` counts these messages. With ``truncate=False`` such a chat is an error. When the context
        is full, everything before the first message that is not a system message is kept, unless ``num_keep`` is given.

        Args:
            messages: Each with ``role`` and ``content``, and perhaps ``tool_calls``, ``tool_call_id`` and ``name``; the
                model's own template renders them.
            tools: Functions as JSON Schemas, which the template shows to the model. The answer is a text all the same:
                ``grammar`` or ``format`` can make it a call.
            think: Whether the model is to think before it answers; None for its template's default. The text contains
                the thinking.
            request_id: As for `complete`.
            traceparent: As for `complete`.
            **options: As for `complete`.

        Raises:
            InvalidRequest: Also if the template refuses the messages or ``think``, or the model has no template.
        """
        caller: dict[str, Any] = {"request_id": request_id, "traceparent": traceparent}
        return await _whole(self.stream_chat(messages, tools=tools, think=think, **caller, **options))

    @protected_context
    async def stream_chat(
        self,
        messages: Iterable[Mapping[str, Any]],
        *,
        tools: Sequence[Mapping[str, Any]] = (),
        think: bool | None = None,
        request_id: str | None = None,
        traceparent: str | None = None,
        **options: Unpack[RequestOptions],
    ) -> AsyncIterator[Stream]:
        """Generate the answer to a chat and read it as it grows; to `chat` as `stream` is to `complete`."""
        caller = _Caller(since=trio.current_time(), request_id=request_id, traceparent=traceparent)
        with self._session.refusals(request_id):
            asked, said, called = self._options(options), checked(messages), checked_tools(tools)
            self._session.check_open()
            keep_leading = "num_keep" not in options
            chat = await fit(
                self._session, self._chats, said, asked, keep_leading=keep_leading, tools=called, think=think
            )
            if chat.n_leading is not None:
                asked = changed(asked, num_keep=chat.n_leading)
            ready = await self._ready(chat.pieces, asked, caller, chat)
        async with self._asked(ready) as live:
            try:
                yield Stream(live, self._session.resume_reader)
            finally:
                await self._session.part_with(live)
                self._chats.remember(said, chat.rendered.text, live, chat.n_steps)

    async def embed(
        self,
        texts: Iterable[str],
        *,
        request_id: str | None = None,
        traceparent: str | None = None,
        dimensions: int | None = None,
        truncate: bool = True,
        priority: int = 0,
        deadline: float | None = None,
    ) -> list[Embedding]:
        """Return the embedding of each text, in their order.

        Args:
            texts: The texts. Each is a request of its own; as many are under way as there are slots.
            request_id: The caller's name for each of these requests.
            traceparent: As for `complete`.
            dimensions: The count of values to return, from the first, scaled to length 1 again; None for all.
            truncate: Shorten a text that is longer than the context; if not, it is an error.
            priority: As for `complete`.
            deadline: Seconds for each text; a text that takes longer is an error.

        Raises:
            InvalidRequest: Also if the model generates text and makes no embeddings.
            SequenceFailed: An embedding could not be computed, or not in time.
        """
        with self._session.refusals(request_id):
            _Caller(since=trio.current_time(), request_id=request_id, traceparent=traceparent).check()
            asked = Options(seed=0, truncate=truncate, priority=priority, deadline=deadline, dimensions=dimensions)
            todo = texts_of(texts)
            if self.header.context.pooling == "none":
                raise InvalidRequest("texts", "this model generates and makes no embeddings: use an embedding model")
        found: list[Embedding] = []
        errors: list[Exception] = []
        turns = trio.Semaphore(self.header.context.n_slots)

        async def embed(text: str, task_status: trio.TaskStatus[None]) -> None:
            begun = False
            try:
                ready = _Ready(
                    prompt=text,
                    pieces=[text],
                    options=asked,
                    caller=_Caller(since=trio.current_time(), request_id=request_id, traceparent=traceparent),
                    embedding=True,
                )
                async with self._asked(ready) as live:
                    task_status.started()
                    begun = True
                    found.append(await _embedding(live))
            except (ReenactError, trio.ClosedResourceError) as error:
                errors.append(error)
                nursery.cancel_scope.cancel()
                if not begun:
                    task_status.started()
            finally:
                turns.release()

        async with trio.open_nursery() as nursery:
            for text in todo:
                await turns.acquire()
                # The next text waits until this one is tokenized, so they are served in order.
                await nursery.start(embed, text)
        if errors:
            raise errors[0]
        return sorted(found, key=lambda embedding: embedding.sequence)

    @protected_context
    async def resume(self, request: int | str, *, from_token: int = 0) -> AsyncIterator[Stream]:
        """Read on in a request from before the session was resumed: ``async with runtime.resume(...) as stream``.

        The stream has first what was emitted from a token on, and then the rest as it grows. A caller drops the text
        that it had after the last chunk with tokens: it is the beginning of the next token's, and comes again. Leaving
        the block before the end cancels the sequence.

        Args:
            request: The request's number in the log, or its ``request_id``; of several with this id the latest.
            from_token: The count of tokens in the chunks that the caller has already.

        Raises:
            InvalidRequest: No such request waits for a reader, or no chunk begins with that token.
            trio.ClosedResourceError: The runtime was left.
        """
        self._session.check_open()
        live = self._session.earlier.claim(request, from_token, self.header.limits.max_reader_lag)
        try:
            yield Stream(live, self._session.resume_reader)
        finally:
            await self._session.part_with(live)

    def earlier_requests(self, request: int | str) -> list[Request]:
        """Return the requests of this number or ``request_id`` in which `resume` can read on, the latest first."""
        return self._session.earlier.named(request)

    async def rendered(
        self,
        messages: Iterable[Mapping[str, Any]],
        *,
        tools: Sequence[Mapping[str, Any]] = (),
        think: bool | None = None,
        **options: Unpack[RequestOptions],
    ) -> str:
        """Return the prompt that `stream_chat` would make of a chat; arguments and errors are the same."""
        said, asked, called = checked(messages), self._options(options), checked_tools(tools)
        chat = await fit(self._session, self._chats, said, asked, keep_leading=False, tools=called, think=think)
        return chat.rendered.text

    async def resumed(self) -> None:
        """Wait until every request from before the session was resumed has ended."""
        await self._session.earlier.all_ended()

    def statistics(self) -> Statistics:
        """Return the session's statistics so far, which are computed from its records."""
        return self._session.metrics.statistics()

    @property
    def chat_template(self) -> str:
        """The source of the model's chat template; empty if it has none."""
        return self._session.chat_template

    @property
    def log(self) -> Path | None:
        """The session's log; None if nothing is recorded."""
        return self._session.log

    @property
    def n_log_bytes(self) -> int:
        """The count of bytes in the session's log, without rows; 0 if nothing is recorded."""
        return self._session.n_log_bytes

    def live_requests(self) -> list[LiveRequest]:
        """Return the requests that have not ended, each with the requests for which it waits."""
        return self._session.live_requests()

    # ------------------------------------------------------------ from arguments to a request

    def _options(self, asked: RequestOptions) -> Options:
        return options_of(asked, seed=self._sources.seed)

    async def _ready(
        self, pieces: list[Piece], options: Options, caller: "_Caller", chat: Fitted | None = None
    ) -> "_Ready":
        """Check a request against the session and its model, and return it ready to be recorded.

        Args:
            pieces: The pieces of the prompt.
            options: The options, already checked.
            caller: The facts about its caller.
            chat: The chat that the pieces come from.
        """
        self._session.check_open()
        caller.check()
        if self.header.context.pooling != "none":
            raise InvalidRequest("prompt", "this model makes embeddings and does not generate: ask it to embed")
        prompt = check_text("prompt", text_of(pieces) if chat is None else chat.rendered.text)
        grammar = await self._session.compile(options, caller.since)
        return _Ready(
            prompt=prompt,
            pieces=pieces,
            options=options,
            caller=caller,
            chat=chat,
            grammar=grammar,
        )

    @protected_context
    async def _asked(self, ready: "_Ready") -> AsyncIterator[Request]:
        """Record a request, have it tokenized, and cancel it when its caller leaves."""
        self._session.check_open()
        continues = None if ready.chat is None else ready.chat.continues
        request = e.RequestReceived(
            sequence=self._session.next_sequence,
            request_id=ready.caller.request_id,
            prompt=ready.prompt,
            options=ready.options,
            embedding=ready.embedding,
            continues=None if continues is None else continues.sequence,
            left_out=0 if ready.chat is None else ready.chat.n_left_out,
            traceparent=ready.caller.traceparent,
            said=None if ready.chat is None else ready.chat.rendered.said,
        )
        live = self._session.receive(request, ready.caller.since)
        try:
            bos_added = continues is not None and continues.bos_added
            await self._session.tokenize(live, ready.pieces, grammar=ready.grammar, bos_added=bos_added)
            yield live
        finally:
            await self._session.part_with(live)


@frozen(kw_only=True)
class _Caller:
    """The known facts about the caller of a request."""

    since: float
    """The time when it asked, on trio's clock."""
    request_id: str | None
    """Its name for the request."""
    traceparent: str | None
    """Its place in a distributed trace."""

    def check(self) -> None:
        """Check both names.

        Raises:
            InvalidRequest: One of them is wrong.
        """
        if self.request_id is not None:
            check_text("request_id", self.request_id)
        if self.traceparent is not None:
            check_traceparent(self.traceparent)


@frozen(kw_only=True)
class _Ready:
    """A request that is ready to be recorded."""

    prompt: str
    pieces: list[Piece]
    """The pieces of the prompt."""
    options: Options
    caller: _Caller
    chat: Fitted | None = None
    """The chat that the pieces come from."""
    grammar: str | None = None
    """The grammar in force."""
    embedding: bool = False
    """Whether the request is for a vector."""


async def _whole(streaming: AbstractAsyncContextManager[Stream]) -> Completion:
    async with streaming as stream:
        async for _ in stream:
            pass
    return stream.completion


async def _embedding(live: Request) -> Embedding:
    async for _ in live.chunks:
        pass
    live.raise_if_failed()
    if not isinstance(live.result, Embedding) or not live.result.embedding:
        raise SequenceFailed("the embedding was not computed before its deadline")
    return live.result
