"""The condition of a log: its bytes, and whether it can be decided, computed and resumed."""

from collections.abc import Callable
from pathlib import Path

import pytest

from reenact.actors import events as e
from reenact.actors.header import REDACTED
from reenact.replay import Condition, condition_of, redact_log
from reenact.runtime.log.reader import LogFile
from reenact.runtime.log.resumption import resumption
from reenact.runtime.log.rows import rows_path
from reenact.runtime.log.writer import Journal
from tests.helpers.paths import ROOT
from tests.replay import logs
from tests.runtime.test_resume import ROWS, crowd

COMPANY = ROOT / "tests" / "golden" / "company.jsonl"
"""A session that llama.cpp computed."""
CLOSED = "its session was closed, so there is nothing to resume: record into another file"
SCRIPTED = "nothing was computed: its engine is not llama.cpp"
RESUMED = e.SessionResumed(resumed_at="2026-11-28T08:00:00+00:00", reenact="0.1.0", python="3.11.7", platform="Linux")


@pytest.fixture(params=["jsonl", "jsonl.zst"])
def log(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """Give the log of a scripted session that closed, plain and compressed."""
    return logs.short(tmp_path / f"log.{request.param}")


def test_a_session_that_closed(log: Path) -> None:
    """All bytes are a line's: the log is sound, and can be decided; a scripted one was never computed."""
    expected = Condition(bytes="sound", n_records=38, cannot={"computed": SCRIPTED, "resumed": CLOSED})
    assert expected == condition_of(log)
    assert ["decided"] == expected.can


@pytest.mark.parametrize("n_cut", [0, 5])
def test_a_session_that_did_not_close(log: Path, n_cut: int) -> None:
    """It can be resumed, torn or not, and is resumed then; looking changes nothing."""
    log.unlink()
    before = logs.crashed(log).read_bytes()
    before = before[: len(before) - n_cut]
    log.write_bytes(before)
    found = condition_of(log)
    assert ("torn" if n_cut else "sound", ["decided", "resumed"]) == (found.bytes, found.can)
    assert before == log.read_bytes()
    resumption(log, RESUMED).journal.close()


def test_a_session_that_still_runs(log: Path) -> None:
    """A log that another session holds cannot be resumed."""
    log.unlink()
    journal = Journal(logs.crashed(log), existing=True)
    assert "its session still runs: another session is writing it" == condition_of(log).cannot["resumed"]
    journal.close()
    assert "resumed" in condition_of(log).can


def test_a_damaged_log(log: Path) -> None:
    """A wrong byte anywhere is damage: nothing can be done with the log, and the records before it are counted."""
    data = bytearray(log.read_bytes())
    data[len(data) * 3 // 4] ^= 1
    log.write_bytes(data)
    found = condition_of(log)
    assert ("damaged", []) == (found.bytes, found.can)
    assert 0 < found.n_records < 38
    assert {reason for reason in found.cannot.values() if reason.startswith("line ")} == set(found.cannot.values())
    assert f"the {found.n_records} records before" in found.lines()[0]


@pytest.mark.parametrize(
    ("spoil", "reason"),
    [
        (Path.unlink, "No such file or directory"),
        (lambda path: path.write_bytes(b""), "there is no record in it"),
        (lambda path: logs.rewritten(path, 1, b'"format":2', b'"format":3'), "the log's format is 3"),
    ],
)
def test_an_unreadable_log(tmp_path: Path, spoil: Callable[[Path], object], reason: str) -> None:
    """A file that is not there, or empty, or newer is unreadable; the reason is that of the outcome."""
    log = logs.short(tmp_path / "log.jsonl")
    spoil(log)
    found = condition_of(log)
    assert ("unreadable", [], []) == (found.bytes, found.can, found.lines())
    assert found.cannot["decided"].startswith(reason)


def test_a_session_that_decided_otherwise(tmp_path: Path) -> None:
    """A log whose records do not follow from its facts can be decided, which shows it, and not be resumed."""
    log = logs.crashed(tmp_path / "log.jsonl")
    n = next(entry.record.n for entry in logs.read(log) if isinstance(entry.record.event, e.SlotAssigned))
    logs.rewritten(log, n + 1, b'"slot":0', b'"slot":1')
    found = condition_of(log)
    assert "decided" in found.can
    assert "not what today's actors decide" in found.cannot["resumed"]


def test_a_session_that_was_computed(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A log of llama.cpp can be computed where its model is, and the reason names what is missing."""
    monkeypatch.setattr("reenact.runtime.model_store.files_of", lambda _: [])
    monkeypatch.setattr("reenact.runtime.model_store.installed_model", lambda: tmp_path / "none")
    assert "is not among the files that were opened here before" in condition_of(COMPANY).cannot["computed"]
    monkeypatch.setattr("reenact.runtime.model_store.files_of", lambda _: [COMPANY])
    assert ["decided", "computed"] == condition_of(COMPANY).can


def test_a_redacted_log(tmp_path: Path) -> None:
    """A log without its texts can be decided and nothing else, whatever it was made of."""
    log = tmp_path / "redacted.jsonl"
    redact_log(COMPANY, out=log)
    assert {"computed": REDACTED, "resumed": REDACTED} == condition_of(log).cannot


def test_without_llama(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where llama.cpp is not installed the reason has the line that installs it."""
    monkeypatch.setattr("reenact.replay.compute.machine.find_spec", lambda _: None)
    assert "pip install '.[llama]'" in condition_of(COMPANY).cannot["computed"]


async def test_rows_of_live_sequences_are_needed_to_resume(tmp_path: Path, autojump_clock: object) -> None:
    """Where numbers of rows are missing that a live sequence has, deciding is possible and resuming is not."""
    log = tmp_path / "log.jsonl"
    await crowd(log)
    with LogFile(log) as lines:
        offsets = [line.offset for line in lines]
    tokenized = [
        entry.record.n
        for entry in logs.read(log)
        if isinstance(entry.record.event, e.PromptTokenized) and entry.record.event.sequence == ROWS
    ]
    log.write_bytes(log.read_bytes()[: offsets[tokenized[0] + 1]])
    assert ["decided", "resumed"] == condition_of(log).can
    rows_path(log).unlink()
    found = condition_of(log)
    assert (["decided"], True) == (found.can, "log.jsonl.rows: No such file" in found.cannot["resumed"])
