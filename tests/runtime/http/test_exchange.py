"""Where a request's recording is told, how it fails, and what a hang-up does."""

import json
import re
from collections.abc import Mapping, MutableMapping
from pathlib import Path
from threading import current_thread, main_thread
from typing import Any

import httpx
import pytest
import structlog
import trio
from prometheus_client.parser import text_string_to_metric_families
from starlette.requests import Request
from starlette.types import Message
from trio.testing import wait_all_tasks_blocked

from reenact.runtime import EngineBroken, open_runtime
from reenact.runtime.engine.scripted import NAN, ScriptedEngine
from reenact.runtime.http import app
from reenact.runtime.http.failures import told
from reenact.runtime.http.fields import read_body
from reenact.runtime.http.models import Card, GivenModels
from reenact.runtime.pytest_plugin import OpenScripted
from tests.helpers.http import CHAT, Caller, client, lines
from tests.helpers.sessions import read_fields

BODY = {"model": "m", "prompt": "x", "raw": True}
ASKED = [
    ("/api/generate", BODY),
    ("/api/generate", BODY | {"stream": False}),
    ("/v1/completions", {"model": "m", "prompt": "x"}),
    ("/v1/completions", {"model": "m", "prompt": "x", "stream": True}),
]


async def test_every_response_says_where_its_recording_is(scripted_runtime: OpenScripted, session_log: Path) -> None:
    """The client's name of a request comes back and stands in the log, beside the session and the sequence."""
    async with scripted_runtime(["x"]) as runtime, client(runtime) as asking:
        found = [
            await asking.post(path, json=body, headers={"x-request-id": f"me-{i}"})
            for i, (path, body) in enumerate(ASKED)
        ]
        session = runtime.header.session
    told_of = [
        tuple(one.headers[f"x-{name}"] for name in ("request-id", "reenact-session", "reenact-sequence"))
        for one in found
    ]
    assert [(f"me-{i}", session, str(i + 1)) for i in range(len(ASKED))] == told_of
    received = [fields for fields in read_fields(session_log) if fields["type"] == "RequestReceived"]
    assert [f"me-{i}" for i in range(len(ASKED))] == [fields["request_id"] for fields in received]


TRACE = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"


@pytest.mark.parametrize("path", ["/api/generate", "/api/embed", "/v1/chat/completions"])
async def test_a_trace_is_recorded(scripted_runtime: OpenScripted, session_log: Path, path: str) -> None:
    """The log has a request's place in a distributed trace, by which the two are found from one another."""
    settings: dict[str, Any] = {"vectors": {"x": [1.0]}} if path == "/api/embed" else {}
    body = {"model": "m", "prompt": "x", "input": "x", "messages": CHAT}
    async with scripted_runtime(["x"], **settings) as runtime, client(runtime) as asking:
        await asking.post(path, json=body, headers={"traceparent": TRACE})
        await asking.post(path, json=body)
    received = [fields for fields in read_fields(session_log) if fields["type"] == "RequestReceived"]
    assert [TRACE, None] == [fields.get("traceparent") for fields in received]
    assert "traceparent" not in received[1]


@pytest.mark.parametrize(
    "given", ["", "x" * 5000, TRACE + "-", TRACE.upper(), "ff" + TRACE[2:], TRACE.replace("00f067aa0ba902b7", "0" * 16)]
)
async def test_a_wrong_trace_is_ignored(scripted_runtime: OpenScripted, session_log: Path, given: str) -> None:
    """W3C Trace Context wants a request answered whose place in a trace is wrong."""
    async with scripted_runtime(["x"]) as runtime, client(runtime) as asking:
        response = await asking.post("/api/generate", json=BODY, headers={"traceparent": given})
    assert 200 == response.status_code
    (received,) = [fields for fields in read_fields(session_log) if fields["type"] == "RequestReceived"]
    assert "traceparent" not in received


@pytest.mark.parametrize("name", ["", "x" * 129, "a b", "\x1b[2J", "é", "--only"])
async def test_a_name_that_cannot_be_used(scripted_runtime: OpenScripted, name: str) -> None:
    """A request without a name that can stand everywhere gets one."""
    async with scripted_runtime(["x"]) as runtime, client(runtime) as asking:
        response = await asking.get("/", headers=[(b"x-request-id", name.encode())])
    assert re.fullmatch(r"req-[0-9a-f]{16}", response.headers["x-request-id"])


async def test_texts_that_are_embedded_have_the_name(scripted_runtime: OpenScripted, session_log: Path) -> None:
    """Each text of a call is a sequence, and the header names all of them."""
    async with scripted_runtime(vectors={"a": [1.0], "b": [1.0]}) as runtime, client(runtime) as asking:
        body = {"model": "m", "input": ["a", "b"]}
        response = await asking.post("/v1/embeddings", json=body, headers={"x-request-id": "both"})
    assert "1,2" == response.headers["x-reenact-sequence"]
    received = [fields for fields in read_fields(session_log) if fields["type"] == "RequestReceived"]
    assert ["both", "both"] == [fields["request_id"] for fields in received]


async def test_accesses_are_logged(scripted_runtime: OpenScripted) -> None:
    """The console gets a line for each request, in which a client's escapes move no cursor."""
    seen: list[Mapping[str, Any]] = []

    def keep(_logger: object, _name: str, facts: MutableMapping[str, Any]) -> Mapping[str, Any]:
        seen.append(facts)
        raise structlog.DropEvent

    async with scripted_runtime(["x"]) as runtime, client(runtime) as asking:
        structlog.configure(processors=[keep])
        try:
            response = await asking.post("/api/generate", json=BODY)
            await asking.get("/%1b[2J")
        finally:
            structlog.reset_defaults()
        session = runtime.header.session
    first, other = (facts for facts in seen if facts["event"] == "HTTP")
    assert (200, response.headers["x-request-id"], session, "1", "stop") == tuple(
        first[name] for name in ("status", "request_id", "session", "sequence", "finish_reason")
    )
    assert (404, r"/\x1b[2J") == (other["status"], other["path"])


Samples = dict[tuple[str, str | None], float]


def samples_of(response: httpx.Response) -> Samples:
    """Return Prometheus' samples of the model "m", by name and by the label beside the model's."""
    families = list(text_string_to_metric_families(response.text))
    assert len(families) == len({family.name for family in families})
    found = {}
    for sample in (sample for family in families for sample in family.samples):
        assert "m:latest" == sample.labels["model"]
        found[sample.name, sample.labels.get("le", sample.labels.get("reason"))] = sample.value
    return found


async def test_metrics_are_the_sessions_statistics(scripted_runtime: OpenScripted, session_log: Path) -> None:
    """Prometheus reads what the runtime counts, for each model."""
    async with scripted_runtime(["x"], n_slots=3, n_ctx=256) as runtime, client(runtime) as asking:
        await asking.post("/api/generate", json=BODY)
        await asking.post("/api/generate", json=BODY | {"options": {"top_p": 5}})
        response = await asking.get("/metrics")
        n_bytes = session_log.stat().st_size
    assert "version=0.0.4" in response.headers["content-type"]
    found = samples_of(response)
    expected = {"slots": 3, "active": 0, "waiting": 0, "requests_total": 1, "refused_total": 1, "sampled_total": 2}
    expected |= {"batches_total": 2, "rows_total": 2, "prompt_total": 1, "cached_total": 0, "shifts_total": 0}
    expected |= {"cells": 768, "used_cells": 2, "log_bytes_total": n_bytes, "decode_time_seconds_count": 2}
    assert expected == {name: found[f"reenact_{name}", None] for name in expected}
    assert {"stop": 1.0, "cancelled": 0.0} == {
        reason: found["reenact_finished_total", reason] for reason in ("stop", "cancelled")
    }


async def test_metrics_have_histograms_of_times(
    scripted_runtime: OpenScripted, autojump_clock: trio.testing.MockClock
) -> None:
    """Times to the first token and between tokens are counted up to each bound, and in all."""
    async with scripted_runtime(["x"] * 9, batch_seconds=0.2) as runtime, client(runtime) as asking:
        await asking.post("/api/generate", json=BODY)
        found = samples_of(await asking.get("/metrics"))
        statistics = runtime.statistics()
    for name, count in (("first_token", 1), ("inter_token", 9)):
        bounds = {le: found[f"reenact_{name}_time_seconds_bucket", le] for le in ("0.1", "0.25", "250.0", "+Inf")}
        assert {"0.1": 0, "0.25": count, "250.0": count, "+Inf": count} == bounds
        assert count == found[f"reenact_{name}_time_seconds_count", None]
    assert pytest.approx(1.8) == found["reenact_inter_token_time_seconds_sum", None]
    assert pytest.approx(2.0) == found["reenact_decode_time_seconds_sum", None]
    assert 10 == statistics.decode_time.count


# ---------------------------------------------------------------- failures


@pytest.mark.parametrize(("path", "body"), ASKED)
async def test_what_fails_before_the_first_token_has_its_status(
    scripted_runtime: OpenScripted, path: str, body: dict[str, Any]
) -> None:
    """A sequence that fails at once is a 500, in a stream too."""
    async with scripted_runtime([NAN]) as runtime, client(runtime) as asking:
        response = await asking.post(path, json=body)
    assert 500 == response.status_code
    assert "error" in response.json()
    assert "1" == response.headers["x-reenact-sequence"]


async def test_what_fails_later_ends_the_stream(scripted_runtime: OpenScripted) -> None:
    """The last part of a stream that fails is its error, in the shape of the API."""
    async with scripted_runtime(["a", NAN]) as runtime, client(runtime) as asking:
        ollama = await asking.post("/api/generate", json=BODY)
        openai = await asking.post("/v1/completions", json={"model": "m", "prompt": "x", "stream": True})
    first, last = lines(ollama)
    assert (200, "a", ["error"]) == (ollama.status_code, first["response"], list(last))
    assert openai.text.endswith("}}\n\n")
    assert '"type":"api_error"' in openai.text.split("data: ")[-1]


async def test_too_many_requests_may_come_again(scripted_runtime: OpenScripted) -> None:
    """A client that finds the queue full reads when to come again."""
    async with (
        scripted_runtime(["x"] * 50, n_slots=1, max_waiting=0, max_reader_lag=1) as runtime,
        client(runtime) as asking,
        runtime.stream("first"),
    ):
        responses = [await asking.post(path, json=body) for path, body in ASKED]
    assert [(503, "1")] * len(ASKED) == [(one.status_code, one.headers["retry-after"]) for one in responses]


async def test_a_runtime_that_was_left(scripted_runtime: OpenScripted) -> None:
    """A request that comes when the runtime is gone may come again."""
    async with scripted_runtime(["x"]) as runtime:
        application = app({"m": runtime})
    caller = Caller(application, "/api/generate", BODY)
    await caller()
    assert 503 == caller.received[0]["status"]


async def test_nothing_of_the_machine_is_told() -> None:
    """An engine that raises is a 500 that says nothing of what was raised."""
    engine = ScriptedEngine(["x"], faults={0: OSError("/srv/somebody/secret: no")})
    async with open_runtime(engine) as runtime, client(runtime) as asking:
        response = await asking.post("/api/generate", json=BODY)
    assert (500, False) == (response.status_code, "secret" in response.text)
    assert "secret" not in told(EngineBroken("/srv/somebody/secret cannot be loaded"))


class Faulty(GivenModels):
    """Models with a fault of reenact's own."""

    async def cards(self) -> list[Card]:
        """Fail."""
        raise ValueError("/srv/somebody/secret")


async def test_a_fault_of_its_own_is_answered_like_any_other() -> None:
    """The response to an error that nobody foresaw has its id, and the page that asked may read it."""
    transport = httpx.ASGITransport(app(Faulty({})), raise_app_exceptions=False)
    headers = {"x-request-id": "mine", "origin": "http://localhost:3000"}
    async with httpx.AsyncClient(transport=transport, base_url="http://localhost") as asking:
        response = await asking.get("/api/tags", headers=headers)
    assert (500, {"error": "internal error of the server"}) == (response.status_code, response.json())
    assert ("mine", headers["origin"]) == (
        response.headers["x-request-id"],
        response.headers["access-control-allow-origin"],
    )


async def test_a_long_body_is_refused(scripted_runtime: OpenScripted) -> None:
    """A body of more than 16 MiB is a 413."""
    async with scripted_runtime(["x"]) as runtime:
        caller = Caller(app({"m": runtime}), "/api/generate", BODY | {"system": "x" * 2**24})
        await caller()
    assert 413 == caller.received[0]["status"]
    assert b'{"error":"the body has more than 16,777,216 bytes"}' == caller.received[1]["body"]


@pytest.mark.parametrize(
    ("name", "value", "status", "what"),
    [
        ("content-length", "9" * 20, 413, "the body has more than 16,777,216 bytes"),
        ("content-encoding", "gzip", 415, "the content-encoding 'gzip' is not supported: send the body without one"),
    ],
)
async def test_a_body_is_refused_by_its_head(
    scripted_runtime: OpenScripted, name: str, value: str, status: int, what: str
) -> None:
    """What its head tells already is answered before the body is asked for."""
    async with scripted_runtime(["x"]) as runtime:
        caller = Caller(app({"m": runtime}), "/api/generate", BODY, headers=[(name.encode(), value.encode())])
        await caller()
    assert (status, {"error": what}) == (caller.received[0]["status"], json.loads(caller.received[1]["body"]))
    assert caller.kept_body


@pytest.mark.parametrize("encoding", ["latin-1", "utf-16"])
async def test_a_body_in_another_encoding(scripted_runtime: OpenScripted, encoding: str) -> None:
    """The error says that it is not UTF-8, and where."""
    async with scripted_runtime(["x"]) as runtime, client(runtime) as asking:
        response = await asking.post("/api/generate", content='{"model": "é"}'.encode(encoding))
    at = {"latin-1": 11, "utf-16": 0}[encoding]
    assert {"error": f"body: it is not UTF-8, at byte {at}"} == response.json()


@pytest.mark.parametrize(
    ("body", "here"), [({"prompt": "x"}, True), ({"prompt": "x" * 2**16}, False), ({"tools": [{}]}, False)]
)
async def test_what_takes_long_to_read_holds_nobody_up(body: dict[str, Any], here: bool) -> None:
    """A long body, and one with tools, is read in another thread, so that other requests go on."""
    raw = json.dumps(body).encode()

    async def receive() -> Message:
        return {"type": "http.request", "body": raw}

    request = Request({"type": "http", "method": "POST", "headers": []}, receive)
    assert here == await read_body(request, lambda _: current_thread() is main_thread())


async def test_half_a_body_is_not_waited_for(
    scripted_runtime: OpenScripted, autojump_clock: trio.testing.MockClock
) -> None:
    """A body that does not come in time is a 408."""
    async with scripted_runtime(["x"]) as runtime:
        caller = Caller(app({"m": runtime}), "/api/generate", BODY)
        caller._body = None
        await caller()
    assert (408, 30.0) == (caller.received[0]["status"], trio.current_time())


# ---------------------------------------------------------------- hang-ups


@pytest.mark.parametrize(("path", "body"), ASKED)
async def test_a_server_that_reports_the_end_as_a_hang_up(
    scripted_runtime: OpenScripted, path: str, body: dict[str, Any]
) -> None:
    """A server may report "disconnect" while it sends the last part, as hypercorn does: it is not cancelled in that."""
    sent: list[str] = []

    class Reporting(Caller):
        async def _send(self, message: Message) -> None:
            if message["type"] == "http.response.body" and not message.get("more_body"):
                self.hang_up()
                await wait_all_tasks_blocked()
                sent.append("the last part")

    async with scripted_runtime(["x"]) as runtime:
        await Reporting(app({"m": runtime}), path, body)()
    assert ["the last part"] == sent


def _ends(log: Path) -> list[tuple[int, str]]:
    """Return the sequences that were cancelled, and how each ended."""
    records = list(read_fields(log))
    cancelled = {fields["sequence"] for fields in records if fields["type"] == "CancelRequested"}
    ends = [(fields["sequence"], fields["finish_reason"]) for fields in records if fields["type"] == "SequenceFinished"]
    return [(number, reason) for number, reason in ends if number in cancelled]


@pytest.mark.parametrize(("path", "body"), ASKED)
async def test_a_hang_up_in_the_queue(
    scripted_runtime: OpenScripted,
    session_log: Path,
    autojump_clock: trio.testing.MockClock,
    path: str,
    body: dict[str, Any],
) -> None:
    """A client that hangs up while waiting for a slot is cancelled at once, streamed or whole."""
    async with scripted_runtime(["x"] * 50, n_slots=1, batch_seconds=1.0) as runtime:
        async with runtime.stream("first"), trio.open_nursery() as nursery:
            caller = Caller(app({"m": runtime}), path, body)
            nursery.start_soon(caller)
            await wait_all_tasks_blocked()
            caller.hang_up()
            await wait_all_tasks_blocked()
            assert (0, 1) == (runtime.statistics().n_waiting, runtime.statistics().n_finished)
    assert (2, "cancelled") == _ends(session_log)[0]
    assert [] == caller.received


@pytest.mark.parametrize(("path", "body"), ASKED)
async def test_a_hang_up_in_the_prefill(
    scripted_runtime: OpenScripted,
    session_log: Path,
    autojump_clock: trio.testing.MockClock,
    path: str,
    body: dict[str, Any],
) -> None:
    """A client that hangs up while the prompt is evaluated is cancelled, and the slot is free."""
    async with scripted_runtime(["x"] * 50, batch_seconds=1.0) as runtime, trio.open_nursery() as nursery:
        caller = Caller(app({"m": runtime}), path, body | {"prompt": "x" * 500})
        nursery.start_soon(caller)
        await trio.sleep(2.5)
        caller.hang_up()
        await trio.sleep(2)
        assert (0, 1) == (runtime.statistics().n_active, runtime.statistics().n_finished)
    assert [(1, "cancelled")] == _ends(session_log)
    assert [] == caller.received


@pytest.mark.parametrize("path", ["/api/chat", "/v1/chat/completions"])
async def test_a_hang_up_in_the_stream(
    scripted_runtime: OpenScripted, session_log: Path, autojump_clock: trio.testing.MockClock, path: str
) -> None:
    """A client that hangs up after the first part is cancelled."""
    async with scripted_runtime(["x"] * 50, batch_seconds=1.0) as runtime, trio.open_nursery() as nursery:
        caller = Caller(app({"m": runtime}), path, {"model": "m", "messages": CHAT, "stream": True})
        nursery.start_soon(caller)
        await caller.started.wait()
        caller.hang_up()
        await trio.sleep(2)
        assert 1 == runtime.statistics().n_finished
    assert [(1, "cancelled")] == _ends(session_log)
