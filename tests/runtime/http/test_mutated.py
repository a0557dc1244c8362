"""Requests that nobody sends: each has an answer, and none is a fault of the server (``make fuzz-http`` gives more)."""

from pathlib import Path

import pytest

from tests.helpers.properties import FRESH_SEED, FRESH_SEED_NAME
from tests.helpers.serving import embedding_engine, scripted, served_model, serving
from tests.runtime.http.judged import ask_by_socket, faults, judged, still_serves
from tests.runtime.http.mutated import asked


@pytest.mark.parametrize(("first", "n"), [(0, 100), (FRESH_SEED, 150)], ids=["fixed", "fresh"])
async def test_every_request_has_an_answer(tmp_path: Path, first: int, n: int) -> None:
    """Whatever is asked, no status is 5xx but 503 and the 501 of what is not done, and the log replays."""
    statuses = set()
    async for request, answer, wrong in judged(map(asked, range(first, first + n)), tmp_path):
        assert [] == wrong, f"{request}; {FRESH_SEED_NAME}={FRESH_SEED} gives the same requests"
        statuses.add(answer.status)
    assert {200, 400, 404, 405} <= statuses


async def test_a_server_survives_them(tmp_path: Path) -> None:
    """The same over sockets, with damaged heads; the server answers afterwards, and holds no request."""
    async with serving(
        scripted("m", tmp_path, draws_from="history"), served_model("v", None, embedding_engine)
    ) as server:
        for seed in range(60):
            request = asked(seed)
            answer = await ask_by_socket(server.port, request)
            assert [] == list(faults(request, answer, tmp_path)), request
        assert [] == await still_serves(server.url)
        assert [] == server.warnings
