"""Errors as values: what they tell and how they travel."""

import pickle

import pytest

from reenact.actors import errors
from reenact.actors.events import Failure

ERRORS = [
    errors.InvalidRequest("stop", "it is empty"),
    errors.LogCorrupt(3, 1000, "it is torn"),
    *(kind("so") for kind in (errors.Overloaded, errors.SequenceFailed, errors.EngineBroken, errors.LogBroken)),
    errors.LogNotComparable("so"),
    errors.InternalError("so"),
]


@pytest.mark.parametrize("error", ERRORS, ids=lambda error: type(error).__name__)
def test_an_error_travels_between_processes(error: errors.ReenactError) -> None:
    """Every error can be pickled and comes back with its data and its text."""
    back = pickle.loads(pickle.dumps(error))
    assert (type(error), str(error), vars(error)) == (type(back), str(back), vars(back))


def test_a_failure_becomes_its_callers_error() -> None:
    """A failure of the log is told by the error of its kind."""
    kinds = {
        "overloaded": errors.Overloaded,
        "sequence_failed": errors.SequenceFailed,
        "engine_broken": errors.EngineBroken,
        "internal_error": errors.InternalError,
    }
    for kind, error in kinds.items():
        assert type(errors.error_of(Failure(kind=kind, reason="so"))) is error  # type: ignore[arg-type]
    invalid = errors.error_of(Failure(kind="invalid_request", field="prompt", reason="so"))
    assert "prompt: so" == str(invalid)


def test_our_own_error_asks_once_for_a_report() -> None:
    """The plea to report a bug stands once, however often the error was described."""
    error = errors.InternalError(errors.description(errors.InternalError("lost")))
    assert 1 == str(error).count("please report")
