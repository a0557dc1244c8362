"""The command ``reenact resume``: a session that was cut off ends as it would have."""

import json
from pathlib import Path

import pytest

from reenact.actors.events import SessionOpened, SessionResumed
from reenact.replay import ComputeOptions, compute_log
from reenact.runtime.cli.main import main
from reenact.runtime.log.reader import LogFile, entries
from tests.helpers.models.tiny import LETTERS, tiny


def run(capsys: pytest.CaptureFixture[str], *arguments: str | Path) -> tuple[object, str, str]:
    """Call the command; return its exit code, output and errors."""
    with pytest.raises(SystemExit) as raised:
        main([str(argument) for argument in arguments])
    out, err = capsys.readouterr()
    return raised.value.code, out, err


@pytest.mark.model
def test_a_session_that_was_cut_off_ends_as_it_would_have(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    """The rest of each text is printed, and the log computes again to the same bits over both lives."""
    model, log = tiny(tmp_path / "tiny.gguf", n_positions=64, pieces=LETTERS), tmp_path / "log.jsonl"
    arguments = ("--model", model, "--n-ctx", "64", "--slots", "2", "--num-predict", "20", "--seed", "1", "--json")
    code, out, _ = run(capsys, "generate", *arguments, "--log", log, "--durability", "power", "a", "b", "c")
    whole = {fields["sequence"]: fields["text"] for fields in map(json.loads, out.splitlines())}
    with LogFile(log) as file:
        lines = list(file)
    log.write_bytes(log.read_bytes()[: lines[len(lines) // 2].offset + 5])
    code, out, _ = run(capsys, "resume", log, "--model", model, "--durability", "relaxed", "--json")
    assert 0 == code
    with LogFile(log) as file:
        events = [entry.record.event for entry in entries(file)]
    durable = [event.durability for event in events if isinstance(event, SessionOpened | SessionResumed)]
    assert ["power", "relaxed"] == durable
    resumed = {fields["sequence"]: fields["text"] for fields in map(json.loads, out.splitlines())}
    assert resumed
    assert {number: whole[number] for number in resumed} == resumed
    assert "same" == compute_log(log, ComputeOptions(model=model)).verdict


@pytest.mark.model
def test_another_model_is_refused(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    """A session goes on with its own model only; the error names the argument, and the log stays as it is."""
    model, log = tiny(tmp_path / "tiny.gguf", n_positions=64, pieces=LETTERS), tmp_path / "log.jsonl"
    other = tiny(tmp_path / "other.gguf", n_positions=128, pieces=LETTERS)
    run(capsys, "generate", "--model", model, "--n-ctx", "64", "--log", log, "--num-predict", "4", "a")
    with LogFile(log) as file:
        raw = log.read_bytes()[: list(file)[-1].offset]
    log.write_bytes(raw)
    code, _, err = run(capsys, "resume", log, "--model", other)
    assert (2, "reenact: --model: the session was opened with tiny.gguf, another file\n") == (code, err)
    assert raw == log.read_bytes()
