"""What a request can ask for, on a whole runtime without a model."""

import math
import threading
from functools import partial
from itertools import pairwise, repeat
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import trio
from attrs import evolve as changed
from trio.testing import wait_all_tasks_blocked

from reenact.actors.events import BatchDecoded, BatchPlanned, SessionClosed
from reenact.actors.inputs import Input, Row
from reenact.replay import check_log, replay_log
from reenact.runtime import (
    EngineBroken,
    InvalidRequest,
    Overloaded,
    ScriptedEngine,
    SequenceFailed,
    Stream,
    open_runtime,
)
from reenact.runtime.chats import kept
from reenact.runtime.engine.protocol import ContextSettings, Rendered
from reenact.runtime.engine.row_numbers import packed, row_with
from reenact.runtime.engine.scripted import DEAD_END, EOG, NAN
from reenact.runtime.prompts import pieces_of
from reenact.runtime.pytest_plugin import OpenScripted
from tests.helpers.sessions import console_shows, read_fields

LONG = ["a"] * 1000


def of(log: Path, kind: str) -> list[dict[str, Any]]:
    """Return the fields of the records of one type."""
    return [fields for fields in read_fields(log) if fields["type"] == kind]


async def text_of(stream: Stream) -> str:
    """Read a stream to its end."""
    return "".join([chunk.text async for chunk in stream])


# ---------------------------------------------------------------- what a completion tells


async def test_a_completion_tells_what_it_took(scripted_runtime: OpenScripted) -> None:
    """The same prompt twice: the second time all but one of its tokens come from the cache."""
    async with scripted_runtime(["x", "y"]) as runtime:
        one, other = await runtime.complete("abc"), await runtime.complete("abc")
    assert (3, 0, 0, 0, 3) == (one.n_prompt, one.n_cached, one.n_truncated, one.n_shifts, one.n_sampled)
    assert (3, 2) == (other.n_prompt, other.n_cached)
    assert one.text == other.text


async def test_times_add_up(scripted_runtime: OpenScripted, autojump_clock: trio.testing.MockClock) -> None:
    """Waiting, prefill and generation are measured by the session's clock, a reader's pauses included."""
    async with (
        scripted_runtime(["x"] * 6, n_slots=1, max_reader_lag=1) as runtime,
        runtime.stream("first") as first,
        runtime.stream("second") as second,
    ):
        await trio.sleep(3)
        await text_of(first)
        async for _ in second:
            await trio.sleep(1)
    times, later = first.completion.times, second.completion.times
    assert (0.0, 0.0, 0.0, 3.0, 3.0) == (
        times.queued,
        times.prefill,
        times.first_token,
        times.generation,
        times.total,
    )
    assert (3.0, 0.0, 3.0) == (later.queued, later.prefill, later.first_token)
    assert later.generation is not None
    assert later.first_token is not None
    assert later.total == later.first_token + later.generation > 3


async def test_a_truncated_prompt_is_told(scripted_runtime: OpenScripted) -> None:
    """A prompt that is too long keeps its beginning and its end, and the completion says how much is missing."""
    async with scripted_runtime({"0123456789"[:3] + "56789": ["x"]}, n_ctx=8) as runtime:
        completion = await runtime.complete("0123456789", num_keep=3, num_predict=1)
    assert (10, 2, "x") == (completion.n_prompt, completion.n_truncated, completion.text)


async def test_shifts_are_counted(scripted_runtime: OpenScripted) -> None:
    """A generation beyond its context goes on, and the completion says how often inputs were dropped."""
    async with scripted_runtime(LONG, n_ctx=8) as runtime:
        completion = await runtime.complete("abcdef", num_keep=3, num_predict=20)
        ended = await runtime.complete("abcdef", num_keep=3, num_predict=20, shift=False)
    assert ("length", 20, 9) == (completion.finish_reason, completion.n_sampled, completion.n_shifts)
    assert ("context_full", 3, 0) == (ended.finish_reason, ended.n_sampled, ended.n_shifts)


async def test_cells_are_moved_where_the_schedule_may_matter(scripted_runtime: OpenScripted, session_log: Path) -> None:
    """With "recorded-schedule" a shift moves cells; the text is the same."""
    async with scripted_runtime(LONG, n_ctx=8, determinism="recorded-schedule") as runtime:
        await runtime.complete("abcdef", num_keep=3, num_predict=9)
    plans = of(session_log, "BatchPlanned")
    assert [{"slot": 0, "keep": 3, "discard": 2}] * 3 == [shift for plan in plans for shift in plan.get("shifts", ())]
    assert [1] * 8 == [len(plan["parts"][0]["inputs"]) for plan in plans[1:]]


# ---------------------------------------------------------------- logprobs


async def test_logprobs_are_aligned_with_the_tokens(scripted_runtime: OpenScripted) -> None:
    """Each token of the text has its logprob and the likeliest beside it, in chunks as in the completion."""
    async with (
        scripted_runtime(["a", "<", "b", EOG]) as runtime,
        runtime.stream("p", logprobs=True, top_logprobs=2, stop=["<<"]) as stream,
    ):
        chunks = [chunk async for chunk in stream]
    completion = stream.completion
    assert ["a", "<b"] == [chunk.text for chunk in chunks]
    assert [(257,), (258, 259)] == [chunk.tokens for chunk in chunks]
    assert completion.tokens == tuple(logprob.token for logprob in completion.logprobs)
    assert completion.logprobs == tuple(logprob for chunk in chunks for logprob in chunk.logprobs)
    assert [b"a", b"<", b"b"] == [logprob.piece for logprob in completion.logprobs]
    assert [2, 2, 2] == [len(logprob.top) for logprob in completion.logprobs]


async def test_tokens_that_a_stop_string_cut_are_not_told(scripted_runtime: OpenScripted) -> None:
    """Nothing from the stop string on is in the tokens or the logprobs, whatever brought it."""
    async with scripted_runtime(["a", "b<", "/", "s>c"]) as runtime:
        completion = await runtime.complete("p", logprobs=True, stop=["</s>"])
    assert ("ab", (257,), 4) == (completion.text, completion.tokens, completion.n_sampled)
    assert [257] == [logprob.token for logprob in completion.logprobs]


async def test_tokens_without_text_go_out_at_the_end(scripted_runtime: OpenScripted) -> None:
    """The chunks together have every token of the completion, those without text too."""
    async with scripted_runtime(["a", "", "b", "", ""]) as runtime, runtime.stream("p") as stream:
        chunks = [chunk async for chunk in stream]
    assert ["a", "b", ""] == [chunk.text for chunk in chunks]
    assert stream.completion.tokens == tuple(token for chunk in chunks for token in chunk.tokens)
    assert 5 == len(stream.completion.tokens)


async def test_nobody_pays_for_logprobs_he_does_not_want(scripted_runtime: OpenScripted, session_log: Path) -> None:
    """Without logprobs there are none, in the completion and in the log."""
    async with scripted_runtime(["a"]) as runtime:
        assert () == (await runtime.complete("p")).logprobs
    assert all(
        "logprob" not in sample for decoded in of(session_log, "BatchDecoded") for sample in decoded.get("samples", ())
    )


# ---------------------------------------------------------------- grammar


async def test_a_grammar_that_does_not_compile(scripted_runtime: OpenScripted, session_log: Path) -> None:
    """It is the caller's error, told before any work, with the field and the reason."""
    async with scripted_runtime(["a"]) as runtime:
        with pytest.raises(InvalidRequest) as raised:
            await runtime.complete("p", grammar='start ::= "a"')
    assert ("grammar", "it has no rule 'root'") == (raised.value.field, raised.value.reason)
    assert [] == of(session_log, "RequestReceived")


@pytest.mark.parametrize(
    "schema",
    [
        {"type": "integer", "multipleOf": 5},
        {"type": "string", "format": "email"},
        {"type": "string", "pattern": "(?=a)b"},
        {"properties": {"a": {"type": "array", "uniqueItems": True}}},
    ],
)
async def test_a_scripted_engine_refuses_the_schemas_that_a_real_one_does(
    scripted_runtime: OpenScripted, schema: dict[str, Any]
) -> None:
    """So an application's tests see the error that its users would."""
    async with scripted_runtime(["a"]) as runtime:
        with pytest.raises(InvalidRequest, match="cannot be enforced") as raised:
            await runtime.complete("p", format=schema)
    assert "format" == raised.value.field


async def test_others_generate_while_a_grammar_is_checked(session_log: Path) -> None:
    """It is checked beside the thread that decodes, however long it takes."""
    async with open_runtime(Checking(), log=session_log) as runtime, trio.open_nursery() as nursery:
        nursery.start_soon(partial(runtime.complete, "p", grammar='root ::= "a"*'))
        await wait_all_tasks_blocked()
        await runtime.complete("p", num_predict=5)
    assert [None, 'root ::= "a"*'] == [record.get("grammar") for record in of(session_log, "PromptTokenized")]


async def test_a_grammar_that_allows_no_token(scripted_runtime: OpenScripted) -> None:
    """It ends its own sequence, typed, and no other."""
    async with scripted_runtime({"bad": ["a", DEAD_END], "good": ["b"]}) as runtime, runtime.stream("good") as good:
        with pytest.raises(SequenceFailed, match="no token 1: the grammar allows none"):
            await runtime.complete("bad", grammar='root ::= "a"')
        assert ["b"] == [chunk.text async for chunk in good]


async def test_the_engine_is_told_the_history(session_log: Path) -> None:
    """What a draw depends on: the options, the grammar, the prompt as evaluated and the tokens sampled so far."""
    seen: list[tuple[str | None, tuple[object, ...], tuple[int, ...]]] = []

    class Watched(ScriptedEngine):
        def step(self, planned: BatchPlanned, drawings: Any, numbers: Any) -> BatchDecoded:
            seen.extend((of_.grammar, tuple(of_.prompt), tuple(of_.sampled)) for of_ in drawings.values())
            return super().step(planned, drawings, numbers)

    async with open_runtime(Watched(["x", "y"]), log=session_log) as runtime:
        await runtime.complete("ab", grammar='root ::= "xy"')
    grammar, prompt = 'root ::= "xy"', (97, 98)
    assert [(grammar, prompt, ()), (grammar, prompt, (257,)), (grammar, prompt, (257, 258))] == seen


# ---------------------------------------------------------------- refused requests


def refused(log: Path) -> list[tuple[str | None, str, str]]:
    """Return of each refused request its name, and the kind and field of what is wrong with it."""
    facts = [(fields["request_id"], fields["failure"]) for fields in of(log, "RequestRefused")]
    return [(request_id, failure["kind"], failure["field"]) for request_id, failure in facts]


async def test_a_refused_request_is_a_fact(scripted_runtime: OpenScripted, session_log: Path) -> None:
    """However a request is made, its refusal is recorded with its name, the argument and the reason, once."""
    async with scripted_runtime(["ok"]) as runtime:
        for asking in (
            runtime.complete("secret", request_id="a", top_k=-1),
            runtime.complete("secret", request_id="b", grammar="root ::= x"),
            runtime.complete(b"secret", request_id="c"),  # type: ignore[arg-type]
            runtime.complete([b"secret"], request_id="d"),
            runtime.complete("secret", request_id="\ud800"),
            runtime.complete("secret", request_id=5),  # type: ignore[arg-type]
            runtime.chat([{"role": "user", "text": "secret"}], request_id="e"),
            runtime.embed(["secret"]),
            runtime.embed(b"secret"),  # type: ignore[arg-type]
        ):
            with pytest.raises(InvalidRequest):
                await asking
        assert (9, 0) == (runtime.statistics().n_refused, runtime.statistics().n_requests)
    ids = ["a", "b", "c", "d", "\\ud800", None, "e", None, None]
    fields = ["top_k", "grammar", "prompt", "prompt", "request_id", "request_id", "messages", "texts", "texts"]
    assert [(name, "invalid_request", field) for name, field in zip(ids, fields, strict=True)] == refused(session_log)
    assert "rule 'root' refers to a rule 'x'" in of(session_log, "RequestRefused")[1]["failure"]["reason"]
    assert b"secret" not in session_log.read_bytes()


async def test_a_refusal_in_anothers_block_is_its_own(scripted_runtime: OpenScripted, session_log: Path) -> None:
    """A request that is refused while another is read is recorded once, and the other one goes on."""
    async with scripted_runtime(["a", "b"]) as runtime:
        with pytest.raises(InvalidRequest):
            async with runtime.stream("p", request_id="outer"):
                await runtime.complete("q", request_id="inner", top_k=-1)
        assert "ab" == (await runtime.complete("p")).text
    assert [("inner", "invalid_request", "top_k")] == refused(session_log)


async def test_a_request_that_was_received_is_not_refused(scripted_runtime: OpenScripted, session_log: Path) -> None:
    """What is found wrong with a request that has its number is told by its end alone."""
    async with scripted_runtime(["a"], n_ctx=16) as runtime:
        with pytest.raises(InvalidRequest, match="n_ctx"):
            await runtime.complete("p" * 17, truncate=False)
    assert [] == refused(session_log)
    assert ["invalid_request"] == [end["error"]["kind"] for end in of(session_log, "SequenceFinished")]


async def test_a_grammar_that_cannot_be_checked_is_a_fact(session_log: Path) -> None:
    """A request that the engine cannot make ready is refused by the engine's fault, and that is recorded."""
    async with open_runtime(Rude("compile", KeyError("x")), log=session_log) as runtime:
        with pytest.raises(EngineBroken):
            await runtime.complete("p", request_id="a", grammar='root ::= "a"')
    assert [("a", "engine_broken", "")] == refused(session_log)


async def test_a_refusal_is_shown(scripted_runtime: OpenScripted) -> None:
    """On structlog a refused request is a warning with its name, the argument and the reason."""
    with console_shows() as shown:
        async with scripted_runtime(["ok"]) as runtime:
            with pytest.raises(InvalidRequest):
                await runtime.complete("secret", request_id="a", top_k=-1)
    ((level, event),) = [one for one in shown if one[1]["event"] == "RequestRefused"]
    assert ("warning", "a", "top_k") == (level, event["request_id"], event["field"])
    assert "secret" not in str(shown)


async def test_a_refusal_after_the_runtime_was_left(scripted_runtime: OpenScripted, session_log: Path) -> None:
    """A wrong request after the runtime was left has its error, and the log stays closed."""
    async with scripted_runtime(["ok"]) as runtime:
        pass
    with pytest.raises(InvalidRequest):
        await runtime.complete("p", top_k=-1)
    assert [] == refused(session_log)


# ---------------------------------------------------------------- deadlines and priorities


async def test_a_deadline_ends_a_sequence_with_what_it_has(
    scripted_runtime: OpenScripted, session_log: Path, autojump_clock: trio.testing.MockClock
) -> None:
    """When its time is over a sequence ends with reason "deadline"; the clock enters as an event."""
    async with (
        scripted_runtime(LONG, max_reader_lag=3) as runtime,
        runtime.stream("p", deadline=2.5) as stream,
    ):
        await trio.sleep(5)
        text = "".join([chunk.text async for chunk in stream])
    assert ("deadline", "aaaa", 2.5) == (stream.completion.finish_reason, text, stream.completion.times.total)
    assert [stream.sequence] == [fields["sequence"] for fields in of(session_log, "DeadlineExpired")]
    assert autojump_clock.current_time() >= 5


async def test_a_deadline_cuts_generating(
    scripted_runtime: OpenScripted, autojump_clock: trio.testing.MockClock
) -> None:
    """Where batches take time a deadline ends what would go on, though its reader never waits."""
    start = autojump_clock.current_time()
    async with scripted_runtime(LONG, batch_seconds=1) as runtime:
        completion = await runtime.complete("p", deadline=3.5)
    assert ("deadline", "aaa", 3.5) == (completion.finish_reason, completion.text, completion.times.total)
    assert 4 == autojump_clock.current_time() - start  # Leaving waits for the batch in flight.


async def test_an_abort_ends_a_batchs_time(
    scripted_runtime: OpenScripted, session_log: Path, autojump_clock: trio.testing.MockClock
) -> None:
    """A prompt whose caller leaves keeps the engine no longer, however long its batch would take."""
    start = autojump_clock.current_time()
    async with scripted_runtime({"x" * 60: LONG, "y": ["b"]}, batch_seconds=1000) as runtime:
        with trio.move_on_after(2):
            await runtime.complete("x" * 60)
        assert 2 == autojump_clock.current_time() - start
        assert "b" == (await runtime.complete("y")).text
    assert 2002 == autojump_clock.current_time() - start
    assert [2] == [fields["code"] for fields in of(session_log, "BatchDecoded") if fields["code"]]


NO_TIMES: list[Any] = [-1, math.inf, math.nan, "x", None, True, 10**400, 1e308, [1]]


@pytest.mark.parametrize("seconds", NO_TIMES, ids=lambda value: str(value)[:5])
async def test_a_batch_takes_a_time_that_is_none(seconds: Any) -> None:
    """A time that is none, or never comes, is refused when the engine is made, and where one of one's own says it."""
    with pytest.raises(ValueError, match="batch_seconds is a number of seconds from 0 to 10,000,000, got"):
        ScriptedEngine(batch_seconds=seconds)
    engine = ScriptedEngine()
    engine.batch_seconds = seconds
    with pytest.raises(InvalidRequest, match="the engine's batch_seconds") as raised:
        async with open_runtime(engine):
            pass
    assert "model" == raised.value.field


async def test_a_deadline_at_a_batchs_end_comes_first(
    scripted_runtime: OpenScripted, autojump_clock: trio.testing.MockClock
) -> None:
    """Where both come at the same time the token of the batch is lost, in every run."""
    async with scripted_runtime(LONG, batch_seconds=1) as runtime:
        completions = [await runtime.complete("p", deadline=3) for _ in range(20)]
    assert {("deadline", "aa")} == {(one.finish_reason, one.text) for one in completions}
    assert 60 == autojump_clock.current_time()


async def test_a_deadline_while_waiting(scripted_runtime: OpenScripted, autojump_clock: trio.testing.MockClock) -> None:
    """A request that never got a slot ends in time too, with nothing."""
    async with scripted_runtime(LONG, n_slots=1, max_reader_lag=2) as runtime, runtime.stream("p"):
        completion = await runtime.complete("q", deadline=1)
    assert ("deadline", "", 0) == (completion.finish_reason, completion.text, completion.n_sampled)
    assert autojump_clock.current_time() >= 1


async def test_a_deadline_that_is_not_needed_keeps_nobody(
    scripted_runtime: OpenScripted, session_log: Path, autojump_clock: trio.testing.MockClock
) -> None:
    """A sequence that ended before its deadline is forgotten by the clock."""
    start = autojump_clock.current_time()
    async with scripted_runtime(["a"]) as runtime:
        await runtime.complete("p", deadline=1000)
    assert start == autojump_clock.current_time()
    assert [] == of(session_log, "DeadlineExpired")


async def test_a_higher_priority_takes_a_slot(
    scripted_runtime: OpenScripted, session_log: Path, autojump_clock: trio.testing.MockClock
) -> None:
    """The youngest of a lower priority makes room, and goes on later with the same text."""
    scripts = {name: [f"{name}{i}" for i in range(30)] for name in ("one", "two", "high")}
    async with (
        scripted_runtime(scripts, n_slots=2, max_reader_lag=9) as runtime,
        runtime.stream("one") as one,
        runtime.stream("two") as two,
    ):
        await trio.sleep(1)
        async with runtime.stream("high", priority=1) as high:
            texts = {"high": await text_of(high)}
        texts |= {"one": await text_of(one), "two": await text_of(two)}
    assert {name: "".join(script) for name, script in scripts.items()} == texts
    (preempted,) = of(session_log, "SequencePreempted")
    assert (2, 3) == (preempted["sequence"], preempted["by"])
    assert autojump_clock.current_time() >= 1


async def test_stalled_readers_do_not_stop_a_service(
    scripted_runtime: OpenScripted, session_log: Path, autojump_clock: trio.testing.MockClock
) -> None:
    """Two readers stall in two slots: a third request is served after max_pause, and both texts are as ever."""
    scripts = {name: [f"{name}{i}" for i in range(30)] for name in ("one", "two", "third")}
    async with (
        scripted_runtime(scripts, n_slots=2, max_reader_lag=9, max_pause=4) as runtime,
        runtime.stream("one") as one,
        runtime.stream("two") as two,
    ):
        third = await runtime.complete("third")
        assert 4 == round(autojump_clock.current_time(), 3)
        texts = {"one": await text_of(one), "two": await text_of(two), "third": third.text}
    assert {name: "".join(script) for name, script in scripts.items()} == texts
    assert {1, 2} == {fields["sequence"] for fields in of(session_log, "SlotYielded")}


async def test_a_completion_within_a_stream(
    scripted_runtime: OpenScripted, autojump_clock: trio.testing.MockClock
) -> None:
    """A completion within the loop of a stream, on one slot, comes after max_pause, and then the rest of the stream."""
    async with scripted_runtime(["a"] * 20, n_slots=1, max_reader_lag=2) as runtime, runtime.stream("outer") as outer:
        texts = [(await runtime.complete("inner")).text async for _ in outer][:1]
    assert (["a" * 20], "a" * 20) == (texts, outer.completion.text)
    assert autojump_clock.current_time() > 0


async def test_a_reader_in_time_keeps_the_slot(
    scripted_runtime: OpenScripted, session_log: Path, autojump_clock: trio.testing.MockClock
) -> None:
    """Each pause is counted anew, and one that has ended, by reading or by leaving, has no end to come."""
    async with scripted_runtime(["a"] * 40, n_slots=1, max_reader_lag=2, max_pause=4) as runtime:
        async with runtime.stream("p") as stream:
            async for _ in stream:
                await trio.sleep(1)
        async with runtime.stream("p"):
            await trio.sleep(3)
        await trio.sleep(10)
    assert [] == of(session_log, "PauseExpired")
    assert 53 == autojump_clock.current_time()


async def test_no_limit_of_pauses(scripted_runtime: OpenScripted, session_log: Path, autojump_clock: object) -> None:
    """With max_pause None a reader that stalls keeps the slot for as long as it takes."""
    async with scripted_runtime(["a"] * 9, n_slots=1, max_reader_lag=2, max_pause=None) as runtime:
        async with runtime.stream("p") as stream:
            await trio.sleep(10_000)
            assert "a" * 9 == await text_of(stream)
    assert [] == of(session_log, "PauseExpired")


# ---------------------------------------------------------------- a full queue


async def test_a_full_queue_lets_a_higher_priority_in(
    scripted_runtime: OpenScripted, session_log: Path, autojump_clock: object
) -> None:
    """A request that could be served at once is; one that goes before another has its place, and that is refused."""
    async with (
        scripted_runtime(["a"] * 9, n_slots=1, max_waiting=1, max_reader_lag=1) as runtime,
        runtime.stream("served") as served,
        runtime.stream("waits") as waits,
        runtime.stream("at once", priority=9) as at_once,
        runtime.stream("in its place", priority=5) as in_its_place,
    ):
        with pytest.raises(Overloaded, match="1 requests may wait for a slot, and so many do; try again later"):
            await runtime.complete("too late", priority=5)
        with pytest.raises(Overloaded, match="so many do: one with priority 5 goes before this one; try again later"):
            await text_of(waits)
        assert ["a" * 9] * 3 == [await text_of(stream) for stream in (at_once, in_its_place, served)]
    assert [(2, 4)] == [(fields["sequence"], fields["by"]) for fields in of(session_log, "RequestDisplaced")]


# ---------------------------------------------------------------- cancelling inside a prefill


def is_later_chunk(planned: dict[str, Any]) -> bool:
    """Return whether a batch goes on with a prompt."""
    return any(part["position"] > 0 and len(part["inputs"]) > 1 for part in planned["parts"])


async def test_leaving_in_a_prefill_aborts_the_batch(scripted_runtime: OpenScripted, session_log: Path) -> None:
    """The batch in flight ends early, and what was prefilled of it is reused; the neighbour's text is what it was."""
    prompt = "x" * 60
    async with scripted_runtime(["a"] * 20, n_slots=2, n_batch=16) as runtime:
        async with runtime.stream("neighbour") as neighbour:
            with trio.CancelScope() as scope:
                async with runtime.stream(prompt):
                    while not any(is_later_chunk(plan) for plan in of(session_log, "BatchPlanned")):
                        await trio.lowlevel.checkpoint()
                    scope.cancel()
                    await trio.lowlevel.checkpoint()
            assert "a" * 20 == "".join([chunk.text async for chunk in neighbour])
        assert 1 == runtime.statistics().n_aborted
        again = await runtime.complete(prompt)
    assert [2] == [fields["code"] for fields in of(session_log, "BatchDecoded") if fields["code"]]
    assert 0 < again.n_cached < 60


# ---------------------------------------------------------------- chats


async def test_a_chat_keeps_its_tokens(scripted_runtime: OpenScripted, session_log: Path) -> None:
    """A chat that goes on has the tokens that were sampled, not the bytes of their text, and reuses their cells."""
    messages = [{"role": "user", "content": "Hi"}]
    counts = []
    async with scripted_runtime(["Hel", "lo"]) as runtime:
        for turn in range(3):
            completion = await runtime.chat(messages)
            counts.append(completion.n_prompt - completion.n_cached)
            messages += [
                {"role": "assistant", "content": completion.text},
                {"role": "user", "content": f"Go on {turn}"},
            ]
    assert [len("user: Hi\nassistant: "), *[len("\nuser: Go on 0\nassistant: ")] * 2] == counts
    received = of(session_log, "RequestReceived")
    assert [None, 1, 2] == [fields["continues"] for fields in received]
    for before, after in pairwise(of(session_log, "PromptTokenized")):
        assert [*before["inputs"], 257, 258] == after["inputs"][: len(before["inputs"]) + 2]


async def test_a_chat_after_a_stop_string(scripted_runtime: OpenScripted, session_log: Path) -> None:
    """Where a stop string cut the answer, its tokens are kept as far as they are wholly in the text."""
    messages = [{"role": "user", "content": "Hi"}]
    async with scripted_runtime(["one", " two<", "/s>"]) as runtime:
        completion = await runtime.chat(messages, stop=["</s>"])
        messages += [{"role": "assistant", "content": completion.text}, {"role": "user", "content": "Go on"}]
        await runtime.chat(messages, num_predict=1)
    first, second = of(session_log, "PromptTokenized")
    rest = tuple(b" two\nuser: Go on\nassistant: ")
    assert [*first["inputs"], 257, *rest] == second["inputs"]


async def test_a_chat_that_was_not_heard_is_forgotten(scripted_runtime: OpenScripted, session_log: Path) -> None:
    """Where an answer ended before its messages were tokenized, the next turn tokenizes all of them."""
    messages = [{"role": "user", "content": "My name is Bob"}]
    async with scripted_runtime(["Hello"]) as runtime:
        with trio.CancelScope() as scope:
            scope.cancel()
            await runtime.chat(messages)
        messages += [{"role": "assistant", "content": ""}, {"role": "user", "content": "Who am I?"}]
        completion = await runtime.chat(messages)
    assert len("user: My name is Bob\nassistant: \nuser: Who am I?\nassistant: ") == completion.n_prompt
    assert {None} == {fields["continues"] for fields in of(session_log, "RequestReceived")}


@pytest.mark.parametrize(
    ("pieces", "text", "expected"),
    [
        ([b"ab", b"c"], "abc", (2, "abc")),
        ([b"a", b"\xff", b"c"], "a\ufffdc", (1, "a")),
        ([b"\xc3", b"\xa9", b"!"], "\xe9!", (3, "\xe9!")),
        ([b"a", b"\xc3"], "a\ufffd", (1, "a")),
        ([b"a\xc3", b"\xa9"], "a\xe9", (2, "a\xe9")),
        ([], "", (0, "")),
    ],
)
def test_tokens_that_are_kept_are_text(pieces: list[bytes], text: str, expected: tuple[int, str]) -> None:
    """Of an answer those tokens are kept that went out as what they are, up to the end of a character."""
    assert expected == kept(pieces, text)


async def test_a_chat_that_was_edited_is_another_chat(scripted_runtime: OpenScripted, session_log: Path) -> None:
    """If the answer is not what was generated, all is tokenized anew."""
    messages = [{"role": "user", "content": "Hi"}]
    async with scripted_runtime(["Hello"]) as runtime:
        await runtime.chat(messages)
        messages += [{"role": "assistant", "content": "Hello!"}, {"role": "user", "content": "Go on"}]
        await runtime.chat(messages)
    assert [None, None] == [fields["continues"] for fields in of(session_log, "RequestReceived")]


@pytest.mark.parametrize(
    "messages",
    [
        [],
        "Hi",
        [{"role": "user"}],
        ["Hi"],
        [{"role": "user", "content": 7}],
        [{"role": "user", "content": "\ud800"}],
        7,
    ],
)
async def test_wrong_messages_are_refused(scripted_runtime: OpenScripted, session_log: Path, messages: Any) -> None:
    """What is no list of messages is the caller's error, and nothing is recorded."""
    async with scripted_runtime(["a"]) as runtime:
        with pytest.raises(InvalidRequest) as raised:
            await runtime.chat(messages)
    assert "messages" == raised.value.field
    assert [] == of(session_log, "RequestReceived")


# ---------------------------------------------------------------- embeddings

VECTORS = {"a": (3.0, 4.0), "b": (0.0, 0.0), "c": (1.0, float("nan")), "long": (1.0, 0.0), "log": (0.0, 2.0)}


async def test_embeddings(scripted_runtime: OpenScripted, session_log: Path) -> None:
    """Each text has its vector, of length 1 or of zeros, in the order of the texts."""
    async with scripted_runtime(vectors=VECTORS, n_slots=2) as runtime:
        embeddings = await runtime.embed(["a", "b", "a", "a", "b"])
        (short,) = await runtime.embed(["a"], dimensions=1)
    assert [(0.6, 0.8), (0, 0), (0.6, 0.8), (0.6, 0.8), (0, 0)] == [e.embedding for e in embeddings]
    assert ((1.0,), 1, 0) == (short.embedding, short.n_prompt, short.n_truncated)
    assert 6 == len(of(session_log, "EmbeddingComputed"))
    assert {1} == {len(plan["parts"]) for plan in of(session_log, "BatchPlanned")}


async def test_a_text_that_is_too_long(scripted_runtime: OpenScripted) -> None:
    """It loses what does not fit before its last token; or it is an error."""
    async with scripted_runtime(vectors=VECTORS, n_ctx=3) as runtime:
        (embedding,) = await runtime.embed(["long"])
        with pytest.raises(InvalidRequest, match="texts: it has 4 tokens"):
            await runtime.embed(["long"], truncate=False)
    assert ((0, 1), 4, 1) == (embedding.embedding, embedding.n_prompt, embedding.n_truncated)


async def test_a_vector_with_a_nan_is_an_error(scripted_runtime: OpenScripted) -> None:
    """It ends that text, typed, and with it the others of the same call."""
    async with scripted_runtime(vectors=VECTORS) as runtime:
        with pytest.raises(SequenceFailed, match="NaN or infinite"):
            await runtime.embed(["a", "c"])
        assert 1 == len(await runtime.embed(["a"]))


async def test_models_are_asked_for_what_they_can(tmp_path: Path) -> None:
    """A model that generates makes no embeddings, and the other way round."""
    async with open_runtime(ScriptedEngine(["a"])) as runtime:
        for texts in (["a"], []):
            with pytest.raises(InvalidRequest, match="texts: this model generates"):
                await runtime.embed(texts)
    async with open_runtime(ScriptedEngine(vectors=VECTORS)) as runtime:
        with pytest.raises(InvalidRequest, match="prompt: this model makes embeddings"):
            await runtime.complete("a")


@pytest.mark.parametrize(
    ("texts", "options", "field"),
    [
        ("a", {}, "texts"),
        (5, {}, "texts"),
        ([7], {}, "texts"),
        ([""], {}, "texts"),
        (["a"], {"dimensions": 0}, "dimensions"),
        (["a"], {"truncate": 1}, "truncate"),
    ],
)
async def test_wrong_texts_are_refused(
    scripted_runtime: OpenScripted, texts: Any, options: dict[str, Any], field: str
) -> None:
    """A wrong argument of embed is told with its name."""
    async with scripted_runtime(vectors=VECTORS) as runtime:
        with pytest.raises(InvalidRequest) as raised:
            await runtime.embed(texts, **options)
    assert field == raised.value.field


async def test_an_embedding_has_a_deadline(scripted_runtime: OpenScripted) -> None:
    """A deadline that is over at once is an error: half a vector is none."""
    async with scripted_runtime(vectors=VECTORS) as runtime:
        with pytest.raises(SequenceFailed, match="deadline"):
            await runtime.embed(["a"], deadline=0)


async def test_nan_and_dead_end_are_told_apart(scripted_runtime: OpenScripted) -> None:
    """Each fault of a draw has its own words."""
    async with scripted_runtime({"n": [NAN], "d": [DEAD_END]}) as runtime:
        with pytest.raises(SequenceFailed, match="its logits hold a NaN"):
            await runtime.complete("n")
        with pytest.raises(SequenceFailed, match="the grammar allows none"):
            await runtime.complete("d")


# ---------------------------------------------------------------- rows


async def test_a_prompt_of_texts_and_rows(scripted_runtime: OpenScripted, session_log: Path) -> None:
    """Rows stand where tokens do; they are batched apart from tokens, cached, and told as U+FFFC."""
    async with scripted_runtime(["x"], n_slots=1) as runtime:
        first = await runtime.complete(["ab", (0.5, 1), (1, 2), "c"])
        second = await runtime.complete(["ab", (0.5, 1), (1, 2), "d"])
    assert (5, 0, 4) == (first.n_prompt, first.n_cached, second.n_cached)
    assert (
        "ab\N{OBJECT REPLACEMENT CHARACTER}\N{OBJECT REPLACEMENT CHARACTER}c"
        == of(session_log, "RequestReceived")[0]["prompt"]
    )
    parts = [plan["parts"][0]["inputs"] for plan in of(session_log, "BatchPlanned")]
    one, other = (row_with(packed(row)).digest for row in ([0.5, 1.0], [1.0, 2.0]))
    assert [[97, 98], [one, other], [99]] == parts[:3]


@pytest.mark.parametrize(
    "prompt",
    [[(1, 2, 3)], [(1, float("nan"))], [("a", "b")], [7], 7, ["a", None], [(True, 1)], [(10**400, 1)], []],
)
async def test_wrong_rows_are_refused(scripted_runtime: OpenScripted, prompt: Any) -> None:
    """A row has as many finite numbers as the model wants; anything else is the caller's error."""
    async with scripted_runtime(["x"]) as runtime:
        with pytest.raises(InvalidRequest) as raised:
            await runtime.complete(prompt)
    assert "prompt" == raised.value.field


async def test_numbers_of_other_kinds_are_numbers(scripted_runtime: OpenScripted, session_log: Path) -> None:
    """A row may come from numpy, in any of its kinds of numbers."""
    async with scripted_runtime(["x"]) as runtime:
        await runtime.complete([np.array([0.5, 1], np.float32), np.array([1, 2])])  # type: ignore[list-item]
    expected = [row_with(packed(row)).digest for row in ([0.5, 1.0], [1.0, 2.0])]
    assert expected == of(session_log, "PromptTokenized")[0]["inputs"]


# ---------------------------------------------------------------- too much


async def test_many_texts_are_one_text_soon(scripted_runtime: OpenScripted) -> None:
    """As many texts as a prompt has bytes are joined in time linear in them: each copied the rest before."""
    async with scripted_runtime(["x"]) as runtime:
        completion = await runtime.complete(["a"] * 2**20, num_predict=1)
    assert 2**20 == completion.n_prompt


@pytest.mark.parametrize(
    ("ask", "field", "reason"),
    [
        (lambda runtime: runtime.complete(repeat("")), "prompt", "1,048,576 at most"),
        (lambda runtime: runtime.complete(repeat("a" * 2**19)), "prompt", "it has more than 1,048,576 bytes"),
        (lambda runtime: runtime.complete([repeat(0.5)]), "prompt", "2 at most"),
        (lambda runtime: runtime.embed(repeat("a")), "texts", "expected a list of strings, 131,072 at most"),
        (lambda runtime: runtime.chat(repeat({"role": "user", "content": "a"})), "messages", "more than 131,072"),
    ],
    ids=["texts", "bytes", "row", "embed", "chat"],
)
async def test_what_has_no_end_is_refused(scripted_runtime: OpenScripted, ask: Any, field: str, reason: str) -> None:
    """A list that a caller gives is read so far as it may be long, and then it is an error that names the argument."""
    async with scripted_runtime(["x"]) as runtime:
        with pytest.raises(InvalidRequest, match=reason) as raised:
            await ask(runtime)
    assert field == raised.value.field


def test_a_prompt_has_so_many_rows() -> None:
    """Rows are refused where they have more numbers than a session holds, or are more than a log's line names."""
    wide = ContextSettings(n_slots=1, n_ctx=64, n_batch=2048, n_threads=1, determinism="auto", logits_hash=True)
    context = changed(ScriptedEngine().load(wide).context, n_embd=4096)
    assert 1 == len(pieces_of([[0.5] * 4096], context))
    with pytest.raises(InvalidRequest, match="it has more than 1,024 rows of 4,096 numbers"):
        pieces_of(repeat([0.5] * 4096), context)
    with pytest.raises(InvalidRequest, match="it has more than 131,072 rows of 1 numbers"):
        pieces_of(repeat([0.5]), changed(context, n_embd=1))


async def test_without_a_log_rows_are_held_for_the_engine() -> None:
    """The engine is given the numbers of a batch's rows, and no others, also where nothing is written."""
    given: list[dict[Row, bytes]] = []

    class Watching(ScriptedEngine):
        """An engine that keeps what it is given."""

        def step(self, planned: BatchPlanned, drawings: Any, numbers: Any) -> BatchDecoded:
            """Play, and keep the numbers."""
            given.append(dict(numbers))
            return super().step(planned, drawings, numbers)

    engine = Watching(["x"])
    async with open_runtime(engine, log=None, n_slots=1, n_ctx=64) as runtime:
        await runtime.complete(["a", (0.5, 1), (1, 2), (0.5, 1)])
    values = [packed(row) for row in ((0.5, 1.0), (1.0, 2.0))]
    assert [{}, {row_with(one): one for one in values}, {}] == given


# ---------------------------------------------------------------- engines that do not behave


class Rude(ScriptedEngine):
    """An engine that raises or returns what it should not, where it is told to."""

    def __init__(self, where: str, what: object) -> None:
        super().__init__(["a"] * 50)
        self._where, self._what = where, what

    def _rude(self, where: str, polite: Any) -> Any:
        if where != self._where:
            return polite()
        if isinstance(self._what, Exception):
            raise self._what
        return self._what

    def compile(self, options: Any) -> Any:
        return self._rude("compile", lambda: super(Rude, self).compile(options))

    def render(self, messages: Any, tools: Any = (), *, think: Any = None) -> Any:
        return self._rude("render", lambda: super(Rude, self).render(messages, tools, think=think))

    def tokenize(self, text: str | Rendered, *, after: Input | None = None) -> Any:
        return self._rude("tokenize", lambda: super(Rude, self).tokenize(text, after=after))

    def step(self, planned: BatchPlanned, drawings: Any, numbers: Any) -> Any:
        return self._rude("step", lambda: super(Rude, self).step(planned, drawings, numbers))

    def abort(self, batch: int) -> None:
        self._rude("abort", lambda: super(Rude, self).abort(batch))


class Slow(ScriptedEngine):
    """An engine with a thread, in which each grammar is checked until that is let go on."""

    computes = True

    def __init__(self) -> None:
        super().__init__(["a"] * 50)
        self.checked: list[str] = []
        self.checking, self.go_on = threading.Event(), threading.Event()

    def compile(self, options: Any) -> Any:
        self.checked.append(options.grammar)
        self.checking.set()
        assert self.go_on.wait(10)
        return super().compile(options)


async def test_a_deadline_counts_the_check_of_a_grammar(session_log: Path) -> None:
    """A request whose grammar is still being checked when its time is over ends then, without text or grammar."""
    engine = Slow()
    async with open_runtime(engine, log=session_log) as runtime:
        late = await runtime.complete("x", grammar='root ::= "a"', deadline=0.05)
        assert ("deadline", "", 0) == (late.finish_reason, late.text, late.n_prompt)
        engine.go_on.set()
        assert "a" == (await runtime.complete("x", grammar='root ::= "a"', num_predict=1)).text
    assert 2 == len(of(session_log, "RequestReceived"))
    replay_log(session_log).raise_for_divergence()
    check_log(session_log).raise_for_violation()


async def test_who_leaves_does_not_wait_for_a_check(session_log: Path) -> None:
    """Callers are cancelled at once while a grammar is checked, and one whose caller left is not checked."""
    engine = Slow()
    async with open_runtime(engine, log=session_log) as runtime:
        async with trio.open_nursery() as nursery:
            for letter in "ab":
                nursery.start_soon(partial(runtime.complete, "x", grammar=f'root ::= "{letter}"'))
                await wait_all_tasks_blocked()
            await trio.to_thread.run_sync(engine.checking.wait)
            nursery.cancel_scope.cancel()
        assert not engine.go_on.is_set()
        engine.go_on.set()
        await runtime.complete("x", grammar='root ::= "c"', num_predict=1)
    assert ['root ::= "a"', 'root ::= "c"'] == engine.checked
    assert 1 == len(of(session_log, "RequestReceived"))


class Checking(ScriptedEngine):
    """An engine with a thread, in which a grammar is checked for as long as no other sequence has a token."""

    computes = True

    def __init__(self) -> None:
        super().__init__(["a"] * 50)
        self._stepped = threading.Event()

    def compile(self, options: Any) -> Any:
        assert self._stepped.wait(10)
        return super().compile(options)

    def step(self, planned: BatchPlanned, drawings: Any, numbers: Any) -> Any:
        self._stepped.set()
        return super().step(planned, drawings, numbers)


NONSENSE = BatchDecoded(batch=0, code="0", samples=(), vectors=(), positions=((0, 15),))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("where", "what", "error"),
    [
        ("compile", KeyError("x"), EngineBroken),
        ("compile", 5, EngineBroken),
        ("render", KeyError("x"), EngineBroken),
        ("render", b"x", EngineBroken),
        ("tokenize", KeyError("x"), SequenceFailed),
        ("tokenize", None, SequenceFailed),
        ("step", None, EngineBroken),
        ("step", SessionClosed(digest=""), EngineBroken),
        ("step", NONSENSE, EngineBroken),
    ],
)
async def test_a_rude_engine_is_told_by_a_typed_error(
    session_log: Path, where: str, what: object, error: type[Exception]
) -> None:
    """Whatever an engine raises or returns, its caller gets an error of reenact's, and the log replays the same."""
    async with open_runtime(Rude(where, what), log=session_log) as runtime:
        with pytest.raises(error):
            await runtime.chat([{"role": "user", "content": "Hi"}], grammar='root ::= "a"')


async def test_an_abort_that_raises_is_none(session_log: Path) -> None:
    """Leaving while a prefill is in flight ends, also where the engine cannot abort."""
    async with open_runtime(Rude("abort", KeyError("x")), log=session_log, n_batch=8) as runtime:
        async with runtime.stream("x" * 60), runtime.stream("y" * 60):
            while not any(len(plan["parts"]) > 1 for plan in of(session_log, "BatchPlanned")):
                await trio.lowlevel.checkpoint()
    assert ["cancelled"] * 2 == [fields["finish_reason"] for fields in of(session_log, "SequenceFinished")]
