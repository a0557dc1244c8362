"""Simulated sessions: whatever befalls the runtime, what must hold holds, and a seed says everything."""

import re
from pathlib import Path
from random import Random

import pytest
import trio
from trio._core import _run

from reenact.replay.cli.main import main as replay
from reenact.runtime.request import Request
from tests.helpers.properties import FRESH_SEED, FRESH_SEED_NAME
from tests.simulation.__main__ import failure, in_process, log_of, simulated
from tests.simulation.judge import alone, read
from tests.simulation.world import run

STEPS = 150
SEEDS = range(20)
"""All endings are among them; `test_nearly_everything_befalls_them` says what else."""


def found(seed: int, log: Path, n_steps: int = STEPS) -> str:
    """Return what is printed of a seed, nothing where all is well."""
    _, what, _ = simulated(seed, n_steps, log)
    return failure(seed, n_steps, log, what) if what else ""


@pytest.mark.parametrize("seed", SEEDS)
def test_all_holds(seed: int, tmp_path: Path) -> None:
    """A session replays the same, keeps all rules, ends every request once, and says what each says alone."""
    assert "" == found(seed, tmp_path / "log.jsonl")


def test_all_holds_for_a_fresh_seed(tmp_path: Path) -> None:
    """The same for a seed that is another in every run."""
    assert "" == found(FRESH_SEED, tmp_path / "log.jsonl", 2 * STEPS), f"again: {FRESH_SEED_NAME}={FRESH_SEED}"


def test_nearly_everything_befalls_them(tmp_path: Path) -> None:
    """Among a few seeds are all endings, all faults, and all that the schedule may do to a sequence."""
    endings, faults, kinds = set(), set(), set()
    for seed in SEEDS:
        ran = run(seed, STEPS, log_of(tmp_path, seed))
        endings.add(ran.sky.ending)
        faults |= set(+ran.faults)
        kinds |= set(read(ran.log).kinds)
    assert {"all served", "left", "engine", "log"} == endings
    assert {"1", "2", "2, asked", "-1", "-1, refused", "-2", "NaN", "the engine raised", "tokenizing raised"} <= faults
    assert {"cancel storm", "latency spike", "clock jump"} <= faults
    assert {"SequencePreempted", "ContextShifted", "PromptTruncated", "ReaderPaused", "DeadlineExpired"} <= kinds


def test_a_seed_says_everything(tmp_path: Path) -> None:
    """Two processes in which ``hash`` differs record the same bytes."""
    seeds = range(20, 23)
    for hashes in (1, 2):
        assert 0 == in_process(seeds, STEPS, tmp_path / str(hashes), hashes=hashes)
    first, second = ([log_of(tmp_path / str(hashes), seed).read_bytes() for seed in seeds] for hashes in (1, 2))
    assert first == second
    assert len(seeds) == len(set(first))


def test_what_is_wrong_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A complaint names the request, what its caller got, and what it should have got."""
    monkeypatch.setattr(Request, "end_with", lambda _live, _error: None)
    said = r"(?m)^  caller \d+(, turn \d)?: its caller got read, expected one of "
    assert any(re.search(said, found(seed, log_of(tmp_path, seed))) for seed in SEEDS)


def test_a_failure_says_how_to_repeat_it(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A failure tells the seed, the commit and the command, and its log can be shown."""
    log = tmp_path / "log.jsonl"
    run(3, STEPS, log)
    told = failure(3, STEPS, log, [f"complaint {number}" for number in range(12)])
    head, *_ = told.splitlines()
    assert head.startswith(f"FAILED: seed 3, {STEPS} steps, commit ")
    assert "  and 2 more" in told
    assert f"  again: .venv/bin/python -m tests.simulation --seed 3 --steps {STEPS}" in told
    assert f"  its log: replay show {log}" in told
    assert 0 == replay(["show", str(log)])
    assert "session closed" in capsys.readouterr().out


def test_the_knobs_of_trio_are_there() -> None:
    """Two private names make trio sort and shuffle each batch of tasks that can run; by them an order repeats."""
    assert isinstance(_run._ALLOW_DETERMINISTIC_SCHEDULING, bool)  # Hypothesis may have set it
    assert isinstance(_run._r, Random)

    def order(seed: int) -> list[int]:
        said: list[int] = []

        async def say(number: int) -> None:
            await trio.lowlevel.checkpoint()
            said.append(number)

        async def all_say() -> None:
            async with trio.open_nursery() as nursery:
                for number in range(10):
                    nursery.start_soon(say, number)

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("trio._core._run._ALLOW_DETERMINISTIC_SCHEDULING", True)
            patch.setattr("trio._core._run._r", Random(seed))  # noqa: S311  # nothing is secret here
            trio.run(all_say)
        return said

    orders = [order(seed) for seed in range(8)]
    assert orders == [order(seed) for seed in range(8)]
    assert len(set(map(tuple, orders))) > 2, "trio only reverses: its first knob does nothing"


def test_alone_knows_the_rules(tmp_path: Path) -> None:
    """What is compared with is no constant: texts differ, and stop strings and limits are among their ends."""
    log = tmp_path / "log.jsonl"
    run(1, STEPS, log)
    there = read(log)
    told = [one for one in there.told.values() if one.request.sequence in there.inputs]
    ends = [alone(one.request, there.inputs[one.request.sequence], there.n_ctx, 10_000) for one in told]
    assert len({end.text for end in ends}) > len(ends) // 3
    assert {("stop", None), ("length", None), ("context_full", None)} <= {end.ended_by for end in ends}
    assert any(stop for _, stop in (end.ended_by for end in ends))
