"""Logs executed again on their model: the golden ones, and by the command."""

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import numpy as np
import pytest
import trio
from attrs import evolve as changed

from reenact.actors import events as e
from reenact.replay import ComputeOptions, compute_log
from reenact.replay.cli.main import main
from reenact.replay.compute.alone import all_alone
from reenact.runtime import open_runtime
from reenact.runtime.cli.default_model import installed_model
from reenact.runtime.llama.build import engine_facts
from tests.helpers.models.minilm import minilm
from tests.helpers.paths import GOLDEN
from tests.helpers.sessions import eventful_session, read_fields, write_fields
from tests.model.injections import DEEP, Edit, derive, record, with_token

pytestmark = pytest.mark.model

LOGS: Final = sorted(GOLDEN.glob("*.jsonl"))


@pytest.fixture(scope="module")
def model_of(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """Give the file that a golden log was recorded with."""
    embedding = minilm(tmp_path_factory.mktemp("models") / "embeddings.gguf")
    return lambda log: embedding if log.stem == "embeddings" else installed_model()


def n_recorded(log: Path) -> tuple[int, int]:
    """Return how many rows with a checksum a log holds, and how many tokens."""
    decoded = [fields for fields in read_fields(log) if fields["type"] == "BatchDecoded"]
    samples = [sample for fields in decoded for sample in fields.get("samples", ())]
    n_vectors = sum(len(fields.get("vectors", ())) for fields in decoded)
    return sum("logits_crc32" in sample for sample in samples) + n_vectors, len(samples)


def alike(log: Path) -> bool:
    """Return whether this machine is of a kind that was seen to give a golden log's bits (docs/llama-cpp.md section 2).

    SmolLM2's are the same wherever llama.cpp is compiled for AVX-512, and this log's machine may have it or not; the
    embedding model's matrices are floats, whose sums depend on the maker of the CPU too.
    """
    here, recorded = engine_facts(), read_fields(log)[0]["engine"]
    same_maker = here.cpu.split()[:1] == recorded["cpu"].split()[:1]
    same_width = ("AVX512 = 1" in here.system_info) == ("AVX512 = 1" in recorded["system_info"])
    return same_width and (same_maker or log.stem != "embeddings")


@pytest.mark.parametrize("execute", [compute_log, all_alone])
@pytest.mark.parametrize("log", LOGS, ids=lambda log: log.stem)
def test_a_golden_log_computes_the_same(log: Path, execute: Any, model_of: Any) -> None:
    """Every row and token of a golden log comes out again, in company and alone; another kind of machine is refused."""
    verdict = execute(log, ComputeOptions(model=model_of(log), force=alike(log)))
    if not alike(log):
        assert ("not comparable", 4) == (verdict.verdict, verdict.exit_code)
        return
    assert ("same", 0) == (verdict.verdict, verdict.exit_code)
    assert verdict.computed is not None
    assert n_recorded(log) == (verdict.computed.n_rows, verdict.computed.n_tokens)


async def test_golden_vectors_on_any_machine(model_of: Any) -> None:
    """The vectors of a golden log are those of any machine, but for rounding."""
    (golden,) = (log for log in LOGS if log.stem == "embeddings")
    records = read_fields(golden)
    texts = {one["sequence"]: one["prompt"] for one in records if one["type"] == "RequestReceived"}
    pooled = [vector for one in records if one["type"] == "BatchDecoded" for vector in one.get("vectors", ())]
    async with open_runtime(model_of(golden), n_slots=2, n_ctx=32) as runtime:
        found = await runtime.embed([texts[vector["sequence"]] for vector in pooled])
    for expected, actual in zip(pooled, found, strict=True):
        assert np.allclose(expected["values"] / np.linalg.norm(expected["values"]), actual.embedding, atol=0.02)


@pytest.fixture(scope="module")
def session(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Give the log of a session of two sequences."""
    log = tmp_path_factory.mktemp("session") / "session.jsonl"
    trio.run(lambda: record(log, ["The capital of France is a city", "Once upon a time there was"]))
    return log


def test_the_command(session: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """`replay run LOG --compute` finds the recorded file, and says in the first line what was compared."""
    assert 0 == main(["run", str(session), "--compute"])
    out, err = capsys.readouterr()
    n_rows, n_tokens = n_recorded(session)
    assert f"derived records, {n_rows} rows of logits and {n_tokens} tokens compared, all equal" in out.splitlines()[0]
    assert out.splitlines()[0].endswith("(compute tier)")
    assert "times the recorded speed" in out.splitlines()[-1]
    assert "" == err


def test_one_sequence_by_the_command(session: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """`--only ID` executes one sequence; an ID that is none is a usage error."""
    assert 0 == main(["run", str(session), "--only", "2", "--json"])
    told = json.loads(capsys.readouterr().out)
    assert ("same", "compute, alone", [2]) == (told["verdict"], told["tier"], told["alone"])
    assert told["rows_compared"] == told["tokens_compared"] > 0
    assert 2 == main(["run", str(session), "--only", "3"])
    assert "no sequence 3" in capsys.readouterr().err


def test_a_difference_by_the_command(session: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A log that differs exits with 1, names the spot in JSON, and the first row that differs can be kept."""
    edited, kept = tmp_path / "edited.jsonl", tmp_path / "row.npy"
    derive(session, edited, with_token(4, 2, 260, b"x"))
    assert 1 == main(["run", str(edited), "--compute", "--keep-logits", str(kept), "--json"])
    out, err = capsys.readouterr()
    told = json.loads(out)
    assert ("diverged", "compute", "an edited token") == (told["verdict"], told["tier"], told["cause"]["name"])
    assert (2, 260) == (told["first_token"]["sequence"], told["first_token"]["recorded"]["token"])
    assert told["first_row"]["n"] > told["first_token"]["n"] == told["first_divergence"]["n"]
    row = np.load(kept)
    assert ((49152,), np.float32) == (row.shape, row.dtype)
    assert str(kept) in err


def test_members_in_another_order(session: Path, tmp_path: Path) -> None:
    """The order of a line's members means nothing, here as in the decide tier."""
    log = tmp_path / "sorted.jsonl"
    write_fields(log, [dict(sorted(fields.items())) for fields in read_fields(session)])
    assert "same" == compute_log(log).verdict


def test_a_row_that_cannot_be_kept(session: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Where the file cannot be written the report comes all the same; it is of one log, and of bits."""
    edited = tmp_path / "edited.jsonl"
    derive(session, edited, with_token(4, 2, 260, b"x"))
    assert 1 == main(["run", str(edited), "--compute", "--keep-logits", str(tmp_path / "missing" / "row.npy")])
    out, err = capsys.readouterr()
    assert (True, True) == (out.startswith("diverged: "), "No such file" in err)
    assert 2 == main(["run", str(edited), str(session), "--compute", "--keep-logits", "row.npy"])


def test_a_header_moves_no_cursor(session: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """What stands in a header is shown on one line, with its escapes."""

    def edit(given: e.GivenEvent) -> e.GivenEvent:
        if isinstance(given, e.SessionOpened):
            return changed(given, engine=changed(given.engine, system_info="\x1b[31m\nsame: all equal"))
        return given

    derive(session, tmp_path / "log.jsonl", edit)
    assert 4 == main(["run", str(tmp_path / "log.jsonl"), "--compute"])
    out = capsys.readouterr().out
    assert (1, False) == (out.count("\n"), "\x1b" in out)


def test_what_cannot_be_compared(session: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A scripted session computed nothing, a missing file cannot be read, and options want a model."""
    scripted = tmp_path / "scripted.jsonl"
    trio.run(eventful_session, scripted, clock=trio.testing.MockClock(autojump_threshold=0))
    assert 4 == main(["run", str(scripted), "--compute"])
    assert "nothing was computed" in capsys.readouterr().out
    assert 2 == main(["run", str(session), "--model", str(tmp_path / "missing.gguf")])
    assert "missing.gguf: No such file" in capsys.readouterr().out
    for option in ("--force", "--tokens"):
        assert 2 == main(["run", str(session), option])
        assert "add --model FILE or --compute" in capsys.readouterr().err
    assert 2 == main(["run", str(session), "--compute", "--model", "x"])


async def test_what_the_company_changed(tmp_path: Path) -> None:
    """Where results depend on the schedule, a sequence is executed both ways; it is told what its company changed."""
    log = tmp_path / "log.jsonl"
    await record(log, [DEEP, DEEP[5:]], n_ctx=512, determinism="recorded-schedule")
    assert "same" == compute_log(log).verdict
    verdict = all_alone(log)
    assert (1, "compute, alone") == (verdict.exit_code, verdict.tier)
    assert verdict.computed is not None
    assert verdict.computed.cause is not None
    assert ("its company", True) == (verdict.computed.cause.name, verdict.computed.cause.shown)
    assert re.search(r"differ by up to [0-9.e-]+; nothing better was promised", verdict.computed.cause.reason)
    assert len(verdict.computed.differing) in {1, 2}
    assert len(verdict.lines()) <= 25


def of_another_kind(given: e.GivenEvent) -> e.GivenEvent:
    """Edit a header: another kind of CPU."""
    if isinstance(given, e.SessionOpened):
        return changed(given, engine=changed(given.engine, system_info="CPU : NEON = 1"))
    return given


def of_another_context(given: e.GivenEvent) -> e.GivenEvent:
    """Edit a header: a parameter that llama.cpp was given."""
    if isinstance(given, e.SessionOpened):
        parameters = given.context.parameters | {"rope_freq_base": "5000.0"}
        return changed(given, context=changed(given.context, parameters=parameters))
    return given


@pytest.mark.parametrize(
    ("edit", "name"),
    [(of_another_kind, "engine.system_info"), (of_another_context, "context.parameters.rope_freq_base")],
)
def test_unequal_things_are_not_compared(edit: Edit, name: str, session: Path, tmp_path: Path) -> None:
    """Another kind of CPU or context is listed, and compared only by force, which the verdict tells, or by tokens."""
    log = tmp_path / "log.jsonl"
    derive(session, log, edit)
    refused = compute_log(log)
    assert (4, True) == (refused.exit_code, name in refused.lines()[0])
    forced = compute_log(log, ComputeOptions(force=True))
    assert ("same", "compute, forced") == (forced.verdict, forced.tier)
    tokens = compute_log(log, ComputeOptions(tokens_only=True))
    assert tokens.computed is not None
    assert ("same", "tokens", 0) == (tokens.verdict, tokens.tier, tokens.computed.n_rows)


def test_a_moved_model_is_named(session: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where no file of the recorded digest was opened before, the cure is told."""
    moved = tmp_path / "moved.gguf"
    shutil.copy(installed_model(), moved)
    monkeypatch.setenv("REENACT_CACHE", str(tmp_path))
    monkeypatch.setattr("reenact.runtime.cli.default_model.DISTRIBUTION", "no-such-distribution")
    verdict = compute_log(session)
    assert ("unreadable", 2) == (verdict.verdict, verdict.exit_code)
    assert "name it with --model" in verdict.lines()[0]
    assert "same" == compute_log(session, ComputeOptions(model=moved)).verdict
    assert "same" == compute_log(session).verdict


@pytest.mark.parametrize(
    ("made", "told"),
    [
        (Path.exists, "No such file or directory"),
        (os.mkfifo, "a model is mapped into memory, which only a file can be: save it to one"),
        (lambda path: path.write_bytes(b"text"), "is not a GGUF file"),
        (lambda path: path.write_bytes(b"GGUF" + b"\xff" * 64), "cannot be loaded: "),
    ],
)
def test_a_model_that_cannot_be_had_is_named(
    session: Path, tmp_path: Path, made: Callable[[Path], object], told: str
) -> None:
    """It is the model that cannot be read, and not the log; the line says why as other commands do."""
    made(path := tmp_path / "model.gguf")
    (line,) = compute_log(session, ComputeOptions(model=path)).lines()
    begins, _, rest = line.partition(f"the model for {session}: {path}")
    assert ("unreadable: ", True) == (begins, told in rest)


def test_what_the_engine_warns_of_is_told(session: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """That the model could not be tried in a child process is a note beside the verdict."""
    model = installed_model()
    monkeypatch.setenv("REENACT_CACHE", str(tmp_path))
    monkeypatch.setattr(sys, "executable", "")
    verdict = compute_log(session, ComputeOptions(model=model))
    assert ("same", 1) == (verdict.verdict, len(verdict.notes))
    assert "whether llama.cpp computes with" in verdict.notes[0]


async def test_without_checksums_tokens_are_compared(tmp_path: Path) -> None:
    """A session without checksums is executed again by its tokens, and the tier is called so."""
    log = tmp_path / "log.jsonl"
    await record(log, ["Once upon a time"], logits_hash=False)
    verdict = compute_log(log)
    assert verdict.computed is not None
    assert ("same", "tokens", 0) == (verdict.verdict, verdict.tier, verdict.computed.n_rows)
    assert verdict.computed.n_tokens > 0


def test_in_another_process(session: Path) -> None:
    """Another process computes the same bits."""
    command = [sys.executable, "-m", "reenact.replay", "run", str(session), "--compute"]
    out = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (0, "") == (out.returncode, out.stderr)
    assert out.stdout.startswith("same: ")
