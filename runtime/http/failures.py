"""Errors as responses: their status, and a body in the shape of the API that was asked.

The rule that holds here: nothing of this machine goes out. What a client asked wrongly is told as it is; of what failed
here a client learns its kind, and the log has the rest.
"""

import re
from typing import Any, Final

import trio
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse

from reenact.actors.errors import (
    EngineBroken,
    InvalidRequest,
    LogBroken,
    Overloaded,
    ReenactError,
    SequenceFailed,
    shown,
)

RETRY_SECONDS: Final = 1
"""When a client that was turned away may come again."""

_PATH: Final = re.compile(r"""(?<![\w.])(?:/(?!api/|v1/)|[A-Za-z]:\\)[^\s'",:;()]+""")
"""A path of a machine; those of the two APIs are no secret."""

_OPENAI_NAMES: Final = {"num_predict": "max_tokens", "format": "response_format", "texts": "input"}
"""What OpenAI calls a field that a runtime calls otherwise."""

_KINDS: Final = {400: "invalid_request_error", 401: "authentication_error", 404: "not_found_error"}


class UnknownModel(ReenactError):
    """A model that is not served was asked for."""

    status = 404
    exit_code = 2

    def __init__(self, name: str) -> None:
        super().__init__(name)
        self.name = name

    def __str__(self) -> str:
        return f"model {shown(self.name)} not found: GET /api/tags lists what is served"


def told(error: Exception) -> str:
    """Return what a client is told of an error."""
    match error:
        case InvalidRequest() | Overloaded() | UnknownModel() | SequenceFailed():
            return _PATH.sub("(a path)", str(error))
        case EngineBroken():
            return "the model failed and answers nobody any more: the server's log says why"
        case LogBroken():
            return "the log cannot be written, and nothing may happen unrecorded"
        case trio.ClosedResourceError():
            return "the model is being unloaded: ask again"
        case HTTPException():
            return error.detail
        case _:
            return "a fault of the server"


def status_of(error: Exception) -> int:
    """Return the status of a response that tells of an error."""
    match error:
        case ReenactError():
            return error.status
        case trio.ClosedResourceError():
            return Overloaded.status
        case HTTPException():
            return error.status_code
        case _:
            return 500


def ollama_shape(error: Exception) -> dict[str, Any]:
    """Return an error as ollama tells it."""
    return {"error": told(error)}


def openai_shape(error: Exception) -> dict[str, Any]:
    """Return an error as OpenAI tells it."""
    if isinstance(error, InvalidRequest):
        error = InvalidRequest(_OPENAI_NAMES.get(error.field, error.field), error.reason)
    status = status_of(error)
    kind = _KINDS.get(status, "api_error" if status >= 500 else "invalid_request_error")  # noqa: PLR2004
    field = error.field if isinstance(error, InvalidRequest) else None
    code = "model_not_found" if isinstance(error, UnknownModel) else None
    return {"error": {"message": told(error), "type": kind, "param": field, "code": code}}


async def answer_failure(request: Request, error: Exception) -> JSONResponse:
    """Return the response that tells of an error."""
    path = request.scope["path"].removeprefix(request.scope.get("root_path", ""))
    status = status_of(error)
    headers = dict(error.headers or {}) if isinstance(error, HTTPException) else {}
    if status == Overloaded.status:
        headers["retry-after"] = str(RETRY_SECONDS)
    body = openai_shape(error) if path.startswith("/v1/") else ollama_shape(error)
    return JSONResponse(body, status, headers)
