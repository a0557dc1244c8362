"""Answers ``GET /debug/requests`` with the live requests of the loaded models, to clients of this machine only."""

from collections.abc import Iterator
from typing import Any, Final

from attrs import asdict
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import BaseRoute

from reenact.runtime.http.document import TEXT, WHOLE, DescribedRoute, list_of, nullable, object_of
from reenact.runtime.http.exchange import JSON
from reenact.runtime.http.models import Models
from reenact.runtime.http.security import address_of

_REQUESTS: Final = object_of(
    requests=list_of(
        object_of(
            model=TEXT,
            session=TEXT,
            sequence=WHOLE,
            request_id=nullable(TEXT),
            slot=nullable(WHOLE),
            n_prompt=nullable(WHOLE),
            n_sampled=WHOLE,
            waits_for=nullable(TEXT),
            behind=list_of(WHOLE),
        )
    )
)


class DebugApi:
    """The endpoints that show live requests.

    Args:
        models: The models of the application.
    """

    def __init__(self, models: Models) -> None:
        self._models = models

    def routes(self) -> list[BaseRoute]:
        """Return its routes."""
        return [
            DescribedRoute("/debug/requests", self._list, summary="The live requests.", answers={JSON: _REQUESTS}),
            DescribedRoute(
                "/debug/requests/{id}",
                self._one,
                summary="The live requests with an id or a number.",
                answers={JSON: _REQUESTS},
            ),
        ]

    async def _list(self, request: Request) -> JSONResponse:
        _check_here(request)
        return JSONResponse({"requests": list(self._live())})

    async def _one(self, request: Request) -> JSONResponse:
        _check_here(request)
        wanted = request.path_params["id"]
        found = [one for one in self._live() if wanted in {one["request_id"], str(one["sequence"])}]
        if not found:
            raise HTTPException(404, "no live request has this id or number; the log holds those that have ended")
        return JSONResponse({"requests": found})

    def _live(self) -> Iterator[dict[str, Any]]:
        for one in self._models.running():
            session = one.runtime.header.session
            for live in one.runtime.live_requests():
                yield {"model": one.card.name, "session": session, **asdict(live)}


def _check_here(request: Request) -> None:
    """Refuse a client of another machine."""
    address = address_of("" if request.client is None else request.client.host)
    if address is None or not address.is_loopback:
        raise HTTPException(403, "only clients of this machine may see other requests")
