"""One request of a session on a real model, alone in a log of its own: it computes to the bits of its company."""

from pathlib import Path
from typing import Any

import pytest
import trio

from reenact.replay import compute_log
from reenact.replay.extract.extract import extract_log
from reenact.replay.look.texts import texts_of
from reenact.runtime import Runtime
from reenact.runtime.log.reader import LogFile
from tests.helpers.sessions import read_fields
from tests.model.scenarios import STORY, of, smollm2

pytestmark = pytest.mark.model

NAMES = ("story", "again", "urgent", "left")


async def company(log: Path) -> None:
    """Record requests of which one is preempted and shifted, one reuses its beginning, and one is left."""
    async with smollm2(log, n_ctx=40, n_batch=16, n_slots=2) as runtime:
        again = runtime.stream(f"{STORY[:60]} sat a cat", request_id="again", seed=7, num_predict=24, stop=["sofa"])
        async with runtime.stream(STORY, request_id="story", seed=7, num_predict=24) as one, again as other:
            # Both have a slot from here on, and many tokens to come.
            await one.__anext__()
            await other.__anext__()
            await _ask(runtime, "urgent", "A list: ", {"priority": 1, "format": "json", "num_predict": 8})
            await _leave(runtime)
            for stream in (one, other):
                async for _ in stream:
                    pass


async def _ask(runtime: Runtime, name: str, prompt: str, options: dict[str, Any]) -> None:
    await runtime.complete(prompt, request_id=name, seed=7, **options)


async def _leave(runtime: Runtime) -> None:
    async with runtime.stream("To make tea, first", request_id="left", seed=3) as stream:
        await stream.__anext__()


@pytest.fixture(scope="module")
def recorded(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Record the session, once."""
    log = tmp_path_factory.mktemp("company") / "company.jsonl"
    trio.run(company, log)
    return log


def drawn(log: Path, sequence: int) -> list[tuple[int, int]]:
    """Return the token and the checksum of each draw of a sequence."""
    samples = [sample for fields in of(read_fields(log), "BatchDecoded") for sample in fields.get("samples", ())]
    return [(one["token"], one["logits_crc32"]) for one in samples if one["sequence"] == sequence]


@pytest.mark.parametrize("name", NAMES)
def test_it_computes_to_the_bits_of_its_company(recorded: Path, tmp_path: Path, name: str) -> None:
    """Each row of logits and each token of a request that was extracted comes out again, and is the parent's."""
    out = tmp_path / f"{name}.jsonl"
    made = extract_log(recorded, name, out=out)
    verdict = compute_log(out)
    assert "same" == verdict.verdict, verdict.lines()
    (number,) = made.parent.sequences
    assert drawn(recorded, number) == drawn(out, 1)
    assert verdict.computed is not None
    assert len(drawn(out, 1)) == verdict.computed.n_rows == verdict.computed.n_tokens > 0
    with LogFile(recorded) as log:
        texts = {one.request.sequence: one.text for one in texts_of(log)[0].all()}
    with LogFile(out) as log:
        assert [texts[number]] == [one.text for one in texts_of(log)[0].all()]


def test_much_befell_them(recorded: Path) -> None:
    """Among what befell the company is what the schedule may do to a request."""
    kinds = {fields["type"] for fields in read_fields(recorded)}
    assert {"SequencePreempted", "ContextShifted", "CancelRequested"} <= kinds
