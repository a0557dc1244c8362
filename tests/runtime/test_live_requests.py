from functools import partial
from itertools import pairwise
from pathlib import Path

import trio

from reenact.replay.fold import Fold
from reenact.replay.look.waits import waits_at
from reenact.runtime.live_requests import live_requests
from reenact.runtime.log.reader import LogFile, entries
from reenact.runtime.pytest_plugin import OpenScripted

GOLDEN = Path(__file__).parents[1] / "golden"


def compared(path: Path) -> int:
    """Compare after every fact of a log, and return the most sequences that one waited behind."""
    most = 0
    fold = Fold()
    with LogFile(path) as log:
        found = list(entries(log))
    for entry, following in pairwise(found):
        fold.add(entry)
        moment = fold.moment(following=following)
        if not moment.settled:
            continue  # No task of a runtime sees a state between a fact and the last record that follows from it.
        waits = {wait.sequence: wait.behind for wait in waits_at(moment)}
        live = {one.sequence: one.behind for one in live_requests(moment.state)}
        assert {sequence: waits[sequence] for sequence in live} == live, f"{path.name}, record {fold.n}"
        most = max(most, *map(len, live.values()), 0)
    return most


def test_a_request_waits_as_replay_state_shows_it() -> None:
    """After every fact of the golden logs a live request waits behind the sequences that `replay state` names."""
    assert max(map(compared, sorted(GOLDEN.glob("*.jsonl")))) > 0


async def test_a_full_session_waits_so_too(scripted_runtime: OpenScripted, session_log: Path) -> None:
    """With more requests than slots, priorities and common beginnings, one waits behind all holders of slots."""
    async with scripted_runtime(["x"] * 6, n_slots=2, n_batch=4) as runtime, trio.open_nursery() as nursery:
        for number in range(8):
            prompt = "the same beginning" if number % 2 else f"{number}"
            nursery.start_soon(partial(runtime.complete, prompt, priority=number % 3))
    assert compared(session_log) > 1
