"""Errors as values: what they tell and how they travel."""

import pickle

import pytest

from reenact.actors import errors
from reenact.actors.errors import Failure

ERRORS = [
    errors.InvalidRequest("stop", "it is empty", recorded="it is"),
    errors.LogCorrupt(3, 1000, "it is torn"),
    *(kind("so") for kind in (errors.Overloaded, errors.SequenceFailed, errors.EngineBroken, errors.LogBroken)),
    errors.LogNotComparable("so"),
    errors.InternalError("so"),
]


@pytest.mark.parametrize("error", ERRORS, ids=lambda error: type(error).__name__)
def test_an_error_travels_between_processes(error: errors.ReenactError) -> None:
    """Every error can be pickled and comes back with its data and its text."""
    back = pickle.loads(pickle.dumps(error))
    assert (type(error), str(error), vars(error), error.args) == (type(back), str(back), vars(back), back.args)


def test_a_failure_becomes_its_callers_error() -> None:
    """A failure of the log is told by the error of its kind."""
    kinds = {
        "overloaded": errors.Overloaded,
        "sequence_failed": errors.SequenceFailed,
        "engine_broken": errors.EngineBroken,
        "internal_error": errors.InternalError,
    }
    for kind, error in kinds.items():
        made = errors.error_of(Failure(kind=kind, reason="so"))  # type: ignore[arg-type]
        assert (error, ("so",)) == (type(made), made.args)
    invalid = errors.error_of(Failure(kind="invalid_request", field="prompt", reason="so"))
    assert "prompt: so" == str(invalid)


def test_an_error_tells_what_it_knows() -> None:
    """The text of an error has its data: the field, the place, the reason."""
    expected = ["stop: it is empty", "line 3, byte 1,000: it is torn", *["so"] * 5]
    assert expected == [str(error) for error in ERRORS[:-1]]
    torn = errors.LogCorrupt(3, 1000, "it is torn")
    assert (3, 1000, "it is torn") == (torn.line, torn.byte, torn.reason)
    invalid = errors.InvalidRequest("stop", "it is empty")
    assert ("stop", "it is empty") == (invalid.field, invalid.reason)
    assert "so (this is a bug in reenact: please report it and send the log)" == str(ERRORS[-1])


def test_a_description_can_stand_in_a_log() -> None:
    """An exception is described by its type and its message, and what is no text in it is written out."""
    assert "KeyError: 'é'" == errors.description(KeyError("é"))
    assert "ValueError: a\\ud800" == errors.description(ValueError("a\ud800"))
    assert "lost \\udfff" == errors.description(errors.InternalError("lost \udfff"))


def test_an_error_is_raised_again_as_another_one() -> None:
    """A second task gets an exception of its own, with the same reason and the same cause."""
    error = errors.EngineBroken("so")
    error.__cause__ = KeyError("lost")
    another = errors.copy_of(error)
    assert another is not error
    assert (errors.EngineBroken, "so", error.__cause__) == (type(another), another.reason, another.__cause__)


def test_our_own_error_asks_once_for_a_report() -> None:
    """The plea to report a bug stands once, however often the error was described."""
    error = errors.InternalError(errors.description(errors.InternalError("lost")))
    assert 1 == str(error).count("please report")


def test_an_error_says_how_it_is_answered() -> None:
    """The class of an error holds the status of its response and the exit code of its command."""
    expected = {
        "InvalidRequest": (400, 2),
        "LogCorrupt": (500, 3),
        "Overloaded": (503, 1),
        "SequenceFailed": (500, 1),
        "EngineBroken": (500, 2),
        "LogBroken": (500, 2),
        "LogNotComparable": (500, 4),
        "InternalError": (500, 5),
    }
    assert expected == {type(error).__name__: (error.status, error.exit_code) for error in ERRORS}


def test_a_log_holds_another_reason_if_there_is_one() -> None:
    """The recorded reason of an invalid request is its reason, or the one that may stand in a log."""
    assert "it is empty" == errors.InvalidRequest("stop", "it is empty").recorded
    assert "it is" == errors.InvalidRequest("stop", "it is empty", recorded="it is").recorded
    found = errors.InvalidRequest.because("stop", "it cannot be read", KeyError("secret"))
    assert ("stop", "it cannot be read: KeyError: 'secret'") == found.args
    assert "it cannot be read: KeyError" == found.recorded


class Unshown(Exception):
    """An error that cannot be shown."""

    def __str__(self) -> str:
        raise OSError("gone")

    __repr__ = __str__


class Text(str):
    """A text that another text shows."""

    __slots__ = ()

    def __str__(self) -> str:
        return "another"


class Shown:
    """A value whose `repr` is no plain text."""

    def __repr__(self) -> str:
        return Text("mine")


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (2**53 - 1, "9007199254740991"),
        (-(2**53), "a number beyond 2^53"),
        (2**53, "a number beyond 2^53"),
        ("x" * 78, f"'{'x' * 78}'"),
        ("x" * 10**6, f"'{'x' * 79}…"),
        ([1] * 10**6, f"[{'1, ' * 26}1…"),
        ([1] * 81 + [Unshown()], f"[{'1, ' * 26}1…"),
        ([1] * 80 + [Unshown()], "a value of type list that cannot be shown"),
        ({"a": "é" * 100}, f"{{'a': '{'é' * 73}…"),
        (Unshown(), "a value of type Unshown that cannot be shown"),
        (Shown(), "mine"),
        (Text("mine"), "'mine'"),
    ],
)
def test_a_value_is_shown_in_short(value: object, text: str) -> None:
    """A value is shown as Python writes it, in 80 characters at most, whatever its type does."""
    assert text == errors.shown(value)


def test_a_message_that_cannot_be_shown_is_said_to_be_so() -> None:
    """An exception whose message cannot be had is described by its type."""
    assert "Unshown with a message that cannot be shown" == errors.description(Unshown())


def test_a_description_is_no_longer_than_a_log_wants() -> None:
    """A description of 2,000 characters stands as it is, and of a longer one the first 2,000 and an ellipsis."""
    longest = "x" * 1990
    assert f"KeyError: {longest[2:]}ab" == errors.description(errors.InternalError(f"KeyError: {longest[2:]}ab"))
    assert f"OSError: {longest}x…" == errors.description(OSError(f"{longest}xy"))
