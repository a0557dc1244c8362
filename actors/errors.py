"""Defines the errors, one class for each cause. Attributes carry the data, ``str()`` renders it.

Each class has the exit code of a command that ends with it, and the status of an HTTP response.

The log first records a failure that ends a sequence (`Failure`); then `error_of` makes the exception for its caller.
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
    """The reason why a sequence ended with ``error``; `error_of` makes the exception."""

    kind: FailureKind
    field: str = ""
    """The argument that is wrong, if the caller is at fault."""
    reason: str


class ReenactError(Exception):
    """The base of every error that is reenact's own."""

    status: ClassVar[int] = 500
    """The status of an HTTP response that reports it."""
    exit_code: ClassVar[int] = 1
    """The exit code of a command that ends with it."""


class InvalidRequest(ReenactError, ValueError):
    """The caller asked for something impossible.

    Attributes:
        field: The name of the argument that is wrong.
        reason: The fault of the argument, and the values that would be right.
        recorded: The reason as a log holds it: without the message of another library's exception, which may quote
            private text.
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
        """Return the error of an argument that led to an exception; a log holds only the exception's type.

        Args:
            field: The name of the argument.
            what: The operation that failed.
            error: The exception.
        """
        return cls(field, f"{what}: {description(error)}", recorded=f"{what}: {type(error).__name__}")

    def __str__(self) -> str:
        return f"{self.field}: {self.reason}"


class _ReasonedError(ReenactError):
    """An error that consists of its reason alone."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason

    def __str__(self) -> str:
        return self.reason


class Overloaded(_ReasonedError):
    """Too much load: as many requests wait for a slot as the limit allows."""

    status = 503


class SequenceFailed(_ReasonedError):
    """This sequence failed, in a decode or with its logits. Other sequences are not affected."""


class EngineBroken(_ReasonedError):
    """The engine cannot be loaded, or it raised. The runtime takes no more requests."""

    exit_code = 2


class LogBroken(_ReasonedError):
    """The log cannot be written. The runtime takes no more requests, because nothing may happen unrecorded."""

    exit_code = 2


class LogCorrupt(_ReasonedError):
    """The log's bytes are not those that were written.

    Attributes:
        line: The number of the corrupt line, from 1.
        byte: The offset in the file at which that line begins.
        reason: The fault of the line.
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
    """The program cannot compare this log: it is too new, or empty."""

    exit_code = 4


class ModelNotFound(ReenactError):
    """The model with which a log was recorded cannot be found."""

    exit_code = 2


class InternalError(_ReasonedError):
    """A rule of reenact's own was broken: a bug. Please report it and send the log."""

    exit_code = 5

    def __str__(self) -> str:
        return f"{self.reason} (this is a bug in reenact: please report it and send the log)"


def copy_of(error: "_ReasonedError") -> "_ReasonedError":
    """Return a copy of ``error``, because an exception that several tasks raise would carry all their tracebacks."""
    another = type(error)(error.reason)
    another.__cause__ = error.__cause__
    return another


def description(error: BaseException) -> str:
    """Return an exception's type and message as text that a log can hold; for an `InternalError`, its reason."""
    try:
        text = error.reason if isinstance(error, InternalError) else f"{type(error).__name__}: {error}"
    except Exception:  # noqa: BLE001  # any library's exception, whose __str__ may raise
        text = f"{type(error).__name__} with a message that cannot be shown"
    return cut(text)


def shown(value: object) -> str:
    """Return a value as short text for an error, which a log can hold; its ``repr`` may do anything."""
    if type(value) is int and abs(value) > MAX_INTEGER:
        return "a number beyond 2^53"
    try:
        # Only the part that is shown is read, because the value may be very long.
        part = value[: _MAX_SHOWN + 1] if type(value) in _SEQUENCES else value  # type: ignore[index]  # one of them
        text = str.__str__(repr(part))
    except Exception:  # noqa: BLE001  # as above
        text = f"a value of type {type(value).__name__} that cannot be shown"
    return cut(text, _MAX_SHOWN)


@contextmanager
def reading(field: str) -> Iterator[None]:
    """Report an exception that a caller's value raises while it is read as an error of that argument.

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
    """Return a text that a log can hold, with at most ``length`` characters and an ellipsis."""
    text = text[: length + 1].encode(errors="backslashreplace").decode()
    return text if len(text) <= length else text[:length] + "…"


def error_of(failure: Failure) -> ReenactError:
    """Return the exception that reports ``failure`` to the caller."""
    if failure.kind == "invalid_request":
        return InvalidRequest(failure.field, failure.reason)
    return _BY_KIND[failure.kind](failure.reason)


_BY_KIND: dict[FailureKind, type[_ReasonedError]] = {
    "overloaded": Overloaded,
    "sequence_failed": SequenceFailed,
    "engine_broken": EngineBroken,
    "internal_error": InternalError,
}
