"""Compressed logs: what is written can be read at once, by others too, and damage is found."""

import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import zstandard

from reenact.actors import events as e
from reenact.actors.errors import LogCorrupt, LogNotComparable
from reenact.runtime.log import compressed
from reenact.runtime.log.reader import Entry, LogFile, entries
from reenact.runtime.log.writer import Journal
from tests.helpers.sessions import eventful_session
from tests.replay import logs


@pytest.fixture
def packed(tmp_path: Path) -> Path:
    """Give a compressed log of a session that closed."""
    return logs.short(tmp_path / "session.jsonl.zst")


def facts(path: Path) -> list[list[Entry]]:
    """Return the records of a log, those of each fact together."""
    found: list[list[Entry]] = []
    with LogFile(path) as log:
        for entry in entries(log):
            if entry.record.cause is None:
                found.append([])
            found[-1].append(entry)
    return found


def outcome(path: Path) -> tuple[str, list[bytes]]:
    """Read a log to its end; return what is wrong with its bytes, and its lines up to there."""
    lines: list[bytes] = []
    try:
        with LogFile(path) as log:
            lines.extend(line.body for line in log)
            return "torn" if log.torn else "whole", lines
    except LogCorrupt:
        return "corrupt", lines
    except LogNotComparable:
        return "not comparable", lines


def written(path: Path, whole: list[list[Entry]]) -> list[int]:
    """Write facts to a log, and return its length after each."""
    journal, ends = Journal(path), []
    for fact in whole:
        journal.append([entry.record for entry in fact], fact[0].t)
        ends.append(journal.n_bytes)
    journal.close()
    return ends


async def test_its_text_is_that_of_a_plain_log(tmp_path: Path, autojump_clock: object) -> None:
    """The same records give the same text, compressed or not, from a third of the bytes."""
    plain = tmp_path / "log.jsonl"
    await eventful_session(plain)
    path = tmp_path / "log.jsonl.zst"
    written(path, facts(plain))
    text = zstandard.ZstdDecompressor().stream_reader(path.read_bytes(), read_across_frames=True).read()
    assert plain.read_bytes() == text
    assert facts(plain) == facts(path)
    assert 3 * path.stat().st_size < plain.stat().st_size


@pytest.mark.skipif(shutil.which("zstdcat") is None, reason="zstd is not installed")
@pytest.mark.parametrize("frame_text", [compressed.FRAME_TEXT, 2000])
def test_zstdcat_reads_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, frame_text: int) -> None:
    """The program of zstd prints its lines, whether it has one frame or many, and passes over the seals."""
    monkeypatch.setattr(compressed, "FRAME_TEXT", frame_text)
    plain, path = logs.short(tmp_path / "plain.jsonl"), logs.short(tmp_path / "session.jsonl.zst")
    shown = subprocess.run(["zstdcat", str(path)], check=True, capture_output=True)
    assert (plain.read_bytes(), b"") == (shown.stdout, shown.stderr)
    assert (path.read_bytes().count(zstandard.FRAME_HEADER) == 1) is (frame_text > 2000)
    assert facts(plain) == facts(path)


def test_each_fact_can_be_read_at_once(packed: Path, tmp_path: Path) -> None:
    """Once a fact is written its records can be read, and a reader that has come so far goes on."""
    whole = facts(packed)
    path = tmp_path / "grows.jsonl.zst"
    journal = Journal(path)
    with LogFile(path) as following:
        n_read = 0
        for n, fact in enumerate(whole, 1):
            journal.append([entry.record for entry in fact], fact[0].t)
            assert whole[:n] == facts(path)
            n_read += len(list(following.more()))
            assert (sum(map(len, whole[:n])), 0) == (n_read, following.torn)
    journal.close()
    assert path.stat().st_size == journal.n_bytes


@pytest.mark.parametrize("frame_text", [compressed.FRAME_TEXT, 2000])
def test_every_truncation_opens_to_its_whole_facts(
    packed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, frame_text: int
) -> None:
    """Cut anywhere, a log has the facts whose last byte is there, and the rest is a torn tail."""
    monkeypatch.setattr(compressed, "FRAME_TEXT", frame_text)
    whole = facts(packed)
    path = tmp_path / "cut.jsonl.zst"
    ends = written(path, whole)
    data = path.read_bytes()
    lines = outcome(path)[1]
    for length in range(len(data)):
        path.write_bytes(data[:length])
        n_whole = sum(end <= length for end in ends)
        found, read = outcome(path)
        assert lines[: len(read)] == read
        n_records = sum(map(len, whole[:n_whole]))
        # A fact that ends a frame can be read before its seal is there.
        assert len(read) in {
            n_records,
            sum(map(len, whole[: n_whole + 1])) if length + 20 > ends[n_whole] else n_records,
        }
        assert found in ({"whole"} if length in {0, *ends} else {"torn", "whole"})


@pytest.mark.parametrize("frame_text", [compressed.FRAME_TEXT, 2000])
@pytest.mark.parametrize("bits", ["one of each byte", pytest.param("all", marks=pytest.mark.long)])
def test_every_flipped_bit_is_found(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, frame_text: int, bits: str
) -> None:
    """Any flipped bit of a log that closed is corrupt, also in what zstd does not look at."""
    monkeypatch.setattr(compressed, "FRAME_TEXT", frame_text)
    path = logs.short(tmp_path / "session.jsonl.zst")
    data, lines = path.read_bytes(), outcome(path)[1]
    for position in range(len(data)):
        for bit in range(8) if bits == "all" else [position % 8]:
            flipped = bytearray(data)
            flipped[position] ^= 1 << bit
            path.write_bytes(flipped)
            found, read = outcome(path)
            assert "corrupt" == found, position
            assert lines[: len(read)] == read


def test_a_flipped_bit_of_an_open_log_changes_no_line(packed: Path, tmp_path: Path) -> None:
    """Before the seal a bit may mean nothing to zstd; whatever is read is as it was written."""
    path = tmp_path / "open.jsonl.zst"
    written(path, facts(packed)[:-1])
    data, lines = path.read_bytes(), outcome(path)[1]
    n_unnoticed = 0
    for position in range(len(data)):
        flipped = bytearray(data)
        flipped[position] ^= 1 << position % 8
        path.write_bytes(flipped)
        found, read = outcome(path)
        assert lines[: len(read)] == read
        if found == "whole":
            assert lines == read
            n_unnoticed += 1
    assert n_unnoticed <= 8


def test_damage_has_its_place(packed: Path) -> None:
    """The error names the line and byte of the text, and the byte of the file; the lines before it are read."""
    data = bytearray(packed.read_bytes())
    lines = outcome(packed)[1]
    data[len(data) // 2] ^= 255
    packed.write_bytes(data)
    read = list[Any]()
    with LogFile(packed) as log, pytest.raises(LogCorrupt, match=r"byte [0-9,]+ of the compressed file: ") as caught:
        read.extend(line for line in log)
    assert 0 < len(read) < len(lines)
    assert (len(read) + 1, read[-1].offset + read[-1].size) == (caught.value.line, caught.value.byte)


@pytest.mark.parametrize(
    "packer",
    [
        zstandard.ZstdCompressor(),
        zstandard.ZstdCompressor(write_checksum=True),
        zstandard.ZstdCompressor(level=19, write_content_size=True),
    ],
    ids=["plain", "checksum", "strong"],
)
def test_what_others_compressed_is_read(tmp_path: Path, packer: zstandard.ZstdCompressor) -> None:
    """A plain log that another program compressed is the same log, under any name."""
    plain = logs.short(tmp_path / "plain.jsonl")
    text = plain.read_bytes()
    for name in ("other.jsonl.zst", "other.jsonl"):
        other = tmp_path / name
        other.write_bytes(packer.compress(text[:3000]) + packer.compress(text[3000:]))
        assert facts(plain) == facts(other)


@pytest.mark.parametrize("data", [b'{"n":0,"t":0}\n', bytes(100), b"\x28\xb5\x2f\xfd" + b"\xff" * 100])
def test_what_is_no_zstd_is_corrupt(tmp_path: Path, data: bytes) -> None:
    """A file whose name says that it is compressed, and which is not, is corrupt in its first line."""
    path = tmp_path / "session.jsonl.zst"
    path.write_bytes(data)
    assert ("corrupt", []) == outcome(path)


def test_a_small_file_makes_no_large_reader(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A line without end is corrupt once it is longer than a line may be, however little it takes in the file."""
    monkeypatch.setattr("reenact.runtime.log.reader.MAX_LINE_BYTES", 2**20)
    path = tmp_path / "bomb.jsonl.zst"
    path.write_bytes(zstandard.ZstdCompressor().compress(bytes(2**28)))
    assert path.stat().st_size < 2**15
    with LogFile(path) as log, pytest.raises(LogCorrupt, match="more than 1,048,576 bytes"):
        list(log)
    assert log.n_bytes < path.stat().st_size // 100


def test_a_session_that_closed_is_sealed(packed: Path) -> None:
    """The last record and the seal are one write: a closed log ends with a seal, an open one does not."""
    whole = facts(packed)
    assert isinstance(whole[-1][0].record.event, e.SessionClosed)
    assert b"REEN" == packed.read_bytes()[-8:-4]
    path = packed.with_name("open.jsonl.zst")
    written(path, whole[:-1])
    assert b"REEN" not in path.read_bytes()
