"""A short share of ``make soak-core``, and that it finds what is wrong and goes on where it was."""

from math import inf
from pathlib import Path

import pytest

from reenact.actors import batcher
from reenact.replay.check.report import check_log
from tests.helpers.properties import FRESH_SEED, FRESH_SEED_NAME
from tests.measure import soak_core
from tests.measure.soak_core import Found, Soak, run_session
from tests.measure.soak_figures import Figures
from tests.measure.soak_state import OtherCode, State
from tests.mutants.change import found
from tests.properties.test_kernel_machine import as_if_done

STEPS = 300


@pytest.mark.parametrize("seed", [0, 7, 16, FRESH_SEED], ids=["0", "7", "16", "fresh"])
def test_a_short_share_holds(seed: int) -> None:
    """Every rule holds after every fact of a session, and all end in time; the kernel alone decides the same again."""
    figures = run_session(seed, STEPS)
    assert isinstance(figures, Figures), f"{figures}; {FRESH_SEED_NAME}={FRESH_SEED} runs it again"
    assert (1, figures.events["BatchPlanned"]) == (figures.sessions, figures.steps)
    assert figures.events.total() == figures.records


def test_a_bug_is_told_with_its_seed_and_its_log(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    """What is wrong on purpose is found; told are the rule and the seed, and `replay check` finds it in the log too."""
    owner, name, original = found("reenact.actors.batcher:decoded")
    monkeypatch.setattr(owner, name, as_if_done(original))
    monkeypatch.setattr(soak_core, "mkdtemp", lambda **_: str(tmp_path))
    assert 1 == soak_core.main(["--seed", "0"])
    told = capsys.readouterr().out
    assert told.startswith("seed 0:\n")
    assert "positions: record " in told
    assert "once more: python -m tests.measure.soak_core --seed 0" in told
    checked = check_log(tmp_path / "seed-0.jsonl")
    assert ("violated", 1) == (checked.outcome, checked.exit_code)


def test_a_fact_that_the_kernel_cannot_take_is_the_last_record(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A kernel that raises is told like a violation; the fact that it could not take is in the log."""
    monkeypatch.setattr(batcher, "contradiction", lambda *_: 1 / 0)
    monkeypatch.setattr(soak_core, "mkdtemp", lambda **_: str(tmp_path))
    told = run_session(0, STEPS)
    assert isinstance(told, Found)
    assert "raised ZeroDivisionError: division by zero" == told.complaint
    assert b'"type":"BatchDecoded"' in told.log.read_bytes().splitlines()[-1]


def test_a_kernel_that_goes_round_in_circles_is_told(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A session that does not end is told with its seed; its log ends with the fact that is never worked off."""
    monkeypatch.setattr(soak_core, "SECONDS_OF_ONE", 0.2)
    monkeypatch.setattr(soak_core, "mkdtemp", lambda **_: str(tmp_path))
    owner, name, _ = found("reenact.actors.batcher:choose")
    monkeypatch.setattr(owner, name, lambda *_: [None for _ in iter(int, 1)])
    told = run_session(0, STEPS)
    assert isinstance(told, Found)
    assert "has not ended after" in told.complaint
    assert told.log.exists()


def test_it_goes_on_where_it_was(tmp_path: Path) -> None:
    """Sessions that are over are not played again, and the counts go on; a line that is torn counts as none."""
    path = tmp_path / "state"
    for _ in range(2):
        before = State(path)
        soak = Soak(before, n_steps=before.figures.steps + 1, seconds=inf, n_processes=1, steps_of_one=STEPS)
        soak.run()
        assert soak.found is None
        with path.open("ab") as file:
            file.write(b'{"seed":99,')
    state = State(path)
    assert {0, 1} == state.seeds
    assert 2 == state.figures.sessions
    assert 2 * STEPS <= state.figures.steps


def test_figures_of_other_code_are_refused(tmp_path: Path) -> None:
    """To figures of other code nothing is added; asked to, it begins anew."""
    path = tmp_path / "state"
    path.write_bytes(b'{"code":"other"}\n')
    with pytest.raises(OtherCode, match="--anew forgets them"):
        State(path)
    assert Figures() == State(path, anew=True).figures
    assert Figures() == State(path).figures
