"""Logs of prompts with rows: every command goes on without their numbers, or says what it lacks and where."""

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import pytest
import trio

from reenact.actors.batch import BatchDecoded, BatchPlanned
from reenact.actors.errors import LogNotComparable
from reenact.actors.inputs import rows_of
from reenact.replay import check_facts, check_log, replay_log
from reenact.replay.cli.main import main
from reenact.replay.facts import facts_of
from reenact.replay.fork.fork import Opened, fork
from reenact.replay.shrink.shrink import shrink_log
from reenact.replay.shrink.to_test import keep_log
from reenact.runtime import ScriptedEngine, open_runtime
from reenact.runtime.engine.row_numbers import packed, row_with
from reenact.runtime.log.reader import LogFile, entries
from reenact.runtime.log.rows import RowsCorrupt, rows_in, rows_path
from tests.helpers.re_execution import executed, settings_of
from tests.helpers.sessions import read_fields, write_fields

NUMBERS: Final = tuple(packed(row) for row in ([0.5, 1.0], [1.0, 2.0], [0.25, 0.5]))


@pytest.fixture
def log(tmp_path: Path) -> Path:
    """A log of three requests with three rows between them."""
    path = tmp_path / "log.jsonl"
    trio.run(record, path)
    return path


async def record(path: Path) -> None:
    """Record three requests."""
    async with open_runtime(ScriptedEngine(["a", "b", "c"]), log=path, n_slots=1, n_ctx=64) as runtime:
        await runtime.complete(["one", (0.5, 1), (1, 2), "two"], num_predict=3)
        await runtime.complete(["one", (0.5, 1), (0.25, 0.5), (0.5, 1)], num_predict=3)
        await runtime.complete("text", num_predict=3)


def flipped(path: Path) -> None:
    """Change the last number of a file of rows."""
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)


DAMAGES: Final[dict[str, tuple[Callable[[Path], object], str]]] = {
    "lost": (Path.unlink, "No such file or directory"),
    "cut": (lambda path: os.truncate(path, 70), "it ends before row 1, which the log names"),
    "flipped": (flipped, "byte 96: row 2 is not the one that the log names"),
}


def test_a_log_with_rows_replays_the_same(log: Path) -> None:
    """With its rows beside it nothing is to be said, and all rules hold."""
    verdict = replay_log(log)
    assert ("same", ()) == (verdict.verdict, verdict.notes)
    assert ("holds", ()) == (check_log(log).outcome, check_log(log).notes)


def test_a_log_names_its_rows_briefly(log: Path) -> None:
    """A row stands in the log by its digest, once in each prompt that has it, and not by its numbers."""
    one, other, third = (row_with(numbers).digest for numbers in NUMBERS)
    tokenized = [fields["inputs"] for fields in read_fields(log) if fields["type"] == "PromptTokenized"]
    assert [[*b"one", one, other, *b"two"], [*b"one", one, third, one]] == tokenized[:2]
    assert 2 == log.read_text().count(other) + log.read_text().count(third)


@pytest.mark.parametrize("damage", DAMAGES)
def test_deciding_needs_no_numbers(log: Path, damage: str) -> None:
    """Where they are lost or spoilt the log is decided all the same, and a note says what is wrong."""
    change, reason = DAMAGES[damage]
    change(rows_path(log))
    verdict = replay_log(log)
    (note,) = verdict.notes
    assert ("same", 0) == (verdict.verdict, verdict.exit_code)
    assert note.startswith(f"{rows_path(log)}: {reason}: no decision needs its numbers; --compute, --only and fork do")
    assert (damage != "flipped") == note.endswith("copy it beside the log, from where the log was written")


@pytest.mark.parametrize("command", ["run", "show", "state", "texts"])
def test_commands_that_read_records_need_no_numbers(
    log: Path, command: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """They work without the file, and name a row by how its digest begins."""
    rows_path(log).unlink()
    assert 0 == main([command, str(log)])
    digest = row_with(NUMBERS[0]).digest
    out = capsys.readouterr().out
    assert digest not in out
    assert (f"row {digest[:8]}…" in out) == (command == "show")


def test_two_logs_differ_in_a_row(log: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A difference of two prompts in a row names both rows."""
    lines, other = read_fields(log), tmp_path / "other.jsonl"
    first = next(fields for fields in lines if fields["type"] == "PromptTokenized")
    first["inputs"][3] = "0" * 64
    write_fields(other, lines)
    assert 1 == main(["diff", str(log), str(other)])
    out = capsys.readouterr().out
    assert f"row {row_with(NUMBERS[0]).digest[:8]}…" in out
    assert "row 00000000…" in out


@pytest.mark.parametrize("damage", ["cut", "flipped"])
def test_rows_that_are_not_as_they_were_written_break_a_rule(log: Path, damage: str) -> None:
    """The check names the prompt that is the first to have the row."""
    change, reason = DAMAGES[damage]
    change(rows_path(log))
    checked = check_log(log, ["numbers"])
    prompts = [fields["n"] for fields in read_fields(log) if fields["type"] == "PromptTokenized"]
    assert ("violated", prompts[damage == "flipped"]) == (checked.outcome, checked.violations[0].n)
    assert f"{rows_path(log)}: {reason}" == checked.violations[0].actual
    assert "holds" == check_facts(log).outcome


def test_rows_that_are_not_at_hand_break_no_rule(log: Path) -> None:
    """Without the file there is nothing to hold against the rule."""
    rows_path(log).unlink()
    assert "holds" == check_log(log).outcome


def test_an_execution_is_given_the_numbers(log: Path) -> None:
    """Each batch is executed again with the numbers of its own rows, read from the file."""
    given: list[set[bytes]] = []

    class Watching(ScriptedEngine):
        """An engine that keeps what it is given."""

        def step(self, planned: BatchPlanned, drawings: Any, numbers: Any) -> BatchDecoded:
            """Play, and keep the numbers."""
            given.append(set(numbers.values()))
            return super().step(planned, drawings, numbers)

    steps = executed(log, Watching(["a", "b", "c"]))
    assert [] == [row.n for step in steps for row in step.rows if not (row.same_bits and row.same_token)]
    assert [{*NUMBERS[:2]}, {NUMBERS[0], NUMBERS[2]}] == [values for values in given if values]


# ---------------------------------------------------------------- logs made of it


def forked(log: Path, child: Path) -> None:
    """Fork a log before its second prompt has drawn."""
    lines = read_fields(log)
    n = [fields["n"] for fields in lines if fields["type"] == "PromptTokenized"][1] + 1
    engine = ScriptedEngine(["a", "b", "c"])
    fork(
        log, n + 4, out=child, open_engine=lambda header: Opened(engine=engine, loaded=engine.load(settings_of(header)))
    )


def test_a_child_has_rows_of_its_own(log: Path, tmp_path: Path) -> None:
    """A fork's rows lie beside it, verified, and it needs its parent no more."""
    child = tmp_path / "child.jsonl"
    forked(log, child)
    rows_path(log).unlink()
    assert ("same", ()) == (replay_log(child).verdict, replay_log(child).notes)
    with LogFile(child) as lines:
        assert list(NUMBERS) == list(rows_in(lines).values())


@pytest.mark.parametrize("damage", DAMAGES)
def test_no_child_is_made_without_rows(log: Path, tmp_path: Path, damage: str) -> None:
    """Where a row cannot be had nothing is forked, and nothing is left."""
    DAMAGES[damage][0](rows_path(log))
    before = set(tmp_path.iterdir())
    with pytest.raises(RowsCorrupt if damage == "flipped" else LogNotComparable, match=r"log\.jsonl\.rows: "):
        forked(log, tmp_path / "child.jsonl")
    assert before == set(tmp_path.iterdir())


def broken(log: Path, tmp_path: Path) -> Path:
    """Return a copy of a log, with its rows, in which today's actors decide otherwise at the end."""
    path, lines = tmp_path / "broken.jsonl", read_fields(log)
    emitted = [fields for fields in lines if fields["type"] == "TokenEmitted"]
    emitted[3]["text"] = "z"
    write_fields(path, lines)
    rows_path(path).write_bytes(rows_path(log).read_bytes())
    return path


def test_a_smaller_log_keeps_the_rows_that_it_names(log: Path, tmp_path: Path) -> None:
    """What is shrunk has the numbers of what is left of its prompts, and without them it is shrunk all the same."""
    path, small, bare = broken(log, tmp_path), tmp_path / "small.jsonl", tmp_path / "bare.jsonl"
    shrink_log(path, out=small, diverges=True)
    with LogFile(small) as lines:
        prompts = [one.what for one in facts_of(entries(lines)).happenings if hasattr(one.what, "inputs")]
        named = {row for prompt in prompts for row in rows_of(getattr(prompt, "inputs", ()))}
        assert named == set(rows_in(lines))
        rows_in(lines).check()
    rows_path(path).unlink()
    shrink_log(path, out=bare, diverges=True)
    assert not rows_path(bare).exists()
    assert small.read_bytes() == bare.read_bytes()


def test_a_test_keeps_the_rows_of_its_log(log: Path, tmp_path: Path) -> None:
    """Beside the copy of the log lies a copy of its rows, its owner's alone; an older one is not written over."""
    folder = tmp_path / "kept"
    folder.mkdir()
    keep_log(log, out=folder / "test_log.py")
    copy = rows_path(folder / log.name)
    assert (rows_path(log).read_bytes(), 0o600) == (copy.read_bytes(), copy.stat().st_mode & 0o777)
    (folder / log.name).unlink()
    with pytest.raises(FileExistsError):
        keep_log(log, out=folder / "test_again.py")
    assert {"test_log.py", copy.name} == {path.name for path in folder.iterdir()}


def test_the_verdict_tells_it_in_json(log: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A program reads the note as people do."""
    rows_path(log).unlink()
    main(["run", "--json", str(log)])
    assert str(rows_path(log)) in json.loads(capsys.readouterr().out)["notes"][0]
