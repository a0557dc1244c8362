"""A request's tokens and the bits of its logits depend on nothing but the request."""

from pathlib import Path
from typing import Any, Final

import pytest
import trio

from reenact.replay import replay_log
from reenact.runtime import open_runtime
from reenact.runtime.cli.default_model import installed_model
from tests.helpers.sessions import read_fields
from tests.model.scenarios import RULES, STORY, Lines, WatchedEngine, of, smollm2

pytestmark = pytest.mark.model

Drawn = dict[int, tuple[int, int]]
"""The token and the checksum of the logits for each index."""

LETTERS: Final = [RULES + letter for letter in ("Dear keeper, may I come?", "Dear keeper, how far is it?")]
LONG: Final = RULES * 3


def drawn(lines: Lines) -> dict[str, Drawn]:
    """Return what was drawn for each request, by its name."""
    names = {fields["sequence"]: fields["request_id"] for fields in of(lines, "RequestReceived")}
    found: dict[str, Drawn] = {name: {} for name in names.values()}
    for planned, decoded in zip(of(lines, "BatchPlanned"), of(lines, "BatchDecoded"), strict=True):
        indices = [part["wants"] for part in planned["parts"] if "wants" in part]
        for index, sample in zip(indices, decoded.get("samples", ()), strict=bool(decoded.get("samples", ()))):
            name = names[sample["sequence"]]
            found[name][index] = (sample["token"], sample["logits_crc32"])
    return found


REQUESTS: Final[dict[str, tuple[str, dict[str, Any]]]] = {
    "first letter": (LETTERS[0], {"seed": 1, "num_predict": 16}),
    "second letter": (LETTERS[1], {"seed": 2, "num_predict": 16}),
    "story": (STORY, {"seed": 3, "num_predict": 24, "repeat_penalty": 1.3}),
    "again": (STORY, {"seed": 4, "num_predict": 8}),
    "json": ("A list of numbers: ", {"seed": 5, "num_predict": 16, "format": "json"}),
    "quick": ("Quickly:", {"seed": 6, "num_predict": 6, "priority": 1}),
    "shifted": (STORY[:60], {"seed": 7, "num_predict": 24, "num_keep": 2}),
    "after": (LONG, {"seed": 8, "num_predict": 4}),
}


async def ask(runtime: Any, name: str, **more: Any) -> None:
    """Make one of the requests."""
    prompt, options = REQUESTS[name]
    await runtime.complete(prompt, request_id=name, **options, **more)


async def alone(path: Path, **settings: Any) -> dict[str, Drawn]:
    """Return what each request draws in a context of its own, evaluated from the start."""
    found: dict[str, Drawn] = {}
    for name in REQUESTS:
        log = path / f"{name}.jsonl"
        async with smollm2(log, n_slots=1, **settings) as runtime:
            await ask(runtime, name)
        replay_log(log).raise_for_divergence()
        found |= drawn(read_fields(log))
    return found


async def test_preemption_fork_reuse_and_a_cancelled_neighbour(session_log: Path, tmp_path: Path) -> None:
    """In a crowd where all of it happens, every request draws the same tokens from the same bits as alone."""
    engine = WatchedEngine(installed_model())
    async with open_runtime(engine, log=session_log, n_ctx=512, n_slots=3, n_batch=64) as runtime:
        async with trio.open_nursery() as nursery:
            async with runtime.stream(LETTERS[0], request_id="first letter", **REQUESTS["first letter"][1]) as stream:
                await stream.__anext__()
                nursery.start_soon(ask, runtime, "second letter")
                with trio.CancelScope() as scope:
                    async with trio.open_nursery() as neighbours:
                        neighbours.start_soon(runtime_complete, runtime, LONG)
                        await engine.begun(runtime.statistics().n_batches + 3)
                        scope.cancel()
                await ask(runtime, "after")
                for name in ("story", "json", "again"):
                    nursery.start_soon(ask, runtime, name)
                await engine.begun(runtime.statistics().n_batches + 3)
                await ask(runtime, "quick")
                async for _ in stream:
                    pass
        statistics = runtime.statistics()
    lines = read_fields(session_log)
    assert statistics.n_forks >= 1
    assert statistics.n_preempted >= 1
    assert statistics.n_aborted >= 1
    reused = {fields["sequence"]: fields["reused"] for fields in of(lines, "SlotAssigned")}
    names = {fields["request_id"]: fields["sequence"] for fields in of(lines, "RequestReceived")}
    assert reused[names["after"]] > 8
    together = drawn(lines)
    expected = await alone(tmp_path, n_ctx=512)
    for name in REQUESTS:
        if name != "shifted":
            assert (name, expected[name]) == (name, together[name])


async def test_shifts_beside_others(session_log: Path, tmp_path: Path) -> None:
    """Sequences whose context is shifted again and again do not depend on their company either."""
    async with smollm2(session_log, n_ctx=32, n_slots=3) as runtime, trio.open_nursery() as nursery:
        for name in ("shifted", "json", "story"):
            nursery.start_soon(ask, runtime, name)
    assert runtime.statistics().n_shifts >= 2
    together = drawn(read_fields(session_log))
    expected = await alone(tmp_path, n_ctx=32)
    for name in ("shifted", "json", "story"):
        assert (name, expected[name]) == (name, together[name])


async def runtime_complete(runtime: Any, prompt: str) -> None:
    """Complete a prompt, and drop the text."""
    await runtime.complete(prompt, request_id="left", seed=9)
