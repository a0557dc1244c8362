"""A JSON Schema on a real model."""

from pathlib import Path

import pytest

from tests.model.people import answers
from tests.model.scenarios import smollm2

pytestmark = pytest.mark.model


async def test_texts_in_the_form_of_a_schema(session_log: Path) -> None:
    """Of ten seeds nine at least end by themselves, and whatever ended by itself validates."""
    async with smollm2(session_log, n_ctx=512, n_slots=8) as runtime:
        found = await answers(runtime, range(10))
    ended = [answer for answer in found if answer.ended]
    assert len(ended) >= 9
    assert all(answer.valid for answer in ended)
