"""Many streaming clients, of which some hang up at a random moment."""

from pathlib import Path
from random import Random

import pytest
import trio

from reenact.replay import check_log, replay_log
from tests.helpers.serving import Server, post, scripted, serving
from tests.helpers.sessions import read_fields

N_CLIENTS = 64


async def _ask(server: Server, number: int, random: Random, texts: dict[int, str]) -> None:
    """Read a stream to its end, or hang up: one in five does, before its head or in the stream."""
    body = {"model": "m", "prompt": f"{number} ", "raw": True, "options": {"seed": number, "num_predict": 12}}
    hangs_up, patience = random.random() < 0.2, random.random() * 0.4
    stream = await post(server.port, "/api/generate", body)
    received = b""
    with trio.move_on_after(patience if hangs_up else 60) as scope:
        async for part in stream:
            received += part
            if received.endswith(b"0\r\n\r\n"):
                break
    await stream.aclose()
    if not scope.cancelled_caught:
        texts[number] = received.partition(b"\r\n\r\n")[2].decode()


@pytest.mark.parametrize("n_requests", [200, pytest.param(1000, marks=pytest.mark.long)])
async def test_hang_ups_under_load(tmp_path: Path, n_requests: int) -> None:
    """Clients that hang up are cancelled, no slot is lost, others are answered, and the log keeps all rules."""
    random = Random(14)  # noqa: S311  # who hangs up, the same in every run
    texts: dict[int, str] = {}
    limit = trio.CapacityLimiter(N_CLIENTS)
    engine = scripted(
        "m", tmp_path, draws_from="history", batch_seconds=0.002, settings={"n_slots": 8, "max_waiting": N_CLIENTS}
    )

    async def one(number: int) -> None:
        async with limit:
            await _ask(server, number, random, texts)

    async with serving(engine) as server:
        async with trio.open_nursery() as nursery:
            for number in range(n_requests):
                nursery.start_soon(one, number)
        stream = await post(server.port, "/api/generate", {"model": "m", "prompt": "last", "raw": True})
        assert (await stream.receive_some()).startswith(b"HTTP/1.1 200")
        await stream.aclose()
    (log,) = tmp_path.glob("*.jsonl")
    records = list(read_fields(log))
    received = {one["sequence"] for one in records if one["type"] == "RequestReceived"}
    ends = {one["sequence"]: one["finish_reason"] for one in records if one["type"] == "SequenceFinished"}
    cancelled = {one["sequence"] for one in records if one["type"] == "CancelRequested"}
    assert received == set(ends)
    assert {number for number, reason in ends.items() if reason == "cancelled"} <= cancelled
    assert n_requests // 10 < len(cancelled) < n_requests // 3
    assert len(texts) > n_requests * 2 // 3
    assert all('"done":true' in text for text in texts.values())
    assert "same" == replay_log(log).verdict
    assert [] == list(check_log(log).violations)
