"""Snapshots: a log that was folded once is folded from near the record that is asked for, with the same result."""

from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest

from reenact.replay import snapshots
from reenact.replay.fold import Fold, Moment, moment_at
from reenact.runtime import user_cache
from reenact.runtime.log import compressed
from reenact.runtime.log.reader import Entry, LogFile
from tests.helpers.sessions import eventful_session, read_fields, write_fields

EVERY = 20


@pytest.fixture(autouse=True)
def _near(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Take a snapshot every few records, in a cache of the test's own."""
    monkeypatch.setattr(snapshots, "EVERY", EVERY)
    monkeypatch.setattr(compressed, "FRAME_TEXT", 1000)
    monkeypatch.setenv(user_cache.FOLDER_NAME, str(tmp_path / "cache"))


def found(moment: Moment) -> tuple[Any, ...]:
    """Return all of a moment but the bytes of lines, which snapshots do not keep."""
    marks = {
        k: {kind: (one.record, one.t, one.line.number, one.line.offset) for kind, one in kinds.items()}
        for k, kinds in moment.marks.items()
        if kinds
    }
    following = None if moment.following is None else moment.following.record
    return moment.at.record, moment.at.t, moment.at.line.offset, following, moment.state, marks, moment.torn


def moment(path: Path, n: int | None) -> tuple[Any, ...]:
    """Return all of the moment at a record."""
    with LogFile(path) as log:
        return found(moment_at(log, n)[0])


def forget() -> None:
    """Remove all snapshots."""
    for file in (user_cache.folder() / "snapshots").glob("*.json"):
        file.unlink()


def kept() -> int:
    """Return the count of snapshots."""
    return len(list((user_cache.folder() / "snapshots").glob("*.json"))) - 1


@pytest.mark.parametrize("ending", ["jsonl", "jsonl.zst"])
async def test_each_moment_is_as_from_the_beginning(ending: str, tmp_path: Path, autojump_clock: object) -> None:
    """From a snapshot or from record 0: state, marks, the record after it and the torn tail are the same."""
    path = tmp_path / f"log.{ending}"
    await eventful_session(path)
    path.write_bytes(path.read_bytes() + b"torn")
    n_records = moment(path, None)[0].n + 1
    asked = [*range(0, n_records, 13), None]
    whole = []
    for n in asked:
        forget()
        whole.append(moment(path, n))
    assert n_records // EVERY / 2 < kept() <= n_records // EVERY
    assert whole == [moment(path, n) for n in asked]


async def test_what_is_before_a_snapshot_is_not_read_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, autojump_clock: object
) -> None:
    """A fold begins behind the last snapshot that is not behind the record."""
    path = tmp_path / "log.jsonl"
    await eventful_session(path)
    moment(path, None)
    numbers, add = [], Fold.add

    def counted(self: Fold, entry: Entry) -> None:
        numbers.append(entry.record.n)
        add(self, entry)

    monkeypatch.setattr(Fold, "add", counted)
    moment(path, 3 * EVERY - 1)
    assert list(range(2 * EVERY + 1, 3 * EVERY)) == numbers


@pytest.mark.parametrize("gone", ["the list", "one", "damaged", "of other code"])
async def test_snapshots_that_cannot_be_used_are_taken_anew(
    gone: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, autojump_clock: object
) -> None:
    """Whatever became of the snapshots, the result is the same, and the next look has them again."""
    path = tmp_path / "log.jsonl"
    await eventful_session(path)
    whole, n_kept = moment(path, None), kept()
    folder = user_cache.folder() / "snapshots"
    if gone == "the list":
        (folder / f"{sha256(b'logs').hexdigest()[:32]}.json").unlink()
    for file in folder.glob("*.json"):
        if gone == "one" and b'"snapshot"' in file.read_bytes():
            file.unlink()
            break
        if gone == "damaged":
            file.write_bytes(file.read_bytes().replace(b'"n_requests"', b'"n_cats"'))
    if gone == "of other code":
        monkeypatch.setattr(snapshots, "_code", lambda: "other")
    assert whole == moment(path, None)
    assert n_kept * (2 if gone == "of other code" else 1) - (gone == "one") <= kept()


async def test_the_snapshots_of_other_bytes_are_not_used(tmp_path: Path, autojump_clock: object) -> None:
    """A log of the same session with another line is read from its beginning, and has its own state."""
    path = tmp_path / "log.jsonl"
    await eventful_session(path)
    before = moment(path, None)
    lines = read_fields(path)
    lines[0]["opened_at"] = "2026-01-01T00:00:00+00:00"
    write_fields(path, lines)
    after = moment(path, None)
    forget()
    assert before != after == moment(path, None)


async def test_few_logs_have_snapshots(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, autojump_clock: object) -> None:
    """When one more log gets snapshots, those of the first one are removed."""
    monkeypatch.setattr(snapshots, "_MOST_LOGS", 1)
    path = tmp_path / "log.jsonl"
    await eventful_session(path)
    moment(path, None)
    n_kept = kept()
    monkeypatch.setattr(snapshots, "_code", lambda: "other")
    moment(path, None)
    assert n_kept == kept()
