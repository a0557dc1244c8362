"""The division of an answer into the model's thinking and its text, and the fields that turn thinking off."""

from pathlib import Path
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from reenact.actors.errors import InvalidRequest
from reenact.replay import replay_log
from reenact.runtime.engine.think_tags import ThinkTags, think_tags, think_variables
from reenact.runtime.http.thinking import ThinkingReader, Thought
from reenact.runtime.pytest_plugin import OpenScripted
from tests.helpers.http import CHAT, client, events, lines
from tests.helpers.sessions import read_fields

TAGS = ThinkTags("<think>", "</think>")
SWITCHED = "{% if enable_thinking is false %}<think></think>{% endif %}"
ALWAYS = "{{ content.split('</think>')[-1] }}"
SCRIPT = ["<th", "ink>", "\nLet me", " see.\n", "</", "think>", "\n\n", "It is", " so."]
THOUGHT = Thought("Let me see.", "It is so.")


@pytest.mark.parametrize(
    ("text", "begun", "expected"),
    [
        ("<think>\na\n</think>\n\nb", False, Thought("a", "b")),
        ("a\n</think>\nb", True, Thought("a", "b")),
        ("<think></think>b", False, Thought("", "b")),
        (" \n<think>a</think>b", False, Thought("a", "b")),
        ("<think>a", False, Thought("a", "")),
        ("<think>a </thin", False, Thought("a </thin", "")),
        ("b <think>c</think>", False, Thought("", "b <think>c</think>")),
        ("<thin", False, Thought("", "<thin")),
        (" b", False, Thought("", " b")),
        ("", False, Thought()),
        ("<think>a<b</think>c</think>", False, Thought("a<b", "c</think>")),
    ],
)
def test_an_answer_is_divided(text: str, begun: bool, expected: Thought) -> None:
    """The tags at its beginning go, with the whitespace around them; the prompt may hold the first one."""
    assert expected == ThinkingReader(TAGS, begun=begun).whole(text)
    assert Thought("", text) == ThinkingReader(None).whole(text)


@given(st.lists(st.sampled_from(["<think>", "</think>", "<", "/think>", "a", "\n", " b"])), st.booleans(), st.data())
def test_where_it_is_cut_does_not_matter(pieces: list[str], begun: bool, data: st.DataObject) -> None:
    """A stream gives the two texts that the whole answer gives, and nothing that it takes back."""
    text = "".join(pieces)
    reader = ThinkingReader(TAGS, begun=begun)
    parts = []
    rest = text
    while rest:
        cut = data.draw(st.integers(1, len(rest)))
        parts.append(reader.take(rest[:cut]))
        rest = rest[cut:]
    parts.append(reader.rest())
    streamed = Thought("".join(part.thinking for part in parts), "".join(part.text for part in parts))
    assert ThinkingReader(TAGS, begun=begun).whole(text) == streamed


@pytest.mark.parametrize(
    ("template", "think", "expected"),
    [
        (SWITCHED, None, {}),
        (SWITCHED, True, {"enable_thinking": True}),
        (SWITCHED, False, {"enable_thinking": False}),
        (ALWAYS, True, {}),
        ("", False, {}),
        ("", True, "does not support thinking"),
        (ALWAYS, False, "cannot turn thinking off"),
    ],
)
def test_thinking_is_honoured_or_refused(template: str, think: bool | None, expected: dict[str, bool] | str) -> None:
    """A template that has the variable is told; one that cannot do what is asked is an error, by name."""
    if isinstance(expected, dict):
        assert expected == think_variables(template, think)
        return
    with pytest.raises(InvalidRequest, match=expected) as raised:
        think_variables(template, think)
    assert "think" == raised.value.field


def test_tags_are_found() -> None:
    """The tags are those that the template has, of which some write only the second."""
    assert (TAGS, TAGS, None) == (think_tags(SWITCHED), think_tags(ALWAYS), think_tags("<think>"))
    assert ThinkTags("<seed:think>", "</seed:think>") == think_tags("</seed:think>")


# ---------------------------------------------------------------- over HTTP


def said(messages: list[dict[str, Any]]) -> Thought:
    """Return the joined text and thinking of ollama's messages."""
    return Thought(
        "".join(message.get("thinking", "") for message in messages),
        "".join(message["content"] for message in messages),
    )


async def test_ollama_gets_thinking_apart(scripted_runtime: OpenScripted, session_log: Path) -> None:
    """Whole and streamed, in both endpoints; the log has the text with its tags."""
    async with scripted_runtime(SCRIPT, chat_template=SWITCHED) as runtime, client(runtime) as asking:
        body = {"model": "m", "messages": CHAT}
        whole = (await asking.post("/api/chat", json=body | {"stream": False})).json()
        streamed = lines(await asking.post("/api/chat", json=body))
        generated = lines(await asking.post("/api/generate", json={"model": "m", "prompt": "x"}))
        raw = await asking.post("/api/generate", json={"model": "m", "prompt": "x", "raw": True, "stream": False})
        capabilities = (await asking.post("/api/show", json={"model": "m"})).json()["capabilities"]
    assert THOUGHT == said([whole["message"]]) == said([line["message"] for line in streamed])
    assert THOUGHT == said([{**line, "content": line["response"]} for line in generated])
    assert "".join(SCRIPT) == raw.json()["response"]
    assert ["completion", "tools", "thinking"] == capabilities
    texts = [fields["text"] for fields in read_fields(session_log) if fields["type"] == "TokenEmitted"]
    assert 4 * "".join(SCRIPT) == "".join(texts)
    assert "same" == replay_log(session_log).verdict


async def test_openai_gets_thinking_apart(scripted_runtime: OpenScripted) -> None:
    """Whole and streamed, as reasoning_content; old completions have the text as it is."""
    async with scripted_runtime(SCRIPT, chat_template=ALWAYS) as runtime, client(runtime) as asking:
        body = {"model": "m", "messages": CHAT}
        whole = (await asking.post("/v1/chat/completions", json=body)).json()
        streamed = events(await asking.post("/v1/chat/completions", json=body | {"stream": True}))
        old = (await asking.post("/v1/completions", json={"model": "m", "prompt": "x"})).json()
    message = whole["choices"][0]["message"]
    deltas = [event["choices"][0]["delta"] for event in streamed]
    assert THOUGHT == Thought(message["reasoning_content"], message["content"])
    assert THOUGHT == Thought(
        "".join(delta.get("reasoning_content", "") for delta in deltas),
        "".join(delta.get("content", "") for delta in deltas),
    )
    assert "".join(SCRIPT) == old["choices"][0]["text"]


@pytest.mark.parametrize(
    ("path", "field", "value"), [("/api/chat", "think", False), ("/v1/chat/completions", "reasoning_effort", "none")]
)
async def test_thinking_is_turned_off(
    scripted_runtime: OpenScripted, session_log: Path, path: str, field: str, value: object
) -> None:
    """The template is told, so that the recorded prompt ends with empty tags, and the answer is text."""
    async with scripted_runtime(["It is so."], chat_template=SWITCHED) as runtime, client(runtime) as asking:
        body = {"model": "m", "messages": CHAT, "stream": False, field: value}
        response = await asking.post(path, json=body)
    assert (200, False) == (response.status_code, b"hinking" in response.content)
    (received,) = [fields for fields in read_fields(session_log) if fields["type"] == "RequestReceived"]
    assert received["prompt"].endswith("assistant: <think></think>")


@pytest.mark.parametrize(
    ("template", "path", "field", "value"),
    [
        ("", "/api/chat", "think", True),
        (ALWAYS, "/api/chat", "think", False),
        (SWITCHED, "/api/chat", "think", "high"),
        (SWITCHED, "/api/chat", "think", 1),
        (ALWAYS, "/v1/chat/completions", "reasoning_effort", "none"),
        (SWITCHED, "/v1/chat/completions", "reasoning_effort", "high"),
        (SWITCHED, "/v1/chat/completions", "chat_template_kwargs", {"enable_thinking": False}),
    ],
)
async def test_what_cannot_be_done_is_refused(
    scripted_runtime: OpenScripted, template: str, path: str, field: str, value: object
) -> None:
    """A 400 names the field, in a stream too."""
    async with scripted_runtime(["x"], chat_template=template) as runtime, client(runtime) as asking:
        response = await asking.post(path, json={"model": "m", "messages": CHAT, "stream": True, field: value})
    assert 400 == response.status_code
    assert field in orjson.dumps(response.json()).decode()
