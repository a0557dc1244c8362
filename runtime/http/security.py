"""Who may ask: hosts and origins as ollama takes them, and keys.

The rules that hold here:

* On a loopback address a request must be meant for this machine by its Host: a page of another site can have its name
  resolved to 127.0.0.1.
* A page of another site may not ask: its Origin is refused, unless it was allowed.
* Keys are compared in constant time and are never told.
"""

import hmac
import re
import socket
from collections.abc import Sequence
from ipaddress import ip_address
from typing import Final

from starlette.datastructures import Headers
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.types import ASGIApp, Receive, Scope, Send

from reenact.runtime.http.failures import answer_failure

ORIGINS: Final = (
    r"https?://(?:localhost|127\.0\.0\.1|0\.0\.0\.0)(?::[0-9]{1,5})?",
    r"(?:app|file|tauri)://.*",
    r"vscode-webview://.*|vscode-file://.*",
)
"""Pages that may ask, as patterns: those of this machine, and of applications that show pages."""

ALLOWED_HEADERS: Final = (
    "authorization",
    "content-type",
    "user-agent",
    "accept",
    "x-requested-with",
    "x-request-id",
    "openai-beta",
    *(
        f"x-stainless-{name}"
        for name in (
            "arch",
            "async",
            "custom-poll-interval",
            "helper-method",
            "lang",
            "os",
            "package-version",
            "poll-helper",
            "retry-count",
            "runtime",
            "runtime-version",
            "timeout",
        )
    ),
)

_LOCAL: Final = ("localhost", "local", "internal")
_OPEN_PATHS: Final = frozenset({"/", "/health"})
"""What says that the server is there, and nothing else: it takes no key."""


def origin_pattern(more: Sequence[str]) -> str:
    """Return the pattern of the pages that may ask.

    Args:
        more: Further ones, as they are written in an Origin; "*" in one stands for anything.
    """
    written = (re.escape(origin).replace(r"\*", ".*") for origin in more)
    return "|".join(f"(?:{pattern})" for pattern in (*ORIGINS, *written))


class Guard:
    """Turns away who may not ask.

    Args:
        app: What is guarded.
        origins: The pattern of the pages that may ask.
        keys: One of them is wanted; none for everybody.
    """

    def __init__(self, app: ASGIApp, *, origins: str, keys: Sequence[str]) -> None:
        self._app = app
        self._origins = re.compile(origins)
        self._keys = [key.encode() for key in keys]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request, or let it through."""
        if scope["type"] == "http" and (refused := self._refused(scope)) is not None:
            response = await answer_failure(Request(scope), refused)
            await response(scope, receive, send)
            return
        await self._app(scope, receive, send)

    def _refused(self, scope: Scope) -> HTTPException | None:
        headers = Headers(scope=scope)
        host = headers.get("host", "")
        if _is_loopback(scope) and not _is_here(_name_of(host)):
            return HTTPException(403, "the Host is not this machine's")
        origin = headers.get("origin")
        if origin is not None and not self._may_ask(origin, host):
            return HTTPException(403, "pages of this Origin may not ask here")
        if self._keys and scope["method"] != "OPTIONS" and scope["path"] not in _OPEN_PATHS:
            kind, _, key = headers.get("authorization", "").partition(" ")
            given = key.strip().encode("latin-1", "replace")
            known = [hmac.compare_digest(given, one) for one in self._keys]  # All of them, whichever it is.
            if kind.lower() != "bearer" or not any(known):
                return HTTPException(401, "a key is wanted", {"www-authenticate": "Bearer"})
        return None

    def _may_ask(self, origin: str, host: str) -> bool:
        own = origin in {f"http://{host}", f"https://{host}"}
        return own or self._origins.fullmatch(origin) is not None


def _is_loopback(scope: Scope) -> bool:
    """Return whether a request came to an address of this machine alone."""
    address = (scope.get("server") or ("",))[0]
    try:
        return ip_address(address).is_loopback
    except ValueError:
        return address == "localhost"


def _name_of(host: str) -> str:
    """Return a Host without its port."""
    if host.startswith("["):
        return host[1:].partition("]")[0]
    return host.partition(":")[0].lower().removesuffix(".")


def _is_here(name: str) -> bool:
    try:
        address = ip_address(name)
    except ValueError:
        return name in {"localhost", socket.gethostname().lower()} or name.rpartition(".")[2] in _LOCAL
    return address.is_loopback or address.is_private
