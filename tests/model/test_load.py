"""Random loads are executed again, and every row of logits has the same bits."""

import subprocess
import sys
from pathlib import Path
from typing import Final

import pytest
import trio

from reenact.actors.batch import ABORTED
from reenact.actors.metrics import Statistics
from reenact.replay.compute.alone import all_alone
from reenact.replay.compute.execution import Execution, executed_records
from reenact.replay.compute.machine import open_machine
from reenact.replay.compute.report import Computed
from reenact.replay.compute.tier import ComputeOptions, compute_log, header_of
from reenact.runtime import LlamaEngine
from reenact.runtime.engine.protocol import ContextSettings
from reenact.runtime.log.reader import LogFile
from reenact.runtime.log.rows import rows_in
from tests.helpers.engine_steps import emptied, part, step, tokens_of
from tests.helpers.models import quantizations
from tests.helpers.models.load import BRIEF, record, shown
from tests.helpers.models.quantizations import executed
from tests.helpers.models.quantized import quantized
from tests.model.scenarios import STORY

pytestmark = pytest.mark.model

SEED: Final = 5
MAX_REQUESTS: Final = 150
"""Of a load; if by then it has not shown all that it is to show, it never will."""

ELSEWHERE: Final = """
import sys
from pathlib import Path
from reenact.replay.compute.tier import ComputeOptions, compute_log
verdict = compute_log(sys.argv[1], ComputeOptions(model=Path(sys.argv[2])))
print(verdict.verdict, verdict.computed.n_rows, verdict.computed.n_rows_differ)
"""
"""A program that executes a log again."""


def enough(so_far: Statistics) -> bool:
    """Return whether all has happened that is to happen, or never will."""
    happened = so_far.n_forks, so_far.n_shifts, so_far.n_aborted, so_far.n_preempted
    return so_far.n_requests >= MAX_REQUESTS or (so_far.n_requests >= 20 and all(happened))


@pytest.fixture(scope="module")
def log(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Record a load in which all happens."""
    path = tmp_path_factory.mktemp("load") / "session.jsonl"
    settings = {"n_slots": 3, "n_ctx": 704, "n_batch": 64, "n_threads": 2}
    trio.run(lambda: record(path, quantized("Q4_0"), SEED, enough, sizes=BRIEF, **settings))
    return path


def computed(log: Path) -> Computed:
    """Execute a log again; nothing may differ."""
    verdict = compute_log(log, ComputeOptions(model=quantized("Q4_0")))
    assert ("same", "compute") == (verdict.verdict, verdict.tier), "\n".join(verdict.lines())
    assert verdict.computed is not None
    return verdict.computed


def test_all_of_it_happens(log: Path) -> None:
    """Forks, shifts, aborted prefills, preemptions, lone rows deep in a context: each of them is in the load."""
    found = shown(log)
    happened = ("forks", "reuses", "shifts", "left_in_prefill", "aborts", "preemptions", "deep_lone_rows")
    assert [] == [name for name in happened if not getattr(found, name)]


def test_a_load_is_executed_again(log: Path) -> None:
    """Every row that was recorded is compared, and it is equal; so is every token."""
    found = computed(log)
    recorded = shown(log)
    assert (recorded.rows, recorded.tokens) == (found.n_rows, found.n_tokens)
    assert (0, 0, 0) == (found.n_rows_differ, found.n_tokens_differ, found.n_outcomes_differ)


def test_each_sequence_alone(log: Path) -> None:
    """Every sequence of the load, executed alone in an empty context, has the rows that it had in company."""
    verdict = all_alone(log, ComputeOptions(model=quantized("Q4_0")))
    assert ("same", "compute, alone") == (verdict.verdict, verdict.tier), "\n".join(verdict.lines())
    assert verdict.computed is not None
    recorded = shown(log)
    assert (recorded.rows, recorded.tokens) == (verdict.computed.n_rows, verdict.computed.n_tokens)


def test_the_check_of_sequences_alone_can_fail(session_log: Path) -> None:
    """With llama.cpp's default cache types some sequences of the same load differ alone, and the whole log does not."""
    settings = {"n_slots": 3, "n_ctx": 704, "n_batch": 64, "determinism": "recorded-schedule"}
    trio.run(lambda: record(session_log, quantized("Q4_0"), SEED, quantizations.enough, sizes=BRIEF, **settings))
    assert 0 == computed(session_log).n_rows_differ
    alone = all_alone(session_log, ComputeOptions(model=quantized("Q4_0"))).computed
    assert alone is not None
    assert 0 < len(alone.differing) <= len(alone.alone)


def test_in_another_process(log: Path) -> None:
    """A process that has computed nothing before finds the same."""
    command = (sys.executable, "-c", ELSEWHERE, str(log), str(quantized("Q4_0")))
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    assert f"same {shown(log).rows} 0" == done.stdout.strip()


def test_with_another_number_of_threads(log: Path) -> None:
    """What two threads computed has the same bits where one thread computes it."""
    with LogFile(log) as file:
        machine = open_machine(header_of(file), quantized("Q4_0"), n_threads=1)
        try:
            steps = Execution(machine.engine, machine.renew, rows_in(file)).run(executed_records(file))
            rows = [row for step in steps for row in step.rows]
        finally:
            machine.engine.close()
    assert shown(log).rows == len(rows)
    assert [] == [row for row in rows if not (row.same_bits and row.same_token)]


def test_recorded_with_one_thread(session_log: Path) -> None:
    """A session of one thread is executed again like one of two."""
    settings = {"n_slots": 4, "n_ctx": 320, "n_batch": 32, "n_threads": 1}
    trio.run(lambda: record(session_log, quantized("Q4_0"), SEED, quantizations.enough, sizes=BRIEF, **settings))
    assert shown(session_log).rows == computed(session_log).n_rows


def test_an_abort_leaves_no_trace() -> None:
    """A batch that is aborted before the rows of a slot began does not change the bits of what comes there later.

    llama.cpp is led to place cells out of order then (llama_kv_cache::prepare gives a stream the head of another one).
    """
    engine = LlamaEngine(quantized("Q4_0"))
    engine.load(ContextSettings(n_slots=8, n_ctx=256, n_batch=64, n_threads=1, determinism="schedule-independent"))
    tokens = tokens_of(engine, STORY)
    (expected,) = step(engine, part(tokens, slot=5, draw=0)).samples
    step(engine, trims=emptied(5))
    step(engine, part(tokens[:4], slot=0))
    engine.abort(7)
    rows = part(tokens[4:12], slot=0, position=4), part(tokens[:10], sequence=2, slot=5)
    assert ABORTED == step(engine, *rows, batch=7).code
    step(engine, part(tokens[:10], slot=5))
    step(engine, part(tokens[10:11], slot=5, position=10))
    (actual,) = step(engine, part(tokens[11:], slot=5, position=11, draw=0)).samples
    engine.close()
    assert expected.logits_crc32 == actual.logits_crc32


def test_floats_promise_less_and_are_executed_again(session_log: Path) -> None:
    """With matrices of floats the header says why results depend on the schedule; the recorded one gives them again."""
    promised, recorded, verdict = executed("F16", session_log)
    assert ("recorded-schedule", "f16") == (promised.policy, promised.reason.partition(" in ")[2].partition(",")[0])
    assert "same" == verdict.verdict
    assert verdict.computed is not None
    assert recorded.rows == verdict.computed.n_rows


@pytest.mark.parametrize("name", [quantizations.INSTALLED, *(n for n in quantizations.NAMES if n != "F16")])
def test_other_weights(name: str) -> None:
    """With other types of weights nothing depends on the schedule, and all rows of a load are equal again."""
    command = (sys.executable, "-m", "tests.helpers.models.quantizations", name)
    done = subprocess.run(command, check=False, capture_output=True, text=True)
    assert 0 == done.returncode, done.stdout + done.stderr
    assert f"{name}: schedule-independent" == done.stdout.partition(" (")[0]
