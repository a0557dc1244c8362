"""The log file: what is written, and what is found when it is read."""

import os
import re
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from reenact.actors import events as e
from reenact.actors.errors import LogBroken, LogCorrupt
from reenact.actors.limits import MAX_LINE_BYTES, MAX_LINE_VALUES, MAX_PROMPT_NUMBERS
from reenact.runtime.log.codec import UnwritableRecord, dumps
from reenact.runtime.log.line import sealed
from reenact.runtime.log.reader import LogFile
from reenact.runtime.log.writer import Journal

RECORDS = [e.Record(n, e.CancelRequested(sequence=n + 1), None) for n in range(5)]


@pytest.fixture
def log(tmp_path: Path) -> Path:
    """Give a log of five records."""
    path = tmp_path / "log.jsonl"
    journal = Journal(path)
    for record in RECORDS:
        journal.append([record], 10)
    journal.close()
    return path


def corruption(log: Path) -> LogCorrupt:
    """Return what reading a log raises."""
    with pytest.raises(LogCorrupt) as raised, LogFile(log) as lines:
        list(lines)
    return raised.value


def test_a_line_ends_with_its_checksum(log: Path) -> None:
    """Each line is one JSON object whose last member is the checksum, in eight hexadecimal digits."""
    lines = log.read_bytes().splitlines(keepends=True)
    assert 5 == len(lines)
    for line in lines:
        assert b',"crc":"' == line[-19:-11]
        assert b'"}\n' == line[-3:]
        assert 0 <= int(line[-11:-3], 16) < 2**32


def test_lines_are_read_with_their_places(log: Path) -> None:
    """A line read back has its number from 1, its offset, its size and its object without the checksum."""
    with LogFile(log) as file:
        lines = list(file)
    raw = log.read_bytes().splitlines(keepends=True)
    assert [1, 2, 3, 4, 5] == [line.number for line in lines]
    assert [sum(map(len, raw[:i])) for i in range(5)] == [line.offset for line in lines]
    assert list(map(len, raw)) == [line.size for line in lines]
    assert b'{"n":0,"t":10,"type":"CancelRequested","sequence":1}' == lines[0].body


def test_the_checksum_is_chained(log: Path) -> None:
    """Two equal objects have different checksums: each one continues the line before."""
    one, crc = sealed(b'{"a":1}', 0)
    other, _ = sealed(b'{"a":1}', crc)
    assert one != other


@pytest.mark.parametrize(
    ("name", "edit", "line"),
    [
        ("a line lost", lambda lines: [*lines[:1], *lines[2:]], 2),
        ("two lines swapped", lambda lines: [lines[0], lines[2], lines[1], *lines[3:]], 2),
        ("a line doubled", lambda lines: [*lines[:2], lines[1], *lines[2:]], 3),
        ("the beginning lost", lambda lines: lines[1:], 1),
        ("a space added", lambda lines: [lines[0], lines[1].replace(b":", b": ", 1), *lines[2:]], 2),
        ("a carriage return", lambda lines: [lines[0], lines[1].replace(b"\n", b"\r\n"), *lines[2:]], 2),
        ("an empty line", lambda lines: [lines[0], b"\n", *lines[1:]], 2),
        ("upper-case digits", lambda lines: [_upper(line) for line in lines], 1),
        ("no checksum", lambda lines: [b'{"n":0}\n', *lines[1:]], 1),
    ],
)
def test_what_was_done_to_a_log_shows(log: Path, name: str, edit: object, line: int) -> None:
    """Losses, splices, reorderings and any other bytes are found in the first line that they touch."""
    lines = log.read_bytes().splitlines(keepends=True)
    log.write_bytes(b"".join(edit(lines)))  # type: ignore[operator]
    assert line == corruption(log).line, name


def _upper(line: bytes) -> bytes:
    return line[:-11] + line[-11:-3].upper() + line[-3:]


def test_the_error_says_where_and_why(log: Path) -> None:
    """A corrupt line is told by its number, the byte it begins at, and both checksums."""
    data = log.read_bytes()
    second = data.index(b"\n") + 1
    log.write_bytes(data.replace(b'"sequence":2', b'"sequence":9'))
    message = str(corruption(log))
    assert message.startswith(f"line 2, byte {second}: its checksum is ")


def test_a_torn_tail_is_not_a_line(log: Path) -> None:
    """What follows the last newline is counted and left out; what stands before it is read."""
    log.write_bytes(log.read_bytes() + b'{"n":5')
    with LogFile(log) as file:
        assert 5 == len(list(file))
        assert 6 == file.torn


def test_a_line_that_is_too_long_is_corrupt(log: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A line, or what has no end, is read up to the length that a line may have, and what is before it is fine."""
    monkeypatch.setattr("reenact.runtime.log.reader.MAX_LINE_BYTES", 4096)
    log.write_bytes(log.read_bytes() + bytes(4096))
    with LogFile(log) as file:
        assert (5, 4096) == (len(list(file)), file.torn)
    log.write_bytes(log.read_bytes() + bytes(1))
    with LogFile(log) as file, pytest.raises(LogCorrupt, match=r"line 6, .*: it has more than 4,096 bytes"):
        list(file)


def test_a_line_that_is_too_long_is_not_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What could not be read is an error before it is written, and the log is as it was."""
    monkeypatch.setattr("reenact.runtime.log.writer.MAX_LINE_BYTES", 300)
    journal = Journal(tmp_path / "log.jsonl")
    long = e.Record(0, e.EngineFailed(error="x" * 300), None)
    with pytest.raises(UnwritableRecord, match="EngineFailed: a line of "):
        journal.append([long], 10)
    journal.close()
    assert 0 == journal.n_bytes


def test_a_line_holds_the_largest_prompt() -> None:
    """A number takes 24 bytes and a comma at most, and what a line has beside them less than a tenth of that."""
    largest = len(repr(-sys.float_info.min * 1.2345678901234567)) + 1
    assert 25 == largest
    assert 1.1 * largest * MAX_PROMPT_NUMBERS < MAX_LINE_BYTES
    assert 1.5 * MAX_PROMPT_NUMBERS < MAX_LINE_VALUES


def test_a_log_that_grows_can_be_followed(log: Path) -> None:
    """Reading goes on where it ended, a torn line is read once it is whole, and the chain is checked across."""
    data = log.read_bytes()
    half = data[: len(data) // 2]
    log.write_bytes(half)
    with LogFile(log) as file:
        before = list(file)
        assert file.torn
        log.write_bytes(data)
        assert 5 == len(before) + len(list(file.more()))
        assert 0 == file.torn


def test_a_journal_makes_its_own_file(log: Path) -> None:
    """A log is never overwritten."""
    before = log.read_bytes()
    with pytest.raises(FileExistsError):
        Journal(log)
    assert before == log.read_bytes()


def test_a_short_write_is_continued(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A write that takes only a part of the bytes is gone on with."""
    real = os.write
    monkeypatch.setattr("reenact.runtime.log.writer.os.write", lambda fd, data: real(fd, data[:7]))
    path = tmp_path / "log.jsonl"
    journal = Journal(path)
    journal.append(RECORDS, 10)
    journal.close()
    with LogFile(path) as file:
        assert 5 == len(list(file))
    assert path.stat().st_size == journal.n_bytes


def test_nothing_follows_a_write_that_failed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A journal that could not be written is closed for good: a line after a torn one would be corrupt."""

    def write(_fd: int, _data: bytes) -> int:
        raise OSError(28, "No space left on device")

    journal = Journal(tmp_path / "log.jsonl")
    with monkeypatch.context() as patched:
        patched.setattr("reenact.runtime.log.writer.os.write", write)
        with pytest.raises(LogBroken, match="No space left on device"):
            journal.append(RECORDS[:1], 10)
    with pytest.raises(LogBroken, match="closed"):
        journal.append(RECORDS[1:], 10)


def test_discarding_keeps_what_was_written(tmp_path: Path) -> None:
    """Only a journal that was never written to takes its file away."""
    empty, full = Journal(tmp_path / "empty.jsonl"), Journal(tmp_path / "full.jsonl")
    full.append(RECORDS, 0)
    empty.discard()
    full.discard()
    assert [full.path] == list(tmp_path.iterdir())


def test_all_records_of_a_fact_are_one_write(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """However many records follow from a fact, the system is called once."""
    real, calls = os.write, []

    def write(fd: int, data: bytes) -> int:
        calls.append(data)
        return real(fd, data)

    monkeypatch.setattr("reenact.runtime.log.writer.os.write", write)
    journal = Journal(tmp_path / "log.jsonl")
    journal.append(RECORDS, 0)
    journal.close()
    assert 1 == len(calls)
    assert dumps({"n": 4})[1:-1] in calls[0]


def _rotated(path: Path) -> None:
    path.rename(path.with_suffix(".1"))
    path.touch()


INTERFERENCES: dict[str, Callable[[Path], object]] = {
    "deleted or moved": Path.unlink,
    "replaced by another file": _rotated,
    "shortened from {n} bytes to 0: ": lambda path: path.write_bytes(b""),
    "lengthened from {n} bytes to {more}: ": lambda path: path.write_bytes(path.read_bytes() + b"x\n"),
}


@pytest.mark.parametrize("what", INTERFERENCES)
def test_what_others_do_to_a_log_is_noticed(tmp_path: Path, what: str) -> None:
    """A log that was deleted, replaced, shortened or lengthened is not written any more, and the error says which."""
    path = tmp_path / "log.jsonl"
    journal = Journal(path)
    journal.append(RECORDS[:2], 10)
    INTERFERENCES[what](path)
    before = path.read_bytes() if path.exists() else None
    done = what.format(n=f"{journal.n_bytes:,}", more=f"{journal.n_bytes + 2:,}")
    with pytest.raises(LogBroken, match=re.escape(f"{path}: while it was written the log was {done}")) as raised:
        journal.append(RECORDS[2:3], 10)
    assert "log rotators" in str(raised.value)
    with pytest.raises(LogBroken, match="closed"):
        journal.append(RECORDS[3:], 10)
    journal.discard()
    assert before == (path.read_bytes() if path.exists() else None)


def test_a_log_is_found_from_another_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A process that goes to another folder writes on into its log, whose path was relative."""
    monkeypatch.chdir(tmp_path)
    journal = Journal("log.jsonl")
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    journal.append(RECORDS, 10)
    journal.close()
    assert (tmp_path / "log.jsonl").stat().st_size == journal.n_bytes


def test_an_empty_file_is_taken_over(tmp_path: Path) -> None:
    """A file without a record, which a session that was killed left behind, becomes a log, and its owner's alone."""
    path = tmp_path / "log.jsonl"
    path.touch(0o644)
    journal = Journal(path)
    journal.append(RECORDS, 10)
    journal.close()
    with LogFile(path) as file:
        assert 5 == len(list(file))
    assert 0o600 == path.stat().st_mode & 0o777


def test_an_empty_file_of_another_session_is_not(tmp_path: Path) -> None:
    """A session that is still opening keeps its file, and gives it up when it is closed."""
    path = tmp_path / "log.jsonl"
    opening = Journal(path)
    with pytest.raises(FileExistsError, match="another session"):
        Journal(path)
    opening.close()
    Journal(path).discard()
    assert not path.exists()


@pytest.mark.parametrize("make", [Path.mkdir, os.mkfifo, lambda path: path.symlink_to("nothing")])
def test_only_a_file_is_taken_over(tmp_path: Path, make: Callable[[Path], object]) -> None:
    """A folder, a pipe and a link are there already, and stay."""
    path = tmp_path / "log.jsonl"
    make(path)
    with pytest.raises(FileExistsError):
        Journal(path)
    assert [path] == list(tmp_path.iterdir())
