"""Live requests, shown while they wait."""

from typing import Any

import httpx
import pytest
import trio
import trio.testing

from reenact.runtime.http import app
from reenact.runtime.pytest_plugin import OpenScripted
from tests.helpers.http import CHAT, client


async def test_who_waits_for_whom(scripted_runtime: OpenScripted, autojump_clock: trio.testing.MockClock) -> None:
    """Of two requests for one slot the first is in the engine, and the second waits for a slot behind it."""
    assert autojump_clock.current_time() >= 0
    async with scripted_runtime(["x"] * 5, batch_seconds=10.0, n_slots=1) as runtime, client(runtime) as asking:

        async def ask(name: str) -> None:
            await asking.post(
                "/api/chat", json={"model": "m", "messages": CHAT, "stream": False}, headers={"x-request-id": name}
            )

        async with trio.open_nursery() as nursery:
            nursery.start_soon(ask, "first")
            await trio.sleep(5)
            nursery.start_soon(ask, "second")
            await trio.sleep(2)
            listed = (await asking.get("/debug/requests")).json()["requests"]
            named = (await asking.get("/debug/requests/second")).json()["requests"]
            numbered = (await asking.get("/debug/requests/1")).json()["requests"]
        after = (await asking.get("/debug/requests")).json()["requests"]
        gone = await asking.get("/debug/requests/second")
        session = runtime.header.session
    first: dict[str, Any] = {"model": "m:latest", "session": session, "sequence": 1, "request_id": "first", "slot": 0}
    first |= {"n_prompt": 19, "n_sampled": 0, "waits_for": "engine", "behind": []}
    second = first | {"sequence": 2, "request_id": "second", "slot": None, "waits_for": "slot", "behind": [1]}
    assert [first, second] == listed
    assert ([second], [first]) == (named, numbered)
    assert ([], 404) == (after, gone.status_code)


@pytest.mark.parametrize(
    ("address", "expected"),
    [
        ("192.0.2.1", [403, 403]),
        ("::ffff:192.0.2.1", [403, 403]),
        ("::1", [200, 404]),
        ("::ffff:127.0.0.1", [200, 404]),
    ],
)
async def test_a_client_of_another_machine_sees_nothing(
    scripted_runtime: OpenScripted, address: str, expected: list[int]
) -> None:
    """Where its address is not a loopback address, it gets a 403."""
    async with scripted_runtime(["x"]) as runtime:
        transport = httpx.ASGITransport(app({"m": runtime}), client=(address, 5))
        async with httpx.AsyncClient(transport=transport, base_url="http://localhost") as asking:
            statuses = [(await asking.get(path)).status_code for path in ("/debug/requests", "/debug/requests/1")]
    assert expected == statuses
