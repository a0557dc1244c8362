"""Makes the OpenAPI document of the application from its routes, and answers ``GET /openapi.json`` with it.

The rules that hold here:

* A route has its own description. A body is described by the table that reads it (`reenact.runtime.http.fields`), so
  that the document and the server cannot differ.
* The description of an answer has the fields that clients may rely on; tests compare it with the answers.
"""

import re
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from importlib.metadata import version
from typing import Any, Final, Literal

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import BaseRoute, Route

from reenact.runtime.http.exchange import JSON
from reenact.runtime.http.fields import Schema, Table

_PARAMETER: Final = re.compile(r"\{(\w+)(?::\w+)?\}")

TEXT: Final = {"type": "string"}
TIME: Final = {"type": "string", "format": "date-time"}
FLAG: Final = {"type": "boolean"}
WHOLE: Final = {"type": "integer"}
NUMBER: Final = {"type": "number"}

Answers = Mapping[str, Schema]
"""The schemas of an answer, by its content types; for a stream it is the schema of one part."""

_ALWAYS: Final = {
    401: "A key is required.",
    403: "The Host or the Origin is refused.",
    500: "A sequence, an engine or a log failed.",
}
_WITH_NAME: Final = {404: "It is unknown."}
_WITH_BODY: Final = {
    400: "A field is wrong or refused, or the body is not a JSON object.",
    404: "The model is unknown.",
    408: "The body did not arrive in time.",
    413: "The body is too long.",
    415: "The body is encoded.",
    503: "The queue is full, or the model is being unloaded; `Retry-After` has the seconds to wait.",
}
_UNCHANGING: Final = {501: "The server does not change models."}


def object_of(optional: Sequence[str] = (), /, **properties: Any) -> Schema:
    """Return the schema of an object.

    Args:
        optional: The names of the fields that may be absent.
        properties: The schema of each field.
    """
    return {
        "type": "object",
        "properties": properties,
        "required": [name for name in properties if name not in optional],
    }


def list_of(items: Schema) -> Schema:
    """Return the schema of a list."""
    return {"type": "array", "items": items}


def nullable(schema: Schema) -> Schema:
    """Return the schema of a value that may be null."""
    return {"anyOf": [schema, {"type": "null"}]}


def event_of(data: Schema) -> Schema:
    """Return the schema of an event of a stream (SSE)."""
    whole = {"contentMediaType": JSON, "contentSchema": data}
    return object_of(data={"type": "string", "anyOf": [whole, {"const": "[DONE]"}]})


OLLAMA_ERROR: Final = object_of(error=TEXT)
OPENAI_ERROR: Final = object_of(
    error=object_of(message=TEXT, type=TEXT, param=nullable(TEXT), code=nullable(TEXT)),
)


class DescribedRoute(Route):
    """A route with its description.

    Args:
        path: Its path.
        answer: The function that answers.
        summary: One sentence for the document.
        method: Its method; HEAD goes with GET.
        body: The table of the body's fields; None if there is no body.
        answers: The schemas of its answers; without any it always fails with 501.
        is_open: Whether it needs no key.
    """

    def __init__(
        self,
        path: str,
        answer: Callable[[Request], Awaitable[Response] | Response],
        *,
        summary: str,
        method: Literal["GET", "POST", "DELETE"] = "GET",
        body: Table | None = None,
        answers: Answers,
        is_open: bool = False,
    ) -> None:
        super().__init__(path, answer, methods=[method])
        self._summary = summary
        self._method = method
        self._body = body
        self._answers = answers
        self._is_open = is_open

    def described(self, *, needs_key: bool) -> tuple[str, str, dict[str, Any]]:
        """Return the path, the method and the description.

        Args:
            needs_key: Whether the application's clients must send a key.
        """
        names = _PARAMETER.findall(self.path)
        statuses = _ALWAYS | (_WITH_NAME if names else {}) | (_WITH_BODY if self._body is not None else {})
        statuses |= {} if self._answers else _UNCHANGING
        error = OPENAI_ERROR if self.path.startswith("/v1/") else OLLAMA_ERROR
        responses = {str(status): _response(meaning, {JSON: error}) for status, meaning in sorted(statuses.items())}
        if self._answers:
            responses = {"200": _response("The answer.", self._answers), **responses}
        operation: dict[str, Any] = {"summary": self._summary, "responses": responses}
        if names:
            parameters = [{"name": name, "in": "path", "required": True, "schema": TEXT} for name in names]
            operation["parameters"] = parameters
        if self._body is not None:
            operation["requestBody"] = {"required": True, "content": {JSON: {"schema": self._body.schema}}}
        if needs_key and not self._is_open:
            operation["security"] = [{"key": []}]
        return _PARAMETER.sub(r"{\1}", self.path), self._method.lower(), operation


def _response(meaning: str, answers: Answers) -> dict[str, Any]:
    return {"description": meaning, "content": {kind: {"schema": schema} for kind, schema in answers.items()}}


def openapi_document(routes: Iterable[BaseRoute], *, needs_key: bool) -> dict[str, Any]:
    """Return the document of an application's routes.

    Args:
        routes: The routes; of these the described ones are in the document.
        needs_key: Whether the application's clients must send a key.
    """
    paths: dict[str, dict[str, Any]] = {}
    for route in routes:
        if isinstance(route, DescribedRoute):
            path, method, operation = route.described(needs_key=needs_key)
            paths.setdefault(path, {})[method] = operation
    components = {"securitySchemes": {"key": {"type": "http", "scheme": "bearer"}}} if needs_key else {}
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "reenact",
            "version": version("reenact"),
            "description": "ollama's API under `/api`, and OpenAI's under `/v1`, over recorded sessions.",
        },
        "paths": paths,
        "components": components,
    }


def document_route(*, needs_key: bool) -> DescribedRoute:
    """Return the route that answers with the document of the application that has it.

    Args:
        needs_key: Whether the application's clients must send a key.
    """

    async def answer(request: Request) -> JSONResponse:
        return JSONResponse(openapi_document(request.app.routes, needs_key=needs_key))

    return DescribedRoute("/openapi.json", answer, summary="This document.", answers={JSON: object_of(openapi=TEXT)})
