"""With the durability "power", whatever the disk does, readers never have text that a crash of the machine takes."""

from contextlib import suppress
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
import trio
import trio.testing
from hypothesis import strategies as st

from reenact.actors.errors import LogBroken
from reenact.replay import check_log, replay_log
from reenact.runtime import Runtime, ScriptedEngine, open_runtime
from tests.helpers.disks import Disk, Seen
from tests.helpers.properties import holds_for

SECONDS = st.sampled_from([0.0, 0.001, 0.01, 0.03, 0.5])
REQUESTS = st.lists(
    st.fixed_dictionaries(
        {
            "at": SECONDS,
            "num_predict": st.integers(1, 12),
            "left_at": st.integers(0, 4),
            "pause": SECONDS,
        }
    ),
    min_size=1,
    max_size=5,
)


@holds_for(
    examples=200,
    seconds=st.lists(SECONDS, min_size=1, max_size=4),
    fails=st.none() | st.integers(0, 12),
    requests=REQUESTS,
    max_reader_lag=st.integers(1, 6),
    compressed=st.booleans(),
)
def test_nobody_reads_what_is_not_on_the_disk(
    seconds: list[float], fails: int | None, requests: list[dict[str, float]], max_reader_lag: int, *, compressed: bool
) -> None:
    """Each chunk and each result is on the disk when it is given; a sync that fails is an error of all, and no hang."""
    with TemporaryDirectory() as folder, pytest.MonkeyPatch.context() as patch:
        disk = Disk(Path(folder) / ("log.jsonl.zst" if compressed else "log.jsonl"), seconds, fails)
        disk.use(patch)
        seen, n_ended = Seen(disk), 0

        async def ask(runtime: Runtime, at: float, num_predict: float, left_at: float, pause: float) -> None:
            nonlocal n_ended
            await trio.sleep(at)
            with suppress(LogBroken):
                async with runtime.stream("hi", num_predict=int(num_predict)) as stream:
                    n_read = 0
                    async for chunk in stream:
                        seen.add(stream.sequence, chunk.text)
                        n_read += 1
                        if n_read == left_at:
                            break
                        await trio.sleep(pause)
                seen.texts[stream.sequence] = ""
                seen.add(stream.sequence, stream.completion.text)
            n_ended += 1

        async def session() -> None:
            engine = ScriptedEngine([f" {i}" for i in range(20)], batch_seconds=0.01)
            with trio.fail_after(1000):
                async with (
                    open_runtime(
                        engine, log=disk.log, durability="power", n_slots=2, n_ctx=32, max_reader_lag=max_reader_lag
                    ) as runtime,
                    trio.open_nursery() as nursery,
                ):
                    for one in requests:
                        nursery.start_soon(partial(ask, runtime, **one))

        broken = None
        try:
            trio.run(session, clock=trio.testing.MockClock(autojump_threshold=0))
        except* LogBroken as group:
            broken = group
        assert len(requests) == n_ended
        assert (fails is not None and disk.n_syncs > fails) or broken is None
        assert [] == seen.unsynced()
        assert replay_log(disk.log).first_divergence is None
        assert "holds" == check_log(disk.log).outcome
