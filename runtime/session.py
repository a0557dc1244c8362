"""Runs a session: connects the callers, the kernel, the journal and the engine.

The rules that hold here:

* Tasks only give events to the kernel (`Session.give`) and carry out its records. Nothing is decided here.
* The journal is written in `Session.give`, with one ``write`` for a given event and all records that follow from it,
  before any of them is carried out: before a batch crosses to the compute thread, and before text is released. With
  the durability "power" text is released when it is on the disk, too, which nothing but its reader waits for.
* One task, the engine's, crosses to the compute thread, once for each step. It is shielded, so every plan in the log
  gets its outcome.
* Grammars are checked in another thread, so that no other sequence waits for a large grammar.
* Ctrl-C waits while any of this runs: a fact is processed and recorded as a whole, or not at all.
* An error is raised where its caller waits. A session that cannot go on ends every stream at once and takes no more
  requests.
"""

import math
from collections import deque
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import trio

from reenact.actors import events as e
from reenact.actors.errors import (
    EngineBroken,
    Failure,
    InternalError,
    InvalidRequest,
    LogBroken,
    ReenactError,
    copy_of,
    cut,
    description,
    shown,
)
from reenact.actors.inputs import Input, Row
from reenact.actors.limits import MAX_PROMPT_NUMBERS
from reenact.actors.metrics import Metrics, times
from reenact.actors.options import Options
from reenact.runtime import console
from reenact.runtime.earlier_requests import EarlierRequests
from reenact.runtime.engine.driver import Crossing, Driver, execute
from reenact.runtime.engine.protocol import Engine, Message, Rendered
from reenact.runtime.engine.row_numbers import GivenRows, HeldNumbers, Numbers, numbers_of
from reenact.runtime.engine_thread import Compute
from reenact.runtime.live_requests import LiveRequest, live_requests
from reenact.runtime.log.resumption import Resumption
from reenact.runtime.log.writer import Journal
from reenact.runtime.outbox import Outbox
from reenact.runtime.pieces import Piece, pieces_again
from reenact.runtime.request import Request

T = TypeVar("T")
A = TypeVar("A")


class Session:
    """A session of one engine, and the tasks that serve it."""

    def __init__(
        self,
        header: e.SessionOpened,
        engine: Engine,
        compute: Compute,
        aside: Compute,
        journal: Journal | None,
        *,
        outbox: Outbox | None = None,
        resumption: Resumption | None = None,
    ) -> None:
        self.header = header
        self.engine = engine
        self.compute = compute
        self._aside = aside
        self.metrics = Metrics()
        self._journal = journal
        self._outbox = outbox
        self._nursery: trio.Nursery | None = None
        self._driver = Driver() if resumption is None else resumption.driver
        self._given: deque[e.GivenEvent] = deque()
        self._giving = False
        self._live: dict[int, Request] = {}
        self._numbers = HeldNumbers()
        self._batch_seconds = engine.batch_seconds
        self._batch_time = trio.CancelScope()
        """The time that the batch in flight takes on trio's clock."""
        # One batch is in flight at a time, so there is always room for one.
        self._send_plan, self._receive_plan = trio.open_memory_channel[tuple[Crossing, Numbers]](1)
        self._left = False
        """Whether the runtime's block is being left."""
        self._broken: LogBroken | InternalError | None = None
        """The reason why nothing can be recorded any more."""
        self._reported = False
        """Whether it was raised to a later caller."""
        self._broken_live: list[Request] = []
        self._show = console.subscriber()
        self._started = trio.current_time()
        self.earlier = EarlierRequests()
        if resumption is None:
            self.give(header)
        else:
            self._take_up(resumption)

    def _take_up(self, resumption: Resumption) -> None:
        """Restore the requests of a session that another process left, and let its actors go on."""
        self._started -= resumption.facts[-1].t / 1e9
        for fact in resumption.facts:
            for record in fact.records:
                self.metrics.add(record.event, fact.t)
                self.earlier.add(record.event, fact.t, self.metrics.timelines)
        self._live = self.earlier.live
        for live in self._live.values():
            live.outbox = self._outbox
        for sequence, rows in self.earlier.rows.items():
            self._numbers.hold(sequence, [GivenRows(rows, {row: resumption.rows[row] for row in rows})])
        self.give(resumption.event)
        self.give(e.CellsLost())
        for one in self._driver.kernel.live:
            if one.reader_paused:
                self.give(e.ReaderResumed(sequence=one.sequence))

    def serve(self, nursery: trio.Nursery) -> None:
        """Start the tasks."""
        self._nursery = nursery
        nursery.start_soon(self._run_engine)
        if self._outbox is not None:
            nursery.start_soon(self._run_outbox, self._outbox)
        for one in self._driver.kernel.live:  # Of a session that is resumed.
            request = self.earlier.received[one.sequence]
            since = self._started + self.metrics.timelines[one.sequence].received / 1e9
            if one.n_prompt is None:
                nursery.start_soon(self._tokenize_again, request, since)
            if (due := _due(request.options, since)) < math.inf:
                nursery.start_soon(self._expire, self._live[one.sequence], due)

    async def _tokenize_again(self, request: e.RequestReceived, since: float) -> None:
        """Have the prompt of a request tokenized that another process had not tokenized."""
        live = self._live[request.sequence]
        try:
            pieces = pieces_again(request, self.header.context)
            grammar = await self.compile(request.options, since)
            await self.tokenize(live, pieces, grammar=grammar)
        except ReenactError as error:
            if not live.ended:
                self.give(e.TokenizeFailed(sequence=request.sequence, error=description(error)))

    # ------------------------------------------------------------ a request

    def check_open(self) -> None:
        """Refuse a request if nothing can be recorded any more, or if the runtime is being left."""
        if self._broken is not None:
            self._reported = True
            raise copy_of(self._broken)
        if self._left:
            raise trio.ClosedResourceError("the runtime was left")

    @property
    def next_sequence(self) -> int:
        """The number of the next request."""
        return self._driver.kernel.n_requests + 1

    @property
    def log(self) -> Path | None:
        """The log; None without one."""
        return None if self._journal is None else self._journal.path

    @property
    def n_log_bytes(self) -> int:
        """The count of bytes in the log; 0 without one."""
        return 0 if self._journal is None else self._journal.n_bytes

    def live_requests(self) -> list[LiveRequest]:
        """Return the requests that have not ended."""
        return live_requests(self._driver.kernel.state)

    @contextmanager
    def refusals(self, request_id: str | None) -> Iterator[None]:
        """Record refusals of a request that has no number yet.

        Args:
            request_id: The caller's name for the request.
        """
        try:
            yield
        except InvalidRequest as error:
            self._refuse(
                request_id, Failure(kind="invalid_request", field=cut(error.field), reason=cut(error.recorded))
            )
            raise
        except EngineBroken as error:
            self._refuse(request_id, Failure(kind="engine_broken", reason=cut(error.reason)))
            raise

    def _refuse(self, request_id: str | None, failure: Failure) -> None:
        if not self._left:
            name = cut(request_id) if type(request_id) is str else None
            self.give(e.RequestRefused(request_id=name, failure=failure))

    @trio.lowlevel.enable_ki_protection
    def receive(self, request: e.RequestReceived, since: float) -> Request:
        """Record a request.

        Args:
            request: The request.
            since: The time when its caller asked, from which its deadline counts.

        Raises:
            Overloaded, EngineBroken, LogBroken, InternalError: The request is rejected.
        """
        live = Request(request, self.header.limits.max_reader_lag, self._outbox)
        self._live[request.sequence] = live
        self.give(request)
        live.raise_if_failed()
        if (due := _due(request.options, since)) <= trio.current_time():
            self.give(e.DeadlineExpired(sequence=live.sequence))
        elif due < math.inf and self._nursery is not None and not live.ended:
            self._nursery.start_soon(self._expire, live, due)
        return live

    async def compile(self, options: Options, since: float) -> str | None:
        """Return the grammar that options ask for, in GBNF; other requests generate meanwhile.

        A caller that is cancelled leaves at once. If the deadline passes, the result is None, and the request ends by
        its deadline without tokens.

        Args:
            options: The options.
            since: The time when their caller asked.

        Raises:
            InvalidRequest: The grammar does not compile.
            EngineBroken: The engine raised something else.
        """
        if options.format is None and options.grammar is None:
            return None
        with trio.move_on_at(_due(options, since)):
            return await self._ask(self._aside, self.engine.compile, options, str, may_leave=True)
        return None

    @property
    def chat_template(self) -> str:
        """The source of the engine's chat template; empty if the engine has none, or shows none."""
        return getattr(self.engine, "chat_template", "")

    async def render(
        self, messages: list[Message], tools: Sequence[dict[str, Any]] = (), *, think: bool | None = None
    ) -> Rendered:
        """Return a chat as the model's template renders it.

        Args:
            messages: The messages.
            tools: The tools that the assistant may call.
            think: Whether the model is to think first; None for the template's default.

        Raises:
            InvalidRequest: The template refuses the messages.
            EngineBroken: The engine raised something else.
        """
        # An engine of a user's own may know neither.
        given = {"tools": tools or None, "think": think}
        asked: dict[str, Any] = {name: value for name, value in given.items() if value is not None}
        render: Callable[[list[Message]], Rendered] = partial(self.engine.render, **asked)
        return await self._ask(self.compute, render, messages, Rendered)

    async def count(self, pieces: Sequence[Piece], *, beside_bos: bool = False) -> int:
        """Return the number of inputs of a prompt; 0 if it cannot be tokenized, which its request will report.

        Args:
            pieces: The pieces of the prompt.
            beside_bos: Do not count a BOS that was added.
        """
        try:
            inputs, bos_added = await self.compute.run(self._tokenize, pieces)
        except Exception:  # noqa: BLE001  # as in `tokenize`
            return 0
        return len(inputs) - (beside_bos and bos_added)

    async def _ask(
        self, where: Compute, call: Callable[[T], A | None], about: T, kind: type[A], *, may_leave: bool = False
    ) -> A:
        try:
            answer = await where.run(call, about, may_leave=may_leave)
        except ReenactError:
            raise
        except Exception as error:
            raise EngineBroken(f"the engine failed: {description(error)}") from error
        if type(answer) is not kind:
            raise EngineBroken(f"the engine failed: expected {kind.__name__}, got {shown(answer)}")
        return answer

    async def tokenize(
        self, live: Request, pieces: Sequence[Piece], *, grammar: str | None, bos_added: bool = False
    ) -> None:
        """Have a request's texts tokenized, and record the inputs.

        Args:
            live: The request.
            pieces: The pieces of the prompt, in order: texts, and inputs that stay as they are.
            grammar: The grammar in force.
            bos_added: Whether inputs at the beginning include BOS; for a text, the vocabulary decides.
        """
        try:
            inputs, bos_found = await self.compute.run(self._tokenize, pieces)
        except Exception as error:  # noqa: BLE001  # an engine may raise anything; all of it is recorded
            if not live.ended:
                self.give(e.TokenizeFailed(sequence=live.sequence, error=description(error)))
        else:
            if not live.ended:
                bos = bos_added or bos_found
                self._numbers.hold(live.sequence, (piece for piece in pieces if isinstance(piece, GivenRows)))
                self.give(e.PromptTokenized(sequence=live.sequence, inputs=inputs, bos_added=bos, grammar=grammar))
        live.raise_if_failed()

    def _tokenize(self, pieces: Sequence[Piece]) -> tuple[tuple[Input, ...], bool]:
        """Return the inputs of a prompt, and whether a BOS was added; in the compute thread."""
        inputs: list[Input] = []
        bos_added = False
        for piece in pieces:
            if isinstance(piece, str | Rendered):
                tokenized = self.engine.tokenize(piece, after=inputs[-1] if inputs else None)
                if not set(map(type, tokenized.tokens)) <= {int}:
                    raise TypeError("a token is not a whole number")
                inputs += tokenized.tokens
                bos_added |= tokenized.bos_added
            else:
                inputs += piece.rows if isinstance(piece, GivenRows) else piece
        if sum(self.header.context.n_embd if isinstance(one, Row) else 1 for one in inputs) > MAX_PROMPT_NUMBERS:
            raise ValueError(f"a prompt has more than {MAX_PROMPT_NUMBERS:,} tokens and numbers of rows")
        return tuple(inputs), bos_added

    def cancel(self, live: Request) -> None:
        """Record that the caller left, if the sequence has not ended."""
        if not live.ended:
            self.give(e.CancelRequested(sequence=live.sequence))

    async def part_with(self, live: Request) -> None:
        """Record that the caller left, if the sequence has not ended, and wait until its result may be read."""
        self.cancel(live)
        if self._outbox is not None:
            with trio.CancelScope(shield=True):
                await live.over.wait()

    async def _expire(self, live: Request, due: float) -> None:
        with live.deadline:
            await trio.sleep_until(due)
        if not live.ended:
            self.give(e.DeadlineExpired(sequence=live.sequence))

    def _pause(self, live: Request, max_pause: float) -> None:
        """Start the time that a paused sequence may keep its slot."""
        live.pause = trio.CancelScope()
        if self._nursery is not None:
            self._nursery.start_soon(self._expire_pause, live, live.pause, max_pause)

    async def _expire_pause(self, live: Request, pause: trio.CancelScope, max_pause: float) -> None:
        with pause:
            await trio.sleep(max_pause)
            self.give(e.PauseExpired(sequence=live.sequence))

    def resume_reader(self, sequence: int) -> None:
        """Record that a slow reader has caught up."""
        self.give(e.ReaderResumed(sequence=sequence))

    # ------------------------------------------------------------ the engine's task, and leaving

    @trio.lowlevel.enable_ki_protection
    async def _run_engine(self) -> None:
        """Cross to the engine with each batch that is planned, until the runtime is left."""
        with trio.CancelScope(shield=True):
            async for crossing, numbers in self._receive_plan:
                await self._take_time()
                self.give(await self.compute.run(execute, self.engine, crossing, numbers))
            if self._outbox is not None:
                self._outbox.stop()

    @trio.lowlevel.enable_ki_protection
    async def _run_outbox(self, outbox: Outbox) -> None:
        """Sync the log and deliver, until the engine's task has ended."""
        with trio.CancelScope(shield=True):
            await self._synced(outbox.run)

    async def _synced(self, sync: Callable[[], Awaitable[None]]) -> None:
        try:
            await sync()
        except LogBroken as error:
            if self._broken is None:
                self._break(error)

    async def _take_time(self) -> None:
        """Wait for the engine's ``batch_seconds``; an abort ends the wait."""
        if self._batch_seconds:
            with self._batch_time:
                await trio.sleep(self._batch_seconds)

    @trio.lowlevel.enable_ki_protection
    def leave(self) -> None:
        """Cancel every sequence and take no more requests; the batch in flight is awaited by the engine's task."""
        self._left = True
        for live in list(self._live.values()):
            live.end_with(trio.ClosedResourceError("the runtime was left"))
            self.give(e.CancelRequested(sequence=live.sequence))
        self._send_plan.close()

    @trio.lowlevel.enable_ki_protection
    async def close(self) -> None:
        """Record the end of the session and close the log."""
        self.give(e.SessionClosed(digest=self._driver.kernel.digest()))
        if self._outbox is not None and self._broken is None:
            with trio.CancelScope(shield=True):
                await self._synced(self._outbox.sync)
        if self._journal is not None:
            self._journal.close()

    def raise_unreported(self) -> None:
        """Raise the error that broke the runtime, unless some caller has got it."""
        if self._broken is not None and not self._reported and not any(one.reported for one in self._broken_live):
            raise self._broken

    # ------------------------------------------------------------ the kernel

    @trio.lowlevel.enable_ki_protection
    def give(self, given: e.GivenEvent) -> None:
        """Give an event to the kernel, write the journal, and carry out the records.

        Events that are given meanwhile follow afterwards.
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
        worked = self._driver.give(given)
        records, error = worked.records, worked.error
        try:
            if self._journal is not None:
                self._journal.append(records, t, self._numbers)
        except LogBroken as raised:
            self._break(raised)
            return
        except Exception as raised:  # noqa: BLE001  # an engine's value that no log can contain
            error = raised
        if error is not None:
            fact = f"{type(given).__name__} cannot be recorded and processed: {description(error)}"
            self._break(InternalError(fact), error)
            return
        if self._outbox is not None:
            self._outbox.written()
        for record in records:
            self.metrics.add(record.event, t)
        for record in records:
            self._carry_out(record.event, t)
        self._show_all(records)

    def _show_all(self, records: list[e.Record]) -> None:
        """Print records on the console; if it fails it is off from then on, because nothing may depend on it."""
        if self._show is not None:
            try:
                for record in records:
                    self._show(record)
            except Exception:  # noqa: BLE001  # it is the application's own
                self._show = None

    def _carry_out(self, event: e.Event, t: int) -> None:
        """Do what a record requires outside the core."""
        match event:
            case e.BatchPlanned() if self._driver.crossing is not None:
                self._batch_time = trio.CancelScope()
                self._send_plan.send_nowait((self._driver.crossing, numbers_of(event, self._numbers)))
            case e.AbortRequested():
                with suppress(Exception):  # A batch that cannot be aborted runs to its end.
                    self.engine.abort(event.batch)
                self._batch_time.cancel()
            case e.BatchDecoded():
                for sample in event.samples:
                    if sample.sequence in self._live:
                        self._live[sample.sequence].sampled(sample)
            case e.SequencePaused() if self.header.limits.max_pause is not None and event.sequence in self._live:
                self._pause(self._live[event.sequence], self.header.limits.max_pause)
            case e.SequenceResumed() if event.sequence in self._live:
                self._live[event.sequence].pause.cancel()
            case e.SequenceFinished():
                self._numbers.release(event.sequence)
                timeline = self.metrics.timelines[event.sequence]
                self._live.pop(event.sequence).finish(event, timeline, times(timeline, t))
            case e.PromptTokenized() | e.TokenEmitted() | e.StopMatched() | e.EmbeddingComputed() if (
                event.sequence in self._live
            ):
                if self._live[event.sequence].carry_out(event):
                    self.give(e.ReaderPaused(sequence=event.sequence))
            case _:
                pass  # Other records concern the core only.

    def _break(self, error: LogBroken | InternalError, cause: Exception | None = None) -> None:
        """End all requests at once: nothing can be recorded, so nothing may happen."""
        error.__cause__ = cause or error.__cause__
        self._broken = error
        waited = [] if self._outbox is None else self._outbox.drop()
        self._broken_live = list(dict.fromkeys([*self._live.values(), *waited]))
        for live in self._broken_live:
            live.end_with(copy_of(error))
            live.close()
        self._live.clear()
        self._send_plan.close()
        if self._journal is not None:
            self._journal.close()


def _due(options: Options, since: float) -> float:
    """Return the deadline, on trio's clock, of a request that was made at ``since``; infinity if it has none."""
    return math.inf if options.deadline is None else since + options.deadline
