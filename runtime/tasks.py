"""The runtime's tasks: between the callers, the kernel, the journal and the engine.

The rules that hold here:

* Tasks only hand given events to the kernel (`Runtime._give`) and carry out what its records say. Nothing is decided
  here.
* The journal is written in `Runtime._give`, with one ``write`` for a given event and all that follows from it, before
  any of it is carried out: so before a batch crosses to the compute thread, and before text is released.
* One task, the Batcher's, crosses to the compute thread, once a step. It is shielded: every plan in the log gets its
  outcome.
* Ctrl-C waits while any of this runs: a fact is worked off and recorded whole, or not at all.
* Errors arrive where the caller waits. A runtime that cannot go on ends every stream at once and takes no more
  requests.
"""

from collections import deque
from collections.abc import AsyncIterator
from typing import Unpack

import trio
from attrs import evolve, frozen

from reenact.actors import events as e
from reenact.actors.errors import InternalError, InvalidRequest, LogBroken, again, description
from reenact.actors.kernel import Kernel
from reenact.actors.limits import MAX_PROMPT_BYTES
from reenact.actors.options import Options, RequestOptions, options_of, utf8
from reenact.runtime import console
from reenact.runtime.compute import Compute
from reenact.runtime.engine import Engine
from reenact.runtime.journal import Journal
from reenact.runtime.protected import protected_context
from reenact.runtime.sources import Sources
from reenact.runtime.streams import Completion, Stream

# A batch to cross with, and the options of the sequences in it.
_Crossing = tuple[e.BatchPlanned, dict[int, Options]]


@frozen(kw_only=True)
class Statistics:
    """A runtime at one moment."""

    n_slots: int = 0
    n_active: int = 0
    """Sequences that have a slot."""
    n_waiting: int = 0
    """Requests that wait for one."""
    n_requests: int = 0
    """Requests received, with those that have ended."""
    n_finished: int = 0
    n_batches: int = 0
    """Batches decoded."""
    n_rows: int = 0
    """Rows planned."""
    n_sampled: int = 0
    """Tokens sampled."""
    n_records: int = 0


class Runtime:
    """A session of one engine; `reenact.runtime.open_runtime` makes one."""

    def __init__(
        self, header: e.SessionOpened, engine: Engine, compute: Compute, journal: Journal | None, sources: Sources
    ) -> None:
        self.header = header
        """Record 0: what this session runs with, as read back."""
        self._engine = engine
        self._compute = compute
        self._journal = journal
        self._sources = sources
        self._kernel = Kernel()
        self._given: deque[e.GivenEvent] = deque()
        self._giving = False
        self._streams: dict[int, Stream] = {}
        # One batch is in flight at a time, so there is always room for one.
        self._send_plan, self._receive_plan = trio.open_memory_channel[_Crossing](1)
        self._left = False
        """Whether the runtime's block is being left."""
        self._broken: LogBroken | InternalError | None = None
        """Why nothing can be recorded any more."""
        self._told = False
        """Whether a caller who came later knows."""
        self._broken_streams: list[Stream] = []
        self._statistics = Statistics(n_slots=header.context.n_slots)
        self._show = console.subscriber()
        self._started = trio.current_time()
        self._give(header)

    async def complete(
        self, prompt: str, *, request_id: str | None = None, **options: Unpack[RequestOptions]
    ) -> Completion:
        """Generate a completion and return it whole.

        Args:
            prompt: The text to go on from. Special tokens in it are parsed.
            request_id: What the caller calls this request; it stands in the log.
            **options: See `reenact.actors.options.Options`.

        Raises:
            InvalidRequest: With the field that is wrong.
            Overloaded: As many requests wait as may.
            SequenceFailed, EngineBroken, LogBroken, InternalError: It could not be generated.
            trio.ClosedResourceError: The runtime was left.
        """
        async with self.stream(prompt, request_id=request_id, **options) as stream:
            async for _ in stream:
                pass
        return stream.completion

    @protected_context
    async def stream(
        self, prompt: str, *, request_id: str | None = None, **options: Unpack[RequestOptions]
    ) -> AsyncIterator[Stream]:
        """Generate a completion and read it as it grows: ``async with runtime.stream(...) as stream``.

        Leaving the block before the end cancels the sequence. A reader who stops reading pauses his own sequence, after
        ``max_reader_lag`` unread chunks, and nobody else's. Arguments and errors are those of `complete`.
        """
        stream = self._receive(prompt, request_id, options)
        try:
            await self._tokenize(stream, prompt)
            yield stream
        finally:
            if not stream._ended:
                self._give(e.CancelRequested(sequence=stream.sequence))

    def statistics(self) -> Statistics:
        """Return a snapshot."""
        batcher = self._kernel.state.batcher
        if batcher is None:
            return self._statistics
        return evolve(
            self._statistics,
            n_active=sum(slot.sequence is not None for slot in batcher.slots),
            n_waiting=len(batcher.waiting),
        )

    # ------------------------------------------------------------ a request's task

    @trio.lowlevel.enable_ki_protection
    def _receive(self, prompt: str, request_id: str | None, asked: RequestOptions) -> Stream:
        if self._broken is not None:
            self._told = True
            raise again(self._broken)
        if self._left:
            raise trio.ClosedResourceError("the runtime was left")
        for name, text in (("prompt", prompt), ("request_id", request_id)):
            if type(text) is str:
                if len(utf8(name, text)) > MAX_PROMPT_BYTES:
                    raise InvalidRequest(name, f"it has more than {MAX_PROMPT_BYTES:,} bytes")
            elif text is not None or name == "prompt":
                raise InvalidRequest(name, f"expected a string, got {text!r}")
        request = e.RequestReceived(
            sequence=self._kernel.n_requests + 1,
            request_id=request_id,
            prompt=prompt,
            options=options_of(asked, seed=self._sources.seed),
        )
        max_lag = self.header.limits.max_reader_lag
        stream = Stream(request, max_lag, on_lag=self._pause_reader, on_caught_up=self._resume_reader)
        self._streams[request.sequence] = stream
        self._give(request)
        stream._raise_if_failed()
        return stream

    async def _tokenize(self, stream: Stream, prompt: str) -> None:
        try:
            tokenized = await self._compute.run(self._engine.tokenize, prompt)
            tokens, bos_added = tokenized.tokens, tokenized.bos_added
        except Exception as error:  # noqa: BLE001  # an engine may raise anything; all is told
            if not stream._ended:
                self._give(e.TokenizeFailed(sequence=stream.sequence, error=description(error)))
        else:
            if not stream._ended:
                self._give(e.PromptTokenized(sequence=stream.sequence, tokens=tokens, bos_added=bos_added))
        stream._raise_if_failed()

    def _pause_reader(self, sequence: int) -> None:
        self._give(e.ReaderPaused(sequence=sequence))

    def _resume_reader(self, sequence: int) -> None:
        self._give(e.ReaderResumed(sequence=sequence))

    # ------------------------------------------------------------ the Batcher's task, and leaving; for open_runtime

    @trio.lowlevel.enable_ki_protection
    async def _run_batcher(self) -> None:
        """Cross to the engine with each batch that is planned, until the runtime is left."""
        with trio.CancelScope(shield=True):
            async for planned, options in self._receive_plan:
                try:
                    decoded = await self._compute.run(self._engine.step, planned, options)
                except Exception as error:  # noqa: BLE001  # as above
                    self._give(e.EngineFailed(error=description(error)))
                else:
                    self._give(decoded)

    @trio.lowlevel.enable_ki_protection
    def _leave(self) -> None:
        """Cancel every sequence and take no more requests; the batch in flight is awaited by the Batcher's task."""
        self._left = True
        for stream in list(self._streams.values()):
            stream._end_with(trio.ClosedResourceError("the runtime was left"))
            self._give(e.CancelRequested(sequence=stream.sequence))
        self._send_plan.close()

    @trio.lowlevel.enable_ki_protection
    def _close(self) -> None:
        """Record the end of the session and close the log."""
        self._give(e.SessionClosed(digest=self._kernel.digest()))
        if self._journal is not None:
            self._journal.close()

    def _raise_untold(self) -> None:
        """Raise what broke the runtime if nobody has been told of it."""
        if self._broken is not None and not self._told and not any(stream._told for stream in self._broken_streams):
            raise self._broken

    # ------------------------------------------------------------ the kernel

    @trio.lowlevel.enable_ki_protection
    def _give(self, given: e.GivenEvent) -> None:
        """Hand a given event to the kernel, write the journal, carry out what follows.

        What is given while this goes on has its turn after it.
        """
        self._given.append(given)
        if self._giving:
            return
        self._giving = True
        try:
            while self._given:
                self._handle(self._given.popleft())
        finally:
            self._giving = False

    def _handle(self, given: e.GivenEvent) -> None:
        if self._broken is not None:
            return
        t = 0 if given is self.header else round((trio.current_time() - self._started) * 1e9)
        try:
            records, error = self._kernel.handle(given), None
        except Exception as raised:  # noqa: BLE001  # a bug of ours or of the engine
            # The fact that the kernel could not take is the one to find in the log.
            records = [e.Record(self._statistics.n_records, given, None)]
            error = raised
        try:
            if self._journal is not None:
                self._journal.append(records, t)
        except LogBroken as raised:
            self._break(raised)
            return
        except Exception as raised:  # noqa: BLE001  # an engine's value that no log can hold
            error = raised
        if error is not None:
            fact = f"{type(given).__name__} cannot be recorded and worked off: {description(error)}"
            self._break(InternalError(fact), error)
            return
        self._statistics = evolve(self._statistics, n_records=self._statistics.n_records + len(records))
        for record in records:
            self._carry_out(record.event)
        self._show_all(records)

    def _show_all(self, records: list[e.Record]) -> None:
        """Show records on the console; one that fails is off from then on, because nothing may depend on it."""
        if self._show is not None:
            try:
                for record in records:
                    self._show(record)
            except Exception:  # noqa: BLE001  # it is the application's own
                self._show = None

    def _carry_out(self, event: e.Event) -> None:
        """Do what a record says is to be done outside the core."""
        counts = self._statistics
        match event:
            case e.BatchPlanned():
                options = {part.sequence: self._streams[part.sequence].options for part in event.parts}
                self._send_plan.send_nowait((event, options))
                self._statistics = evolve(counts, n_rows=counts.n_rows + sum(len(part.tokens) for part in event.parts))
            case e.BatchDecoded():
                n_sampled = counts.n_sampled + sum(not sample.nan for sample in event.samples)
                self._statistics = evolve(counts, n_batches=counts.n_batches + 1, n_sampled=n_sampled)
            case e.RequestReceived():
                self._statistics = evolve(counts, n_requests=event.sequence)
            case e.TokenEmitted() | e.StopMatched():
                self._streams[event.sequence]._carry_out(event)
            case e.SequenceFinished():
                self._statistics = evolve(counts, n_finished=counts.n_finished + 1)
                self._streams.pop(event.sequence)._carry_out(event)
            case _:
                pass  # All else is the core's own.

    def _break(self, error: LogBroken | InternalError, cause: Exception | None = None) -> None:
        """End everybody at once: nothing can be recorded, so nothing may happen."""
        error.__cause__ = cause or error.__cause__
        self._broken = error
        self._broken_streams = list(self._streams.values())
        for stream in self._broken_streams:
            stream._end_with(again(error))
            stream._send.close()
        self._streams.clear()
        self._send_plan.close()
        if self._journal is not None:
            self._journal.close()
