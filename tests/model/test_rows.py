"""Prompts with rows on a real model: what is recorded of them is executed again from the file beside the log."""

from pathlib import Path
from typing import Any

import gguf
import pytest
import trio

from reenact.replay import ComputeOptions, compute_log, replay_log
from reenact.replay.compute.alone import all_alone
from reenact.replay.fork.fork import fork_log
from reenact.runtime import installed_model, open_runtime
from reenact.runtime.log.rows import rows_path
from tests.helpers.sessions import read_fields

PROMPT = "The lighthouse stood on a rock"


@pytest.fixture(scope="module")
def recorded(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A log of one prompt as tokens, and of the same with the rows of its last tokens."""
    path = tmp_path_factory.mktemp("rows") / "log.jsonl"
    trio.run(record, path)
    return path


async def record(path: Path) -> None:
    """Record both; the tokens that the rows stand for are read from the log."""
    (table,) = (one for one in gguf.GGUFReader(installed_model()).tensors if one.name == "token_embd.weight")
    async with open_runtime(installed_model(), log=path, n_slots=2, n_ctx=64, n_batch=32) as runtime:
        await runtime.complete(PROMPT, seed=1, temperature=0, num_predict=4)
        tokens = next(fields["inputs"] for fields in read_fields(path) if fields["type"] == "PromptTokenized")
        rows = gguf.quants.dequantize(table.data[tokens], table.tensor_type)
        await runtime.complete([*rows], seed=1, temperature=0, num_predict=4)
        await runtime.complete([*rows, " and"], seed=1, temperature=0, num_predict=4)


def outcomes(path: Path, sequence: int) -> list[tuple[int, int]]:
    """Return each token of a sequence and the checksum of its logits."""
    samples: list[dict[str, Any]] = [one for fields in read_fields(path) for one in fields.get("samples", ())]
    return [(one["token"], one["logits_crc32"]) for one in samples if one["sequence"] == sequence]


def test_rows_stand_for_their_tokens(recorded: Path) -> None:
    """The rows of the model's own embeddings give the tokens and the bits of the tokens."""
    assert outcomes(recorded, 1) == outcomes(recorded, 2)
    assert 4 == len(outcomes(recorded, 2))
    n_rows = len(next(fields["inputs"] for fields in read_fields(recorded) if fields["type"] == "PromptTokenized"))
    assert 16 + n_rows * (32 + 4 * 576) >= rows_path(recorded).stat().st_size > 16


def test_rows_are_executed_again(recorded: Path) -> None:
    """In company and alone every bit comes out again, from the numbers beside the log."""
    asked = ComputeOptions(model=installed_model())
    assert "same" == replay_log(recorded).verdict
    assert "same" == compute_log(recorded, asked).verdict
    assert "same" == all_alone(recorded, asked).verdict


def test_a_fork_evaluates_the_rows_again(recorded: Path, tmp_path: Path) -> None:
    """The child's text is its parent's, and it is executed again from rows of its own."""
    child = tmp_path / "child.jsonl"
    cut = [fields["n"] for fields in read_fields(recorded) if fields["type"] == "BatchDecoded"][-1]
    fork_log(recorded, cut, out=child, model=installed_model())
    assert outcomes(recorded, 3) == outcomes(child, 3)
    assert "same" == compute_log(child, ComputeOptions(model=installed_model())).verdict


def test_without_its_rows_a_log_is_not_executed(recorded: Path, tmp_path: Path) -> None:
    """It is not comparable where they are missing and corrupt where they are others, before any model is loaded."""
    log = tmp_path / "log.jsonl"
    log.write_bytes(recorded.read_bytes())
    missing = compute_log(log, ComputeOptions(model=tmp_path / "no model"))
    assert ("not comparable", 4) == (missing.verdict, missing.exit_code)
    assert f"{rows_path(log)}: No such file or directory: copy it beside the log" in missing.notes[0]
    data = bytearray(rows_path(recorded).read_bytes())
    data[-1] ^= 1
    rows_path(log).write_bytes(data)
    corrupt = compute_log(log, ComputeOptions(model=tmp_path / "no model"))
    assert ("corrupt", 3) == (corrupt.verdict, corrupt.exit_code)
    assert str(rows_path(log)) in corrupt.notes[0]
