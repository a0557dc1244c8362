"""The commands ``reenact serve`` and ``reenact models``, as a person calls them."""

import json
import os
import re
import signal
import socket
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from reenact.replay import replay_log
from reenact.runtime.cli.main import main
from reenact.runtime.cli.serve import address, origins

SERVE = (sys.executable, "-m", "reenact.runtime.cli.main", "serve", "--port", "0")

HANDLING = """
import os, signal, sys
signal.signal(signal.SIGHUP, signal.Handlers[sys.argv[1]])
os.execv(sys.argv[2], sys.argv[2:])
"""
"""A program that becomes another one with SIGHUP handled or ignored, whatever the tests' own process does with it."""


@contextmanager
def started(*command: str) -> Iterator[subprocess.Popen[str]]:
    """Start a server, and end it with the test, also with one that fails."""
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as server:
        try:
            yield server
        finally:
            server.kill()


@pytest.mark.parametrize(
    ("written", "expected"),
    [
        ("", ("127.0.0.1", 11434)),
        ("0.0.0.0", ("0.0.0.0", 11434)),  # noqa: S104  # it is read, not listened on
        ("box:8080", ("box", 8080)),
        (":8080", ("127.0.0.1", 8080)),
        ("http://box", ("box", 80)),
        ("https://box/", ("box", 443)),
        ("http://box:1234/path", ("box", 1234)),
        ("[::1]:8080", ("::1", 8080)),
        ('"box"', ("box", 11434)),
    ],
)
def test_ollama_host(written: str, expected: tuple[str, int]) -> None:
    """OLLAMA_HOST is a host, a port, both or a URL."""
    assert expected == address(written)


@pytest.mark.parametrize(
    ("arguments", "what"),
    [
        (["nothing"], "MODEL: 'nothing' is neither a file nor a model"),
        (["a=nothing.gguf"], "nothing.gguf: No such file"),
        (["nothing.gguf"], "nothing.gguf: No such file"),
        ([f"a={__file__}", f"A={__file__}"], "MODEL: 'a:latest' is given twice"),
        (["--port", "70000"], "--port: expected 0 to 65,535"),
        (["--host", "203.0.113.1", "--port", "0"], "--host: cannot listen on 203.0.113.1:0: "),
        (["--durability", "power", "--port", "70000"], "--port: expected 0 to 65,535"),
        (["--no-log", "--durability", "power"], "--durability: nothing is recorded with --no-log"),
        (["--keep-alive", "soon"], "--keep-alive: expected seconds"),
        (["--api-keys", os.devnull], "--api-keys: there is no key"),
        (["--api-keys", sys.executable], f"--api-keys: {sys.executable} is not text in UTF-8"),
        ([f"a={__file__}"], f"MODEL: {__file__} is not a GGUF file"),
        ([f"={__file__}"], "has no name before the file"),
        (["--slots", "0"], "--slots: expected a whole number from 1 to 256, got 0"),
        (["--n-ctx", "-1"], "--n-ctx: expected a whole number from 1"),
        (["--n-batch", "3"], "--n-batch: expected a whole number from 4"),
        (["--n-threads", "9999"], "--n-threads: expected a whole number from 1 to 512"),
        (["--log-dir", __file__], f"--log-dir: no log can be written in {__file__}: File exists"),
        (["--log-dir", f"{__file__}/logs"], f"--log-dir: no log can be written in {__file__}/logs: Not a directory"),
        (["--no-log", "--resume"], "--no-log: nothing is recorded"),
        (["--origin", "example.com"], '--origin: expected "*" or an origin'),
    ],
)
def test_an_error_is_one_line(
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    arguments: list[str],
    what: str,
) -> None:
    """What was asked wrongly is told in one line that names it, with exit 2, before anything is served."""
    monkeypatch.setenv("OLLAMA_MODELS", str(tmp_path))
    with pytest.raises(SystemExit) as raised:
        main(["serve", *arguments])
    out, err = capsys.readouterr()
    assert (2, "", 1) == (raised.value.code, out, err.count("\n"))
    assert what in err


@pytest.mark.parametrize(
    ("name", "value"),
    [("OLLAMA_KEEP_ALIVE", "soon"), ("OLLAMA_ORIGINS", "https://a.example, b"), ("OLLAMA_HOST", "a:b")],
)
def test_a_wrong_variable_is_named(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path, name: str, value: str
) -> None:
    """An error of the environment names the variable, and no flag that nobody gave."""
    monkeypatch.setenv(name, value)
    with pytest.raises(SystemExit):
        main(["serve", "--log-dir", str(tmp_path)])
    assert capsys.readouterr().err.startswith(f"reenact: {name}: expected ")


def test_a_port_that_is_in_use(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    """The error tells that another server has it, and how to take another one."""
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        with pytest.raises(SystemExit):
            main(["serve", "--host", "127.0.0.1", "--port", str(port), "--log-dir", str(tmp_path)])
    cure = "a server runs there: another --port, or 0 for any"
    expected = f"reenact: --host: cannot listen on 127.0.0.1:{port}: Address already in use; {cure}\n"
    assert expected == capsys.readouterr().err


def test_origins_are_written_as_browsers_do() -> None:
    """Spaces between them, a slash at the end and empty ones do not count."""
    expected = ["https://a.example", "*", "app://b", "file://", "https://c.example:8080"]
    assert expected == list(origins(["https://a.example/", "*"], "app://b,,file://, https://c.example:8080/ "))


def test_models_are_listed(capsys: pytest.CaptureFixture[str]) -> None:
    """The installed model is among them."""
    with pytest.raises(SystemExit) as raised:
        main(["models", "--json"])
    found = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert not raised.value.code
    assert "smollm2:latest" in [model["name"] for model in found]


@pytest.mark.model
@pytest.mark.parametrize(
    ("handler", "sent"), [("SIG_DFL", [signal.SIGHUP]), ("SIG_IGN", [signal.SIGHUP, signal.SIGTERM])]
)
def test_the_end_of_the_terminal_ends_it(tmp_path: Path, handler: str, sent: list[signal.Signals]) -> None:
    """It ends as after SIGTERM, unless the signal is ignored, as under nohup."""
    with started(sys.executable, "-c", HANDLING, handler, *SERVE, "--log-dir", str(tmp_path)) as server:
        assert server.stdout is not None
        url = re.search(r"http://\S+", server.stdout.readline())
        assert url is not None
        for one in sent:
            with urllib.request.urlopen(url.group(), timeout=60) as response:  # noqa: S310  # our own server
                assert 200 == response.status
            server.send_signal(one)
        _, err = server.communicate(timeout=30)
    assert (0, "") == (server.returncode, err)


@pytest.mark.model
@pytest.mark.parametrize("sent", [signal.SIGTERM, signal.SIGINT])
def test_the_line_that_it_prints_works(tmp_path: Path, sent: signal.Signals) -> None:
    """It says where it is; its answer's header names the log; a signal ends it and closes the log."""
    with started(*SERVE, "--log-dir", str(tmp_path), "--n-threads", "1") as server:
        assert server.stdout is not None
        told = "".join(server.stdout.readline() for _ in range(4))
        url, body = re.search(r"curl (\S+) -d '(.*)'", told).groups()  # type: ignore[union-attr]  # it is there
        assert str(tmp_path) in told
        body = json.dumps(json.loads(body) | {"stream": False, "options": {"num_predict": 4, "seed": 7}})
        with urllib.request.urlopen(url, body.encode(), timeout=120) as response:  # noqa: S310  # our own server
            answer = json.load(response)
            session = response.headers["x-reenact-session"]
        assert 4 == answer["eval_count"]
        server.send_signal(sent)
        _, err = server.communicate(timeout=30)
    assert (0, "") == (server.returncode, err)
    (log,) = tmp_path.glob(f"*-{session}.jsonl.zst")
    assert "same" == replay_log(log).verdict
