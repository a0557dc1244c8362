"""Sessions that tests record: whole runtimes on `ScriptedEngine`."""

from contextlib import AsyncExitStack, suppress
from pathlib import Path
from typing import Final

import trio

from reenact.actors.errors import ReenactError
from reenact.runtime import ScriptedEngine, open_runtime
from reenact.runtime.codec import Fields, dumps, loads
from reenact.runtime.journal import LogFile, sealed
from reenact.runtime.scripted import EOG, NAN, Script

EVENTFUL_SCRIPTS: Final[dict[str, Script]] = {
    "plain prompt": ["a", "b", "c", "d", "e", "f", EOG],
    "stopped": ["x", "y<", "/s", ">z", "never"],
    "held": ["one", "<", "/", EOG],
    "bytes": [b"\xf0\x9f", b"\x98\x80", b"\xe2\x82", "!", EOG],
    "full": ["t"] * 100,
    "queued": ["q"],
    "nan": ["n", NAN],
    "unread": ["u"] * 40,
    "left": ["l"] * 100,
    "too many": ["m"],
}


async def eventful_session(path: Path) -> None:
    """Record a session of about 250 records in which nearly everything happens that can."""
    engine = ScriptedEngine(EVENTFUL_SCRIPTS, faults={1: -2})
    async with open_runtime(
        engine, log=path, n_slots=3, n_ctx=16, n_batch=8, max_waiting=3, max_reader_lag=2
    ) as runtime:

        async def ask(prompt: str) -> None:
            with suppress(ReenactError):
                await runtime.complete(prompt, request_id=f"the {prompt} one", stop=["</s>"])

        # It ends by the fault, alone.
        await ask("plain prompt")
        # Six are served at once: three have a slot and three wait.
        async with trio.open_nursery() as nursery:
            for prompt in ("plain prompt", "stopped", "held", "bytes", "nan", "full"):
                nursery.start_soon(ask, prompt)
        # Three stalled readers have the slots, one request waits and is left.
        async with AsyncExitStack() as stack:
            for _ in range(3):
                await stack.enter_async_context(runtime.stream("left"))
            for _ in range(3):
                await stack.enter_async_context(runtime.stream("queued"))
            await ask("too many")
        # One reader stalls and goes on, beside one that leaves in flight.
        async with runtime.stream("unread", num_predict=6) as unread:
            async with runtime.stream("left") as left:
                await left.__anext__()
            await trio.sleep(1)
            async for _ in unread:
                pass


def read_fields(path: Path) -> list[Fields]:
    """Return the plain values of every line of a log, without the checksums."""
    with LogFile(path) as log:
        return [loads(line.body) for line in log]


def write_fields(path: Path, lines: list[Fields]) -> None:
    """Write lines with the checksums made right."""
    crc = 0
    data = b""
    for fields in lines:
        line, crc = sealed(dumps(fields), crc)
        data += line
    path.write_bytes(data)
