"""What callers ask of a runtime: completions, chats, embeddings.

Owns the way from arguments to a recorded request, and back to what came of it. Arguments are checked before the request
is recorded; where they are refused, that is recorded in its place.
"""

from collections.abc import AsyncIterator, Iterable, Mapping
from contextlib import AbstractAsyncContextManager
from typing import Unpack

import trio
from attrs import evolve as changed
from attrs import frozen

from reenact.actors import events as e
from reenact.actors.errors import InvalidRequest, ReenactError, SequenceFailed
from reenact.actors.header import DeterminismFacts
from reenact.actors.metrics import Statistics
from reenact.actors.options import Options, RequestOptions, check_text, options_of
from reenact.runtime.chats import Chats, checked
from reenact.runtime.fitting import Fitted, fit
from reenact.runtime.ki_protection import protected_context
from reenact.runtime.prompts import Prompt, pieces_of, text_of, texts_of
from reenact.runtime.request import Request
from reenact.runtime.results import Completion, Embedding
from reenact.runtime.session import Piece, Session
from reenact.runtime.sources import Sources
from reenact.runtime.stream import Stream


class Runtime:
    """A model that is ready; `reenact.runtime.open_runtime` makes one."""

    def __init__(self, session: Session, sources: Sources) -> None:
        self.header = session.header
        """Record 0: what this session runs with, as read back."""
        self._session = session
        self._sources = sources
        self._chats = Chats()

    @property
    def determinism(self) -> DeterminismFacts:
        """What is promised of results, and why."""
        return self.header.determinism

    async def complete(
        self, prompt: Prompt, *, request_id: str | None = None, **options: Unpack[RequestOptions]
    ) -> Completion:
        """Generate a completion and return it whole.

        Args:
            prompt: The text to go on from. Special tokens in it are parsed. Or a list of texts and of rows of numbers,
                each of which stands for a token (a part of a picture, from a projector of one's own).
            request_id: What the caller calls this request; it stands in the log.
            **options: See `reenact.actors.options.Options`.

        Raises:
            InvalidRequest: With the field that is wrong.
            Overloaded: As many requests wait as may.
            SequenceFailed, EngineBroken, LogBroken, InternalError: It could not be generated.
            trio.ClosedResourceError: The runtime was left.
        """
        return await _whole(self.stream(prompt, request_id=request_id, **options))

    @protected_context
    async def stream(
        self, prompt: Prompt, *, request_id: str | None = None, **options: Unpack[RequestOptions]
    ) -> AsyncIterator[Stream]:
        """Generate a completion and read it as it grows: ``async with runtime.stream(...) as stream``.

        Leaving the block before the end cancels the sequence. A reader that stops reading pauses only its own sequence,
        after ``max_reader_lag`` unread chunks. Arguments and errors are those of `complete`.
        """
        since = trio.current_time()
        with self._session.refusals(request_id):
            pieces = pieces_of(prompt, self.header.context)
            ready = await self._ready(pieces, self._options(options), request_id, since)
        async with self._asked(ready) as live:
            yield Stream(live, self._session.resume_reader)

    async def chat(
        self,
        messages: Iterable[Mapping[str, str]],
        *,
        request_id: str | None = None,
        **options: Unpack[RequestOptions],
    ) -> Completion:
        """Generate the assistant's answer to a chat and return it whole.

        Where the messages go on from a chat that this runtime has answered (its messages, then
        ``{"role": "assistant", "content": completion.text}``, then more), its tokens are kept as they were and only
        what is new is tokenised.

        A chat that does not fit into the context with room for its answer loses its oldest messages, whole, but for
        system messages and the last one, and then the beginning of that; `Completion.n_left_out` says how many. With
        ``truncate=False`` it is an error. Unless ``num_keep`` says otherwise, what comes before the first message that
        is no system message is kept when the context is full.

        Args:
            messages: Each with ``role`` and ``content``; the model's own template renders them.
            request_id: As for `complete`.
            **options: As for `complete`.

        Raises:
            InvalidRequest: Also for messages that the template refuses, or where the model has none.
        """
        return await _whole(self.stream_chat(messages, request_id=request_id, **options))

    @protected_context
    async def stream_chat(
        self,
        messages: Iterable[Mapping[str, str]],
        *,
        request_id: str | None = None,
        **options: Unpack[RequestOptions],
    ) -> AsyncIterator[Stream]:
        """Generate the answer to a chat and read it as it grows; to `chat` as `stream` is to `complete`."""
        since = trio.current_time()
        with self._session.refusals(request_id):
            asked, said = self._options(options), checked(messages)
            self._session.check_open()
            chat = await fit(self._session, self._chats, said, asked, keep_leading="num_keep" not in options)
            if chat.n_leading is not None:
                asked = changed(asked, num_keep=chat.n_leading)
            ready = await self._ready(chat.pieces, asked, request_id, since, chat)
        async with self._asked(ready) as live:
            try:
                yield Stream(live, self._session.resume_reader)
            finally:
                self._session.cancel(live)
                self._chats.remember(said, chat.rendered.text, live, chat.n_steps)

    async def embed(
        self,
        texts: Iterable[str],
        *,
        request_id: str | None = None,
        dimensions: int | None = None,
        truncate: bool = True,
        priority: int = 0,
        deadline: float | None = None,
    ) -> list[Embedding]:
        """Return the embedding of each text, in their order.

        Args:
            texts: The texts. Each one is a request of its own; as many are under way as there are slots.
            request_id: What the caller calls each of them.
            dimensions: So many first values, of length 1 again; None for all.
            truncate: Shorten a text that is longer than the context; if not, it is an error.
            priority: As for `complete`.
            deadline: Seconds for each text; one that is not done by then is an error.

        Raises:
            InvalidRequest: Also where the model generates and makes no embeddings.
            SequenceFailed: One could not be computed, or not in time.
        """
        with self._session.refusals(request_id):
            if request_id is not None:
                check_text("request_id", request_id)
            asked = Options(seed=0, truncate=truncate, priority=priority, deadline=deadline, dimensions=dimensions)
            todo = texts_of(texts)
            if self.header.context.pooling == "none":
                raise InvalidRequest("texts", "this model generates and makes no embeddings: open an embedding model")
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
                    since=trio.current_time(),
                    request_id=request_id,
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
                # The next one is asked when this one is tokenised, so they are served in the order of the texts.
                await nursery.start(embed, text)
        if errors:
            raise errors[0]
        return sorted(found, key=lambda embedding: embedding.sequence)

    def statistics(self) -> Statistics:
        """Return a snapshot of what the session amounts to so far: a fold over its records."""
        return self._session.metrics.statistics()

    # ------------------------------------------------------------ from arguments to a request

    def _options(self, asked: RequestOptions) -> Options:
        return options_of(asked, seed=self._sources.seed)

    async def _ready(
        self, pieces: list[Piece], options: Options, request_id: str | None, since: float, chat: Fitted | None = None
    ) -> "_Ready":
        """Check what is asked for a text, as far as the session and its model say what can be.

        Args:
            pieces: What the prompt is made of.
            options: As checked.
            request_id: What the caller calls it.
            since: When the caller asked.
            chat: The chat that the pieces are of.
        """
        self._session.check_open()
        if request_id is not None:
            check_text("request_id", request_id)
        if self.header.context.pooling != "none":
            raise InvalidRequest("prompt", "this model makes embeddings and does not generate: ask it to embed")
        prompt = check_text("prompt", text_of(pieces) if chat is None else chat.rendered.text)
        grammar = await self._session.compile(options, since)
        return _Ready(
            prompt=prompt,
            pieces=pieces,
            options=options,
            since=since,
            request_id=request_id,
            chat=chat,
            grammar=grammar,
        )

    @protected_context
    async def _asked(self, ready: "_Ready") -> AsyncIterator[Request]:
        """Record a request, have it tokenised, and cancel it when its caller leaves."""
        self._session.check_open()
        continues = None if ready.chat is None else ready.chat.continues
        request = e.RequestReceived(
            sequence=self._session.next_sequence,
            request_id=ready.request_id,
            prompt=ready.prompt,
            options=ready.options,
            embedding=ready.embedding,
            continues=None if continues is None else continues.sequence,
            left_out=0 if ready.chat is None else ready.chat.n_left_out,
        )
        live = self._session.receive(request, ready.since)
        try:
            bos_added = continues is not None and continues.bos_added
            await self._session.tokenize(live, ready.pieces, grammar=ready.grammar, bos_added=bos_added)
            yield live
        finally:
            self._session.cancel(live)


@frozen(kw_only=True)
class _Ready:
    """A request that can be recorded."""

    prompt: str
    pieces: list[Piece]
    """What the prompt is made of."""
    options: Options
    since: float
    """When its caller asked, on trio's clock."""
    request_id: str | None = None
    chat: Fitted | None = None
    """The chat that the pieces are of."""
    grammar: str | None = None
    """The one in force."""
    embedding: bool = False
    """A vector is wanted."""


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
