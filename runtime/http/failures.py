"""Turns errors into responses, with a status and a body in the shape of the API that the client uses.

The rule that holds here: nothing about this machine goes out. A response describes a client's own mistake in full; for
a failure of the server it has only the kind, and the server's console has the rest.
"""

import re
from collections.abc import Mapping
from typing import Any, Final

import trio
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from reenact.actors.errors import (
    EngineBroken,
    InvalidRequest,
    LogBroken,
    Overloaded,
    ReenactError,
    SequenceFailed,
    shown,
)
from reenact.actors.limits import BEYOND_CONTEXT

RETRY_SECONDS: Final = 1
"""The seconds after which a client that was turned away may try again."""

_PATH: Final = re.compile(r"""(?<![\w.])(?:/(?!api/|v1/)|[A-Za-z]:\\)[^\s'",:;()]+""")
"""A path of a machine; those of the two APIs are public."""

_OPENAI_NAMES: Final = {
    "num_predict": "max_tokens",
    "format": "response_format",
    "texts": "input",
    "think": "reasoning_effort",
}
"""OpenAI's names for fields with another name in a runtime."""

_OLLAMA_NAMES: Final = {"texts": "input"}
"""ollama's names likewise."""

_NAMES_AT: Final[Mapping[str, Mapping[str, str]]] = {
    "/api/generate": {"messages": "prompt"},
    "/api/embeddings": {"texts": "prompt"},
    "/v1/responses": {
        "messages": "input",
        "num_predict": "max_output_tokens",
        "format": "text.format",
        "think": "reasoning",
    },
}
"""The names that a path has for itself."""

_KINDS: Final = {400: "invalid_request_error", 401: "authentication_error", 404: "not_found_error"}


class UnknownModel(ReenactError):
    """The requested model is not served."""

    status = 404
    exit_code = 2

    def __init__(self, name: str) -> None:
        super().__init__(name)
        self.name = name

    def __str__(self) -> str:
        return f"model {shown(self.name)} not found: GET /api/tags lists the served models"


def told(error: Exception) -> str:
    """Return the message about an error for a client."""
    match error:
        case InvalidRequest() | Overloaded() | UnknownModel() | SequenceFailed():
            return _PATH.sub("(a path)", str(error))
        case EngineBroken():
            return "the model cannot be used: the server's console has the reason"
        case LogBroken():
            return "the log cannot be written, and nothing is computed without one: the server's console has the reason"
        case trio.ClosedResourceError():
            return "the model is being unloaded: try again"
        case HTTPException(status_code=404, detail="Not Found"):
            return "there is no such path: GET /openapi.json lists those that there are"
        case HTTPException(status_code=405):
            return f"the path does not have this method: it has {(error.headers or {}).get('Allow', 'others')}"
        case HTTPException():
            return error.detail
        case _:
            return "internal error of the server"


def status_of(error: Exception) -> int:
    """Return the status of a response that reports an error."""
    match error:
        case ReenactError():
            return error.status
        case trio.ClosedResourceError():
            return Overloaded.status
        case HTTPException():
            return error.status_code
        case _:
            return 500


def ollama_shape(error: Exception, path: str = "") -> dict[str, Any]:
    """Return an error in ollama's shape, with the names of a path's fields."""
    return {"error": told(_renamed(error, _OLLAMA_NAMES, path))}


def openai_shape(error: Exception, path: str = "") -> dict[str, Any]:
    """Return an error in OpenAI's shape, with the names of a path's fields."""
    error = _renamed(error, _OPENAI_NAMES, path)
    status = status_of(error)
    kind = _KINDS.get(status, "api_error" if status >= 500 else "invalid_request_error")  # noqa: PLR2004
    field = error.field if isinstance(error, InvalidRequest) else None
    code = "model_not_found" if isinstance(error, UnknownModel) else None
    if isinstance(error, InvalidRequest) and BEYOND_CONTEXT in error.reason:
        code = "context_length_exceeded"  # By which clients know it among others that are 400.
    return {"error": {"message": told(error), "type": kind, "param": field, "code": code}}


def _renamed(error: Exception, names: Mapping[str, str], path: str) -> Exception:
    if isinstance(error, InvalidRequest):
        name = _NAMES_AT.get(path, {}).get(error.field) or names.get(error.field, error.field)
        return InvalidRequest(name, error.reason)
    return error


async def answer_failure(request: Request, error: Exception) -> JSONResponse:
    """Return the response that reports an error."""
    path = request.scope["path"].removeprefix(request.scope.get("root_path", ""))
    status = status_of(error)
    headers = dict(error.headers or {}) if isinstance(error, HTTPException) else {}
    if status == Overloaded.status:
        headers["retry-after"] = str(RETRY_SECONDS)
    body = openai_shape(error, path) if path.startswith("/v1/") else ollama_shape(error, path)
    return JSONResponse(body, status, headers)


class Unforeseen:
    """Answers an error that no handler knows within the layers that name the request and admit its page.

    Args:
        app: The application that may raise.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request; an error is raised all the same, behind its answer."""
        started = False

        async def sending(message: Message) -> None:
            nonlocal started
            started = True
            await send(message)

        try:
            await self._app(scope, receive, sending)
        except Exception as error:
            if scope["type"] == "http" and not started:
                response = await answer_failure(Request(scope), error)
                await response(scope, receive, send)
            raise
