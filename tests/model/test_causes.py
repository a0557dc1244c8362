"""A log that lies: a re-execution finds the place, and names what was done to it."""

from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any, Final

import pytest
import trio

from reenact.replay import replay_log
from reenact.replay.compute.alone import all_alone
from reenact.replay.compute.tier import ComputeOptions, compute_log
from reenact.runtime import open_runtime
from reenact.runtime.cli.default_model import installed_model
from tests.helpers.models.here import numerics_here
from tests.helpers.models.minilm import minilm
from tests.helpers.models.quantized import quantized
from tests.helpers.sessions import read_fields
from tests.model.injections import (
    DEEP,
    Edit,
    ForgetfulEngine,
    LyingEngine,
    ReversingEngine,
    derive,
    record,
    record_fork,
    with_options,
    with_prompt_cut,
    with_sample,
    with_token,
    with_vector,
)

pytestmark = pytest.mark.model

PROMPTS: Final = [
    "The capital of France is a city of",
    "Once upon a time there was a",
    "In the morning the old man went down to the",
    "To make a good cup of tea, you",
]
RECORDED: Final = {"n_ctx": 512, "determinism": "recorded-schedule"}


@pytest.fixture(scope="module")
def honest(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Give the log of a session that is as it says."""
    path = tmp_path_factory.mktemp("honest") / "honest.jsonl"
    trio.run(lambda: record(path, PROMPTS, options={"num_predict": 16}))
    return path


Injection = Callable[[Path, Path], Awaitable[None]]


async def another_thread_count(_honest: Path, log: Path) -> None:
    """One thread, where the header says two."""
    await record(log, [DEEP], engine=LyingEngine(n_threads=1), **RECORDED)


async def another_cache_type(_honest: Path, log: Path) -> None:
    """A cache of eight bits, where the header says sixteen."""
    await record(log, PROMPTS, engine=LyingEngine(numerics=numerics_here(installed_model())), **RECORDED)


async def an_edited_token(honest: Path, log: Path) -> None:
    """Another token in the middle of a text."""
    derive(honest, log, with_token(4, 2, 260, b"x"))


async def another_seed(honest: Path, log: Path) -> None:
    """Another seed in a request."""
    derive(honest, log, with_options(3, seed=987_654))


async def a_changed_batch_order(_honest: Path, log: Path) -> None:
    """Rows in another order than the plan's."""
    await record(log, [DEEP, DEEP[5:]], engine=ReversingEngine(installed_model()), **RECORDED)


async def a_missing_operation(_honest: Path, log: Path) -> None:
    """A copy of a slot that was not made."""
    await record_fork(log, ForgetfulEngine(installed_model()))


async def another_n_batch(_honest: Path, log: Path) -> None:
    """Fewer rows computed at once than the header says."""
    await record(log, [DEEP], engine=LyingEngine(n_ubatch=32), n_batch=256, **RECORDED)


async def a_truncated_prompt(honest: Path, log: Path) -> None:
    """A prompt without its last token."""
    derive(honest, log, with_prompt_cut(4, 1))


async def another_option(honest: Path, log: Path) -> None:
    """Another temperature in a request."""
    derive(honest, log, with_options(3, temperature=1.4))


async def a_strange_option(honest: Path, log: Path) -> None:
    """An option that leaves no choice, in a request whose tokens were chosen."""
    derive(honest, log, with_options(3, top_k=1, temperature=1.2345))


INJECTIONS: Final[dict[Injection, tuple[str, bool, str]]] = {
    another_thread_count: ("another thread count", True, "with n_threads 1 in place of 2"),
    another_cache_type: ("another cache type", True, "with type_k q8_0 in place of f16"),
    an_edited_token: ("an edited token", True, "in place of 'x' as token"),
    another_seed: ("another seed", False, "chance alone would let"),
    a_changed_batch_order: ("another order of rows", True, "in descending order"),
    a_missing_operation: ("a missing operation on cells", True, 'without "slot 0 copied to 1"'),
    another_n_batch: ("another n_batch", True, "rows computed at once in place of 256"),
    a_truncated_prompt: ("a truncated prompt", True, "and the log contains"),
    another_option: ("another sampler option", True, "with temperature 0.8 in place of 1.4"),
    a_strange_option: ("another sampler option", False, "no other seed yields"),
}
"""What was done: the cause that is named, whether it is shown by an experiment, and a part of the reason."""


@pytest.mark.parametrize("injection", INJECTIONS, ids=lambda injection: injection.__name__)
async def test_the_cause_is_named_where_only_the_data_tell(injection: Injection, honest: Path, tmp_path: Path) -> None:
    """The header is as if nothing had been done and all decisions follow from the facts; the cause is named."""
    log = tmp_path / "log.jsonl"
    await injection(honest, log)
    assert "same" == replay_log(log).verdict
    verdict = compute_log(log)
    assert (1, "compute") == (verdict.exit_code, verdict.tier)
    assert verdict.computed is not None
    assert verdict.computed.cause is not None
    assert () == verdict.computed.differences
    name, shown, reason = INJECTIONS[injection]
    assert (name, shown) == (verdict.computed.cause.name, verdict.computed.cause.shown), verdict.computed.cause
    assert reason in verdict.computed.cause.reason
    assert len(verdict.lines()) <= 25


@pytest.fixture(scope="module")
def long(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Give the log of one sequence of many tokens, with values that nobody tries."""
    path = tmp_path_factory.mktemp("long") / "long.jsonl"
    options = {"num_predict": 80, "temperature": 0.77, "top_p": 0.97}
    trio.run(lambda: record(path, ["Once upon a time there was a"], options=options))
    return path


@pytest.mark.parametrize(
    ("edit", "name"),
    [
        (with_sample(79, token=260, piece=b"x"), "an edited token"),
        (with_options(1, temperature=1.0), "another sampler option"),
        (with_options(1, top_p=0.6), "another sampler option"),
        (with_options(1, seed=99), "another seed"),
    ],
    ids=["last token", "temperature", "top_p", "seed"],
)
def test_draws_that_no_experiment_explains(edit: Edit, name: str, long: Path, tmp_path: Path) -> None:
    """Of values that nobody tries statistics tell which kind it is; the same alone, where company has no part in it."""
    log = tmp_path / "log.jsonl"
    derive(long, log, edit)
    for verdict in (compute_log(log), all_alone(log)):
        assert verdict.computed is not None
        assert verdict.computed.cause is not None
        assert (1, name) == (verdict.exit_code, verdict.computed.cause.name), verdict.computed.cause


async def test_what_is_told_beside_a_checksum_is_compared(tmp_path: Path) -> None:
    """An edited probability, or another piece of the same token, is a difference like any other."""
    log = tmp_path / "log.jsonl"
    await record(log, ["Once upon a time"], options={"logprobs": True, "num_predict": 4})
    for name, value in (("logprob", -0.5), ("piece", b"?")):
        edited = tmp_path / f"{name}.jsonl"
        derive(log, edited, with_sample(3, **{name: value}))
        verdict = compute_log(edited)
        assert verdict.computed is not None
        assert verdict.computed.cause is not None
        assert (1, "an edited record") == (verdict.exit_code, verdict.computed.cause.name)


@pytest.mark.parametrize(
    ("values", "name"),
    [({"crc32": 7}, "unknown"), ({"values": (1.0,) * 384}, "an edited record")],
    ids=["bits", "values"],
)
async def test_vectors_are_explained_too(values: dict[str, Any], name: str, tmp_path: Path) -> None:
    """Of a model that pools no experiment is made that llama.cpp would not survive."""
    model, log, edited = minilm(tmp_path / "m.gguf"), tmp_path / "log.jsonl", tmp_path / "edited.jsonl"
    async with open_runtime(model, log=log, n_ctx=64, n_slots=2, n_threads=1) as runtime:
        await runtime.embed(["The old keeper of the lighthouse goes up the two hundred steps every evening."])
    derive(log, edited, with_vector(**values))
    verdict = compute_log(edited, ComputeOptions(model=model))
    assert verdict.computed is not None
    assert verdict.computed.cause is not None
    assert (1, name) == (verdict.exit_code, verdict.computed.cause.name)
    assert "1 of 1 vector and 0 of 0 tokens differ" in verdict.lines()[0]


async def test_another_quantization(honest: Path) -> None:
    """Another file is not compared; forced, every row differs and the file is named as the cause."""
    model = quantized("Q4_0")
    refused = compute_log(honest, ComputeOptions(model=model))
    assert (4, "not comparable") == (refused.exit_code, refused.verdict)
    assert "model.sha256" in refused.lines()[0]
    verdict = compute_log(honest, ComputeOptions(model=model, force=True))
    assert verdict.computed is not None
    assert verdict.computed.cause is not None
    assert (1, "compute, forced") == (verdict.exit_code, verdict.tier)
    assert verdict.computed.n_rows == verdict.computed.n_rows_differ
    assert "another quantization" == verdict.computed.cause.name
    assert len(verdict.lines()) <= 25


async def test_an_honest_log(honest: Path) -> None:
    """A log that is as it says has every row compared, and every bit the same."""
    verdict = compute_log(honest)
    lines = read_fields(honest)
    n_rows = sum(len(fields.get("samples", ())) for fields in lines if fields["type"] == "BatchDecoded")
    assert ("same", 0) == (verdict.verdict, verdict.exit_code)
    assert verdict.computed is not None
    assert (n_rows, n_rows) == (verdict.computed.n_rows, verdict.computed.n_tokens)
