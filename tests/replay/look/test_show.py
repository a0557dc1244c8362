import io
from collections.abc import Iterator
from pathlib import Path

import pytest

from reenact.actors import events as e
from reenact.actors.errors import LogCorrupt, LogNotComparable
from reenact.replay.fold import NotInLog
from reenact.replay.look.show import At, Selection, show_records
from reenact.runtime.log.reader import LogFile
from reenact.runtime.terminal import Spans, printer
from tests.replay import logs


class Screen:
    """Keeps the lines that are shown."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    def show(self, line: Spans) -> None:
        self.lines.append("".join(text for text, _ in line))

    def numbers(self) -> list[int]:
        return [int(line.split()[0]) for line in self.lines]


def shown(path: Path, selection: Selection | None = None) -> tuple[Screen, list[str]]:
    """Show a log; return the lines, and what else there was to say."""
    screen = Screen()
    with LogFile(path) as log:
        notes = show_records(log, selection or Selection(), screen.show)
    return screen, notes


def test_every_record_is_one_line(path: Path) -> None:
    """A log is shown as one line a record, whatever its texts hold."""
    screen, notes = shown(logs.short(path))
    assert list(range(38)) == screen.numbers()
    assert [] == notes
    assert [] == [line for line in screen.lines if "\n" in line]


def test_line(path: Path) -> None:
    """A line says number, seconds, actor and what happened, and of a derived record what it follows from."""
    screen, _ = shown(logs.short(path))
    assert (
        "     1      0.010 s  sequence-1    request received as chat-1: 'Why\\nnot?', seed 7, stop ['END']"
        == (screen.lines[1])
    )
    assert "     2      0.010 s  batcher       request queued: sequence 1, 0 ahead of it  <- 1" == screen.lines[2]


def test_batches(path: Path) -> None:
    """A planned batch says its rows in all and of each sequence; a decoded one the piece of each sequence."""
    session = logs.Session(path, n_slots=3)
    for _ in range(2):
        session.request(inputs=1)
    session.decode()
    session.request(inputs=9)
    session.decode({1: b"a\n", 2: b"\xc3"})
    session.decode(code=-3)
    said = [line[35:] for line in shown(path)[0].lines if "  batch " in line]
    assert [
        "batch 0 planned: 1 row: 1 of sequence 1  <- 3",
        "batch 0 decoded: sequence 1 ' x'",
        "batch 1 planned: 2 rows: 1 each of sequences 1, 2  <- 11",
        "batch 1 decoded: sequence 1 'a\\n', sequence 2 b'\\xc3'",
        "batch 2 planned: 8 rows: 1 each of sequences 1, 2; 6 of sequence 3 (more of it to come)  <- 20",
        "batch 2 decoded: llama_decode returned -3; nothing drawn",
        "batch 2 failed: sequences 1-3: sequence_failed: llama_decode returned -3  <- 27",
    ] == said


def test_a_request_says_what_is_asked_of_it(path: Path) -> None:
    """A request's phrase names it, the chat that it continues, and every option that is not at its default."""
    session = logs.Session(path)
    session.request("Hi", request_id="a", continues=1, format="json", deadline=1.5, priority=2)
    session.request("text", embedding=True)
    said = [line[35:] for line in shown(path)[0].lines if "request" in line and "sequence-" in line]
    assert [
        "request received as a, continuing sequence 1: 'Hi', seed 7, format 'json', priority 2, deadline 1.5",
        "embedding requested: 'text'",
    ] == said


def test_range(path: Path) -> None:
    """N-M chooses the records from N to M, and ends with the log where M is beyond it."""
    logs.short(path)
    assert [5, 6, 7] == shown(path, Selection(first=5, last=7))[0].numbers()
    assert [36, 37] == shown(path, Selection(first=36, last=99))[0].numbers()


def test_one_record_is_shown_whole(path: Path) -> None:
    """A record asked for alone stands with every field, however long."""
    session = logs.Session(path, n_ctx=64)
    session.request("p" * 500, inputs=30)
    screen, _ = shown(path, Selection(first=3, last=3))
    assert [
        "     3      0.020 s  sequence-1    prompt tokenized: 30 tokens [100, 101, 102, 103, 104, 105, 106, 107, …]",
        "        sequence  1",
        f"        inputs  {list(range(100, 130))}",
        "        bos_added  false",
        "        grammar  null",
    ] == screen.lines
    assert f'        prompt  "{"p" * 500}"' in shown(path, Selection(first=1, last=1))[0].lines


def test_no_such_record(path: Path) -> None:
    """A record behind the end of the log is not there, and the message names the last one."""
    with pytest.raises(NotInLog, match=r"^there is no record 38: the last one is record 37$"):
        shown(logs.short(path), Selection(first=38, last=38))


@pytest.mark.parametrize("name", ["1", "chat-1"])
def test_only(path: Path, name: str) -> None:
    """A sequence is chosen by its number or its request_id, with the batches that it is in and what it did there."""
    logs.short(path)
    screen, _ = shown(path, Selection(only=name))
    assert [*range(1, 11), 15, 16, 17, 19, 20, 21, 22, 23] == screen.numbers()
    assert (
        "    19      0.060 s  batcher       batch 2 planned: 8 rows: 1 of sequence 1 from position 3 in slot 0, "
        "then draws token 2  <- 15"
    ) == next(line for line in screen.lines if line.startswith("    19"))


def test_only_holds_a_batch_without_a_sample(path: Path) -> None:
    """A sequence's prompt piece is decoded without a draw: the outcome concerns it all the same."""
    screen, _ = shown(logs.short(path), Selection(only="2", first=18, last=24))
    assert [18, 19, 20, 24] == screen.numbers()


def test_only_holds_a_fault_of_the_engine(path: Path) -> None:
    """When the engine fails, that concerns every sequence that has not ended."""
    session = logs.Session(path)
    session.request("gone")
    session.give(e.CancelRequested(sequence=1))
    session.request("there")
    records = session.give(e.EngineFailed(error="no"))
    assert records[0].n not in shown(path, Selection(only="1"))[0].numbers()
    assert records[0].n in shown(path, Selection(only="2"))[0].numbers()


def test_only_holds_an_abort_by_another(path: Path) -> None:
    """That a batch is to end early concerns every sequence in it: its outcome is not what was planned."""
    session = logs.Session(path)
    session.request("long", inputs=16)
    session.decode()
    session.request("other", inputs=16)
    session.decode()
    records = session.give(e.CancelRequested(sequence=1))
    (abort,) = [record.n for record in records if isinstance(record.event, e.AbortRequested)]
    for name in ("1", "2"):
        assert abort in shown(path, Selection(only=name))[0].numbers()


def test_only_holds_who_was_preempted(path: Path) -> None:
    """A preemption concerns the sequence that loses the slot and the one that gets it."""
    session = logs.Session(path, n_slots=1)
    session.request("low")
    session.request("high", priority=1)
    session.decode()
    (lost,) = [record.n for record in session.records if isinstance(record.event, e.SequencePreempted)]
    for name in ("1", "2"):
        assert lost in shown(path, Selection(only=name))[0].numbers()


def test_only_of_nobody(path: Path) -> None:
    """A name that no request has is an error."""
    with pytest.raises(NotInLog, match=r"^no request has the number or the request_id 'chat-2'$"):
        shown(logs.short(path), Selection(only="chat-2"))


def test_at(path: Path) -> None:
    """A minute or a second of the wall clock chooses the records that happened in it, past midnight too."""
    session = logs.Session(path, opened_at="2026-03-04T23:59:58+00:00")
    session.t += 1500 * logs.MS
    session.request()
    session.decode(after_ms=60_000)
    assert [0, 1, 2, 3, 4, 5, 6] == shown(path, Selection(at=At(23, 59)))[0].numbers()
    assert [0] == shown(path, Selection(at=At(23, 59, 58)))[0].numbers()
    assert [7, 8, 9, 10] == shown(path, Selection(at=At.parse("00:00")))[0].numbers()


STILL_OPEN = "record 10 is the last one, and the session did not close: it still runs, or it crashed here"


def test_nothing_at(path: Path) -> None:
    """Where nothing happened, the records before and after that time are named, or the ends of the log."""
    session = logs.Session(path)
    session.request()
    session.decode(after_ms=180_000)
    screen, notes = shown(path, Selection(at=At(10, 1)))
    assert [] == screen.lines
    around = "record 6 at 2026-03-04 10:00:00 is the one before, record 7 at 2026-03-04 10:03:00 the one after"
    assert [STILL_OPEN, f"nothing happened at 10:01 UTC: {around}"] == notes
    ends = "the log goes from record 0 at 2026-03-04 10:00:00 to record 10 at 2026-03-04 10:03:00"
    assert [STILL_OPEN, f"nothing happened at 09:00:01 UTC: {ends}"] == shown(path, Selection(at=At(9, 0, 1)))[1]


@pytest.mark.parametrize("written", ["", "10", "24:00", "10:60", "10:00:60", "10:0", " 10:00", "10:00:00.5"])
def test_no_time(written: str) -> None:
    """What is neither HH:MM nor HH:MM:SS is refused."""
    with pytest.raises(ValueError, match="expected HH:MM or HH:MM:SS"):
        At.parse(written)


def test_opened_at_is_no_time(path: Path) -> None:
    """A header whose wall clock is none is corrupt once a time is asked for."""
    logs.Session(path, opened_at="yesterday").journal.close()
    assert [0] == shown(path)[0].numbers()
    with pytest.raises(LogCorrupt, match="opened_at is not a time: 'yesterday'"):
        shown(path, Selection(at=At(10, 0)))


def test_follow(path: Path) -> None:
    """A log that is followed is shown as it grows, torn lines only when they are whole, until the session closes."""
    logs.short(path)
    whole = path.read_bytes()
    path.write_bytes(whole[:3000])
    screen, lengths = Screen(), []

    def growing() -> Iterator[None]:
        for size in (3010, 4500, len(whole)):
            lengths.append(len(screen.lines))
            path.write_bytes(whole[:size])
            yield

    growth = growing()
    with LogFile(path) as log:
        notes = show_records(log, Selection(), screen.show, pause=lambda: next(growth))
    assert list(range(38)) == screen.numbers()
    assert [] == notes
    assert sorted(lengths) == lengths
    assert 0 < lengths[0] <= lengths[1] < lengths[2] < 38


def test_follow_from_before_the_first_line(path: Path) -> None:
    """A log may be followed before anything is in it."""
    source = logs.short(path.with_name("other.jsonl"))
    path.touch()
    screen = Screen()
    with LogFile(path) as log:
        show_records(log, Selection(), screen.show, pause=lambda: void(path.write_bytes(source.read_bytes())))
    assert list(range(38)) == screen.numbers()


def void(_: object) -> None:
    """Return nothing, whatever a function returned."""


def test_torn_tail_is_mentioned(path: Path) -> None:
    """Bytes behind the last newline are no record: they are counted, and no error."""
    logs.short(path)
    path.write_bytes(path.read_bytes()[:-20])
    screen, notes = shown(path)
    assert list(range(37)) == screen.numbers()
    assert [
        "record 36 is the last one, and the session did not close: it still runs, or it crashed here",
        "the last 87 bytes are a write that did not finish",
    ] == notes


def test_what_came_before_a_corrupt_line_stays(path: Path) -> None:
    """A corrupt line ends the output, behind the records before it."""
    screen = Screen()
    with LogFile(logs.flipped(logs.short(path), 6)) as log, pytest.raises(LogCorrupt) as caught:
        show_records(log, Selection(), screen.show)
    assert [0, 1, 2, 3, 4] == screen.numbers()
    assert 6 == caught.value.line


@pytest.mark.parametrize(
    ("old", "new", "reason"),
    [
        (b'"type":"InputQueued"', b'"type":"InputEaten"', "there is no event of type 'InputEaten'"),
        (b'{"n":4', b'{"n":9', "it is record 9 where 4 comes next"),
        (b',"cause":3', b',"cause":null', "expected int, got None"),
        (b'"wants":0', b'"wants":"0"', "InputQueued"),
    ],
)
def test_a_line_that_cannot_stand_there(path: Path, old: bytes, new: bytes, reason: str) -> None:
    """A line that bears its checksum and holds no record that can stand there is corrupt, and is named."""
    with pytest.raises(LogCorrupt, match=reason) as caught:
        shown(logs.rewritten(logs.short(path), 5, old, new))
    assert 5 == caught.value.line


def test_empty(path: Path) -> None:
    """An empty log holds nothing to show."""
    path.touch()
    with pytest.raises(LogNotComparable, match="no record"):
        shown(path)


class Terminal(io.StringIO):
    """A terminal."""

    def isatty(self) -> bool:
        return True


def test_colour_on_a_terminal_only(monkeypatch: pytest.MonkeyPatch) -> None:
    """Lines are coloured on a terminal, and plain in a pipe and where NO_COLOR is set; the words are the same."""
    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.delenv("NO_COLOR", raising=False)
    line: Spans = [("  [red] ", "red"), ("x" * 200, "")]
    coloured, plain, pipe = Terminal(), Terminal(), io.StringIO()
    printer(coloured)(line)
    monkeypatch.setenv("NO_COLOR", "1")
    printer(plain)(line)
    printer(pipe)(line)
    assert f"\x1b[31m  [red] \x1b[0m{'x' * 200}\n" == coloured.getvalue()
    assert f"  [red] {'x' * 200}\n" == plain.getvalue() == pipe.getvalue()
