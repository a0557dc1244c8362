"""Sessions that tests record: whole runtimes on `ScriptedEngine`."""

from contextlib import suppress
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
    """Record a session of about 200 records in which nearly everything happens that can."""
    async with (
        open_runtime(
            ScriptedEngine(EVENTFUL_SCRIPTS, faults={1: -2}),
            log=path,
            n_slots=3,
            n_ctx=24,
            n_batch=8,
            max_waiting=5,
            max_reader_lag=2,
        ) as runtime,
        trio.open_nursery() as nursery,
    ):

        async def ask(prompt: str, stop: tuple[str, ...] = ()) -> None:
            with suppress(ReenactError):
                await runtime.complete(prompt, request_id=f"the {prompt} one", stop=stop)

        async def lag() -> None:
            async with runtime.stream("unread", num_predict=12) as stream:
                await trio.sleep(1)
                async for _ in stream:
                    pass

        async def leave_the_queue() -> None:
            async with runtime.stream("left"), runtime.stream("left"), runtime.stream("left"), runtime.stream("queued"):
                return

        async def leave() -> None:
            async with runtime.stream("left") as stream:
                async for _ in stream:
                    return

        await ask("plain prompt")
        await leave_the_queue()
        for prompt in ("plain prompt", "stopped", "held", "bytes", "nan", "full", "too many", "too many", "too many"):
            nursery.start_soon(ask, prompt, ("</s>",) if prompt in {"stopped", "held"} else ())
        await trio.sleep(1)
        nursery.start_soon(lag)
        nursery.start_soon(leave)


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
