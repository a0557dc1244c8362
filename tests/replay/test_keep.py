"""Logs kept as tests: they fail for what is wrong, and pass once it is mended."""

import importlib.util
from pathlib import Path

import pytest

from reenact.actors.errors import LogNotComparable
from reenact.replay import ReplayDivergence, RuleViolation, check_facts, check_log, cli
from reenact.replay.keep import keep_log
from reenact.replay.shrink import shrink_log
from reenact.runtime.journal import Journal
from tests.replay import logs
from tests.replay.wrongs import HOLDS_NOTHING, broken, long_session, other_text, tampered

Captured = pytest.CaptureFixture[str]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Return where a test's log is to be."""
    return tmp_path / "session.jsonl"


@pytest.fixture
def small(tmp_path: Path) -> Path:
    """Return where the smaller log is to be."""
    return tmp_path / "small.jsonl"


def run_test(path: Path) -> None:
    """Run the one test in a file."""
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    (test,) = (value for name, value in vars(module).items() if name.startswith("test_"))
    test()


def test_a_rule_kept_as_a_test(path: Path, small: Path) -> None:
    """The test fails while the rule is broken, also for whom other batches are planned, and passes once it is not."""
    with broken(*HOLDS_NOTHING):
        shrink_log(long_session(path), out=small)
        kept = keep_log(small)
        assert (str(small.with_name("test_small.py")), str(small), "text") == (kept.test, kept.log, kept.wrong)
        with pytest.raises(RuleViolation, match="text"):
            run_test(Path(kept.test))
    run_test(Path(kept.test))


def test_a_divergence_kept_as_a_test(path: Path, small: Path, tmp_path: Path) -> None:
    """The test fails while the log diverges, and stands where it was asked for, with the log beside it."""
    shrink_log(tampered(path, other_text), out=small)
    (tmp_path / "tests").mkdir()
    kept = keep_log(small, out=tmp_path / "tests" / "test_it.py")
    assert ("diverges", small.read_bytes()) == (kept.wrong, Path(kept.log).read_bytes())
    assert Path(kept.log).parent == tmp_path / "tests"
    with pytest.raises(ReplayDivergence, match="TokenEmitted"):
        run_test(Path(kept.test))


def test_a_good_log_kept_as_a_test(path: Path, capsys: Captured) -> None:
    """The test of a log in which nothing is wrong passes, and that is said."""
    logs.short(path)
    assert 0 == cli.main(["to-test", str(path)])
    assert "it passes: nothing is wrong in the log" in capsys.readouterr().out
    run_test(path.with_name("test_session.py"))


def test_a_log_that_breaks_a_rule_and_diverges(path: Path) -> None:
    """Which of the two the test is about can be said."""
    with broken(*HOLDS_NOTHING):
        long_session(path)
    assert "diverges" == keep_log(path).wrong
    assert "text" == keep_log(path, out=path.with_name("test_text.py"), rule="text").wrong
    run_test(path.with_name("test_text.py"))


def test_no_test_is_overwritten(path: Path, capsys: Captured) -> None:
    """A test or a log that exists stays as it is."""
    logs.short(path)
    path.with_name("test_session.py").write_text("mine")
    assert 2 == cli.main(["to-test", str(path)])
    assert "File exists" in capsys.readouterr().err
    assert "mine" == path.with_name("test_session.py").read_text()


def test_what_actors_make_of_facts_is_held_against_rules(path: Path) -> None:
    """`check_facts` asks today's actors, `check_log` the records."""
    with broken(*HOLDS_NOTHING):
        long_session(path)
        assert "violated" == check_facts(path).outcome
    assert ("violated", "holds") == (check_log(path).outcome, check_facts(path).outcome)
    check_facts(path).raise_for_violation()
    with pytest.raises(RuleViolation, match="7 violations; 25 rules") as caught:
        check_log(path).raise_for_violation()
    assert "violated" == caught.value.checked.outcome


def test_a_check_that_cannot_be_raises(path: Path) -> None:
    """Where no rule could be asked, why is raised."""
    with pytest.raises(FileNotFoundError):
        check_log(path).raise_for_violation()
    Journal(path).close()
    with pytest.raises(LogNotComparable):
        check_facts(path).raise_for_violation()
