"""One request from its arrival to its one end, told by the events of whole runs."""

from itertools import repeat

import pytest

from reenact.actors import events as e
from reenact.actors import sequence as s
from reenact.actors.errors import Failure, InternalError
from reenact.actors.options import Options
from tests.helpers.driver import Driver

SMILE = (b"\xf0", b"\x9f", b"\x98", b"\x80")
ENDLESS = repeat(b"a")


def run(*pieces: bytes, stop: tuple[str, ...] = (), num_predict: int = -1) -> Driver:
    """Return the driver after a request that generates these pieces has ended."""
    driver = Driver()
    driver.submit(*pieces, stop=stop, num_predict=num_predict)
    driver.run()
    return driver


def test_an_eog_token_ends_the_text() -> None:
    """The EOG token is sampled and counted, but neither emitted nor decoded."""
    driver = run(b"a", b"b")
    assert e.SequenceFinished(
        sequence=1, finish_reason="stop", stop=None, text="", n_prompt=3, n_sampled=3, n_hidden=0, error=None
    ) == driver.end(1)
    assert ["a", "b"] == driver.chunks(1)
    assert [e.EogSampled(sequence=1, index=2, token=1002)] == driver.events(e.EogSampled)
    assert [e.SlotReleased(sequence=1, slot=0, length=5)] == driver.events(e.SlotReleased)
    assert [100, 101, 102, 1000, 1001] == driver.cells[0]


def test_an_eog_token_at_once_is_an_empty_text() -> None:
    """A model may say nothing."""
    driver = run()
    assert ([], "stop", 1) == (driver.chunks(1), driver.end(1).finish_reason, driver.end(1).n_sampled)


def test_num_predict_ends_the_text() -> None:
    """After `num_predict` tokens the end is `length`, and the last token is not decoded."""
    driver = run(b"a", b"b", b"c", num_predict=2)
    assert ("ab", "length", 2) == (driver.text(1), driver.end(1).finish_reason, driver.end(1).n_sampled)
    assert [100, 101, 102, 1000] == driver.cells[0]


def test_num_predict_0_ends_at_once() -> None:
    """With `num_predict` 0 nothing is evaluated and nothing comes out."""
    driver = run(b"a", num_predict=0)
    assert ([], "length", 3, 0) == (
        driver.chunks(1),
        driver.end(1).finish_reason,
        driver.end(1).n_prompt,
        driver.end(1).n_sampled,
    )
    assert [] == driver.events(e.BatchPlanned, e.SlotAssigned)


def test_a_stop_string_in_many_pieces_never_leaves() -> None:
    """Nothing from the beginning of a stop string on ever leaves, and what follows is not sampled."""
    driver = run(b"x", b"<", b"/s", b">", b"y", stop=("</s>",))
    assert ["x"] == driver.chunks(1)
    assert ("stop", "</s>", 4) == (driver.end(1).finish_reason, driver.end(1).stop, driver.end(1).n_sampled)
    assert [e.StopMatched(sequence=1, index=3, token=1003, stop="</s>", text="")] == driver.events(e.StopMatched)


def test_text_before_a_stop_string_goes_out_with_it() -> None:
    """A piece that holds text and a whole stop string sends the text out."""
    driver = run(b"ab<", b"/s>cd", stop=("</s>",))
    assert ["ab"] == driver.chunks(1)
    assert "</s>" == driver.end(1).stop


def test_what_was_held_in_vain_goes_out_in_one_chunk() -> None:
    """Text held for a stop string that does not come goes out with the piece that decides it."""
    driver = run(b"x", b"<", b"p", stop=("</s>",))
    assert ["x", "", "<p"] == [emitted.text for emitted in driver.events(e.TokenEmitted)]
    assert [b"", b"<", b""] == [emitted.held for emitted in driver.events(e.TokenEmitted)]


def test_a_character_in_four_pieces_is_one_chunk() -> None:
    """A character goes out whole, after its last byte."""
    driver = run(*SMILE)
    assert ["", "", "", "😀"] == [emitted.text for emitted in driver.events(e.TokenEmitted)]


@pytest.mark.parametrize(
    ("pieces", "num_predict", "finish_reason", "text"),
    [
        ((b"x", b"<"), -1, "stop", "<"),
        ((b"x", b"</"), 2, "length", "</"),
        (SMILE[:3], -1, "stop", "\ufffd"),
        ((b"x", b"\xe2"), 2, "length", "\ufffd"),
    ],
)
def test_held_text_goes_out_at_the_end(
    pieces: tuple[bytes, ...], num_predict: int, finish_reason: str, text: str
) -> None:
    """When a sequence ends for any reason but a stop string, what was held goes out."""
    driver = run(*pieces, num_predict=num_predict, stop=("</s>",))
    assert (finish_reason, text) == (driver.end(1).finish_reason, driver.end(1).text)


def test_a_full_context_ends_the_text() -> None:
    """A token that has no cell any more is emitted, and the end is `context_full`."""
    driver = Driver(n_ctx=8)
    driver.submit(script=ENDLESS, prompt=6, shift=False)
    driver.run()
    assert ("aaa", "context_full", 3) == (driver.text(1), driver.end(1).finish_reason, driver.end(1).n_sampled)
    assert [e.SlotReleased(sequence=1, slot=0, length=8)] == driver.events(e.SlotReleased)


def test_a_prompt_may_fill_the_context() -> None:
    """A prompt of `n_ctx` tokens still gives one token."""
    driver = Driver(n_ctx=8)
    driver.submit(script=ENDLESS, prompt=8, shift=False)
    driver.run()
    assert ("a", "context_full") == (driver.text(1), driver.end(1).finish_reason)


def test_held_text_goes_out_when_the_context_is_full() -> None:
    """A full context ends no differently: what was held goes out."""
    driver = Driver(n_ctx=8)
    driver.submit(b"<", prompt=8, stop=["</s>"], shift=False)
    driver.run()
    assert ["<"] == driver.chunks(1)


def test_num_predict_comes_before_a_full_context() -> None:
    """Where the last token asked for is also the last that fits, the end is `length`."""
    driver = Driver(n_ctx=8)
    driver.submit(script=ENDLESS, prompt=8, num_predict=1, shift=False)
    driver.run()
    assert "length" == driver.end(1).finish_reason


def test_a_prompt_that_may_not_be_truncated_is_refused() -> None:
    """A prompt that does not fit and may not be truncated is the caller's error, which names both numbers."""
    driver = Driver(n_ctx=8)
    driver.submit(b"a", prompt=9, truncate=False)
    reason = "it has 9 tokens, and the context of a sequence (n_ctx) holds 8"
    assert Failure(kind="invalid_request", field="prompt", reason=reason) == driver.failure(1)
    assert [e.RequestWithdrawn(sequence=1)] == driver.events(e.RequestWithdrawn)


def test_a_prompt_without_tokens_is_refused() -> None:
    """There is nothing to go on from: the caller's error."""
    driver = Driver()
    driver.submit(b"a", prompt=0)
    assert Failure(kind="invalid_request", field="prompt", reason="it has no tokens") == driver.failure(1)


def test_a_stop_string_comes_before_num_predict() -> None:
    """Where the last token asked for completes a stop string, the end is `stop`."""
    driver = run(b"a", b"b", num_predict=2, stop=("b",))
    assert ("a", "stop", "b") == (driver.text(1), driver.end(1).finish_reason, driver.end(1).stop)


def test_an_ended_sequence_decides_nothing() -> None:
    """Exactly one end: whatever an ended sequence hears, nothing follows."""
    state = s.Sequence(sequence=1, request_id=None, n_ctx=8, options=Options(seed=1), finish_reason="stop")
    heard: list[e.Event] = [
        e.CancelRequested(sequence=1),
        e.EngineFailed(error="..."),
        e.ActorFailed(failed="batcher", error="..."),
        e.PromptTokenized(sequence=1, inputs=(1,), bos_added=False, grammar=None),
    ]
    assert [[]] * len(heard) == [s.decide(state, event) for event in heard]


@pytest.mark.parametrize(
    "event",
    [
        e.StopMatched(sequence=1, index=2, token=7, stop="</s>", text=""),
        e.SequenceFinished(
            sequence=1, finish_reason="stop", stop="</s>", text="", n_prompt=1, n_sampled=3, n_hidden=0, error=None
        ),
    ],
)
def test_nothing_is_held_after_the_text_ended(event: e.Event) -> None:
    """A stop string takes what was held with it, and so does the end."""
    state = s.Sequence(sequence=1, request_id=None, n_ctx=8, options=Options(seed=1), held=b"</", n_sampled=2)
    assert b"" == s.evolve(state, event).held


def test_an_ended_sequence_is_not_paused() -> None:
    """The end is the end of a pause too."""
    state = s.Sequence(sequence=1, request_id=None, n_ctx=8, options=Options(seed=1), paused=True)
    (finished,) = s.decide(state, e.CancelRequested(sequence=1))
    assert not s.evolve(state, finished).paused


def test_a_sequence_does_not_take_foreign_events() -> None:
    """An event that is another's neither changes a Sequence nor is decided on."""
    state = s.Sequence(sequence=1, request_id=None, n_ctx=8, options=Options(seed=1))
    with pytest.raises(InternalError, match="SlotReleased is not an event of a Sequence"):
        s.evolve(state, e.SlotReleased(sequence=1, slot=0, length=0))
    with pytest.raises(InternalError, match="does not listen to SlotReleased"):
        s.decide(state, e.SlotReleased(sequence=1, slot=0, length=0))
