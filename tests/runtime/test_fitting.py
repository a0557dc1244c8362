"""Chats that are longer than the context."""

from itertools import pairwise
from pathlib import Path
from typing import Any, Final

import pytest
from hypothesis import given
from hypothesis import strategies as st

from reenact.runtime import InvalidRequest, ScriptedEngine, open_runtime
from reenact.runtime.chats import Chats
from reenact.runtime.engine.protocol import Message, Rendered
from reenact.runtime.fitting import roundest, units
from reenact.runtime.pytest_plugin import OpenScripted
from tests.helpers.sessions import console_shows, read_fields

N_CTX: Final = 200
QUARTER: Final = N_CTX // 4
SYSTEM: Final = {"role": "system", "content": "Be brief."}


def said(role: str, length: int) -> dict[str, str]:
    """Return a message that takes so many tokens of a scripted engine, its role's name and line included."""
    return {"role": role, "content": "x" * (length - len(role) - 3)}


def received(log: Path) -> list[dict[str, Any]]:
    """Return the requests of a log."""
    return [fields for fields in read_fields(log) if fields["type"] == "RequestReceived"]


async def turns(runtime: Any, count: int, messages: list[dict[str, str]]) -> list[Any]:
    """Ask so many questions, one after the other, and return what came of each."""
    completions = []
    for i in range(count):
        messages.append({"role": "user", "content": f"question number {i:2}"})
        completions.append(await runtime.chat(messages))
        messages.append({"role": "assistant", "content": completions[-1].text})
    return completions


@pytest.mark.parametrize(
    ("roles", "expected"),
    [
        ("suausau", [[1, 2], [3, 5]]),
        ("su", []),
        ("uauau", [[0, 1], [2, 3]]),
        ("uuu", [[0], [1]]),
        ("auau", [[0], [1, 2]]),
        ("uatuat", [[0, 1, 2]]),
        ("suatatt", [[2, 3]]),
        ("uatau", [[0, 1, 2, 3]]),
        ("aaa", [[0], [1]]),
        ("s", []),
    ],
)
def test_what_goes_together(roles: str, expected: list[list[int]]) -> None:
    """A question goes with its answers, a tool's call with its results; system and last messages stay."""
    names = {"s": "system", "u": "user", "a": "assistant", "t": "tool"}
    messages: Any = [{"role": names[role], "content": ""} for role in roles]
    assert expected == units(messages)


@given(st.lists(st.sampled_from(["system", "user", "assistant", "tool", "developer"]), min_size=1))
def test_what_stays_is_a_chat(roles: list[str]) -> None:
    """However much goes, system messages and the last one stay, and no tool's result without the call before it."""
    messages: Any = [{"role": role, "content": ""} for role in roles]
    going = [place for unit in units(messages) for place in unit]
    assert sorted(set(going)) == going
    assert {"system", "developer"} & {roles[place] for place in going} == set()
    assert len(roles) - 1 not in going
    for n_units in range(len(units(messages)) + 1):
        gone = {place for unit in units(messages)[:n_units] for place in unit}
        talk = [i for i, role in enumerate(roles) if role not in {"system", "developer"}]
        torn = [i for before, i in pairwise(talk) if roles[i] == "tool" and before in gone and i not in gone]
        assert "user" not in roles or [] == torn


async def test_a_chat_that_grows_loses_its_oldest_messages(scripted_runtime: OpenScripted, session_log: Path) -> None:
    """The system message stays, the prompt leaves room for the answer, nothing is truncated, and nothing shifts."""
    async with scripted_runtime(["ok"], n_ctx=N_CTX) as runtime:
        completions = await turns(runtime, 12, [SYSTEM])
    prompts = [fields["prompt"] for fields in received(session_log)]
    assert all(prompt.startswith("system: Be brief.\nuser: question number") for prompt in prompts)
    assert all(prompt.endswith(f"user: question number {i:2}\nassistant: ") for i, prompt in enumerate(prompts))
    assert all(done.n_prompt <= N_CTX - QUARTER for done in completions)
    assert {(0, 0)} == {(done.n_truncated, done.n_shifts) for done in completions}
    left_out = [done.n_left_out for done in completions]
    assert [fields.get("left_out", 0) for fields in received(session_log)] == left_out
    assert (0, 0) < (left_out[-1], -left_out[0])
    assert sorted(left_out) == left_out


async def test_turns_after_a_cut_begin_alike(scripted_runtime: OpenScripted) -> None:
    """Where as many messages are left out as in the turn before, all but what is new comes from the cells."""
    async with scripted_runtime(["ok"], n_ctx=N_CTX) as runtime:
        completions = await turns(runtime, 12, [SYSTEM])
    alike = [(one, other) for one, other in pairwise(completions) if one.n_left_out == other.n_left_out > 0]
    assert len(alike) > 3
    assert all(other.n_cached >= one.n_prompt for one, other in alike)


@given(st.integers(1, 500), st.integers(0, 60))
def test_a_round_number_stays(low: int, distance: int) -> None:
    """It lies between the two, and while they grow by the distance between them it changes twice at most."""
    found = [roundest(low + i, low + i + distance) for i in range(distance + 1)]
    assert all(low + i <= number <= low + i + distance for i, number in enumerate(found))
    assert len(set(found)) <= 3


async def test_a_chat_that_goes_on_loses_what_it_would_lose_afresh() -> None:
    """What goes follows from the messages and options of a request, whatever was asked before with less room."""
    messages = [SYSTEM]
    for i in range(20):
        messages.append({"role": "user", "content": f"question number {i:2}"})
        async with open_runtime(ScriptedEngine(["ok"]), n_ctx=N_CTX) as runtime:
            goes_on = [await runtime.chat(messages, num_predict=room) for room in (-1, 1)][-1]
        async with open_runtime(ScriptedEngine(["ok"]), n_ctx=N_CTX) as runtime:
            afresh = await runtime.chat(messages, num_predict=1)
        assert (afresh.n_left_out, afresh.n_prompt) == (goes_on.n_left_out, goes_on.n_prompt)
        messages.append({"role": "assistant", "content": "ok"})


@pytest.mark.parametrize(("length", "left_out"), [(111, 0), (112, 2)])
async def test_as_much_room_as_is_asked_for(scripted_runtime: OpenScripted, length: int, left_out: int) -> None:
    """Room is left for `num_predict` tokens where that is less than a quarter of the context."""
    messages = [said("user", length), said("assistant", 40), said("user", 28)]
    async with scripted_runtime(["ok"], n_ctx=N_CTX) as runtime:
        completion = await runtime.chat(messages, num_predict=10)
    assert left_out == completion.n_left_out


async def test_who_forbids_truncation_is_told(scripted_runtime: OpenScripted, session_log: Path) -> None:
    """With `truncate` false a chat beyond the context is an error with both numbers, one that just fits is whole."""
    async with scripted_runtime(["ok"], n_ctx=N_CTX) as runtime:
        fits = [said("user", 100), said("assistant", 40), said("user", N_CTX - 140 - len("assistant: "))]
        assert (N_CTX, 0) == ((done := await runtime.chat(fits, truncate=False)).n_prompt, done.n_left_out)
        with pytest.raises(InvalidRequest, match=r"there are 201 tokens, .* holds 200: leave some out") as raised:
            await runtime.chat([*fits[:-1], {"role": "user", "content": fits[-1]["content"] + "x"}], truncate=False)
    assert ("messages", 1) == (raised.value.field, len(received(session_log)))


@pytest.mark.parametrize(("num_predict", "room"), [(-1, QUARTER), (7, 7)])
async def test_a_last_message_that_does_not_fit_keeps_its_end(
    scripted_runtime: OpenScripted, session_log: Path, num_predict: int, room: int
) -> None:
    """The system message is whole, so is what the template ends with, there is room, and nothing is truncated."""
    question = "".join(f"{i:04} " for i in range(1000))
    messages = [SYSTEM, said("user", 20), said("assistant", 20), {"role": "user", "content": question}]
    async with scripted_runtime(["ok"], n_ctx=N_CTX) as runtime:
        completion = await runtime.chat(messages, num_predict=num_predict)
    [request] = received(session_log)
    beginning, end = "system: Be brief.\nuser: ", "\nassistant: "
    n_characters = N_CTX - room - len(beginning) - len(end)
    assert f"{beginning}{question[-n_characters:]}{end}" == request["prompt"]
    assert (3, 0, 0, "ok") == (completion.n_left_out, completion.n_truncated, completion.n_shifts, completion.text)
    assert 3 == request["left_out"]


async def test_a_system_message_that_does_not_fit_is_truncated(scripted_runtime: OpenScripted) -> None:
    """Where the rest alone does not fit, the prompt is truncated, behind no more than leaves half of the context."""
    messages = [{"role": "system", "content": "x" * N_CTX}, said("user", 20)]
    with console_shows() as shown:
        async with scripted_runtime(["ok"], n_ctx=N_CTX) as runtime:
            completion = await runtime.chat(messages)
    n_prompt = len("system: \n") + N_CTX + 20 + len("assistant: ")
    assert (0, n_prompt - N_CTX) == (completion.n_left_out, completion.n_truncated)
    [told] = [event for level, event in shown if event["event"] == "PromptTruncated" and level == "warning"]
    assert (N_CTX - 2 * QUARTER, n_prompt - N_CTX) == (told["kept"], told["inputs_left_out"])


async def test_a_long_answer_keeps_the_system_message(scripted_runtime: OpenScripted, session_log: Path) -> None:
    """What comes before the first message that may go is kept by a shift, unless the caller says how much is."""
    messages = [SYSTEM, said("user", 20)]
    kept = len("system: Be brief.\nuser: ")
    with console_shows() as shown:
        async with scripted_runtime(["x"] * 300, n_ctx=N_CTX) as runtime:
            await runtime.chat(messages)
            await runtime.chat(messages, num_keep=4)
    shifts = [fields for fields in read_fields(session_log) if fields["type"] == "ContextShifted"]
    assert {(1, kept), (2, 4)} == {(fields["sequence"], fields["keep"]) for fields in shifts}
    assert [kept, 4] == [fields["options"]["num_keep"] for fields in received(session_log)]
    assert {kept, 4} == {event["kept"] for _, event in shown if event["event"] == "ContextShifted"}


@pytest.mark.parametrize("content", ["apple", "banana", "", " a", "a"])
async def test_what_comes_first_whatever_is_said(
    scripted_runtime: OpenScripted, session_log: Path, content: str
) -> None:
    """What is kept does not depend on what the first message says, and is all there is without a system message."""
    async with scripted_runtime(["ok"], n_ctx=N_CTX) as runtime:
        await runtime.chat([{"role": "user", "content": content}])
    [request] = received(session_log)
    assert len("user: ") == request["options"]["num_keep"]


class Strict(ScriptedEngine):
    """An engine whose template wants three messages at least, and counts how often it is asked."""

    asked = 0

    def render(self, messages: Any, tools: Any = (), *, think: Any = None) -> Rendered:
        """Render what is long enough."""
        type(self).asked += 1
        if len(messages) < 3:
            raise InvalidRequest("messages", "too few")
        return super().render(messages, tools, think=think)


async def test_a_cut_that_the_template_refuses_is_none(session_log: Path) -> None:
    """A template that takes the chat and not what would be left of it gets all of it, truncated as any prompt is."""
    messages = [said("user", 100), said("assistant", 20), said("user", 150)]
    async with open_runtime(Strict(["ok"]), log=session_log, n_ctx=N_CTX) as runtime:
        completion = await runtime.chat(messages, num_predict=1)
    assert (0, 270 + len("assistant: ") - N_CTX) == (completion.n_left_out, completion.n_truncated)
    assert [4] == [fields["options"]["num_keep"] for fields in received(session_log)]


async def test_a_long_chat_is_rendered_a_few_times() -> None:
    """However many messages must go, finding out how many takes as many renderings as their number has bits."""
    Strict.asked = 0
    messages = [said(("user", "assistant")[i % 2], 20) for i in range(2001)]
    async with open_runtime(Strict(["ok"]), n_ctx=N_CTX) as runtime:
        completion = await runtime.chat(messages, num_predict=1)
    assert completion.n_left_out > 1900
    assert Strict.asked <= 1 + 10


async def test_a_warning_tells_what_was_left_out(scripted_runtime: OpenScripted) -> None:
    """On structlog a request that lost messages is a warning with their number."""
    with console_shows() as shown:
        async with scripted_runtime(["ok"], n_ctx=N_CTX) as runtime:
            await runtime.chat([said("user", 150), said("assistant", 20), said("user", 20)])
    told = [event for level, event in shown if event["event"] == "RequestReceived" and level == "warning"]
    assert [2] == [event["messages_left_out"] for event in told]


class Hashed(str):
    """A text that counts how often it is hashed."""

    __slots__ = ()
    times = 0

    def __hash__(self) -> int:
        """Count, and return the text's hash."""
        Hashed.times += 1
        return super().__hash__()


def test_a_chat_of_many_messages_is_looked_up_once() -> None:
    """Only prefixes as long as an answered chat are looked up, because each takes as long as it has messages."""
    messages: list[Message] = [{"role": "user", "content": Hashed("x")}] * 100
    assert Chats().continued(messages, "x", 0) is None
    assert 0 == Hashed.times
