"""Names of logs with fields: they are filled in when a session opens."""

from datetime import UTC, datetime
from pathlib import Path

import pytest
from attrs import evolve

from reenact.actors.errors import InvalidRequest
from reenact.runtime import ScriptedEngine, Sources, open_runtime
from reenact.runtime.log.reader import LogFile, header_in
from reenact.runtime.log_name import escaped, named
from tests.helpers import header

FIXED = Sources(wall_clock=lambda: datetime(2026, 3, 4, 10, 0, tzinfo=UTC), session=lambda: "5e55")


async def opened(log: str | Path) -> Path:
    """Open and close a session, and return the name of its log."""
    async with open_runtime(ScriptedEngine(), log=log, sources=FIXED) as runtime:
        assert runtime.log is not None
        return runtime.log


async def test_the_fields_are_filled_in(tmp_path: Path, autojump_clock: object) -> None:
    """The log has the model, the time and the session in its name, in folders that did not exist."""
    log = await opened(tmp_path / "logs/{model}/{opened_at}-{session}.jsonl.zst")
    assert tmp_path / "logs/script/20260304T100000Z-5e55.jsonl.zst" == log
    with LogFile(log) as file:
        assert "5e55" == header_in(file).session
    assert 0o700 == log.parent.stat().st_mode & 0o777


async def test_a_name_without_fields_is_as_it_is(tmp_path: Path, autojump_clock: object) -> None:
    """Doubled braces stand for braces; and a path is escaped by them."""
    assert tmp_path / "a{b}.jsonl" == await opened(f"{escaped(tmp_path)}/a{{{{b}}}}.jsonl")
    assert tmp_path / "plain.jsonl" == await opened(tmp_path / "plain.jsonl")


async def test_one_name_is_given_once(tmp_path: Path, autojump_clock: object) -> None:
    """A template without the session may give a name that is taken: the log there stays."""
    log = await opened(tmp_path / "{model}.jsonl")
    before = log.read_bytes()
    with pytest.raises(FileExistsError):
        await opened(tmp_path / "{model}.jsonl")
    assert before == log.read_bytes()


@pytest.mark.parametrize("template", ["{modell}", "{}", "{0}", "{model", "model}", "{model!r}", "{opened_at:%Y}"])
async def test_another_field_is_refused(template: str, tmp_path: Path, autojump_clock: object) -> None:
    """What is no field is refused before the model is opened, with the fields there are."""
    engine = ScriptedEngine()
    with pytest.raises(InvalidRequest, match=r"^log: .*\{model\}, \{opened_at\}, \{session\}"):
        async with open_runtime(engine, log=tmp_path / template):
            pass
    assert [] == list(tmp_path.iterdir())


async def test_a_session_is_resumed_by_the_name_of_its_log(tmp_path: Path, autojump_clock: object) -> None:
    """A template names no session to go on with."""
    with pytest.raises(InvalidRequest, match=r"resume: .* without fields"):
        async with open_runtime(ScriptedEngine(), log=tmp_path / "{session}.jsonl", resume=True):
            pass


@pytest.mark.parametrize(
    ("model", "part"),
    [("../../etc/passwd", "etc-passwd"), ("a b\n.gguf", "a-b"), ("...", "unnamed"), ("x" * 300, "x" * 80)],
)
def test_a_model_cannot_choose_the_folder(model: str, part: str, tmp_path: Path) -> None:
    """Whatever a model is called, its part of the name is one part."""
    by = header.opened()
    one = evolve(by, model=evolve(by.model, name=model), opened_at="2026-03-04T10:00:00Z")
    assert tmp_path / f"{part}.jsonl" == named(tmp_path / "{model}.jsonl", one)
