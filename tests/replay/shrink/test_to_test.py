"""Logs kept as tests: they fail for what is wrong, and pass once it is mended."""

import importlib.util
import stat
from pathlib import Path

import pytest

from reenact.actors.errors import LogNotComparable
from reenact.replay import ReplayDivergence, RuleViolation, check_facts, check_log
from reenact.replay.cli import main as cli
from reenact.replay.shrink.shrink import shrink_log
from reenact.replay.shrink.to_test import keep_log
from reenact.runtime.log.writer import Journal
from tests.helpers.sessions import read_fields, write_fields
from tests.replay import logs
from tests.replay.check.wrongs import HOLDS_NOTHING, broken, long_session

Captured = pytest.CaptureFixture[str]


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
    """The test fails while the rule is broken, and passes once it is not."""
    with broken(*HOLDS_NOTHING):
        shrink_log(long_session(path), out=small)
        kept = keep_log(small)
        assert (str(small.with_name("test_small.py")), str(small), "text") == (kept.test, kept.log, kept.wrong)
        with pytest.raises(RuleViolation, match="text"):
            run_test(Path(kept.test))
    run_test(Path(kept.test))


def test_a_divergence_kept_as_a_test(path: Path, small: Path, tmp_path: Path) -> None:
    """The test fails while the log diverges, and stands where it was asked for, with the log beside it."""
    long_session(path)
    (tmp_path / "tests").mkdir()
    with broken("reenact.actors.schedule:share_rows", lambda _: lambda wanted, _budget: [1] * len(wanted)):
        shrink_log(path, out=small)
        kept = keep_log(small, out=tmp_path / "tests" / "test_it.py")
        assert ("diverges", small.read_bytes()) == (kept.wrong, Path(kept.log).read_bytes())
        assert Path(kept.log).parent == tmp_path / "tests"
        with pytest.raises(ReplayDivergence, match="BatchPlanned"):
            run_test(Path(kept.test))
    run_test(Path(kept.test))


def test_a_good_log_kept_as_a_test(path: Path, capsys: Captured) -> None:
    """The test of a log in which nothing is wrong passes, and that is said."""
    logs.short(path)
    assert 0 == cli.main(["to-test", str(path)])
    assert "it passes: nothing is wrong in the log" in capsys.readouterr().out
    run_test(path.with_name("test_session.py"))


def test_a_rule_that_is_kept_again(path: Path, capsys: Captured) -> None:
    """A log of actors that were mended since diverges; its test is about the rule that they broke, and passes."""
    with broken(*HOLDS_NOTHING):
        long_session(path)
    assert 0 == cli.main(["to-test", str(path)])
    assert "it passes: rule text is kept today" in capsys.readouterr().out
    run_test(path.with_name("test_session.py"))


def test_a_rule_that_is_asked_for(path: Path) -> None:
    """The test is about the rule that is named, also where another one is broken first."""
    with broken(*HOLDS_NOTHING):
        kept = keep_log(long_session(path), rule="stops")
    assert ("stops", False) == (kept.wrong, kept.fails)
    run_test(Path(kept.test))


def test_no_test_is_overwritten(path: Path, capsys: Captured) -> None:
    """A test or a log that exists stays as it is."""
    logs.short(path)
    path.with_name("test_session.py").write_text("mine")
    assert 2 == cli.main(["to-test", str(path)])
    assert "File exists" in capsys.readouterr().err
    assert "mine" == path.with_name("test_session.py").read_text()


def test_what_cannot_be_kept_leaves_nothing(path: Path, tmp_path: Path, capsys: Captured) -> None:
    """Where a log of that name stands beside the test already, neither is written."""
    logs.short(path)
    (tmp_path / "tests").mkdir()
    (tmp_path / "tests" / "session.jsonl").write_text("mine")
    assert 2 == cli.main(["to-test", str(path), "-o", str(tmp_path / "tests" / "test_it.py")])
    assert "File exists" in capsys.readouterr().err
    assert ["session.jsonl"] == [one.name for one in (tmp_path / "tests").iterdir()]


def test_a_log_without_a_decision_is_not_kept(path: Path, capsys: Captured) -> None:
    """Of a log in which nothing was decided there is nothing to test."""
    logs.Session(path).journal.close()
    assert 4 == cli.main(["to-test", str(path)])
    assert "no derived record" in capsys.readouterr().err
    assert not path.with_name("test_session.py").exists()


def test_nothing_of_a_log_gets_into_the_program(tmp_path: Path) -> None:
    """Whatever a session and its log are called, the test is a program, and only this one."""
    path = logs.short(tmp_path / "a\"b 1'4.jsonl")
    lines = read_fields(path)[:-1]  # The digest is of the session's name, too.
    lines[0]["session"] = 'x"""\nraise SystemExit\n"""'
    write_fields(path, lines)
    kept = keep_log(path, out=tmp_path / "test_it.py")
    run_test(Path(kept.test))
    assert "SystemExit" not in Path(kept.test).read_text()


def test_a_copy_is_its_owners(path: Path, tmp_path: Path) -> None:
    """The copy of a log is readable for its owner alone, like the log."""
    (tmp_path / "tests").mkdir()
    kept = keep_log(logs.short(path), out=tmp_path / "tests" / "test_it.py")
    assert 0o600 == stat.S_IMODE(Path(kept.log).stat().st_mode)


def test_what_actors_make_of_facts_is_held_against_rules(path: Path) -> None:
    """`check_facts` asks today's actors, `check_log` the records."""
    with broken(*HOLDS_NOTHING):
        long_session(path)
        assert "violated" == check_facts(path).outcome
    assert ("violated", "holds") == (check_log(path).outcome, check_facts(path).outcome)
    check_facts(path).raise_for_violation()
    with pytest.raises(RuleViolation, match="7 violations; 27 rules") as caught:
        check_log(path).raise_for_violation()
    assert "violated" == caught.value.checked.outcome


def test_a_check_that_cannot_be_raises(path: Path) -> None:
    """Where no rule could be asked, why is raised."""
    with pytest.raises(FileNotFoundError):
        check_log(path).raise_for_violation()
    Journal(path).close()
    with pytest.raises(LogNotComparable):
        check_facts(path).raise_for_violation()
