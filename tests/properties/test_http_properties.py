"""Bodies of any shape, on every endpoint: each has an answer, and none is a fault of the server."""

import json
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Final

import httpx
import trio
from hypothesis import strategies as st

from reenact.replay import replay_log
from reenact.runtime import ScriptedEngine, open_runtime
from reenact.runtime.http import app
from tests.helpers.properties import holds_for

PATHS: Final = (
    "/api/generate",
    "/api/chat",
    "/api/embed",
    "/api/embeddings",
    "/api/show",
    "/v1/chat/completions",
    "/v1/completions",
    "/v1/embeddings",
)
FIELDS: Final = (
    "model",
    "name",
    "prompt",
    "messages",
    "input",
    "stream",
    "options",
    "format",
    "keep_alive",
    "truncate",
    "shift",
    "logprobs",
    "top_logprobs",
    "think",
    "tools",
    "system",
    "raw",
    "suffix",
    "images",
    "template",
    "context",
    "dimensions",
    "encoding_format",
    "temperature",
    "top_p",
    "max_tokens",
    "seed",
    "stop",
    "max_completion_tokens",
    "response_format",
    "stream_options",
    "n",
    "best_of",
    "logit_bias",
    "echo",
    "tool_choice",
    "user",
)
OPTIONS: Final = ("seed", "num_predict", "stop", "temperature", "top_k", "top_p", "min_p", "repeat_last_n", "mirostat")

leaves = st.one_of(
    st.sampled_from([None, True, False, 0, 1, -1, 2, 1.5, 40.0, 2**53, 2**64, -(2**70), 1e308, "", "m", "x", "json"]),
    st.text(max_size=5),
)
anything = st.recursive(
    leaves,
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(st.text(max_size=3), inner, max_size=3)),
    max_leaves=6,
)
parts = st.lists(
    st.fixed_dictionaries({"type": st.sampled_from(["text", "image_url", 5])}, optional={"text": leaves}), max_size=2
)
messages = st.lists(
    st.one_of(
        leaves,
        st.fixed_dictionaries(
            {"role": st.sampled_from(["user", "system", "assistant", "developer", "tool", None, 5])},
            optional={
                "content": st.one_of(st.text(max_size=5), parts, leaves),
                "images": anything,
                "tool_calls": st.one_of(
                    anything,
                    st.lists(
                        st.fixed_dictionaries(
                            {"function": st.fixed_dictionaries({"name": leaves, "arguments": anything})}
                        ),
                        max_size=2,
                    ),
                ),
                "tool_call_id": leaves,
                "tool_name": leaves,
            },
        ),
    ),
    max_size=3,
)
schemas = st.fixed_dictionaries(
    {"type": st.sampled_from(["object", "string", "json_schema", "json_object"])},
    optional={"json_schema": anything, "schema": anything},
)
parameters = st.fixed_dictionaries(
    {"type": st.sampled_from(["object", "string"])},
    optional={"properties": st.dictionaries(st.text(max_size=3), st.one_of(leaves, schemas), max_size=2)},
)
tools = st.lists(
    st.fixed_dictionaries(
        {"function": st.fixed_dictionaries({"name": st.sampled_from(["f", "g", "", 5]), "parameters": parameters})}
    ),
    max_size=2,
)
values = st.one_of(
    leaves, anything, messages, schemas, tools, st.dictionaries(st.sampled_from(OPTIONS), leaves, max_size=3)
)
bodies = st.dictionaries(st.sampled_from(FIELDS), values, max_size=5)
sensible = st.fixed_dictionaries(
    {
        "model": st.sampled_from(["m", "M:latest", "v"]),
        "messages": messages,
        "prompt": st.text(max_size=5),
        "input": st.text(max_size=5),
    },
    optional={
        "tools": tools,
        "tool_choice": st.sampled_from(
            ["auto", "none", "required", {"type": "function", "function": {"name": "f"}}, {"type": "function"}, "any"]
        ),
    },
)
raw = st.one_of(
    st.builds(lambda sure, rest: json.dumps(sure | rest).encode(), sensible, bodies),
    st.builds(lambda sure, rest: json.dumps(rest | sure).encode(), sensible, bodies),
    st.builds(lambda body: json.dumps(body).encode(), bodies),
    st.builds(lambda body, cut: json.dumps(body).encode()[:cut], bodies, st.integers(0, 60)),
    st.binary(max_size=20),
)


@holds_for(examples=40, asked=st.lists(st.tuples(st.sampled_from(PATHS), raw), min_size=1, max_size=12))
def test_every_body_has_an_answer(asked: list[tuple[str, bytes]]) -> None:
    """Whatever is asked is answered, or refused as the client's fault, in the API's shape; and the log replays."""
    with TemporaryDirectory() as folder:
        log = Path(folder) / "log.jsonl"
        for path, body, response in trio.run(_answers, asked, log):
            seen = (path, body, response.text)
            assert response.status_code in {200, 400, 404} or _failed_alone(response), seen
            if response.status_code != 200:
                error = response.json()["error"]
                assert isinstance(error["message"] if path.startswith("/v1/") else error, str), seen
            assert "Traceback" not in response.text
            assert folder not in response.text
        assert "same" == replay_log(log).verdict


def _failed_alone(response: httpx.Response) -> bool:
    """Return whether it is a text that the scripted engine has no vector for."""
    return response.status_code == 500 and "no vector for the text" in response.text


async def _answers(asked: list[tuple[str, bytes]], log: Path) -> list[tuple[str, bytes, httpx.Response]]:
    found: list[Any] = []
    with trio.fail_after(60):
        async with (
            open_runtime(ScriptedEngine(draws_from="history"), log=log, n_ctx=64) as runtime,
            open_runtime(ScriptedEngine(vectors={"x": [1.0, 1.0]})) as vectors,
            httpx.AsyncClient(
                transport=httpx.ASGITransport(app({"m": runtime, "v": vectors})), base_url="http://localhost"
            ) as asking,
        ):
            found = [(path, body, await asking.post(path, content=body)) for path, body in asked]
    return found
