"""Many streaming clients of one server, of which some hang up at a random moment; and what became of each."""

import json
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from random import Random
from typing import Any, Final, Literal

import trio
from attrs import Factory, define, frozen

from reenact.actors import events as e
from reenact.runtime import ScriptedEngine, open_runtime
from reenact.runtime.engine.protocol import Drawing
from reenact.runtime.http import app
from reenact.runtime.http.server import answer, listening
from tests.helpers.sessions import read_fields

N_CLIENTS: Final = 64
HANG_UPS: Final = 0.2
"""The share of clients that hang up."""
PATIENCE: Final = 0.5
"""The most seconds that a client waits in the queue before it hangs up."""
N_TOKENS: Final = 12

Stage = Literal["no request", "tokenizing", "queue", "prefill", "stream", "at the end"]
"""Where a client hung up, as the log has it: before its request was read, after its sequence had ended, or between."""
STAGES: Final[tuple[Stage, ...]] = ("no request", "tokenizing", "queue", "prefill", "stream", "at the end")


@frozen(kw_only=True)
class Asked:
    """One client's request and its answer."""

    number: int
    prompt: str
    text: str
    whole: bool
    """Whether its answer came to its end."""
    hung_up: float | None
    """When it hung up, in seconds since the session opened."""


@frozen(kw_only=True)
class HangUp:
    """A hang-up as the log has it."""

    number: int
    stage: Stage
    seconds: float | None
    """From the hang-up, or from its RequestReceived if that came later, to its CancelRequested; None where nothing was
    left to cancel."""


@define
class Load:
    """A load, while it runs and afterwards."""

    log: Path
    asked: list[Asked] = Factory(list)
    sizes: list[float] = Factory(list)
    """The process's memory in MiB, after each twentieth of the requests."""
    n_active: int = -1
    """How many sequences had a slot when all clients had gone."""
    n_waiting: int = -1
    latest: float = 0.0
    """By how many seconds the loop was late at most: what else runs on the machine, and all that is done in one go."""


Leaving = dict[str | None, trio.CancelScope]


def memory() -> float:
    """Return the memory that this process holds, in MiB."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 2**20


class WatchedEngine(ScriptedEngine):
    """An engine whose tokens depend on the prompt, the seed and what was generated; it tells whose turn it is."""

    def __init__(self, batch_seconds: float, heard: Callable[[e.Part], None]) -> None:
        super().__init__(draws_from="history", batch_seconds=batch_seconds)
        self._heard = heard

    def step(self, planned: e.BatchPlanned, drawings: Mapping[int, Drawing], numbers: Any) -> e.BatchDecoded:
        """Play, and tell of each part."""
        for part in planned.parts:
            self._heard(part)
        return super().step(planned, drawings, numbers)


async def run_load(log: Path, n_requests: int, *, seed: int = 14) -> Load:
    """Serve a load, and return what its clients saw."""
    load = Load(log)
    listener = listening("127.0.0.1", 0)
    port = listener.getsockname()[1]
    ending = trio.Event()
    limit = trio.CapacityLimiter(N_CLIENTS)
    leaving: Leaving = {}
    """The clients that hang up in the prefill of their request, by its id."""

    def heard(part: e.Part) -> None:
        live = runtime._session._live.get(part.sequence)
        if live is not None and live.request_id in leaving:
            leaving.pop(live.request_id).cancel()

    engine = WatchedEngine(0.002, heard)
    async with open_runtime(engine, log=log, n_slots=8, n_batch=64, max_waiting=N_CLIENTS) as runtime:
        opened = runtime._session._started

        async def serve(*, task_status: trio.TaskStatus[None]) -> None:
            await answer(app({"m": runtime}), listener, ending, warn=print, task_status=task_status)

        async def one(number: int, random: Random) -> None:
            async with limit:
                load.asked.append(await _ask(port, number, random, opened, leaving))
                if len(load.asked) % max(n_requests // 20, 1) == 0:
                    load.sizes.append(memory())

        async def watch() -> None:
            while True:
                due = trio.current_time() + 0.005
                await trio.sleep_until(due)
                load.latest = max(load.latest, trio.current_time() - due)

        async with trio.open_nursery() as nursery:
            await nursery.start(serve)
            nursery.start_soon(watch)
            async with trio.open_nursery() as clients:
                for number in range(n_requests):
                    clients.start_soon(one, number, Random(f"{seed} {number}"))  # noqa: S311  # the same in every run
            with trio.move_on_after(10):
                while runtime.statistics().n_finished < runtime.statistics().n_requests:  # noqa: ASYNC110  # nobody says so
                    await trio.sleep(0.01)
            load.n_active, load.n_waiting = runtime.statistics().n_active, runtime.statistics().n_waiting
            ending.set()
            nursery.cancel_scope.cancel()
    return load


async def _ask(port: int, number: int, random: Random, opened: float, leaving: Leaving) -> Asked:
    """Read a stream to its end, or hang up: in the request, after a while, in the prefill, or in the stream."""
    prompt = f"{number} " + "word " * random.randrange(80)
    body = {"model": "m", "prompt": prompt, "raw": True, "options": {"seed": number, "num_predict": N_TOKENS}}
    raw = json.dumps(body).encode()
    head = "POST /api/generate HTTP/1.1\r\nHost: localhost\r\n"
    sent = f"{head}X-Request-Id: {number}\r\nContent-Length: {len(raw)}\r\n\r\n".encode() + raw
    leaves = random.choice(("request", "wait", "wait", "prefill", "stream")) if random.random() < HANG_UPS else None
    patience, n_parts = random.random() * PATIENCE, random.randrange(1, 6)
    stream = await trio.open_tcp_stream("127.0.0.1", port)
    await stream.send_all(sent[: random.randrange(len(sent))] if leaves == "request" else sent)
    received: list[bytes] = []
    with trio.move_on_after(patience if leaves in {"request", "wait"} else 600) as scope:
        if leaves == "prefill":
            leaving[str(number)] = scope
        async for part in stream:
            received.append(bytes(part))
            if part.endswith(b"0\r\n\r\n"):
                break
            if leaves == "stream" and len(received) > n_parts:
                scope.cancel()
    hung_up = trio.current_time() - opened if scope.cancelled_caught else None
    await stream.aclose()
    lines = [json.loads(line) for line in b"".join(received).splitlines() if line.startswith(b"{")]
    text = "".join(line["response"] for line in lines)
    return Asked(number=number, prompt=prompt, text=text, whole=bool(lines) and lines[-1]["done"], hung_up=hung_up)


async def alone(asked: list[Asked]) -> dict[int, str]:
    """Return the text of each request by its number, generated by a runtime that serves nothing else meanwhile."""
    found = {}
    async with open_runtime(ScriptedEngine(draws_from="history"), n_slots=1, n_batch=64) as runtime:
        for one in asked:
            completion = await runtime.complete(one.prompt, seed=one.number, num_predict=N_TOKENS)
            found[one.number] = completion.text
    return found


def hang_ups(load: Load) -> list[HangUp]:
    """Return the hang-ups of a load, from its log."""
    times: dict[int, dict[str, float]] = {}
    """When each sequence first met each kind of record."""
    numbers: dict[str, int] = {}
    for fields in read_fields(load.log):
        if fields["type"] == "RequestReceived":
            numbers[fields["request_id"]] = fields["sequence"]
        for one in _sequences(fields):
            times.setdefault(one, {}).setdefault(fields["type"], fields["t"] / 1e9)
    found = []
    for asked in load.asked:
        if asked.hung_up is not None:
            met = times.get(numbers.get(str(asked.number), 0), {})
            found.append(HangUp(number=asked.number, stage=_stage(met), seconds=_seconds(met, asked.hung_up)))
    return found


def _sequences(fields: dict[str, Any]) -> list[int]:
    if fields["type"] == "BatchDecoded":
        return [sample["sequence"] for sample in fields.get("samples", ())]
    return [fields["sequence"]] if "sequence" in fields else []


def _stage(met: dict[str, float]) -> Stage:
    if "RequestReceived" not in met:
        return "no request"
    if "CancelRequested" not in met:
        return "at the end"
    at = met["CancelRequested"]
    passed = {kind for kind, t in met.items() if t < at}
    if "BatchDecoded" in passed:
        return "stream"
    if "SlotAssigned" in passed:
        return "prefill"
    return "queue" if "PromptTokenized" in passed else "tokenizing"


def _seconds(met: dict[str, float], hung_up: float) -> float | None:
    """Return the seconds to the cancel; to the end where a sequence ended later than it was hung up on."""
    hung_up = max(hung_up, met.get("RequestReceived", hung_up))
    if "CancelRequested" in met:
        return met["CancelRequested"] - hung_up
    return max(met["SequenceFinished"] - hung_up, 0.0) if "SequenceFinished" in met else None
