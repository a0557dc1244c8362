"""Errors by who is at fault. Attributes carry the data, ``str()`` renders it.

Each class says how a program and a server answer with it: the exit code of a command, and the status of a response.

A failure that ends a sequence is a fact of the log first (`Failure`); `error_of` makes the exception that its caller
sees.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import ClassVar, Final, Literal

from attrs import frozen

from reenact.actors.limits import MAX_INTEGER

_MAX_SHOWN: Final = 80
_MAX_DESCRIPTION: Final = 2000
_SEQUENCES: Final = (str, bytes, list, tuple)


FailureKind = Literal["invalid_request", "overloaded", "sequence_failed", "engine_broken", "internal_error"]


@frozen(kw_only=True)
class Failure:
    """Why a sequence ended with ``error``; `error_of` makes the exception."""

    kind: FailureKind
    field: str = ""
    """The argument that is wrong, where the caller is at fault."""
    reason: str


class ReenactError(Exception):
    """The base of every error that is reenact's own."""

    status: ClassVar[int] = 500
    """Of an HTTP response."""
    exit_code: ClassVar[int] = 1
    """Of a command that ends with it."""


class InvalidRequest(ReenactError, ValueError):
    """The caller asked for something that cannot be.

    Attributes:
        field: The name of the argument that is wrong.
        reason: What is wrong with it, and what would be right.
        recorded: The reason as a log has it: without what an exception of others says, which may be anybody's text.
    """

    status = 400
    exit_code = 2

    def __init__(self, field: str, reason: str, *, recorded: str | None = None) -> None:
        super().__init__(field, reason)
        self.field = field
        self.reason = reason
        self.recorded = reason if recorded is None else recorded

    @classmethod
    def because(cls, field: str, what: str, error: BaseException) -> "InvalidRequest":
        """Return the error of an argument that an exception of others tells of: a log has the exception's type alone.

        Args:
            field: The name of the argument.
            what: What could not be done with it.
            error: The exception.
        """
        return cls(field, f"{what}: {description(error)}", recorded=f"{what}: {type(error).__name__}")

    def __str__(self) -> str:
        return f"{self.field}: {self.reason}"


class _ReasonedError(ReenactError):
    """An error that is told by its reason alone."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason

    def __str__(self) -> str:
        return self.reason


class Overloaded(_ReasonedError):
    """The load: as many requests wait for a slot as may."""

    status = 503


class SequenceFailed(_ReasonedError):
    """This sequence: a decode or its logits failed. Other sequences are not concerned."""


class EngineBroken(_ReasonedError):
    """The engine: it cannot be loaded, or raised. The runtime takes no more requests."""

    exit_code = 2


class LogBroken(_ReasonedError):
    """The log cannot be written. The runtime takes no more requests, because nothing may happen unrecorded."""

    exit_code = 2


class LogCorrupt(_ReasonedError):
    """The log's bytes are not what was written.

    Attributes:
        line: The line that is wrong, from 1.
        byte: The offset in the file at which that line begins.
        reason: What is wrong with it.
    """

    exit_code = 3

    def __init__(self, line: int, byte: int, reason: str) -> None:
        Exception.__init__(self, line, byte, reason)
        self.reason = reason
        self.line = line
        self.byte = byte

    def __str__(self) -> str:
        return f"line {self.line}, byte {self.byte:,}: {self.reason}"


class LogNotComparable(_ReasonedError):
    """The log is of a kind that this program cannot compare: too new, or empty."""

    exit_code = 4


class InternalError(_ReasonedError):
    """Us: a rule of reenact's own was broken. Please report it and send the log."""

    exit_code = 5

    def __str__(self) -> str:
        return f"{self.reason} (this is a bug in reenact: please report it and send the log)"


def copy_of(error: "_ReasonedError") -> "_ReasonedError":
    """Return a new exception like ``error``: one that is raised in several tasks would carry all their tracebacks."""
    another = type(error)(error.reason)
    another.__cause__ = error.__cause__
    return another


def description(error: BaseException) -> str:
    """Return an exception's type and message as text that a log can hold; for one of our own bugs, its reason."""
    try:
        text = error.reason if isinstance(error, InternalError) else f"{type(error).__name__}: {error}"
    except Exception:  # noqa: BLE001  # an exception may be anybody's, and its __str__ may raise
        text = f"{type(error).__name__} with a message that cannot be shown"
    return cut(text)


def shown(value: object) -> str:
    """Return a value as it may stand in an error: short, and text that a log can hold, whatever its ``repr`` does."""
    if type(value) is int and abs(value) > MAX_INTEGER:
        return "a number beyond 2^53"
    try:
        # What follows the part that is shown need not be looked at, however long it is.
        part = value[: _MAX_SHOWN + 1] if type(value) in _SEQUENCES else value  # type: ignore[index]  # one of them
        text = str.__str__(repr(part))
    except Exception:  # noqa: BLE001  # as above
        text = f"a value of type {type(value).__name__} that cannot be shown"
    return cut(text, _MAX_SHOWN)


@contextmanager
def reading(field: str) -> Iterator[None]:
    """Let whatever a caller's value raises while it is read be an error of the argument that it was given as.

    Raises:
        InvalidRequest: The value raised.
    """
    try:
        yield
    except InvalidRequest:
        raise
    except Exception as error:
        raise InvalidRequest.because(field, "it cannot be read", error) from error


def cut(text: str, length: int = _MAX_DESCRIPTION) -> str:
    """Return a text that a log can hold, no longer than so many characters."""
    text = text[: length + 1].encode("utf-8", "backslashreplace").decode()
    return text if len(text) <= length else text[:length] + "…"


def error_of(failure: Failure) -> ReenactError:
    """Return the exception that tells a caller of ``failure``."""
    if failure.kind == "invalid_request":
        return InvalidRequest(failure.field, failure.reason)
    return _BY_KIND[failure.kind](failure.reason)


_BY_KIND: dict[FailureKind, type[_ReasonedError]] = {
    "overloaded": Overloaded,
    "sequence_failed": SequenceFailed,
    "engine_broken": EngineBroken,
    "internal_error": InternalError,
}
