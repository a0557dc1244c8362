"""Sessions that tests record: whole runtimes on `ScriptedEngine`."""

from collections.abc import Iterator
from contextlib import AsyncExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any, Final, Unpack

import structlog
import trio

from reenact.actors.errors import ReenactError
from reenact.actors.options import RequestOptions
from reenact.runtime import Runtime, ScriptedEngine, open_runtime
from reenact.runtime.engine.scripted import DEAD_END, EOG, NAN, Script
from reenact.runtime.log.codec import Fields, dumps, plain
from reenact.runtime.log.line import sealed
from reenact.runtime.log.reader import LogFile, entries

_LONG: Final = "longer than its sixteen cells"

EVENTFUL_SCRIPTS: Final[dict[str, Script]] = {
    "plain prompt": ["a", "b", "c", "d", "e", "f", EOG],
    "stopped": ["x", "y<", "/s", ">z", "never"],
    "held": ["one", "<", "/", EOG],
    "bytes": [b"\xf0\x9f", b"\x98\x80", b"\xe2\x82", "!", EOG],
    "full to the brim": ["t", "t"],
    "queued": ["q"],
    "nan": ["n", NAN],
    "no way": ["w", DEAD_END],
    "unread": ["u"] * 40,
    "left": ["l"] * 100,
    "first": ["f"],
    "too many": ["m"],
    _LONG[:4] + _LONG[-12:]: ["s"],
}


async def eventful_session(path: Path) -> None:
    """Record a session of about 350 records in which nearly everything happens that can."""
    engine = ScriptedEngine(EVENTFUL_SCRIPTS, faults={1: -2})
    async with open_runtime(
        engine,
        log=path,
        n_slots=3,
        n_ctx=16,
        n_batch=8,
        determinism="recorded-schedule",
        max_waiting=3,
        max_reader_lag=2,
        max_pause=0.9,
    ) as runtime:
        # It ends by the fault, alone.
        await _ask(runtime, "plain prompt")
        # Six are served at once: three have a slot and three wait. The first one's context is shifted.
        async with trio.open_nursery() as nursery:
            for prompt in ("plain prompt", "stopped", "held", "bytes", "nan", "no way"):
                nursery.start_soon(_ask, runtime, prompt)
        await _ask(runtime, "full to the brim", shift=False)
        await _ask(runtime, _LONG, logprobs=True, top_logprobs=1)
        # It leaves with its prompt in flight.
        async with runtime.stream("plain prompt"):
            pass
        await _stalled(runtime)
        # One reader stalls, for longer than it keeps its slot, and goes on, beside one that leaves in flight.
        async with runtime.stream("unread", num_predict=6) as unread:
            async with runtime.stream("left") as left:
                await left.__anext__()
            await trio.sleep(1)
            async for _ in unread:
                pass
        await _ask(runtime, "refused", top_k=-1)


async def _ask(runtime: Runtime, prompt: str, **options: Unpack[RequestOptions]) -> None:
    asked: RequestOptions = {"stop": ["</s>"], **options}
    with suppress(ReenactError):
        await runtime.complete(prompt, request_id=f"the {prompt} one", **asked)


async def _stalled(runtime: Runtime) -> None:
    """Let readers stall that have all slots, and others come."""
    async with AsyncExitStack() as stack:
        for _ in range(3):
            await stack.enter_async_context(runtime.stream("left", deadline=5))
        await trio.sleep(0.5)
        # It takes the slot of the youngest, and a fourth one has it after that.
        await _ask(runtime, "first", priority=1)
        await stack.enter_async_context(runtime.stream("left"))
        # As many wait as may, and one more is refused; another one goes before the last of them, which leaves for it.
        for priority in (0, 0, -1):
            await stack.enter_async_context(runtime.stream("queued", priority=priority))
        await _ask(runtime, "too many", priority=-1)
        await _ask(runtime, "first")
        # The deadlines come.
        await trio.sleep(10)


@contextmanager
def console_shows() -> Iterator[list[tuple[str, Any]]]:
    """Configure structlog, and collect what it is told: the level and the event of each line."""
    shown: list[tuple[str, Any]] = []

    def show(_logger: object, level: str, event: Any) -> str:
        shown.append((level, event))
        return ""

    structlog.configure(processors=[show])
    try:
        yield shown
    finally:
        structlog.reset_defaults()


def read_fields(path: Path) -> list[Fields]:
    """Return the plain values of every record of a log, with all that its line leaves out."""
    with LogFile(path) as log:
        return [plain(entry.record, entry.t) for entry in entries(log)]


def write_fields(path: Path, lines: list[Fields]) -> None:
    """Write records of which each line leaves out nothing, with the checksums made right."""
    crc = 0
    data = b""
    for fields in lines:
        line, crc = sealed(dumps(fields), crc)
        data += line
    path.write_bytes(data)
