"""The order of trio's tasks is an input: whatever it is, the log holds it and what follows is a function of it."""

from functools import partial
from pathlib import Path

import pytest
import trio

from reenact.replay import replay_log
from reenact.runtime import ScriptedEngine, open_runtime
from reenact.runtime.log.codec import Fields
from reenact.runtime.sources import Sources
from tests.helpers.sessions import read_fields

pytestmark = pytest.mark.usefixtures("autojump_clock")

RUNS = 100
SCRIPTS = {"stopped": ["a", "<", "end>", "b"], "ends": ["c", "d"], "also ends": ["f"], "left": ["e"] * 9}


async def arrivals(path: Path) -> None:
    """Record a session in which four requests arrive at the same instant: one is left, one ends at a stop string."""
    seeds = iter(range(100))
    sources = Sources(seed=lambda: next(seeds))
    async with (
        open_runtime(ScriptedEngine(SCRIPTS), log=path, n_slots=2, n_batch=4, sources=sources) as runtime,
        trio.open_nursery() as nursery,
    ):

        async def leave() -> None:
            async with runtime.stream("left") as stream:
                async for _ in stream:
                    return

        nursery.start_soon(partial(runtime.complete, "stopped", stop=["<end>"]))
        nursery.start_soon(runtime.complete, "ends")
        nursery.start_soon(runtime.complete, "also ends")
        nursery.start_soon(leave)


def givens(lines: list[Fields]) -> str:
    """Return a session's given events without when they happened and without the header, which tells sessions apart."""
    return repr([{**fields, "n": None, "t": None} for fields in lines[1:-1] if "cause" not in fields])


def derived(lines: list[Fields]) -> str:
    """Return a session's derived events without when they happened."""
    return repr([{**fields, "t": None} for fields in lines if "cause" in fields])


async def test_a_hundred_runs_under_random_scheduling(tmp_path: Path) -> None:
    """A hundred runs of one session replay the same; equal given events have equal derived events, byte for byte."""
    follows: dict[str, set[str]] = {}
    for run in range(RUNS):
        path = tmp_path / f"{run}.jsonl"
        await arrivals(path)
        replay_log(path).raise_for_divergence()
        lines = read_fields(path)
        follows.setdefault(givens(lines), set()).add(derived(lines))
    assert len(follows) > 1, "trio's scheduling was not random: the test shows nothing"
    assert len(follows) < RUNS, "no two runs had the same given events: the test shows nothing"
    assert {1} == {len(one) for one in follows.values()}
