"""Many streaming clients, of which some hang up at a random moment."""

from pathlib import Path

import pytest

from reenact.replay import check_log, replay_log
from tests.helpers.http_load import HANG_UPS, alone, hang_ups, run_load
from tests.helpers.sessions import read_fields

SOON = 0.05
"""The seconds in which a hang-up becomes a cancel, unless the machine lets the loop wait."""
MOST_GROWTH = 2.0
"""The MiB by which memory may grow from the middle of a load to its end."""


@pytest.mark.parametrize("n_requests", [100, pytest.param(1000, marks=pytest.mark.long)])
async def test_hang_ups_under_load(tmp_path: Path, n_requests: int) -> None:
    """Clients that hang up are cancelled at once, wherever; no slot is lost, and others get their texts as if alone."""
    load = await run_load(tmp_path / "log.jsonl", n_requests)
    found = hang_ups(load)
    assert n_requests * HANG_UPS / 2 < len(found) < n_requests * HANG_UPS * 2
    assert {"queue", "prefill", "stream"} <= {one.stage for one in found}
    late = [one for one in found if one.seconds is not None and one.seconds > SOON + 2 * load.latest]
    assert [] == late
    assert (0, 0) == (load.n_active, load.n_waiting)
    assert load.sizes[-1] - load.sizes[len(load.sizes) // 2] < MOST_GROWTH
    texts = await alone(load.asked)
    left = {one.number for one in load.asked if one.hung_up is not None}
    assert [] == [one for one in load.asked if not (one.whole or one.number in left)]
    assert {one.number: texts[one.number] for one in load.asked if one.whole} == {
        one.number: one.text for one in load.asked if one.whole
    }
    assert [] == [one for one in load.asked if not texts[one.number].startswith(one.text)]
    records = read_fields(load.log)
    received = {one["sequence"] for one in records if one["type"] == "RequestReceived"}
    assert received == {one["sequence"] for one in records if one["type"] == "SequenceFinished"}
    assert "same" == replay_log(load.log).verdict
    assert [] == list(check_log(load.log).violations)
