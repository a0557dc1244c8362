"""The commands ``reenact serve`` and ``reenact models``, as a person calls them."""

import json
import os
import re
import signal
import subprocess
import sys
import urllib.request
from pathlib import Path

import pytest

from reenact.replay import replay_log
from reenact.runtime.cli.main import main
from reenact.runtime.cli.serve import address

SERVE = (sys.executable, "-m", "reenact.runtime.cli.main", "serve", "--port", "0")


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
        (["--host", "203.0.113.1", "--port", "0"], "--host: 203.0.113.1:0 cannot be listened on"),
        (["--keep-alive", "soon"], "--keep-alive: expected seconds"),
        (["--api-keys", os.devnull], "--api-keys: there is no key"),
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


def test_models_are_listed(capsys: pytest.CaptureFixture[str]) -> None:
    """The installed model is among them."""
    with pytest.raises(SystemExit) as raised:
        main(["models", "--json"])
    found = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert not raised.value.code
    assert "smollm2:latest" in [model["name"] for model in found]


@pytest.mark.model
@pytest.mark.parametrize("sent", [signal.SIGTERM, signal.SIGINT])
def test_the_line_that_it_prints_works(tmp_path: Path, sent: signal.Signals) -> None:
    """It says where it is; its answer's header names the log; a signal ends it and closes the log."""
    command = [*SERVE, "--log-dir", str(tmp_path), "--n-threads", "1"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as server:
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
