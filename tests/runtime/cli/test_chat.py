"""The command ``reenact chat``, as a person or another program uses it."""

import json
import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from reenact.replay import replay_log
from reenact.runtime.engine.scripted import Scripts
from tests.helpers.sessions import read_fields
from tests.helpers.terminals import OnATerminal

CHAT = (sys.executable, "-m", "reenact.runtime.cli.main", "chat")

_ON_A_SCRIPT = """
import sys
from reenact.runtime import ScriptedEngine
from reenact.runtime.cli import conversation
from reenact.runtime.cli.main import main

conversation.llama_engine = lambda path, **_: ScriptedEngine({scripts!r}, batch_seconds={seconds})
main(["chat", *sys.argv[1:]])
"""

PROMPT = ">>> "


def on_a_script(*arguments: str, scripts: Scripts = ("Hel", "lo."), seconds: float = 0) -> list[str]:
    """Return the command on an engine that plays."""
    return [sys.executable, "-c", _ON_A_SCRIPT.format(scripts=scripts, seconds=seconds), *arguments]


def piped(command: list[str], given: bytes, folder: Path, **environment: str) -> tuple[int, str, str]:
    """Run the command on a pipe; return its exit code, output and errors."""
    done = subprocess.run(
        command, input=given, cwd=folder, env=os.environ | environment, check=False, capture_output=True
    )
    return done.returncode, done.stdout.decode(), done.stderr.decode()


def prompts(log: Path) -> list[str]:
    """Return the prompts of a log that replays the same."""
    replay_log(log).raise_for_divergence()
    return [fields["prompt"] for fields in read_fields(log) if fields["type"] == "RequestReceived"]


def test_each_line_of_a_pipe_is_a_message(tmp_path: Path) -> None:
    """Commands and quotation marks are text there, empty lines nothing; a turn finds the last one in the cache."""
    command = on_a_script("--system", "Be short.", "--log", "log.jsonl")
    code, out, err = piped(command, b'/clear\n\n  \n"""\r\nlast', tmp_path)
    assert (0, "Hello.\n" * 3) == (code, out)
    system, answer = "system: Be short.\n", "assistant: Hello.\n"
    first, second, third = prompts(tmp_path / "log.jsonl")
    assert f"{system}user: /clear\nassistant: " == first
    assert f'{system}user: /clear\n{answer}user: """\nassistant: ' == second
    assert f'{system}user: /clear\n{answer}user: """\n{answer}user: last\nassistant: ' == third
    found = re.fullmatch(r"reenact: 3 answers, 9 tokens; (\d+) of (\d+) prompt tokens were in the cache\n", err)
    assert found is not None
    assert 0.5 < int(found[1]) / int(found[2]) < 1


def test_a_message_that_fails_is_told(tmp_path: Path) -> None:
    """It is not part of the conversation, the next one is answered, and the exit code is 1."""
    scripts = {"user: b\nassistant: ": ["yes"]}
    code, out, err = piped(on_a_script(scripts=scripts), b"a\nb\n", tmp_path)
    assert (1, "\nyes\n") == (code, out)
    assert err.startswith("reenact: ")
    assert "user: a" in err.splitlines()[0]


@pytest.mark.parametrize(
    ("arguments", "given", "what"),
    [
        (["--temperature", "-1"], b"x", "--temperature: expected 0 to 100"),
        (["--grammar", "root ::= nothing"], b"x", "--grammar: "),
        (["--log", __file__], b"x", "the file exists, and a log is never overwritten"),
        (["--logprobs"], b"x", "unrecognized arguments: --logprobs"),
        ([], b"\xff", "standard input: a line is not text in utf-8"),
    ],
)
def test_an_error_is_one_line(tmp_path: Path, arguments: list[str], given: bytes, what: str) -> None:
    """Wrong arguments and bytes that are no text end the command with exit 2, and nothing is answered."""
    code, out, err = piped(on_a_script(*arguments), given, tmp_path, PYTHONUTF8="1")
    assert (2, "", 1) == (code, out, err.count("\n"))
    assert what in err


def test_a_text_that_is_cut_is_told(tmp_path: Path) -> None:
    """Why an answer ends is printed where the model did not end it."""
    _, out, err = piped(on_a_script("--num-predict", "1"), b"x", tmp_path)
    assert ("Hel\n", "reenact: the answer ends here: length") == (out, err.splitlines()[0])


def test_only_a_terminal_has_escapes(tmp_path: Path) -> None:
    """What a model writes moves no cursor on a terminal, and comes unchanged through a pipe."""
    command = on_a_script(scripts=["a\x1b[2J", "\u202eb\n", "c"])
    assert "a\x1b[2J\u202eb\nc\n" == piped(command, b"x", tmp_path)[1]
    with OnATerminal(command, tmp_path) as terminal:
        terminal.until(PROMPT)
        terminal.type("x\n")
        assert "x\na\\x1b[2J\\u202eb\nc\n" == terminal.until(PROMPT)


def test_ctrl_c_cancels_an_answer_and_then_ends(tmp_path: Path) -> None:
    """The text until then stays in the conversation; at the prompt Ctrl-C ends it, with a closed log and exit 130."""
    command = on_a_script("--log", "log.jsonl", scripts=["tick "] * 1000, seconds=0.02)
    with OnATerminal(command, tmp_path) as terminal:
        terminal.until(PROMPT)
        for message in ("one", "two"):
            terminal.type(f"{message}\n")
            terminal.until("tick tick ")
            terminal.interrupt()
            assert "" == terminal.until(PROMPT).replace("tick ", "").strip("\n")
        terminal.interrupt()
        code, last = terminal.end()
        assert terminal.settings == terminal.settings_now()
    told = "reenact: interrupted; log.jsonl is closed and can be replayed\n"
    assert (130, True, True) == (code, last.startswith("\nreenact: 2 answers, "), last.endswith(told))
    second = prompts(tmp_path / "log.jsonl")[1]
    assert re.fullmatch(r"user: one\nassistant: (tick ){2,}\nuser: two\nassistant: ", second)
    assert {"cancelled": 2} == replay_log(tmp_path / "log.jsonl").tally.statistics.ends


def test_ctrl_c_ends_a_conversation_on_a_pipe(tmp_path: Path) -> None:
    """While the next line is awaited it ends the command, without a word of the thread that waited."""
    with subprocess.Popen(
        on_a_script("--log", "log.jsonl"),
        cwd=tmp_path,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write(b"x\n")
        process.stdin.flush()
        assert b"Hello.\n" == process.stdout.readline()
        process.send_signal(signal.SIGINT)
        assert 130 == process.wait(60)
        told = process.stderr.read().decode().splitlines() if process.stderr else []
    assert "reenact: interrupted; log.jsonl is closed and can be replayed" == told[-1]
    assert [] == [line for line in told if not line.startswith("reenact: ")]
    assert 1 == len(prompts(tmp_path / "log.jsonl"))


@pytest.mark.parametrize("end", ["\4", "/bye\n"])
def test_commands(tmp_path: Path, end: str) -> None:
    """They show themselves, set the system message, forget and save the conversation; each is told where it fails."""
    with OnATerminal(on_a_script("--log", "log.jsonl"), tmp_path) as terminal:
        assert "Ctrl-D ends" in terminal.until(PROMPT)
        for typed, shown in [
            ("a", "Hello.\n"),
            ("/?", "/system TEXT "),
            ("/system", "there is no system message\n"),
            ("/system  Be kind. ", ""),
            ("/system", "Be kind.\n"),
            ("b", "Hello.\n"),
            ("/save saved.json", ""),
            ("/save saved.json", "reenact: saved.json: File exists\n"),
            ("/save", "reenact: /save needs the name of a new file\n"),
            ("/clear", ""),
            ("/nothing", "reenact: there is no command /nothing; /? lists them\n"),
            ("c", "Hello.\n"),
        ]:
            terminal.type(f"{typed}\n")
            before = terminal.until(PROMPT)
            assert before.startswith(f"{typed}\n{shown}")
        terminal.type(end)
        assert 0 == terminal.end()[0]
    saved = json.loads((tmp_path / "saved.json").read_text())
    said = [(message["role"], message["content"]) for message in saved]
    answer = ("assistant", "Hello.")
    assert [("system", "Be kind."), ("user", "a"), answer, ("user", "b"), answer] == said
    assert 0o600 == (tmp_path / "saved.json").stat().st_mode & 0o777
    assert "system: Be kind.\nuser: c\nassistant: " == prompts(tmp_path / "log.jsonl")[-1]


def test_a_message_of_several_lines(tmp_path: Path) -> None:
    """It goes from three quotation marks to three more, and is one message."""
    with OnATerminal(on_a_script("--log", "log.jsonl"), tmp_path) as terminal:
        terminal.until(PROMPT)
        for line, shown in [('"""a', "... "), ("", "... "), ('b"""', PROMPT), ('"""c"""', PROMPT)]:
            terminal.type(f"{line}\n")
            terminal.until(shown)
        terminal.type('"""d\n')
        terminal.until("... ")
        terminal.type("\4")
        assert 0 == terminal.end()[0]
    first, second = prompts(tmp_path / "log.jsonl")
    assert "user: a\n\nb\nassistant: " == first
    assert "user: a\n\nb\nassistant: Hello.\nuser: c\nassistant: " == second


@pytest.mark.model
def test_a_turn_evaluates_what_is_new(tmp_path: Path) -> None:
    """With SmolLM2, the second answer finds the first turn in its cells."""
    command = [*CHAT, "--seed", "7", "--num-predict", "8", "--n-ctx", "256", "--log", "log.jsonl"]
    code, out, err = piped(command, b"What is the capital of France?\nAnd of Italy?\n", tmp_path)
    assert (0, True) == (code, out.count("\n") >= 2)
    statistics = replay_log(tmp_path / "log.jsonl").tally.statistics
    assert f"{statistics.n_cached:,} of {statistics.n_prompt:,} prompt tokens were in the cache" in err
    assert statistics.n_cached > 30
