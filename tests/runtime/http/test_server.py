"""The server on a loopback port: how models come and go, and how it ends."""

import json
from pathlib import Path
from typing import Any

import httpx
import pytest
import trio

from reenact.replay import replay_log
from reenact.runtime import ScriptedEngine
from reenact.runtime.http import server as server_module
from reenact.runtime.http.models import Card
from reenact.runtime.http.on_demand import ModelsOnDemand, ServedModel
from reenact.runtime.model_store import StoredModel
from tests.helpers.serving import post, scripted, served_model, serving, until
from tests.helpers.sessions import read_fields

RAW = {"model": "m", "prompt": "x", "raw": True}


def logs(folder: Path) -> list[Path]:
    """Return the logs, oldest first; each must replay the same."""
    found = sorted(folder.glob("*.jsonl.zst"), key=lambda path: path.stat().st_mtime_ns)
    for log in found:
        assert "same" == replay_log(log).verdict
    return found


def logs_so_far(folder: Path, kind: str) -> list[dict[str, Any]]:
    """Return the records of one type in the only log, which may grow."""
    return [fields for log in folder.glob("*.jsonl.zst") for fields in read_fields(log) if fields["type"] == kind]


async def test_a_model_is_opened_when_it_is_asked(tmp_path: Path) -> None:
    """Nothing is loaded before; then each model has a log of its own, with its session in its name."""
    async with (
        serving(scripted("m", tmp_path, ["a"]), scripted("n", tmp_path, ["b"])) as server,
        httpx.AsyncClient(base_url=server.url) as asking,
    ):
        assert ([], []) == ((await asking.get("/api/ps")).json()["models"], logs(tmp_path))
        response = await asking.post("/api/generate", json=RAW | {"stream": False})
        (running,) = (await asking.get("/api/ps")).json()["models"]
        listed = [tag["name"] for tag in (await asking.get("/api/tags")).json()["models"]]
    assert ("a", "m:latest", ["m:latest", "n:latest"]) == (response.json()["response"], running["name"], listed)
    (log,) = logs(tmp_path)
    assert log.name.endswith(f"-m-latest-{response.headers['x-reenact-session']}.jsonl.zst")
    assert 0o600 == log.stat().st_mode & 0o777


async def test_a_loaded_model_is_described_as_before(tmp_path: Path) -> None:
    """Soon after it is loaded, what ``/api/ps`` tells of a model is what ``/api/tags`` tells."""
    stored = StoredModel(
        name="m:latest", path=tmp_path, store="installed", quantization="Q4_0", parameter_size="135M", sha256="5a" * 32
    )
    model = ServedModel(stored=stored, n_ctx=64, log_folder=None, settings={}, engine=lambda: ScriptedEngine(["a"]))
    async with serving(model) as server, httpx.AsyncClient(base_url=server.url) as asking:
        await asking.post("/api/generate", json=RAW)
        (tag,) = (await asking.get("/api/tags")).json()["models"]
        found: dict[str, Any] = {}
        with trio.fail_after(20):
            while found != tag:
                (running,) = (await asking.get("/api/ps")).json()["models"]
                found = {name: running[name] for name in tag}
    assert "Q4_0" == tag["details"]["quantization_level"]


async def test_many_ask_for_a_model_that_is_not_loaded(tmp_path: Path) -> None:
    """It is opened once."""
    async with serving(scripted("m", tmp_path, ["a"])) as server, httpx.AsyncClient(base_url=server.url) as asking:
        async with trio.open_nursery() as nursery:
            for _ in range(8):
                nursery.start_soon(lambda: asking.post("/api/generate", json=RAW))
    (log,) = logs(tmp_path)
    assert 8 == sum(fields["type"] == "RequestReceived" for fields in read_fields(log))


async def test_a_model_is_unloaded(tmp_path: Path) -> None:
    """With keep_alive 0 it is left behind its answer, and asked again it is another session."""
    async with serving(scripted("m", tmp_path, ["a"])) as server, httpx.AsyncClient(base_url=server.url) as asking:
        first = await asking.post("/api/generate", json=RAW | {"keep_alive": 0})
        second = await asking.post("/api/generate", json=RAW)
        unloaded = await asking.post("/api/generate", json={"model": "m", "keep_alive": 0})
        third = await asking.post("/api/generate", json=RAW)
    assert "unload" == unloaded.json()["done_reason"]
    sessions = [one.headers["x-reenact-session"] for one in (first, second, third)]
    assert 3 == len(set(sessions))
    assert sorted(sessions) == sorted(log.name.removesuffix(".jsonl.zst").rpartition("-")[2] for log in logs(tmp_path))


async def test_a_model_stays_for_longer_than_there_are_dates(tmp_path: Path) -> None:
    """A keep_alive beyond the last date is for ever."""
    async with serving(scripted("m", tmp_path, ["a"])) as server, httpx.AsyncClient(base_url=server.url) as asking:
        await asking.post("/api/generate", json=RAW | {"keep_alive": 1e300})
        (running,) = (await asking.get("/api/ps")).json()["models"]
    assert running["expires_at"].startswith("9999-")


async def test_a_model_expires(autojump_clock: trio.testing.MockClock) -> None:
    """It is left when no request came for as long as it is kept, and not while one uses it."""
    async with trio.open_nursery() as nursery:
        warned: list[str] = []
        models = ModelsOnDemand(nursery, [scripted("m", None, ["a"])], keep_alive=300, warn=warned.append)
        async with models.using("m"):
            await trio.sleep(1000)
            assert 1 == len(models.running())
        await trio.sleep(299)
        assert 1 == len(models.running())
        await trio.sleep(2)
        assert ([], []) == (models.running(), warned)
        async with models.using("M:latest", keep_alive=float("inf")):
            pass
        await trio.sleep(10_000)
        assert [None] == [one.expires_at for one in models.running()]
        nursery.cancel_scope.cancel()


@pytest.mark.parametrize("kind", [OSError, ValueError])
async def test_a_model_that_cannot_be_opened(tmp_path: Path, kind: type[Exception]) -> None:
    """The client learns that it is so, the console why, and the server goes on, whatever was raised."""

    def engine() -> ScriptedEngine:
        raise kind(13, "no such luck", str(tmp_path / "secret"))

    async with (
        serving(served_model("bad", None, engine), scripted("m", None, ["a"])) as server,
        httpx.AsyncClient(base_url=server.url) as asking,
    ):
        bad = await asking.post("/api/generate", json=RAW | {"model": "bad"})
        good = await asking.post("/api/generate", json=RAW)
        assert (500, False, 200) == (bad.status_code, "secret" in bad.text, good.status_code)
        (warning,) = server.warnings
        assert "no such luck" in warning


class Vanished(ServedModel):
    """A model whose file is gone."""

    def card(self) -> Card:
        """Fail as reading the file does."""
        raise FileNotFoundError(2, "No such file or directory")


def vanished(name: str) -> ServedModel:
    """Return a model whose file is gone, with an engine that is loaded all the same."""
    stored = StoredModel(name=f"{name}:latest", path=Path("gone.gguf"), store="installed")
    return Vanished(stored=stored, n_ctx=64, log_folder=None, settings={}, engine=lambda: ScriptedEngine(["a"]))


@pytest.mark.parametrize("path", ["/api/tags", "/v1/models"])
async def test_a_file_that_vanishes_hides_its_model_only(path: str) -> None:
    """The others are listed, and so is it while it is loaded; the console has one warning, with the file."""
    async with (
        serving(vanished("bad"), scripted("good", None, ["a"])) as server,
        httpx.AsyncClient(base_url=server.url) as asking,
    ):
        before = [(await asking.get(path)).text for _ in range(2)]
        missing = await asking.get("/v1/models/bad")
        await asking.post("/api/generate", json=RAW | {"model": "bad"})
        after = (await asking.get(path)).text
        assert [(True, False)] * 2 == [("good:latest" in text, "bad:latest" in text) for text in before]
        assert (404, True) == (missing.status_code, "good:latest" in after and "bad:latest" in after)
        assert ["bad:latest: gone.gguf cannot be read: No such file or directory"] == server.warnings


async def test_a_log_that_breaks_is_a_warning(tmp_path: Path) -> None:
    """The client learns that the log cannot be written; the console has the log's name and the reason, once."""
    slow = scripted("m", tmp_path, ["x"] * 1000, batch_seconds=0.02)
    async with serving(slow) as server, httpx.AsyncClient(base_url=server.url) as asking:
        async with asking.stream("POST", "/api/generate", json=RAW) as response:
            lines = response.aiter_lines()
            await anext(lines)
            (log,) = tmp_path.glob("*.zst")
            log.unlink()
            last = [json.loads(line) async for line in lines][-1]
        again = await asking.post("/api/generate", json=RAW | {"options": {"num_predict": 1}})
        assert ("the log cannot be written", 200) == (last["error"][:25], again.status_code)
        (warning,) = server.warnings
    assert warning.startswith(f"m:latest: {log}: ")


async def test_an_engine_that_breaks_is_opened_again(tmp_path: Path) -> None:
    """A runtime that serves no more is left, and the next request has another one."""
    faults = [{0: RuntimeError("broken")}, {}]

    def engine() -> ScriptedEngine:
        return ScriptedEngine(["a"], faults=faults.pop(0))

    async with (
        serving(served_model("m", tmp_path, engine)) as server,
        httpx.AsyncClient(base_url=server.url) as asking,
    ):
        first = await asking.post("/api/generate", json=RAW)
        second = await asking.post("/api/generate", json=RAW)
    assert (500, 200) == (first.status_code, second.status_code)


@pytest.mark.parametrize("stream", [True, False])
async def test_a_connection_is_closed_as_asked(tmp_path: Path, stream: bool) -> None:
    """A client that wants its connection closed behind the answer reads its end, behind a stream too."""
    raw = json.dumps(RAW | {"stream": stream}).encode()
    head = f"POST /api/generate HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nContent-Length: {len(raw)}\r\n\r\n"
    async with serving(scripted("m", tmp_path, ["a"])) as server:
        connection = await trio.open_tcp_stream("127.0.0.1", server.port)
        await connection.send_all(head.encode() + raw)
        with trio.fail_after(20):
            received = b"".join([part async for part in connection])
        await connection.aclose()
    assert received.startswith(b"HTTP/1.1 200")


async def test_a_body_that_is_not_wanted(tmp_path: Path) -> None:
    """Whatever a request has as its body, it is answered where no body is read."""
    parts = b"".join(b"1\r\nx\r\n" for _ in range(1000)) + b"0\r\n\r\n"
    head = b"GET /api/version HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nTransfer-Encoding: chunked\r\n\r\n"
    async with serving(scripted("m", tmp_path, ["a"])) as server:
        connection = await trio.open_tcp_stream("127.0.0.1", server.port)
        await connection.send_all(head + parts)
        with trio.fail_after(20):
            received = b"".join([part async for part in connection])
        await connection.aclose()
    assert received.startswith(b"HTTP/1.1 200")


async def test_a_request_that_is_too_much_for_one(tmp_path: Path) -> None:
    """Bytes behind a request, when its connection is being closed, concern that connection only."""
    head = b"GET /api/version HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"
    async with serving(scripted("m", tmp_path, ["a"])) as server, httpx.AsyncClient(base_url=server.url) as asking:
        for _ in range(20):
            connection = await trio.open_tcp_stream("127.0.0.1", server.port)
            await connection.send_all(head + b"x" * 100)
            await trio.aclose_forcefully(connection)
        assert 200 == (await asking.get("/")).status_code


async def test_a_hang_up_is_recorded(tmp_path: Path) -> None:
    """A client that closes its connection is a cancel in the log, before its head and in its stream."""
    slow = scripted("m", tmp_path, ["x"] * 200, batch_seconds=0.02, settings={"n_slots": 1})
    async with serving(slow) as server:
        for body, n_read in ((RAW | {"stream": False}, 0), (RAW, 1)):
            connection = await post(server.port, "/api/generate", body)
            if n_read:
                assert (await connection.receive_some()).startswith(b"HTTP/1.1 200")
            else:
                await until(lambda: bool(logs_so_far(tmp_path, "RequestReceived")))
            await connection.aclose()
        await until(lambda: len(logs_so_far(tmp_path, "SequenceFinished")) == 2)
        ends = [fields["finish_reason"] for fields in logs_so_far(tmp_path, "SequenceFinished")]
    assert ["cancelled", "cancelled"] == ends
    logs(tmp_path)


async def test_the_end_lets_streams_end(tmp_path: Path) -> None:
    """A server that is asked to end takes no request, lets a stream end, and closes its logs."""
    slow = scripted("m", tmp_path, ["x"] * 20, batch_seconds=0.02)
    async with serving(slow) as server, httpx.AsyncClient(base_url=server.url) as asking:
        async with asking.stream("POST", "/api/generate", json=RAW) as response:
            lines: list[dict[str, Any]] = []
            async for line in response.aiter_lines():
                if not lines:
                    server.ask_to_end()
                lines.append(json.loads(line))
        await server.ended.wait()
        with pytest.raises(httpx.ConnectError):
            await asking.get("/")
    assert ("stop", 21) == (lines[-1]["done_reason"], len(lines))
    (log,) = logs(tmp_path)
    assert "SessionClosed" == list(read_fields(log))[-1]["type"]


@pytest.mark.parametrize("stream", [True, False])
async def test_the_end_is_told_to_waiting_clients(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, stream: bool
) -> None:
    """When the grace time is nearly over, a stream has an error as its last line, and another answer is a 503."""
    monkeypatch.setattr(server_module, "GRACE_SECONDS", 60.2)
    monkeypatch.setattr(server_module, "LAST_SECONDS", 60.0)
    slow = scripted("m", tmp_path, ["x"] * 10_000, batch_seconds=0.02)
    async with serving(slow) as server:
        connection = await post(server.port, "/api/generate", RAW | {"stream": stream})
        await until(lambda: bool(logs_so_far(tmp_path, "TokenEmitted")))
        server.ask_to_end()
        with trio.fail_after(30):
            found = b"".join([part async for part in connection])
            await server.ended.wait()
        await connection.aclose()
    assert found.startswith(b"HTTP/1.1 200" if stream else b"HTTP/1.1 503")
    assert b'{"error":"the model is being unloaded: try again"}' in found[-80:]
    (log,) = logs(tmp_path)
    assert "SessionClosed" == list(read_fields(log))[-1]["type"]


async def test_asked_twice_it_ends_at_once(tmp_path: Path) -> None:
    """A stream that would go on is cancelled, and the log is closed."""
    slow = scripted("m", tmp_path, ["x"] * 10_000, batch_seconds=0.02)
    async with serving(slow) as server:
        connection = await post(server.port, "/api/generate", RAW)
        assert (await connection.receive_some()).startswith(b"HTTP/1.1 200")
        server.ask_to_end()
        server.ask_to_end()
        await server.ended.wait()
        await connection.aclose()
    (log,) = logs(tmp_path)
    assert "SessionClosed" == list(read_fields(log))[-1]["type"]
