"""Assembles the ASGI application from its layers and routes.

It runs on trio, as the runtime does, wherever it is mounted. It opens no runtimes: its caller passes them in.
"""

from collections.abc import Mapping, Sequence

import trio
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.middleware.cors import CORSMiddleware
from starlette.requests import Request
from starlette.responses import JSONResponse

from reenact.actors.errors import InvalidRequest, ReenactError
from reenact.runtime.http.debug import DebugApi
from reenact.runtime.http.document import TEXT, DescribedRoute, document_route, object_of
from reenact.runtime.http.exchange import JSON, PLAIN, REQUEST_ID, SEQUENCE, SESSION, Tracing
from reenact.runtime.http.failures import Unforeseen, answer_failure
from reenact.runtime.http.metrics import MetricsEndpoint
from reenact.runtime.http.models import GivenModels, Models
from reenact.runtime.http.ollama.endpoints import OllamaApi
from reenact.runtime.http.openai.endpoints import OpenaiApi
from reenact.runtime.http.security import ALLOWED_HEADERS, Guard, Keys, origin_pattern
from reenact.runtime.runtime import Runtime


def app(
    runtimes: Mapping[str, Runtime] | Models, *, origins: Sequence[str] = (), keys: Sequence[str] = ()
) -> Starlette:
    """Return the ASGI application that serves ollama's and OpenAI's API, for trio.

    Args:
        runtimes: Open runtimes by their names for clients; each must stay open for as long as it is served.
        origins: The Origins of pages that may send requests, besides those of this machine; "*" matches any text.
        keys: Each client must send one of these keys; without keys every client is admitted.
    """
    models: Models = GivenModels(runtimes) if isinstance(runtimes, Mapping) else runtimes
    pattern = origin_pattern(origins)
    return Starlette(
        routes=[
            *OllamaApi(models).routes(),
            *OpenaiApi(models).routes(),
            *DebugApi(models).routes(),
            DescribedRoute(
                "/health",
                _health,
                summary="Whether the server runs.",
                answers={JSON: object_of(status=TEXT)},
                is_open=True,
            ),
            DescribedRoute(
                "/metrics", MetricsEndpoint(models).__call__, summary="Figures for Prometheus.", answers={PLAIN: TEXT}
            ),
            document_route(needs_key=bool(keys)),
        ],
        middleware=[
            Middleware(Tracing),
            Middleware(Guard, origins=pattern),
            Middleware(
                CORSMiddleware,
                allow_origin_regex=pattern,
                allow_methods=["GET", "POST", "PUT", "PATCH", "DELETE", "HEAD", "OPTIONS"],
                allow_headers=ALLOWED_HEADERS,
                expose_headers=[REQUEST_ID, SESSION, SEQUENCE],
            ),
            Middleware(Keys, keys=keys),
            Middleware(Unforeseen),
        ],
        exception_handlers={
            HTTPException: answer_failure,
            InvalidRequest: answer_failure,
            ReenactError: answer_failure,
            trio.ClosedResourceError: answer_failure,
            Exception: answer_failure,
        },
    )


async def _health(_: Request) -> JSONResponse:
    return JSONResponse({"status": "ok"})
