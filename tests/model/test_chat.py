"""Chats on a real model."""

from pathlib import Path

import pytest
import trio

from tests.model.chats import QUESTIONS, Turn, turns
from tests.model.scenarios import smollm2

pytestmark = pytest.mark.model


async def test_a_turn_evaluates_what_is_new(session_log: Path) -> None:
    """From the second turn on, the new message with the template around it, and at most one token of the answer."""
    taken: dict[int, list[Turn]] = {}
    async with smollm2(session_log, n_ctx=1024, n_slots=2) as runtime:

        async def chat(seed: int) -> None:
            taken[seed] = await turns(runtime, seed, num_predict=12)

        async with trio.open_nursery() as nursery:
            for seed in range(2):
                nursery.start_soon(chat, seed)
    assert [len(QUESTIONS)] * 2 == [len(chat) for chat in taken.values()]
    assert all(turn.n_evaluated <= turn.n_new + 1 for chat in taken.values() for turn in chat[1:])
    assert all(turn.n_new < 40 for chat in taken.values() for turn in chat[1:])
