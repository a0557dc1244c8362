"""Where an engine's calls are made."""

import threading

import pytest
import trio

from reenact.runtime.engine_thread import ComputeThread


async def test_all_calls_are_made_in_one_thread() -> None:
    """Calls from different tasks run in the same thread, which is not trio's, in the order they came."""
    compute = ComputeThread()
    made: list[tuple[int, int]] = []

    def call(i: int) -> int:
        made.append((i, threading.get_ident()))
        return i

    async with trio.open_nursery() as nursery:
        for i in range(10):
            nursery.start_soon(compute.run, call, i)
    await compute.finish(lambda: None)
    assert list(range(10)) == sorted(i for i, _ in made)
    assert 1 == len({thread for _, thread in made} - {threading.get_ident()})


async def test_an_error_comes_back_to_who_asked() -> None:
    """What a call raises is raised where it was asked for, and the thread goes on."""
    compute = ComputeThread()
    with pytest.raises(ZeroDivisionError):
        await compute.run(lambda: 1 / 0)
    assert 7 == await compute.run(lambda: 7)
    await compute.finish(lambda: None)


async def test_a_call_that_is_made_is_waited_for() -> None:
    """A cancelled task gets what its call returned: a call cannot be taken back."""
    compute = ComputeThread()
    release = threading.Event()

    def call() -> str:
        assert release.wait(10)
        return "done"

    with trio.CancelScope() as scope:
        scope.cancel()
        release.set()
        assert "done" == await compute.run(call)
    await compute.finish(lambda: None)
