"""The README's examples run as they are printed."""

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from reenact.actors import events as e
from reenact.replay.render.events import phrase
from reenact.runtime.log.codec import decode, loads
from reenact.runtime.log.shorthand import Shorthand
from tests.helpers.paths import ROOT

README = (ROOT / "README.md").read_text()
BLOCKS = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
LOOKED_UP = README.split("while the server goes on:\n\n```\n")[1].split("```")[0]
"""The commands that lead from a header to a log, each with what it prints."""


@pytest.mark.model
def test_the_session_and_its_replay_run(tmp_path: Path) -> None:
    """The first program prints a text, and the log that it wrote replays the same."""
    for name, block in (("record.py", BLOCKS[0]), ("replays.py", BLOCKS[1])):
        (tmp_path / name).write_text(block)
    out = subprocess.run([sys.executable, "record.py"], cwd=tmp_path, check=True, capture_output=True, text=True)
    assert out.stdout.endswith(" length\n")
    assert "" == out.stderr
    subprocess.run([sys.executable, "replays.py"], cwd=tmp_path, check=True)


@pytest.mark.model
@pytest.mark.long
def test_the_application_runs(tmp_path: Path) -> None:
    """The application prints a text as it grows, and how it ended."""
    (tmp_path / "application.py").write_text(BLOCKS[2])
    out = subprocess.run([sys.executable, "application.py"], cwd=tmp_path, check=True, capture_output=True, text=True)
    assert out.stdout.endswith(("length\n", "stop\n"))
    assert "" == out.stderr


@pytest.mark.model
def test_the_chat_runs(tmp_path: Path) -> None:
    """The second turn finds the first one in the cache, and a person has a name and a job."""
    (tmp_path / "chat.py").write_text(BLOCKS[3])
    out = subprocess.run([sys.executable, "chat.py"], cwd=tmp_path, check=True, capture_output=True, text=True)
    cached, person, times = out.stdout.splitlines()
    n_cached, n_prompt = map(int, re.findall("[0-9]+", cached))
    assert n_cached > n_prompt // 2
    assert {"name", "job"} == json.loads(person).keys()
    assert times.startswith("Distribution(count=3,")
    assert "" == out.stderr


@contextmanager
def served(command: str, folder: Path) -> Iterator[str]:
    """Run the README's server in a folder, on a port that is free; give its address."""
    assert command.startswith("reenact serve ")
    assert command.endswith(" &")
    words = [sys.executable, "-m", "reenact.runtime.cli.main", *command.split()[1:-1]]
    environment = os.environ | {"OLLAMA_HOST": "127.0.0.1:0"}
    with subprocess.Popen(words, cwd=folder, env=environment, stdout=subprocess.PIPE, text=True) as server:
        assert server.stdout is not None
        try:
            yield server.stdout.readline().split()[-1]
        finally:
            server.terminate()
            server.communicate(timeout=30)
    assert not server.returncode


@pytest.mark.model
@pytest.mark.skipif(shutil.which("curl") is None, reason="the README's client is not installed")
def test_an_answer_is_looked_up_and_computed_again(tmp_path: Path) -> None:
    """The ids in an answer's head, put into the README's commands, lead to what the README shows."""
    start, *steps = re.findall(r"^\$ (.*)\n((?:(?!\$ ).*\n)*)", LOOKED_UP, re.MULTILINE)
    environment = os.environ | {"PATH": os.pathsep.join((str(Path(sys.executable).parent), os.environ["PATH"]))}
    replaced: dict[str, str] = {}
    with served(start[0], tmp_path) as url:
        replaced["http://127.0.0.1:11434"] = url
        for step in steps:
            command, shown = step
            for there, here in replaced.items():
                command, shown = command.replace(there, here), shown.replace(there, here)
            asked = ["sh", "-c", command]
            out = subprocess.run(
                asked, cwd=tmp_path, env=environment, check=True, capture_output=True, text=True
            ).stdout
            if "curl" in command:
                for name in ("x-request-id", "x-reenact-session"):
                    (printed,), (received,) = (
                        re.findall(rf"^{name}: (\S+)", text, re.MULTILINE) for text in (shown, out)
                    )
                    replaced[printed] = received
                    shown = shown.replace(printed, received)
            for line in map(without_times, shown.replace("…\n", "").splitlines()):
                assert line in [without_times(line) for line in out.splitlines()]
    assert 3 == len(replaced)


def without_times(line: str) -> str:
    """Return a line of the README without what differs from one day and one machine to the next."""
    return re.sub(r"[0-9]+\.[0-9]+ s|[0-9]{8}T[0-9]{6}Z", "", line).strip()


def test_the_tests_pass(tmp_path: Path) -> None:
    """The tests for an application pass where pytest finds the fixtures by itself."""
    (tmp_path / "test_example.py").write_text(BLOCKS[4])
    command = [sys.executable, "-m", "pytest", "-o", "trio_mode=true", "--rootdir", ".", "-q"]
    out = subprocess.run(command, cwd=tmp_path, check=False, capture_output=True, text=True)
    assert (0, True) == (out.returncode, "3 passed" in out.stdout), out.stdout


def test_a_session_replays_and_diverges_in_the_first_screen() -> None:
    """The first 70 lines have both commands, a session, its replay, and a divergence."""
    first = "\n".join(README.splitlines()[:70])
    for said in ("make demo", "make test", "open_runtime(", "replay_log(", "diverged: ", "follows from record"):
        assert said in first


def test_every_section_named_is_there() -> None:
    """The list at the top leads to sections of the page."""
    sections = {line.removeprefix("## ").lower().replace(" ", "-") for line in README.splitlines() if line[:3] == "## "}
    assert [] == [name for name in re.findall(r"\]\(#([a-z-]+)\)", README) if name not in sections]


def test_the_lines_of_a_log_are_todays() -> None:
    """Each line of a log that is shown is one that today's program reads, and its phrase stands above it."""
    lines = [line for line in README.splitlines() if line.startswith('{"n":')]
    assert len(lines) >= 4
    shorthand = Shorthand()
    part = e.Part(sequence=1, slot=0, position=0, inputs=tuple(range(7)), wants=e.Draw(0))
    before: list[e.Event] = [
        e.PromptTokenized(sequence=1, inputs=part.inputs, bos_added=False, grammar=None),
        e.InputQueued(sequence=1, inputs=part.inputs, wants=e.Draw(0)),
        e.SlotAssigned(sequence=1, slot=0, reused=0, source=None),
        e.BatchPlanned(batch=0, parts=(part,)),
    ]
    for event in before:
        shorthand.note(e.Record(0, event, None), 0)
    for line in lines:
        fields = loads(line.encode())
        del fields["crc"]
        record = decode(shorthand.whole(fields))
        shorthand.note(record, 0)
        assert f"  {phrase(record.event)}" in README
