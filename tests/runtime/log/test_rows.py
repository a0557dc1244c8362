"""The rows beside a log: written before they are named, verified when they are read, whatever became of the file."""

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Final

import numpy as np
import pytest
from attrs import evolve as changed
from hypothesis import given
from hypothesis import strategies as st

from reenact.actors import events as e
from reenact.actors.errors import LogBroken
from reenact.actors.inputs import Row
from reenact.runtime.engine.row_numbers import HeldNumbers, Numbers, given_rows, numbers_of, packed, row_with
from reenact.runtime.log.reader import LogFile
from reenact.runtime.log.rows import MAGIC, RowsCorrupt, RowsFile, RowsMissing, rows_in, rows_path
from reenact.runtime.log.writer import Journal
from tests.helpers.engine_steps import part
from tests.helpers.header import opened

WIDTH: Final = 3
NUMBERS: Final[Numbers] = {row_with(values): values for values in (packed([n, n + 0.5, -n]) for n in range(4))}
ROWS: Final = tuple(NUMBERS)
HEAD, CELL = 16, 32 + 4 * WIDTH


def header() -> e.SessionOpened:
    """Return record 0 of a session whose rows have three numbers."""
    session = opened()
    return changed(session, context=changed(session.context, n_embd=WIDTH))


def prompt(*inputs: int | Row, sequence: int = 1) -> e.PromptTokenized:
    """Return a prompt with these inputs."""
    return e.PromptTokenized(sequence=sequence, inputs=inputs, bos_added=False, grammar=None)


def recorded(*events: e.Event) -> list[e.Record]:
    """Return these events as records."""
    return [e.Record(n, event, None) for n, event in enumerate(events)]


@pytest.fixture
def log(tmp_path: Path) -> Path:
    """A log with the first three rows."""
    return written(tmp_path / "log.jsonl")


def written(path: Path) -> Path:
    """Write a log whose prompts have the first three rows."""
    journal = Journal(path)
    for record in recorded(header(), prompt(7, ROWS[0], ROWS[1], ROWS[0]), prompt(ROWS[1], ROWS[2], sequence=2)):
        journal.append([record], 0, NUMBERS)
    journal.close()
    return path


def met(log: Path, rows: Iterable[Row] = ROWS[:3]) -> RowsFile:
    """Return the rows of a log that names these."""
    file = RowsFile(log, WIDTH)
    file.meet(rows)
    return file


def test_each_row_lies_there_once(log: Path) -> None:
    """However often a row is named, in one prompt or in several, the file has it once, in the order of the names."""
    assert HEAD + 3 * CELL == rows_path(log).stat().st_size
    with LogFile(log) as lines:
        rows = rows_in(lines)
    assert list(ROWS[:3]) == list(rows)
    assert {row: NUMBERS[row] for row in ROWS[:3]} == dict(rows)


def test_the_file_is_its_owners(log: Path) -> None:
    """The file of rows is readable for its owner alone, as the log is."""
    assert 0o600 == rows_path(log).stat().st_mode & 0o777


def test_numpy_reads_it_by_the_documented_lines(log: Path) -> None:
    """Another program reads the file as `reenact.runtime.log.rows` says."""
    path = rows_path(log)
    width = int(np.fromfile(path, "<u4", 1, offset=12)[0])
    cells = np.fromfile(path, [("sha256", "V32"), ("numbers", "<f4", width)], offset=16)
    rows = {cell["sha256"].tobytes().hex(): cell["numbers"] for cell in cells}
    assert {row.digest: NUMBERS[row] for row in ROWS[:3]} == {name: rows[name].tobytes() for name in rows}


def test_a_log_without_rows_has_no_file(tmp_path: Path) -> None:
    """The file is made with the first row."""
    path = tmp_path / "log.jsonl"
    journal = Journal(path)
    journal.append(recorded(header(), prompt(1, 2)), 0, NUMBERS)
    journal.close()
    assert [path] == list(tmp_path.iterdir())


def test_rows_that_are_not_at_hand_are_not_written(tmp_path: Path) -> None:
    """A log can be written without the numbers of its rows."""
    path = tmp_path / "log.jsonl"
    journal = Journal(path)
    journal.append(recorded(header(), prompt(ROWS[0])), 0)
    journal.close()
    assert [path] == list(tmp_path.iterdir())


def test_rows_of_another_log_are_not_taken_over(log: Path) -> None:
    """No log begins where rows lie that are not its own, and nothing is made."""
    log.unlink()
    with pytest.raises(FileExistsError, match="rows of another log"):
        Journal(log)
    assert [rows_path(log)] == list(log.parent.iterdir())


_DIES: Final = """
import os, sys
from reenact.runtime.log.own_file import OwnFile
from reenact.runtime.log import writer
from tests.runtime.log.test_rows import NUMBERS, ROWS, header, prompt, recorded
from tests.helpers.header import opened
journal = writer.Journal(sys.argv[1])
journal.append(recorded(header()), 0, NUMBERS)
n_left, write = int(sys.argv[2]), OwnFile.write
def dies(self, data):
    global n_left
    if not n_left:
        os.kill(os.getpid(), 9)
    n_left -= 1
    write(self, data)
OwnFile.write = dies
journal.append(recorded(header(), prompt(*ROWS[:2]))[1:], 0, NUMBERS)
"""


@pytest.mark.parametrize("n_writes", [0, 1])
def test_a_process_that_dies_leaves_no_name_without_its_row(tmp_path: Path, n_writes: int) -> None:
    """A process that is killed before its rows, or between them and the record that names them, leaves a whole log."""
    path = tmp_path / "log.jsonl"
    done = subprocess.run([sys.executable, "-c", _DIES, path, str(n_writes)], check=False, capture_output=True)
    assert (-signal.SIGKILL, b"") == (done.returncode, done.stderr)
    with LogFile(path) as lines:
        assert 1 == len(list(lines))
        assert {} == dict(rows_in(lines))
    assert n_writes * (HEAD + 2 * CELL) == (rows_path(path).stat().st_size if rows_path(path).exists() else 0)


INTERFERENCES: Final[dict[str, Callable[[Path], object]]] = {
    "deleted or moved": Path.unlink,
    "shortened": lambda path: path.write_bytes(b""),
    "lengthened": lambda path: path.write_bytes(path.read_bytes() + b"x"),
}


@pytest.mark.parametrize("what", INTERFERENCES)
def test_what_others_do_to_rows_is_noticed(tmp_path: Path, what: str) -> None:
    """Where another process touches the rows nothing is written any more, to the log neither."""
    path = tmp_path / "log.jsonl"
    journal = Journal(path)
    journal.append(recorded(header(), prompt(ROWS[0])), 0, NUMBERS)
    INTERFERENCES[what](rows_path(path))
    before = path.read_bytes()
    with pytest.raises(LogBroken, match=f"the file of rows was {what}"):
        journal.append(recorded(e.CancelRequested(sequence=1)), 0, NUMBERS)
    with pytest.raises(LogBroken, match="closed"):
        journal.append(recorded(e.CancelRequested(sequence=1)), 0, NUMBERS)
    assert before == path.read_bytes()


def test_rows_that_cannot_be_made_break_the_log(tmp_path: Path) -> None:
    """Where the file of rows cannot be made, nothing names its rows."""
    path = tmp_path / "log.jsonl"
    journal = Journal(path)
    journal.append(recorded(header()), 0, NUMBERS)
    rows_path(path).mkdir()
    before = path.read_bytes()
    with pytest.raises(LogBroken, match="the file of rows cannot be made"):
        journal.append(recorded(prompt(ROWS[0])), 0, NUMBERS)
    assert before == path.read_bytes()


# ---------------------------------------------------------------- what is read


@given(length=st.integers(0, HEAD + 3 * CELL))
def test_a_cut_file_holds_the_rows_before_the_cut(tmp_path_factory: pytest.TempPathFactory, length: int) -> None:
    """Wherever the file ends, the rows that are whole before that are read, and those after it are missing."""
    log = written(tmp_path_factory.mktemp("cut") / "log.jsonl")
    os.truncate(rows_path(log), length)
    rows = met(log)
    n_whole = max(length - HEAD, 0) // CELL
    for row in ROWS[:n_whole]:
        assert NUMBERS[row] == rows[row]
    for row in ROWS[n_whole:3]:
        with pytest.raises(RowsMissing, match="it ends before row"):
            _ = rows[row]


@given(bit=st.integers(0, 8 * (HEAD + 3 * CELL) - 1))
def test_any_flipped_bit_is_noticed(tmp_path_factory: pytest.TempPathFactory, bit: int) -> None:
    """One bit that is another spoils the row that it is of, or where it is of the head all of them, and no other."""
    log = written(tmp_path_factory.mktemp("flip") / "log.jsonl")
    data = bytearray(rows_path(log).read_bytes())
    data[bit // 8] ^= 1 << bit % 8
    rows_path(log).write_bytes(data)
    rows = met(log)
    spoilt = set(ROWS[:3]) if bit < 8 * HEAD else {ROWS[(bit // 8 - HEAD) // CELL]}
    for row in ROWS[:3]:
        if row in spoilt:
            with pytest.raises(RowsCorrupt, match=r"log\.jsonl\.rows: byte "):
                _ = rows[row]
        else:
            assert NUMBERS[row] == rows[row]
    with pytest.raises(RowsCorrupt):
        rows.check()


def put(path: Path, offset: int, data: bytes) -> None:
    """Write over a part of a file."""
    whole = bytearray(path.read_bytes())
    whole[offset : offset + len(data)] = data
    path.write_bytes(whole)


def in_place(make: Callable[[Path], object]) -> Callable[[Path], object]:
    """Return what puts something else in place of a file."""

    def replace(path: Path) -> None:
        path.unlink()
        make(path)

    return replace


HOSTILE: Final[dict[str, tuple[Callable[[Path], object], type[Exception], str]]] = {
    "no file": (Path.unlink, RowsMissing, "No such file"),
    "no bytes": (lambda path: path.write_bytes(b""), RowsMissing, "it ends before row 0"),
    "another file": (lambda path: path.write_bytes(b"{}\n" * 99), RowsCorrupt, "does not begin as a file of rows"),
    "another format": (lambda path: put(path, 8, b"\x02"), RowsCorrupt, "its format is 2"),
    "a vast width": (lambda path: put(path, 12, b"\xff" * 4), RowsCorrupt, "4,294,967,295 numbers"),
    "a vast file": (lambda path: os.truncate(path, 10 * 2**30), RowsCorrupt, "row 3 is not the one"),
    "a folder": (in_place(Path.mkdir), RowsMissing, "Is a directory"),
    "a pipe": (in_place(os.mkfifo), RowsMissing, "only a file can be"),
    "a device": (in_place(lambda path: path.symlink_to("/dev/zero")), RowsMissing, "only a file can be"),
    "a loop": (in_place(lambda path: path.symlink_to(path)), RowsMissing, "symbolic links"),
}


@pytest.mark.parametrize("what", HOSTILE)
def test_what_lies_in_place_of_rows_is_told(log: Path, what: str) -> None:
    """Whatever stands there is an error with the file's name, at once, and no more of it is read than a row."""
    change, kind, message = HOSTILE[what]
    change(rows_path(log))
    with pytest.raises(kind, match=message) as raised:
        met(log, ROWS).check()
    assert str(rows_path(log)) in str(raised.value)


def test_what_is_behind_the_rows_is_nobodys(log: Path) -> None:
    """The end of a write that did not finish, or rows that no record names, hurt nothing."""
    with rows_path(log).open("ab") as file:
        file.write(MAGIC * 20)
    met(log).check()


# ---------------------------------------------------------------- what is held


def test_numbers_are_held_as_long_as_a_sequence_has_them() -> None:
    """The numbers of a row go with the last sequence that has it."""
    held, values = HeldNumbers(), list(NUMBERS.values())
    held.hold(1, [given_rows(values[:2]), given_rows(values[:1])])
    held.hold(2, [given_rows(values[1:3])])
    held.hold(3, [])
    assert set(ROWS[:3]) == set(held)
    held.release(1)
    assert set(ROWS[1:3]) == set(held)
    held.release(3)
    held.release(2)
    held.release(2)
    assert 0 == len(held)


def test_a_plan_goes_with_the_numbers_of_its_rows() -> None:
    """Of all numbers an engine is given those of the batch."""

    def planned(*inputs: int | Row) -> e.BatchPlanned:
        return e.BatchPlanned(batch=0, copies=(), trims=(), shifts=(), parts=(part(inputs),))

    assert {row: NUMBERS[row] for row in ROWS[:2]} == numbers_of(planned(ROWS[1], ROWS[0], ROWS[1]), NUMBERS)
    assert {} == numbers_of(planned(1, 2), NUMBERS)


def test_numbers_beyond_float32_are_infinite() -> None:
    """The logits will tell; and the same number as another kind of float is the same row."""
    assert np.array([np.inf, -np.inf, 0.1], "<f4").tobytes() == packed([1e300, -1e300, 0.1])
    assert row_with(packed([0.1])) == row_with(packed([float(np.float32(0.1))]))
