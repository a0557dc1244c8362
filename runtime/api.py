"""Opens a session: checks settings, loads the model, writes the header, starts the tasks; and closes it."""

import os
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import cast, get_args

import trio
from attrs import define

from reenact.actors import events as e
from reenact.actors.batcher import POLICIES
from reenact.actors.errors import EngineBroken, InvalidRequest, reading, shown
from reenact.actors.header import Durability, Limits
from reenact.actors.limits import MAX_PAUSE, MAX_READER_LAG, MAX_WAITING
from reenact.runtime.engine.protocol import ContextSettings, Determinism, Engine, Loaded, not_a_time
from reenact.runtime.engine.session_header import check_same, resumed_event, session_header
from reenact.runtime.engine_thread import Compute, ComputeThread, InPlace
from reenact.runtime.extra import missing
from reenact.runtime.ki_protection import protected_context
from reenact.runtime.log.resumption import Resumption, resumption
from reenact.runtime.log.writer import Journal
from reenact.runtime.log_name import check_template, is_template, named
from reenact.runtime.outbox import Outbox
from reenact.runtime.runtime import Runtime
from reenact.runtime.session import Session
from reenact.runtime.sources import Sources

_THE_WORLD = Sources()


@protected_context
async def open_runtime(
    model: str | os.PathLike[str] | Engine,
    *,
    log: str | os.PathLike[str] | None = None,
    resume: bool = False,
    durability: Durability | None = None,
    n_slots: int = 4,
    n_ctx: int = 2048,
    n_batch: int = 64,
    n_threads: int | None = None,
    determinism: Determinism = "auto",
    logits_hash: bool = True,
    max_waiting: int = MAX_WAITING,
    max_reader_lag: int = MAX_READER_LAG,
    max_pause: float | None = MAX_PAUSE,
    sources: Sources = _THE_WORLD,
) -> AsyncIterator[Runtime]:
    """Load a model and serve requests until the block is left, which cancels the rest and closes the log.

    Args:
        model: A GGUF file, or an engine.
        log: The new file to record the session in, prompts included, maybe with fields in its name: {model},
            {opened_at}, {session}; ``runtime.log`` is the name. None records nothing.
        resume: Go on with the session of ``log``, if there is one whose process died, on the same machine with the same
            settings. Every request that had not ended goes on; `Runtime.resume` gives a caller its text.
        durability: "process" (the default of a new log): text that a caller has is in the log, even if the process is
            killed; "power": even if the machine loses power; "relaxed": lost with the process, for benchmarks.
        n_slots: The count of sequences that are evaluated together.
        n_ctx: The count of cells for each sequence: for the tokens of its prompt and those it generates.
        n_batch: The most rows of a batch, at least ``n_slots``. More make prompts faster and other sequences slower.
        n_threads: The count of threads that compute; by default one for each CPU. Fewer help beside busy programs.
        determinism: "schedule-independent": a request's output depends on nothing but the model, the prompt, the
            options and the seed. "recorded-schedule": llama.cpp's fastest settings; the output depends on concurrent
            requests too. "auto" takes the first where it is possible; ``runtime.determinism`` has the reason.
        logits_hash: Record the checksum of every row of logits, for a re-execution; else only tokens are compared.
        max_waiting: The most requests that may wait, up to 4,096; if more come, the last in turn gets `Overloaded`.
        max_reader_lag: The count of chunks that a reader may leave unread before its sequence pauses.
        max_pause: Seconds that a paused sequence keeps its slot, or None; its text stays the same if it gives it up.
        sources: The wall clock, session id and seeds.

    Raises:
        InvalidRequest: A setting is invalid or impossible, or not that of the session to resume; or no model.
        LogNotComparable, LogCorrupt: The session cannot be resumed.
        OSError: The model cannot be read or the log cannot be made; FileExistsError for a log that exists.
        EngineBroken, LogBroken: The model cannot be loaded; or the end of the session could not be written.
    """
    settings = ContextSettings(
        n_slots=n_slots,
        n_ctx=n_ctx,
        n_batch=n_batch,
        n_threads=cpus() if n_threads is None else n_threads,
        determinism=determinism,
        logits_hash=logits_hash,
    )
    limits = Limits(max_waiting=max_waiting, max_reader_lag=max_reader_lag, max_pause=max_pause)
    engine = _engine(model)
    recording = _resumed(log, durability, sources) if resume else _recording(log, durability)
    threads = _Threads(engine, recording.durability)
    last: Callable[[], None] = _nothing
    try:
        loaded = await threads.compute.run(engine.load, settings)
        last = engine.close  # Only if it was loaded here: another runtime may have the engine.
        header = _header(loaded, limits, sources, recording)
        async with _serving(header, engine, threads, recording) as session:
            yield Runtime(session, sources)
    finally:
        try:
            await threads.finish(last)
        finally:
            recording.discard()


@define(kw_only=True)
class _Recording:
    """The log of a session, and its durability."""

    durability: Durability = "process"
    template: Path | None = None
    """The name of the log, if the session's header fills it in; then the log is made once there is one."""
    journal: Journal | None = None
    earlier: Resumption | None = None
    """The session to go on with, whose log it is."""

    def open(self, header: e.SessionOpened) -> None:
        """Make the log, if that was not possible earlier."""
        if self.template is not None:
            self.journal = Journal(named(self.template, header), durability=self.durability)

    def discard(self) -> None:
        """Close the log and, if nothing was written, remove it."""
        if self.journal is not None:
            self.journal.discard()


class _Threads:
    """The threads of a session; for an engine that does not compute, the calling task."""

    def __init__(self, engine: Engine, durability: Durability) -> None:
        make = ComputeThread if engine.computes else InPlace
        self.compute: Compute = make()
        """For decoding."""
        self.aside: Compute = make() if engine.computes else self.compute
        """For checking grammars at the same time."""
        self.disk: Compute | None = make() if durability == "power" else None
        """For syncs of the log."""
        self._others = [one for one in (self.aside, self.disk) if one is not None] if engine.computes else []

    async def finish(self, last: Callable[[], None]) -> None:
        """End the threads, and the engine only after a grammar that is still being checked."""
        try:
            for other in self._others:
                await other.finish(_nothing)
        finally:
            await self.compute.finish(last)


def _nothing() -> None:
    """Do nothing, because the engine was not loaded."""


@asynccontextmanager
async def _serving(
    header: e.SessionOpened,
    engine: Engine,
    threads: _Threads,
    recording: _Recording,
) -> AsyncIterator[Session]:
    """Run a session's tasks around a block, and raise an error of the block itself, not in a group."""
    recording.open(header)
    journal, earlier = recording.journal, recording.earlier
    outbox = None if journal is None or threads.disk is None else Outbox(journal, threads.disk)
    if outbox is not None and earlier is not None:
        await outbox.sync()  # The process that died may have written what is not on the disk.
    session = Session(header, engine, threads.compute, threads.aside, journal, outbox=outbox, resumption=earlier)
    session.raise_unreported()
    try:
        try:
            async with _ungrouped(), trio.open_nursery() as nursery:
                session.serve(nursery)
                try:
                    yield session
                finally:
                    session.leave()
        finally:
            await session.close()
    except trio.Cancelled:
        session.raise_unreported()
        raise
    session.raise_unreported()


@asynccontextmanager
async def _ungrouped() -> AsyncIterator[None]:
    """Take one error out of the group that a nursery makes around it."""
    try:
        yield
    except BaseExceptionGroup as group:
        if len(group.exceptions) > 1:
            raise
        error = group.exceptions[0]
        context = error.__context__
        try:
            raise error
        finally:
            error.__context__ = context  # Not the group, which the caller did not make.


def cpus() -> int:
    """Return the number of CPUs that this process may use."""
    try:
        return len(os.sched_getaffinity(0))
    except AttributeError:  # Not on Linux.
        return os.cpu_count() or 1


def _engine(model: str | os.PathLike[str] | Engine) -> Engine:
    with reading("model"):
        path = Path(model) if isinstance(model, str | os.PathLike) else None
        computes, batch_seconds = hasattr(model, "computes"), getattr(model, "batch_seconds", None)
    if path is not None:
        return llama_engine(path)
    if not computes:
        raise InvalidRequest("model", f"expected a path or an engine, got {shown(model)}")
    if (wrong := not_a_time(batch_seconds)) is not None:
        raise InvalidRequest("model", f"the engine's {wrong}")
    return cast("Engine", model)


def _resumed(log: str | os.PathLike[str] | None, durability: Durability | None, sources: Sources) -> _Recording:
    """Return the session of a log that was not closed; or a new one if there is no such log."""
    if log is None:
        raise InvalidRequest("resume", "there is nothing to resume without a log: give log=...")
    with reading("log"):
        path = Path(log)
    if is_template(path):
        raise InvalidRequest("resume", "one session goes on: give log= the name of its log, without fields")
    if not path.exists() or not path.stat().st_size:
        return _recording(log, durability)
    _check_durability(durability)
    earlier = resumption(path, resumed_event(sources.wall_clock().isoformat()), durability)
    return _Recording(durability=earlier.journal.durability, journal=earlier.journal, earlier=earlier)


def _recording(log: str | os.PathLike[str] | None, durability: Durability | None) -> _Recording:
    _check_durability(durability)
    if log is None:
        if durability is not None:
            raise InvalidRequest("durability", "nothing is recorded without a log: give log=...")
        return _Recording()
    with reading("log"):
        path = Path(log)
    durability = durability or "process"
    if is_template(path):
        check_template(path)
        return _Recording(durability=durability, template=path)
    return _Recording(durability=durability, journal=Journal(path, durability=durability))


def _check_durability(durability: Durability | None) -> None:
    if durability is not None and not (type(durability) is str and durability in get_args(Durability)):
        names = ", ".join(f'"{name}"' for name in get_args(Durability))
        raise InvalidRequest("durability", f"expected one of {names}, got {shown(durability)}")


def llama_engine(path: str | os.PathLike[str], *, name: str | None = None, **callbacks: Callable[..., None]) -> Engine:
    """Return a `LlamaEngine` with these callbacks; its module needs an extra, and is imported only here.

    Raises:
        EngineBroken: llama.cpp is not installed; the error has the command that installs it.
    """
    try:
        from reenact.runtime.llama.engine import LlamaEngine
    except ImportError as error:
        raise EngineBroken(missing(error)) from None
    return LlamaEngine(path, name=name, **callbacks)


def _header(loaded: Loaded, limits: Limits, sources: Sources, recording: _Recording) -> e.SessionOpened:
    earlier = recording.earlier
    if earlier is not None:
        check_same(earlier.header, loaded, limits)
        return earlier.header
    return session_header(
        loaded,
        session=sources.session(),
        opened_at=sources.wall_clock().isoformat(),
        limits=limits,
        policies=POLICIES,
        durability=recording.durability,
    )
