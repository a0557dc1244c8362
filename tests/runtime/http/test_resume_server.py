"""A server that was killed goes on with its sessions, and a repeated request gets the answer of the first."""

from pathlib import Path
from typing import Any

import httpx
import pytest
from attrs import evolve

from reenact.replay import replay_log
from reenact.runtime.http.on_demand import ServedModel
from tests.helpers.serving import scripted, serving, until
from tests.helpers.sessions import read_fields

LETTERS = ["a", "b", "c", "d", "e", "f", "g", "h"]
ASKED: dict[str, Any] = {"model": "m", "prompt": "x", "raw": True, "stream": False}
MINE = {"x-request-id": "mine"}


def resuming(folder: Path) -> ServedModel:
    """Return the model of a server that resumes."""
    return evolve(scripted("m", folder, LETTERS), resume=True)


async def killed_at(
    folder: Path, share: float, path: str = "/api/generate", body: dict[str, Any] | None = None
) -> Path:
    """Record an answer, and cut its log as if the server had been killed; return the log."""
    async with (
        serving(scripted("m", folder, LETTERS)) as server,
        httpx.AsyncClient(base_url=server.url) as asking,
    ):
        await asking.post(path, json=body or ASKED, headers=MINE)
    (log,) = folder.glob("*.jsonl.zst")
    raw = log.read_bytes()
    log.write_bytes(raw[: int(len(raw) * share)])
    return log


async def test_a_repeated_request_gets_the_answer_of_the_first(tmp_path: Path) -> None:
    """The session goes on in its log, and the client that repeats its id gets the text from the beginning, once."""
    log = await killed_at(tmp_path, 0.8)
    async with (
        serving(resuming(tmp_path)) as server,
        httpx.AsyncClient(base_url=server.url) as asking,
    ):
        first = await asking.post("/api/generate", json=ASKED, headers=MINE)
        again = await asking.post("/api/generate", json=ASKED, headers=MINE)
    assert ("abcdefgh", "1") == (first.json()["response"], first.headers["x-reenact-sequence"])
    assert ("abcdefgh", "2") == (again.json()["response"], again.headers["x-reenact-sequence"])
    assert log.name.endswith(f"{first.headers['x-reenact-session']}.jsonl.zst")
    assert [log] == list(tmp_path.glob("*.jsonl.zst"))
    assert "same" == replay_log(log).verdict


CHAT: dict[str, Any] = {"messages": [{"role": "system", "content": "s"}, {"role": "user", "content": "x"}]}
OTHER: dict[str, Any] = {"messages": [{"role": "system", "content": "s"}, {"role": "user", "content": "y"}]}


@pytest.mark.parametrize(
    ("path", "body", "other"),
    [
        ("/api/generate", {"prompt": "x", "raw": True}, {"prompt": "y", "raw": True}),
        ("/api/generate", {"prompt": "x"}, {"prompt": "x", "options": {"temperature": 0.5}}),
        ("/api/generate", {"prompt": "x", "options": {"seed": 7}}, {"prompt": "x", "options": {"seed": 8}}),
        ("/api/chat", CHAT, OTHER),
        ("/v1/chat/completions", CHAT, CHAT | {"max_tokens": 3}),
        ("/v1/completions", {"prompt": "x"}, {"prompt": "xx"}),
        ("/v1/responses", {"input": "x"}, {"input": "y"}),
    ],
)
async def test_another_request_of_the_same_id_is_a_new_one(
    tmp_path: Path, path: str, body: dict[str, Any], other: dict[str, Any]
) -> None:
    """A client that uses an id again gets the answer to what it asks; the answer before is still there."""
    common = {"model": "m", "stream": False}
    await killed_at(tmp_path, 0.8, path, common | body)
    async with (
        serving(resuming(tmp_path)) as server,
        httpx.AsyncClient(base_url=server.url) as asking,
    ):
        found = [await asking.post(path, json=common | one, headers=MINE) for one in (other, body, body)]
    assert [200, 200, 200] == [one.status_code for one in found]
    assert ["2", "1", "3"] == [one.headers["x-reenact-sequence"] for one in found]


async def test_requests_go_on_without_their_clients(tmp_path: Path) -> None:
    """A server that resumes opens the model by itself, and the requests of the killed one end."""
    log = await killed_at(tmp_path, 0.8)
    async with serving(resuming(tmp_path)):
        await until(lambda: any(fields["type"] == "SequenceFinished" for fields in read_fields(log)))
    assert "same" == replay_log(log).verdict


async def asked_again(folder: Path) -> list[str]:
    """Resume with the logs of a folder, repeat the request, and return the server's warnings."""
    async with (
        serving(resuming(folder)) as server,
        httpx.AsyncClient(base_url=server.url) as asking,
    ):
        await asking.post("/api/generate", json=ASKED, headers=MINE)
    return server.warnings


async def test_another_models_log_is_left_alone(tmp_path: Path) -> None:
    """A model whose name is the end of another one's does not go on with that one's session."""
    log = await killed_at(tmp_path, 0.8)
    log = log.rename(log.with_name(log.name.replace("-m-", "-big-m-")))
    before = log.read_bytes()
    warnings = await asked_again(tmp_path)
    assert before == log.read_bytes()
    assert [] == warnings


async def test_a_session_that_was_closed_is_left_alone(tmp_path: Path) -> None:
    """Where the latest session was closed, a new one begins."""
    log = await killed_at(tmp_path, 1.0)
    before = log.read_bytes()
    await asked_again(tmp_path)
    assert before == log.read_bytes()
    assert 2 == len(list(tmp_path.glob("*.jsonl.zst")))


async def test_a_log_that_cannot_be_resumed_is_told(tmp_path: Path) -> None:
    """The console gets the reason, the log stays as it is, and a new session begins."""
    log = await killed_at(tmp_path, 0.8)
    raw = bytearray(log.read_bytes())
    raw[len(raw) // 2] ^= 255
    log.write_bytes(bytes(raw))
    async with (
        serving(resuming(tmp_path)) as server,
        httpx.AsyncClient(base_url=server.url) as asking,
    ):
        answer = await asking.post("/api/generate", json=ASKED, headers=MINE)
        (warning,) = server.warnings
    assert "abcdefgh" == answer.json()["response"]
    assert "cannot be resumed" in warning
    assert bytes(raw) == log.read_bytes()
