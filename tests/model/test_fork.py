"""Forks on a real model: a child says what its parent said, unless it is told otherwise, and can be executed again."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import pytest
import trio
from attrs import frozen

from reenact.actors.errors import LogNotComparable, ModelNotFound
from reenact.actors.events import SessionOpened
from reenact.replay import replay_log
from reenact.replay.compute.execution import Execution, executed_records
from reenact.replay.compute.machine import ModelHere, open_machine
from reenact.replay.fork.fork import fork_log
from reenact.runtime import Runtime, open_runtime
from reenact.runtime.cli.default_model import installed_model
from reenact.runtime.log.reader import LogFile, entries
from reenact.runtime.log.rows import rows_in
from tests.helpers.sessions import read_fields, write_fields
from tests.model.scenarios import STORY, Lines, of, smollm2, text_of, together

pytestmark = pytest.mark.model

Drawn = dict[tuple[int, int], tuple[int, int]]
"""For each sequence and index the token and the checksum of its logits."""

READER, STORYTELLER, WRITER = 1, 2, 3
"""One whose reader stalls, a long prompt whose context is shifted, and one that waits, and writes JSON then."""


async def company(log: Path) -> None:
    """Record a session in which a prompt is prefilled in pieces, a context shifts, one waits, and a reader stalls."""
    async with open_runtime(
        installed_model(), log=log, n_slots=2, n_ctx=32, n_batch=8, n_threads=1, max_reader_lag=4
    ) as runtime:
        async with runtime.stream("To make tea, first", seed=3, num_predict=9, request_id="reader") as reader:
            async with runtime.stream(STORY, seed=1, num_predict=24, request_id="story") as story:
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(_write, runtime)
                    async for _ in story:
                        pass
            async for _ in reader:
                pass
        await runtime.complete("The capital of France is", seed=4, num_predict=2, request_id="late")


async def _write(runtime: Runtime) -> None:
    await runtime.complete("A list: ", seed=2, num_predict=6, format="json", request_id="writer")


@frozen
class Recorded:
    """A log, and an engine to execute its children on."""

    path: Path
    lines: Lines
    machine: ModelHere

    def cut(self, name: str) -> int:
        """Return a record to fork from before."""
        prefilled = {
            fields["batch"]
            for fields in of(self.lines, "BatchPlanned")
            for part in fields["parts"]
            if part["sequence"] == STORYTELLER and "wants" not in part
        }
        match name:
            case "in the middle of a prefill":
                return int(
                    [fields["n"] for fields in of(self.lines, "BatchDecoded") if fields["batch"] in prefilled][1]
                )
            case "between two tokens":
                return self._first("TokenEmitted", STORYTELLER, index=3)
            case "after a shift":
                return self._given(self._first("ContextShifted", STORYTELLER))
            case "while one waits":
                return self._given(self._first("InputQueued", WRITER))
            case "while a reader is paused":
                return self._given(self._first("SequencePaused", READER))
            case _:
                return self._first("ReaderResumed", READER)

    def _first(self, kind: str, sequence: int, **more: Any) -> int:
        wanted = {"sequence": sequence, **more}.items()
        return int(next(fields["n"] for fields in of(self.lines, kind) if wanted <= fields.items()))

    def _given(self, n: int) -> int:
        return int(next(fields["n"] for fields in self.lines[n + 1 :] if "cause" not in fields))


def header_of(path: Path) -> SessionOpened:
    """Return record 0."""
    with LogFile(path) as log:
        header = next(entries(log)).record.event
    assert isinstance(header, SessionOpened)
    return header


@pytest.fixture(scope="module")
def parent(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Recorded]:
    """Record the session that is forked, once."""
    path = tmp_path_factory.mktemp("parent") / "parent.jsonl"
    trio.run(company, path)
    machine = open_machine(header_of(path), installed_model())
    yield Recorded(path, read_fields(path), machine)
    machine.engine.close()


@pytest.fixture
def child(tmp_path: Path) -> Path:
    """Return where the child is to be."""
    return tmp_path / "child.jsonl"


def drawn(lines: Lines) -> Drawn:
    """Return what was drawn."""
    return {
        (sample["sequence"], sample["index"]): (sample["token"], sample["logits_crc32"])
        for fields in of(lines, "BatchDecoded")
        for sample in fields.get("samples", ())
    }


def checked(machine: ModelHere, child: Path) -> Lines:
    """Check that a child replays the same, and row by row when it is executed again; return its lines."""
    replay_log(child).raise_for_divergence()
    machine.renew()
    with LogFile(child) as log:
        steps = list(Execution(machine.engine, machine.renew, rows_in(log)).run(executed_records(log)))
    rows = [row for step in steps for row in step.rows]
    assert [] == [step.n for step in steps if not step.same_outcome]
    assert [] == [row.n for row in rows if not (row.has_checksum and row.same_bits and row.same_token)]
    return read_fields(child)


CUTS: Final = [
    "in the middle of a prefill",
    "between two tokens",
    "after a shift",
    "while one waits",
    "while a reader is paused",
    "where the reader goes on",
]


@pytest.mark.parametrize("name", CUTS)
def test_a_fork_without_changes(parent: Recorded, child: Path, name: str) -> None:
    """Wherever it is cut, each sequence draws the parent's tokens from its bits, and later requests are listed."""
    result = fork_log(parent.path, parent.cut(name), out=child)
    lines = checked(parent.machine, child)
    assert parent.lines[1 : result.parent.n] == lines[1 : result.parent.n]
    went_on = [one.in_child.request.sequence for one in result.sequences]
    assert [text_of(parent.lines, sequence) for sequence in went_on] == [
        text_of(lines, sequence) for sequence in went_on
    ]
    expected = drawn(parent.lines)
    assert drawn(lines) == {which: expected[which] for which in drawn(lines)}
    assert ["late"] == [one.request_id for one in result.left_out][-1:]


@pytest.mark.parametrize("changes", [{"temperature": 3.0, "top_k": 0, "top_p": 1.0}, {"seed": 99, "temperature": 1.5}])
def test_one_with_other_options(parent: Recorded, child: Path, changes: dict[str, Any]) -> None:
    """The text of the one whose options change is another one, and its company's are not, to the last bit."""
    result = fork_log(parent.path, parent.cut("between two tokens"), out=child, only="story", changes=changes)
    lines = checked(parent.machine, child)
    assert [set(), set(changes), set()] == [set(one.changed) for one in result.sequences]
    before, after = result.sequences[1].before, result.sequences[1].after
    assert text_of(parent.lines, STORYTELLER).startswith(before)
    assert text_of(parent.lines, STORYTELLER) != before + after == text_of(lines, STORYTELLER)
    expected, found = drawn(parent.lines), drawn(lines)
    assert all(found[which] == expected[which] for which in found if which[0] != STORYTELLER)


def test_a_fork_of_a_fork(parent: Recorded, child: Path, tmp_path: Path) -> None:
    """A child can be forked: what it was told stays, and what it changed can be changed back."""
    cut = parent.cut("between two tokens")
    first = fork_log(parent.path, cut, out=child, changes={"temperature": 0})
    greedy = read_fields(child)
    n = next(fields["n"] for fields in of(greedy, "TokenEmitted") if fields["n"] > cut + 20)
    second = fork_log(child, n, out=tmp_path / "second.jsonl")
    assert text_of(greedy, STORYTELLER) == text_of(checked(parent.machine, tmp_path / "second.jsonl"), STORYTELLER)
    back = fork_log(child, first.parent.n + 1, out=tmp_path / "back.jsonl", changes={"temperature": 0.8})
    assert drawn(parent.lines).items() >= drawn(checked(parent.machine, tmp_path / "back.jsonl")).items()
    assert [first.session] * 2 == [second.parent.session, back.parent.session]


async def shifting(log: Path) -> None:
    """Record a session whose contexts are shifted by moving cells."""
    async with smollm2(log, n_ctx=24, n_threads=1, determinism="recorded-schedule") as runtime:
        await together(runtime, [STORY[:48]] * 2, num_predict=24)


def test_where_cells_were_moved(child: Path, tmp_path: Path) -> None:
    """Where results depend on the schedule a child need not say the same, but it can be executed again all the same."""
    path = tmp_path / "parent.jsonl"
    trio.run(shifting, path)
    lines = read_fields(path)
    n = max(fields["n"] for fields in of(lines, "ContextShifted")) + 6
    result = fork_log(path, n, out=child)
    machine = open_machine(header_of(path), installed_model())
    try:
        assert lines[1 : result.parent.n] == checked(machine, child)[1 : result.parent.n]
    finally:
        machine.engine.close()
    assert ["results depend on the schedule here"] == [note.partition(":")[0] for note in result.notes]


# ---------------------------------------------------------------- another machine


def elsewhere(parent: Recorded, tmp_path: Path, **changes: dict[str, Any]) -> Path:
    """Return the parent's log as if another machine had written it."""
    path = tmp_path / "elsewhere.jsonl"
    header = parent.lines[0]
    write_fields(path, [header | {name: header[name] | fields for name, fields in changes.items()}, *parent.lines[1:]])
    return path


def test_what_is_not_the_same_here(parent: Recorded, child: Path, tmp_path: Path) -> None:
    """Another build is refused and named; forced, the child's header says what it is here, and so do the notes."""
    path = elsewhere(parent, tmp_path, engine={"versions": {"llama.cpp": "0", "other": "1"}, "cpu": "another"})
    n = parent.cut("while a reader is paused")
    with pytest.raises(LogNotComparable, match=r"engine\.versions\.llama\.cpp is .* --force goes on all the same"):
        fork_log(path, n, out=child)
    assert not child.exists()
    result = fork_log(path, n, out=child, force=True)
    for name in ("engine", "model", "context"):
        assert parent.lines[0][name] == read_fields(child)[0][name]
    names = [f"engine.versions.{name}" for name in ("llama-cpp-python", "llama.cpp", "other")]
    assert names == sorted(note.partition(" is ")[0] for note in result.notes)


def test_sizes_cannot_be_forced(parent: Recorded, child: Path, tmp_path: Path) -> None:
    """Where plans cannot be evaluated at all, forcing does not help, and no cure is promised."""
    path = elsewhere(parent, tmp_path, context={"n_ctx_seq": 512})
    with pytest.raises(LogNotComparable) as raised:
        fork_log(path, parent.cut("while one waits"), out=child, force=True)
    assert "context.n_ctx_seq is 256 here, and 512 in the log" == str(raised.value)
    assert not child.exists()


def test_a_model_that_is_not_here(parent: Recorded, child: Path, tmp_path: Path) -> None:
    """Where the recorded file is not known one must be named, and another model cannot go on, not even by force."""
    path = elsewhere(parent, tmp_path, model={"sha256": "0" * 64, "name": "other.gguf"})
    n = parent.cut("while one waits")
    with pytest.raises(ModelNotFound, match=r"other\.gguf"):
        fork_log(path, n, out=child)
    for force in (False, True):
        with pytest.raises(LogNotComparable, match=r"model\.sha256 is"):
            fork_log(path, n, out=child, model=installed_model(), force=force)
    assert not child.exists()
