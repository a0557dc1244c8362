"""Admission by Host, Origin and key."""

import httpx
import pytest
from starlette.types import ASGIApp, Receive, Scope, Send

from reenact.runtime.http import app
from reenact.runtime.pytest_plugin import OpenScripted
from tests.helpers.http import client


@pytest.mark.parametrize(
    ("host", "status"),
    [
        ("localhost:11434", 200),
        ("127.0.0.1", 200),
        ("[::1]:11434", 200),
        ("192.168.1.5:11434", 200),
        ("box.local", 200),
        ("app.localhost", 200),
        ("ollama.internal:80", 200),
        ("evil.example", 403),
        ("localhost.evil.example", 403),
        ("8.8.8.8", 403),
        ("", 403),
    ],
)
async def test_a_foreign_host_is_refused(scripted_runtime: OpenScripted, host: str, status: int) -> None:
    """On a loopback address only requests meant for this machine are answered."""
    async with scripted_runtime(["x"]) as runtime, client(runtime) as asking:
        response = await asking.get("/api/version", headers={"host": host})
    assert status == response.status_code


@pytest.mark.parametrize(("host", "status"), [("localhost", 200), ("[::ffff:127.0.0.1]", 200), ("evil.example", 403)])
async def test_a_socket_of_both_families_is_guarded(scripted_runtime: OpenScripted, host: str, status: int) -> None:
    """Where a socket of "::" shows a loopback address of IPv4 inside one of IPv6, the Host counts as well."""
    async with scripted_runtime(["x"]) as runtime:
        transport = httpx.ASGITransport(served_at(app({"m": runtime}), "::ffff:127.0.0.1"))
        async with httpx.AsyncClient(transport=transport, base_url="http://localhost") as asking:
            response = await asking.get("/api/version", headers={"host": host})
    assert status == response.status_code


def served_at(application: ASGIApp, address: str) -> ASGIApp:
    """Return an application whose requests come to an address."""

    async def answer(scope: Scope, receive: Receive, send: Send) -> None:
        await application({**scope, "server": (address, 80)}, receive, send)

    return answer


@pytest.mark.parametrize(
    ("origin", "status"),
    [
        ("http://localhost:3000", 200),
        ("https://127.0.0.1", 200),
        ("app://obsidian.md", 200),
        ("vscode-webview://1a2b", 200),
        ("https://pages.example", 200),
        ("https://evil.example", 403),
        ("http://localhost.evil.example", 403),
        ("null", 403),
    ],
)
async def test_a_foreign_page_is_refused(scripted_runtime: OpenScripted, origin: str, status: int) -> None:
    """Pages of this machine, of applications and of those that were allowed may ask; they may read the headers."""
    async with (
        scripted_runtime(["x"]) as runtime,
        client(runtime, origins=["https://*.example.net", "https://pages.example"]) as asking,
    ):
        response = await asking.get("/api/version", headers={"origin": origin})
    assert status == response.status_code
    if status == 200:
        assert origin == response.headers["access-control-allow-origin"]
        assert "x-reenact-session" in response.headers["access-control-expose-headers"]


async def test_a_preflight_is_answered(scripted_runtime: OpenScripted) -> None:
    """A page may send what OpenAI's client sends, and a key is not wanted of a preflight."""
    headers = {
        "origin": "http://localhost:3000",
        "access-control-request-method": "POST",
        "access-control-request-headers": "authorization,content-type,x-stainless-retry-count",
    }
    async with scripted_runtime(["x"]) as runtime, client(runtime, keys=["k"]) as asking:
        response = await asking.options("/v1/chat/completions", headers=headers)
    assert 200 == response.status_code


@pytest.mark.parametrize(
    ("given", "status"),
    [("Bearer one", 200), ("bearer two", 200), ("Bearer three", 401), ("Bearer ", 401), ("one", 401), (None, 401)],
)
async def test_a_key_is_wanted(scripted_runtime: OpenScripted, given: str | None, status: int) -> None:
    """Where there are keys one of them is wanted, of each path that tells or does something."""
    headers = {} if given is None else {"authorization": given}
    async with scripted_runtime(["x"]) as runtime, client(runtime, keys=["one", "two"]) as asking:
        response = await asking.get("/v1/models", headers=headers | {"origin": "http://localhost:3000"})
        here = await asking.get("/health")
    assert (status, 200) == (response.status_code, here.status_code)
    assert "http://localhost:3000" == response.headers["access-control-allow-origin"]
    if status == 401:
        assert ("authentication_error", "Bearer") == (
            response.json()["error"]["type"],
            response.headers["www-authenticate"],
        )
