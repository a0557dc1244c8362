"""Logs of older schemas, made up: each line becomes today's when it is read."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Final

import pytest

from reenact.actors.errors import LogNotComparable
from reenact.replay import check_log, replay_log
from reenact.replay.compute.execution import executed_records
from reenact.replay.fold import moment_at
from reenact.replay.shrink.shrink import shrink_log
from reenact.runtime.log import upcasters
from reenact.runtime.log.codec import SCHEMA, Fields, dumps, loads
from reenact.runtime.log.line import sealed
from reenact.runtime.log.reader import LogFile, entries
from reenact.runtime.log.rows import rows_in
from tests.replay import logs

Change = Callable[[Fields], Fields]


def _named(fields: Fields, old: str, new: str) -> Fields:
    return {**fields, "type": new} if fields["type"] == old else fields


def older(fields: Fields) -> Fields:
    """Return a line as it was one schema ago: tokens were called otherwise, and prompts had no grammar."""
    fields = _named(fields, "PromptTokenized", "PromptRead")
    if fields["type"] == "TokenEmitted":
        return {"characters" if name == "text" else name: value for name, value in fields.items()}
    return {name: value for name, value in fields.items() if name != "grammar" or fields["type"] != "PromptRead"}


def newer(fields: Fields) -> Fields:
    """Return that line in today's schema."""
    fields = _named(fields, "PromptRead", "PromptTokenized")
    if fields["type"] == "TokenEmitted":
        return {"text" if name == "characters" else name: value for name, value in fields.items()}
    return {**fields, "grammar": None} if fields["type"] == "PromptTokenized" else fields


OLDEST: Final[Change] = lambda fields: _named(fields, "SequenceFinished", "SequenceEnded")  # noqa: E731  # a pair
OLD: Final[Change] = lambda fields: _named(fields, "SequenceEnded", "SequenceFinished")  # noqa: E731  # likewise


def written(path: Path, source: Path, schema: int, *changes: Change) -> Path:
    """Write a log anew as an older program wrote it."""
    crc, data = 0, b""
    with LogFile(source) as log:
        for line in log:
            fields = loads(line.body)
            for change in changes:
                fields = change(fields)
            if line.number == 1:
                fields["schema"] = schema
            one, crc = sealed(dumps(fields), crc)
            data += one
    path.write_bytes(data)
    return path


@pytest.fixture
def raised(monkeypatch: pytest.MonkeyPatch) -> None:
    """Give today's program upcasters for the two schemas before its own."""
    monkeypatch.setitem(upcasters.UPCASTERS, SCHEMA - 1, newer)
    monkeypatch.setitem(upcasters.UPCASTERS, SCHEMA - 2, OLD)
    assert SCHEMA - 2 == upcasters.oldest_schema()


OLD_LOGS: Final = {SCHEMA - 1: (older,), SCHEMA - 2: (older, OLDEST)}


@pytest.mark.usefixtures("raised")
@pytest.mark.parametrize("schema", OLD_LOGS)
def test_an_older_log_is_read_as_todays(tmp_path: Path, schema: int) -> None:
    """Its records are today's, and so are its replay, its state, its rows and what an execution takes of it."""
    whole = logs.short(tmp_path / "today.jsonl")
    path = written(tmp_path / "old.jsonl", whole, schema, *OLD_LOGS[schema])
    assert b'"characters"' in path.read_bytes()
    assert [entry.record for entry in logs.read(whole)][1:] == [entry.record for entry in logs.read(path)][1:]
    verdict = replay_log(path)
    assert ("same", ()) == (verdict.verdict, verdict.notes)
    assert "holds" == check_log(path).outcome
    with LogFile(path) as old, LogFile(whole) as new:
        assert list(executed_records(new)) == list(executed_records(old))
        assert list(rows_in(new)) == list(rows_in(old))
        assert moment_at(new, 20)[0].state.sequences == moment_at(old, 20)[0].state.sequences


@pytest.mark.usefixtures("raised")
def test_a_record_that_is_decided_otherwise_is_found(tmp_path: Path) -> None:
    """An older log diverges where its values do, and both sides are shown in today's schema."""

    def other(fields: Fields) -> Fields:
        return {**fields, "characters": "Thus"} if fields.get("characters") == "Because" else fields

    whole = logs.short(tmp_path / "today.jsonl")
    verdict = replay_log(written(tmp_path / "old.jsonl", whole, SCHEMA - 1, older, other))
    assert verdict.first_divergence is not None
    expected, actual = verdict.first_divergence.expected, verdict.first_divergence.actual
    assert ("Thus", "Because") == (expected and expected["text"], actual and actual["text"])


@pytest.mark.usefixtures("raised")
def test_what_is_made_of_an_older_log_is_todays(tmp_path: Path) -> None:
    """A smaller log has today's schema and lines."""

    def other(fields: Fields) -> Fields:
        return {**fields, "characters": "Thus"} if fields.get("characters") == "Because" else fields

    whole = logs.short(tmp_path / "today.jsonl")
    path = written(tmp_path / "old.jsonl", whole, SCHEMA - 1, older, other)
    small = tmp_path / "small.jsonl"
    shrink_log(path, out=small, diverges=True)
    header = json.loads(small.read_bytes().splitlines()[0])
    assert (SCHEMA, False) == (header["schema"], b'"characters"' in small.read_bytes())


@pytest.mark.usefixtures("raised")
def test_a_line_that_no_upcaster_takes_is_corrupt(tmp_path: Path) -> None:
    """A line without the type that every schema has is corrupt, and no fault of the program."""
    path = tmp_path / "old.jsonl"
    header, *_ = (
        written(path, logs.short(tmp_path / "today.jsonl"), SCHEMA - 1, older).read_bytes().splitlines(keepends=True)
    )
    crc = int(header[-11:-3], 16)
    path.write_bytes(header + sealed(b'{"n":1}', crc)[0])
    verdict = replay_log(path)
    assert ("corrupt", True) == (verdict.verdict, f"no record of schema {SCHEMA - 1}" in verdict.notes[0])


def test_a_schema_without_an_upcaster_is_refused(tmp_path: Path) -> None:
    """A log of a schema from which none leads is not comparable, whatever its lines are."""
    path = written(tmp_path / "old.jsonl", logs.short(tmp_path / "today.jsonl"), SCHEMA - 1, older)
    with LogFile(path) as log, pytest.raises(LogNotComparable, match=f"schema is {SCHEMA - 1} .* reads from {SCHEMA}"):
        list(entries(log))
