"""The command ``replay repair``: the valid records of a log in a new one, whatever happened to the old one."""

import json
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pytest

from reenact.actors.errors import LogCorrupt
from reenact.replay import condition_of, repair_log, replay_log
from reenact.replay.cli import main as cli
from reenact.replay.render.endings import NOT_CLOSED
from reenact.runtime.log.reader import LogFile
from reenact.runtime.log.rows import rows_path
from tests.replay import logs
from tests.runtime.test_resume import crowd

Captured = pytest.CaptureFixture[str]
ENDINGS = ["jsonl", "jsonl.zst"]


@pytest.fixture(params=ENDINGS)
def log(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """Give the log of a session that closed, plain and compressed."""
    return logs.short(tmp_path / f"log.{request.param}")


@pytest.fixture(params=ENDINGS)
def out(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """Give the name of a new log, plain and compressed."""
    return tmp_path / f"new.{request.param}"


def bodies(path: Path) -> list[bytes]:
    """Return the lines of a log, up to damage."""
    lines: list[bytes] = []
    with LogFile(path) as log:
        with suppress(LogCorrupt):
            lines.extend(line.body for line in log)
    return lines


def repair(capsys: Captured, *arguments: object) -> tuple[int, list[str], str]:
    """Run the command; return exit code, lines of standard output, and standard error."""
    code = cli.main(["repair", *map(str, arguments)])
    captured = capsys.readouterr()
    return code, captured.out.splitlines(), captured.err


def test_a_sound_log_is_copied_whole(capsys: Captured, log: Path, out: Path) -> None:
    """All lines are copied as they are, from either form into either; nothing is left out, and the copy is sound."""
    before, lines = log.read_bytes(), bodies(log)
    told = [f"repaired: {out}: 38 records of {log}", "  nothing was left out", f"  replay check {out}"]
    assert (0, told, "") == repair(capsys, log, "-o", out)
    assert (before, lines) == (log.read_bytes(), bodies(out))
    assert ("same", "sound") == (replay_log(out).verdict, condition_of(out).bytes)
    if log.suffix == out.suffix:
        assert before == out.read_bytes()


@pytest.mark.parametrize("at", [0.6, 0.8, 0.95])
def test_a_damaged_log_is_copied_up_to_the_damage(log: Path, out: Path, at: float) -> None:
    """All lines before the first wrong byte are copied, and the copy can be decided and resumed."""
    data, lines = bytearray(log.read_bytes()), bodies(log)
    data[int(len(data) * at)] ^= 4
    log.write_bytes(data)
    valid = bodies(log)
    done = repair_log(log, out=out)
    assert 0 < len(valid) < len(lines)
    assert lines[: len(valid)] == valid == bodies(out)
    assert len(valid) == done.n_records
    assert (False, len(valid) + 1, True) == (done.closed, done.line, done.reason is not None)
    assert len(data) == done.byte + done.n_left_out
    assert done.byte <= int(len(data) * at)
    found = condition_of(out)
    assert ("sound", ["decided", "resumed"]) == (found.bytes, found.can)


def test_a_torn_log_loses_its_tail(capsys: Captured, tmp_path: Path, out: Path) -> None:
    """The bytes behind the last line are left out, and counted; that is no damage."""
    log = logs.short(tmp_path / "log.jsonl")
    data = log.read_bytes()
    begin = data[:-1].rindex(b"\n") + 1
    log.write_bytes(data[:-7])
    told = [
        f"repaired: {out}: 37 records of {log}",
        f"  left out: {len(data) - 7 - begin} bytes from byte {begin:,}, line 38: a write that did not finish",
        f"  {NOT_CLOSED}",
        f"  replay check {out}",
    ]
    assert (0, told, "") == repair(capsys, log, "-o", out)
    assert "sound" == condition_of(out).bytes


def test_good_lines_after_a_bad_one_are_not_trusted(capsys: Captured, tmp_path: Path, out: Path) -> None:
    """A line that is not what was written ends the valid records, however good the next ones look."""
    log = logs.flipped(logs.short(tmp_path / "log.jsonl"), 10)
    with LogFile(log) as lines, pytest.raises(LogCorrupt) as damage:
        list(lines)
    code, told, err = repair(capsys, log, "-o", out, "--json")
    found = json.loads("".join(told))
    assert (0, "", str(out), 9, False) == (code, err, found["log"], found["records"], found["closed"])
    size = log.stat().st_size
    left_out = {
        "bytes": size - damage.value.byte,
        "byte": damage.value.byte,
        "line": 10,
        "reason": damage.value.reason,
    }
    assert left_out == found["left_out"]


def test_a_record_that_is_impossible_ends_them_too(tmp_path: Path, out: Path) -> None:
    """Lines whose checksums are right but which hold no record, or not the next one, are not copied."""
    log = logs.rewritten(logs.short(tmp_path / "log.jsonl"), 12, b'"n":11', b'"n":12')
    done = repair_log(log, out=out)
    assert (11, 12, "it is record 12 where 11 comes next") == (done.n_records, done.line, done.reason)


async def test_rows_are_copied(tmp_path: Path, out: Path, autojump_clock: object) -> None:
    """The new log has the rows that it names beside it; where one is spoilt, those before it, and a note."""
    log = tmp_path / "log.jsonl"
    await crowd(log)
    rows = rows_path(log)
    assert repair_log(log, out=out).rows is None
    assert rows.read_bytes() == rows_path(out).read_bytes()
    data = bytearray(rows.read_bytes())
    data[-1] ^= 1
    rows.write_bytes(data)
    other = tmp_path / "other.jsonl"
    done = repair_log(log, out=other)
    assert "row 1 is not the one that the log names" in str(done.rows)
    assert any("rows were copied up to this one" in "".join(span for span, _ in line) for line in done.lines())
    assert "same" == replay_log(other).verdict
    assert len(logs.read(log)) == done.n_records


def test_nothing_is_overwritten(capsys: Captured, log: Path, out: Path) -> None:
    """A file that exists stays as it is, the log itself too; the exit code is that of a file."""
    out.write_text("mine")
    before = log.read_bytes()
    for path in (out, log):
        code, told, err = repair(capsys, log, "-o", path)
        assert (2, [], True) == (code, told, "File exists" in err)
    assert ("mine", before) == (out.read_text(), log.read_bytes())


@pytest.mark.parametrize(
    ("spoil", "code", "what"),
    [
        (Path.unlink, 2, "No such file"),
        (lambda path: path.write_bytes(b""), 4, "there is no record in it"),
        (lambda path: path.write_bytes(b"\n" + path.read_bytes()), 3, "corrupt: line 1"),
        (lambda path: logs.rewritten(path, 1, b'"format":2', b'"format":3'), 4, "the log's format is 3"),
    ],
)
def test_what_has_no_valid_record_is_refused(
    capsys: Captured, tmp_path: Path, spoil: Callable[[Path], object], code: int, what: str
) -> None:
    """Where there is nothing to copy, nothing is made; the exit codes are those of every command."""
    log, out = logs.short(tmp_path / "log.jsonl"), tmp_path / "new.jsonl"
    spoil(log)
    found, told, err = repair(capsys, log, "-o", out)
    assert (code, [], True) == (found, told, what in err)
    assert not out.exists()
