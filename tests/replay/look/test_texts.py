from pathlib import Path

from reenact.actors import events as e
from reenact.replay.look.texts import SequenceText, lines_of, texts_of
from reenact.runtime.log.reader import LogFile
from tests.helpers.sessions import read_fields, write_fields
from tests.replay import logs


def told(path: Path) -> list[SequenceText]:
    """Return what a log tells of each sequence."""
    with LogFile(path) as log:
        texts, corrupt = texts_of(log)
    assert corrupt is None
    return texts.all()


def lines(path: Path) -> list[str]:
    """Return all lines for people."""
    return ["".join(text for text, _ in line) for each in told(path) for line in lines_of(each)]


def test_as_json(path: Path) -> None:
    """Each sequence's prompt, text and end are told in the order of their numbers."""
    assert [
        {
            "sequence": 1,
            "request_id": "chat-1",
            "continues": None,
            "prompt": "Why\nnot?",
            "text": "Because it ",
            "embedding": None,
            "finish_reason": "stop",
            "stop": "END",
            "n_prompt": 2,
            "n_cached": 0,
            "n_truncated": 0,
            "n_sampled": 3,
            "n_shifts": 0,
            "error": None,
        },
        {
            "sequence": 2,
            "request_id": None,
            "continues": None,
            "prompt": "Name\ta colour",
            "text": " röt",
            "embedding": None,
            "finish_reason": "stop",
            "stop": None,
            "n_prompt": 10,
            "n_cached": 0,
            "n_truncated": 0,
            "n_sampled": 3,
            "n_shifts": 0,
            "error": None,
        },
    ] == [each.as_json() for each in told(logs.short(path))]


def test_lines(path: Path) -> None:
    """For people, prompt and text stand line by line behind a margin."""
    assert [
        "sequence 1 (chat-1): stop at 'END', 2 prompt tokens, 3 sampled",
        "  prompt | Why",
        "         | not?",
        "  with   | seed 7, stop ['END']",
        "  text   | Because it ",
        "sequence 2: stop, 10 prompt tokens, 3 sampled",
        "  prompt | Name\ta colour",
        "  with   | seed 7",
        "  text   |  röt",
    ] == lines(logs.short(path))


def test_held_text_that_is_released_at_the_end(path: Path) -> None:
    """Text that was held back and goes out at the end is part of the text."""
    session = logs.Session(path)
    session.request(stop=("xyz",), num_predict=2)
    session.decode({1: b"ax"})
    session.decode({1: b"y"})
    assert ("axy", "length") == (told(path)[0].text, told(path)[0].as_json()["finish_reason"])


def test_unfinished(path: Path) -> None:
    """A sequence without its end says so, with the text so far and without what is held back."""
    session = logs.Session(path)
    session.request("p", stop=("xyz",))
    session.decode({1: b"ax"})
    assert "sequence 1: not finished in this log, 2 prompt tokens, 1 sampled" == lines(path)[0]
    (only,) = told(path)
    assert {"text": "a", "finish_reason": None, "n_prompt": 2, "n_sampled": 1} == {
        name: only.as_json()[name] for name in ("text", "finish_reason", "n_prompt", "n_sampled")
    }


def test_error(path: Path) -> None:
    """A sequence that failed says why, as a line and as values."""
    session = logs.Session(path)
    session.request("p", inputs=17, truncate=False)
    reason = "it has 17 tokens, and the context of a sequence (n_ctx) holds 16"
    assert f"sequence 1: error (invalid_request: prompt: {reason}), 17 prompt tokens, 0 sampled" == lines(path)[0]
    assert {"kind": "invalid_request", "field": "prompt", "reason": reason} == told(path)[0].as_json()["error"]


def test_a_text_is_as_it_is(path: Path) -> None:
    """A text keeps every character until it is printed."""
    session = logs.Session(path)
    session.request("a\r\x1b[2Jb\u200d")
    assert "  prompt | a\r\x1b[2Jb\u200d" == lines(path)[1]


def test_late_facts_change_no_text(path: Path) -> None:
    """A fact about a sequence that has ended does not take its end back."""
    session = logs.Session(path)
    session.request()
    session.give(e.CancelRequested(sequence=1))
    session.decode({1: b"late"})
    assert ("", "cancelled", 0) == (
        told(path)[0].text,
        told(path)[0].as_json()["finish_reason"],
        told(path)[0].n_sampled,
    )


def test_what_became_of_the_prompt(path: Path) -> None:
    """How much of a prompt was cached or left out, and how often the context was shifted, is told with its end."""
    session = logs.Session(path, n_ctx=8)
    session.request(inputs=12, num_predict=0)
    session.request(inputs=[1, 2, 3, 4, 5], num_predict=5)
    for _ in range(5):
        session.decode()
    session.request(inputs=[1, 2, 3, 4, 5], num_predict=1, continues=2)
    session.decode()
    assert [
        "sequence 1: length, 12 prompt tokens (4 left out), 0 sampled",
        "sequence 2: length, 5 prompt tokens, 5 sampled, 1 context shift",
        "sequence 3, continuing sequence 2: length, 5 prompt tokens (4 cached), 1 sampled",
    ] == [line for line in lines(path) if line.startswith("sequence")]


def test_embedding(path: Path) -> None:
    """Of an embedding the vector is told in place of a text."""
    session = logs.Session(path, pooling="mean")
    session.request("text", embedding=True)
    session.decode(vector=(3.0, 4.0))
    assert ["sequence 1: stop, 2 prompt tokens", "  prompt | text", "  vector | 2 values [0.6, 0.8]"] == lines(path)
    assert [0.6, 0.8] == list(told(path)[0].as_json()["embedding"])


def test_about_nobody(path: Path) -> None:
    """A record about a sequence that never came is corrupt, whatever its checksum says."""
    lines = read_fields(logs.short(path))
    lines[3] |= {"sequence": 3, "actor": "sequence-3"}
    write_fields(path, lines)
    with LogFile(path) as log:
        texts, corrupt = texts_of(log)
    assert (1, 4) == (len(texts.all()), corrupt and corrupt.line)
