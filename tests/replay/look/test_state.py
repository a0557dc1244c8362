from pathlib import Path

import pytest

from reenact.actors import events as e
from reenact.actors.errors import LogCorrupt, LogNotComparable
from reenact.replay.fold import NotInLog, moment_at
from reenact.replay.look.state import page
from reenact.replay.look.waits import holding_up, waits_at
from reenact.runtime.log.reader import LogFile
from tests.helpers.sessions import read_fields
from tests.replay import logs


def lines_at(path: Path, n: int | None = None) -> list[str]:
    """Return the page of a record."""
    with LogFile(path) as log:
        moment, _ = moment_at(log, n)
    return ["".join(text for text, _ in line).rstrip() for line in page(moment)]


def section(path: Path, title: str, n: int | None = None) -> list[str]:
    """Return the lines under a title of the page."""
    lines = lines_at(path, n)
    start = lines.index(title) + 1
    return lines[start : lines.index("", start) if "" in lines[start:] else None]


def who_waits(path: Path, n: int | None = None) -> list[str]:
    """Return the lines about what each sequence waits for."""
    return section(path, "what each sequence waits for", n)


def test_it_hangs_when_two_clients_come(path: Path) -> None:
    """A reader that went away holds the one slot: in the end the second client waits for it, and the page says so."""
    assert [
        "  sequence 1  ->  the reader of sequence 1 (first client)  since record 11 (0.030 s)",
        "  sequence 2  ->  a slot: the only one is taken by sequence 1  since record 13 (0.020 s)",
        "  in the end  ->  the reader of sequence 1 (first client)",
    ] == who_waits(logs.hanging(path))


def test_page(path: Path) -> None:
    """The page tells the moment, the Batcher, each slot and each sequence."""
    assert [
        "record 18, 0.070 s after session 5e55 opened, at 2026-03-04 10:00:00.070 UTC",
        "  sequence paused until its reader resumes",
        "  record 18 is the last one, and the session did not close: it still runs, or it crashed here",
        "",
        "what each sequence waits for",
        "  sequence 1  ->  the reader of sequence 1 (first client)  since record 11 (0.030 s)",
        "  sequence 2  ->  a slot: the only one is taken by sequence 1  since record 13 (0.020 s)",
        "  in the end  ->  the reader of sequence 1 (first client)",
        "",
        "batcher",
        "  nothing is in flight since record 16 (0.000 s); the last was batch 1: 1 row of sequence 1",
        "  in the queue, 1 of at most 4: sequence 2",
        "",
        "slots",
        "  slot 0  sequence 1, 3 of 16 cells, 0 inputs queued",
        "",
        "sequences",
        "  sequence 1 (first client): paused in slot 0: its reader has paused  since record 11 (0.030 s)",
        "    waits for the reader of sequence 1 (first client)",
        "    2 prompt tokens, 2 sampled",
        "  sequence 2 (second client): waits for a slot, number 1 in the queue  since record 13 (0.020 s)",
        "    waits for a slot: the only one is taken by sequence 1",
        "    2 prompt tokens, 0 sampled",
    ] == lines_at(logs.hanging(path))


def test_crash_in_flight(path: Path) -> None:
    """A log that ends with a batch in flight: every sequence in it waits for the engine, since the plan."""
    logs.crashed(path)
    assert ["  sequences 1, 2  ->  the engine, which has batch 2  since record 19 (0.000 s)"] == who_waits(path)
    assert (
        "  batch 2 is in flight since record 19 (0.000 s): 4 rows of sequences 1, 2; "
        "the engine still has it, or the process died in it"
    ) == section(path, "batcher")[0]
    assert [
        "  slot 0  sequence 1, 3 of 16 cells, 1 in flight, 0 inputs queued",
        "  slot 1  sequence 2, 0 of 16 cells, 3 in flight, 0 inputs queued",
    ] == section(path, "slots")


def test_slow_tokenizing(path: Path) -> None:
    """A request whose prompt is being tokenized keeps its place; while no slot is free, those behind wait for one."""
    logs.waiting(path)
    assert [
        "  sequence 1      ->  the engine, which has batch 0  since record 6 (0.050 s)",
        "  sequence 2      ->  the tokenizer, which has the prompt of sequence 2  since record 7 (0.040 s)",
        "  sequences 3, 4  ->  a slot: the only one is taken by sequence 1  since record 10 (0.030 s)",
        "  in the end      ->  the engine, which has batch 0; the tokenizer, which has the prompt of sequence 2",
    ] == who_waits(path)
    assert ["  in the queue, 3 of at most 4: sequences 2 (being tokenized), 3, 4"] == section(path, "batcher")[1:]


def test_a_free_slot_waits_for_the_tokenizer(path: Path) -> None:
    """A slot that is free goes to no sequence while the one that came first is being tokenized."""
    session = logs.Session(path, n_slots=1)
    session.arrive("slow")
    session.request("quick")
    session.request("quicker")
    assert [
        "  sequence 1      ->  the tokenizer, which has the prompt of sequence 1  since record 1 (0.040 s)",
        "  sequences 2, 3  ->  sequence 1: it goes first, and its prompt is being tokenized  since record 4 (0.030 s)",
        "  in the end      ->  the tokenizer, which has the prompt of sequence 1",
    ] == who_waits(path)


def test_a_beginning_that_is_evaluated(path: Path) -> None:
    """A prompt that begins like one that is being evaluated waits for that, with a slot free."""
    session = logs.Session(path, n_ctx=64)
    session.request(inputs=range(40))
    session.request(inputs=[*range(32), 99])
    session.decode()
    (_, second, *_) = who_waits(path)
    assert (
        "  sequence 2  ->  the prompt of sequence 1: it begins alike, and is evaluated first"
        == second.partition("  since")[0]
    )


def test_a_free_slot_is_given_out_after_the_batch(path: Path) -> None:
    """While a batch is in flight no slot is given out: the sequence that is to have it waits for the engine."""
    session = logs.Session(path)
    session.request()
    session.request()
    assert ["  sequences 1, 2  ->  the engine, which has batch 0  since record 6 (0.020 s)"] == who_waits(path)
    assert "one is free after this batch" in "\n".join(section(path, "sequences"))


def test_inputs_queued_behind_a_batch(path: Path) -> None:
    """A resumed sequence that is not in the batch in flight waits for the engine too."""
    session = logs.Session(path)
    session.request()
    session.give(e.ReaderPaused(sequence=1))
    session.request()
    session.decode()
    session.give(e.ReaderResumed(sequence=1))
    said = section(path, "sequences")
    assert (
        "  sequence 1: 1 input queued in slot 0 for a batch after the one in flight" == said[0].partition("  since")[0]
    )


def test_a_reader_who_paused_while_in_flight(path: Path) -> None:
    """A reader that paused while its sequence is in flight is named: the sequence pauses after its next token."""
    session = logs.Session(path)
    session.request(stop=("xy",))
    session.decode({1: b"x"})
    session.give(e.ReaderPaused(sequence=1))
    assert (
        "    2 prompt tokens, 1 sampled, 'x' held back, its reader paused at record 11: it pauses after its next token"
    ) == section(path, "sequences")[-1]


def test_rows_of_an_ended_sequence_in_flight(path: Path) -> None:
    """A slot whose sequence was cancelled in flight is free, and still has rows in the batch."""
    session = logs.Session(path, n_slots=1)
    session.request()
    session.give(e.CancelRequested(sequence=1))
    assert ["  slot 0  free, 0 of 16 cells, last used in batch 0, 2 in flight"] == section(path, "slots")
    assert ["  no sequence waits"] == who_waits(path)
    assert "  sequence 1: ended: cancelled  since record 8 (0.000 s)" == section(path, "sequences")[0]


def test_kept_cells(path: Path) -> None:
    """A free slot says how many cells it keeps for a prompt that begins alike."""
    session = logs.Session(path)
    session.request(num_predict=1)
    session.decode()
    assert [
        "  slot 0  free, 2 of 16 cells kept, last used in batch 0",
        "  slot 1  free, 0 of 16 cells, never used",
    ] == section(path, "slots")


def test_a_higher_priority_waits_for_the_batch_only(path: Path) -> None:
    """A sequence that takes the slot of a lower one waits until the batch in flight is back, and says whose."""
    session = logs.Session(path, n_slots=1)
    session.request("low")
    session.request("middle")
    session.request("high", priority=3)
    assert [
        "  sequences 1, 3  ->  the engine, which has batch 0  since record 6 (0.040 s)",
        "  sequence 2      ->  a slot: the only one is taken by sequence 1  since record 8 (0.030 s)",
        "  in the end      ->  the engine, which has batch 0",
    ] == who_waits(path)
    assert "it takes that of sequence 1 after this batch" in "\n".join(section(path, "sequences"))
    assert "  in the queue, 2 of at most 4: sequences 3 (priority 3), 2" == section(path, "batcher")[1]
    assert "    2 prompt tokens, 0 sampled, priority 3" == section(path, "sequences")[-1]


def test_preempted(path: Path) -> None:
    """A preempted sequence waits again, in its old place outside the queue's bound, and names the one it left for."""
    session = logs.Session(path, n_slots=1)
    session.request("low")
    session.request("middle")
    session.request("high", priority=1)
    session.decode()
    assert "  in the queue, 1 of at most 4, and 1 preempted: sequences 1 (preempted), 2" == section(path, "batcher")[1]
    said = section(path, "sequences")
    assert (
        "  sequence 1: preempted by sequence 3; waits for a slot again, number 1 in the queue"
        == said[0].partition("  since")[0]
    )
    assert "  sequence 2: waits for a slot, number 2 in the queue" == said[3].partition("  since")[0]
    assert (
        "  sequences 1, 2  ->  a slot: the only one is taken by sequence 3"
        == who_waits(path)[0].partition("  since")[0]
    )


def test_passed_over(path: Path) -> None:
    """A preempted sequence whose reader does not read on is passed over: it waits for its reader, and none for it."""
    session = logs.Session(path, n_slots=1)
    session.request("low", request_id="slow reader")
    session.give(e.ReaderPaused(sequence=1))
    session.decode()
    session.request("high", priority=1)
    session.request("next")
    assert [
        "  sequence 1  ->  the reader of sequence 1 (slow reader)  since record 7 (0.050 s)",
        "  sequence 2  ->  the engine, which has batch 1  since record 17 (0.020 s)",
        "  sequence 3  ->  a slot: the only one is taken by sequence 2  since record 19 (0.010 s)",
        "  in the end  ->  the reader of sequence 1 (slow reader); the engine, which has batch 1",
    ] == who_waits(path)
    assert (
        "  in the queue, 1 of at most 4, and 1 preempted: sequences 1 (preempted, its reader has paused), 3"
    ) == section(path, "batcher")[1]
    assert "  sequence 3: waits for a slot, number 1 in the queue" == section(path, "sequences")[6].partition("  si")[0]


def test_free_slots_go_to_others_first(path: Path) -> None:
    """A request that gets none of the slots that are free after the batch waits for those that go first."""
    session = logs.Session(path)
    for name in ("one", "two", "three"):
        session.request(name)
    assert "  sequence 3      ->  a slot: sequence 2 goes first" == who_waits(path)[1].partition("  since")[0]


def test_a_slow_prompt_of_a_higher_priority(path: Path) -> None:
    """None overtakes a request whose prompt is being tokenized, even where it would have to take another's slot."""
    session = logs.Session(path, n_slots=1)
    session.request("low")
    session.arrive("high", priority=1)
    session.request("next")
    assert (
        "  sequence 3  ->  sequence 2: it goes first, and its prompt is being tokenized"
        == who_waits(path)[2].partition("  since")[0]
    )


def test_an_abort(path: Path) -> None:
    """A batch that is to end early says so."""
    session = logs.Session(path)
    session.request(inputs=8)
    session.give(e.CancelRequested(sequence=1))
    assert "is in flight since record 6 (0.010 s), and is to end early: 8 rows" in section(path, "batcher")[0]


def test_cells_that_were_shifted(path: Path) -> None:
    """A slot whose cells were moved says how many of them another may have, and a shift that is due says so."""
    session = logs.Session(path, n_ctx=8, shift="move")
    session.request(inputs=8, num_keep=3)
    records = session.decode()
    (dropped,) = [record.n for record in records if isinstance(record.event, e.InputsDropped)]
    assert (
        "  slot 0  sequence 1, 6 of 8 cells, 0 inputs queued, only the first 3 of use to others, "
        "to be shifted by 2 after the first 3"
    ) == section(path, "slots", dropped)[0]
    assert (
        "  slot 0  sequence 1, 6 of 8 cells, 1 in flight, 0 inputs queued, only the first 3 of use to others"
        == section(path, "slots")[0]
    )


def test_a_copy_that_is_due(path: Path) -> None:
    """A slot that is to be copied before the next rows is named, and what of the copy is to be trimmed."""
    session = logs.Session(path, n_ctx=128, n_batch=128)
    prompt = range(1, 101)
    session.request("first", inputs=prompt)
    session.decode()
    session.request("second", inputs=[*prompt[:80], 7])
    records = session.decode()
    (assigned,) = [record.n for record in records if isinstance(record.event, e.SlotAssigned)]
    assert "  to be copied before the next rows: slot 0 to 1" == section(path, "batcher", assigned)[1]
    assert (
        "  slot 1  sequence 2, 80 of 128 cells, 1 input queued, to be trimmed from 101 cells"
        == section(path, "slots", assigned)[1]
    )


def test_a_deadline(path: Path) -> None:
    """A sequence's deadline is told from the record that is shown."""
    session = logs.Session(path)
    session.request(deadline=0.05)
    assert "    2 prompt tokens, 0 sampled, its deadline is in 0.040 s" == section(path, "sequences")[-1]
    session.decode(after_ms=60)
    assert "    2 prompt tokens, 1 sampled, its deadline was 0.020 s ago" == section(path, "sequences")[-1]


def test_an_embedding(path: Path) -> None:
    """A text that is pooled waits for the engine, and is not said to sample."""
    session = logs.Session(path, pooling="mean")
    session.request("text", embedding=True)
    session.request("text", embedding=True)
    said = section(path, "sequences")
    assert "  sequence 1: in the batch in flight: 2 rows, then pooled" == said[0].partition("  since")[0]
    assert "    2 prompt tokens, for an embedding" == said[2]


def test_engine_failed(path: Path) -> None:
    """When the engine fails its sequences cannot go on; after that no request waits, and no later one does."""
    session = logs.Session(path)
    session.request()
    session.give(e.EngineFailed(error="no"))
    session.request()
    n = next(fields["n"] for fields in read_fields(path) if fields["type"] == "EngineFailed")
    assert any("the engine, which failed" in line for line in who_waits(path, n))
    assert "nothing is planned any more" in "\n".join(section(path, "batcher", n))
    assert ["  no sequence waits"] == who_waits(path)


def test_in_the_middle_of_a_fact(path: Path) -> None:
    """At a record with more to follow, the page says that the next records show how it goes on."""
    lines = lines_at(logs.short(path), 8)
    assert "  in the middle: the next record follows from the same fact" == lines[2]
    assert ["  no sequence waits"] == who_waits(path, 8)
    assert "nothing of it is queued or in flight; the next records show how it goes on" in "\n".join(lines)


def test_every_record_has_a_page(path: Path) -> None:
    """Every record of a session has its page, and none says that a live sequence waits for nothing."""
    logs.short(path)
    for n in range(38):
        lines = lines_at(path, n)
        assert lines[0].startswith(f"record {n}, ")
        assert "it waits for nothing" not in "\n".join(lines)


def test_closed(path: Path) -> None:
    """When the session has closed no request waits, and the ended are counted."""
    logs.short(path)
    assert ["  no sequence waits"] == who_waits(path)
    assert ["  2 requests came so far; 2 ended before"] == section(path, "sequences")


def test_long_queue_is_cut(path: Path) -> None:
    """Of a long queue the first are named and the rest are counted."""
    session = logs.Session(path, n_slots=1, max_waiting=100)
    for _ in range(31):
        session.request()
    assert section(path, "batcher")[1].endswith("19, 20, 21 and 10 more")


def test_waits_are_data(path: Path) -> None:
    """What each request waits for is there as values too: behind which sequences, and what outside holds things up."""
    with LogFile(logs.hanging(path)) as log:
        moment, _ = moment_at(log, None)
    waits = waits_at(moment)
    assert [(1, ()), (2, (1,))] == [(wait.sequence, wait.behind) for wait in waits]
    assert ["the reader of sequence 1 (first client)"] == holding_up(waits)


def test_no_such_record(path: Path) -> None:
    """A record behind the end of the log is not there, and the message names the last one."""
    with (
        LogFile(logs.short(path)) as log,
        pytest.raises(NotInLog, match="there is no record 99: the last one is record 37"),
    ):
        moment_at(log, 99)


def test_corrupt_behind_the_record(path: Path) -> None:
    """A corrupt line does not concern the records before it; to the end, it says how far one came."""
    logs.flipped(logs.short(path), 10)
    for n in range(9):
        assert lines_at(path, n)[0].startswith(f"record {n}, ")
    with LogFile(path) as log, pytest.raises(LogCorrupt):
        moment_at(log, 9)
    with LogFile(path) as log:
        moment, corrupt = moment_at(log, None)
    assert 8 == moment.at.record.n
    assert corrupt is not None
    assert 10 == corrupt.line


def test_a_record_that_cannot_follow(path: Path) -> None:
    """A record that the state of the session does not allow is corrupt, though its bytes bear the checksum."""
    logs.rewritten(logs.short(path), 6, b'"slot":0', b'"slot":7')
    with LogFile(path) as log, pytest.raises(LogCorrupt, match="it cannot follow the records before it") as caught:
        moment_at(log, 30)
    assert 6 == caught.value.line


def test_empty(path: Path) -> None:
    """An empty log has no moment."""
    path.touch()
    with LogFile(path) as log, pytest.raises(LogNotComparable, match="no record"):
        moment_at(log, None)
