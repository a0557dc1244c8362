"""Admits or refuses requests by their Host and Origin, as ollama does, and by keys.

The rules that hold here:

* On a loopback address a request's Host must mean this machine, because a page of another site can have its name
  resolved to 127.0.0.1.
* A page of another site may not send requests: its Origin is refused, unless it was allowed.
* Keys are compared in constant time and never appear in a response.
"""

import hmac
import re
import socket
from collections.abc import Sequence
from ipaddress import IPv4Address, IPv6Address, ip_address
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
"""The Origins of pages that may send requests, as patterns: those of this machine, and of desktop applications."""

ALLOWED_HEADERS: Final = (
    "authorization",
    "content-type",
    "user-agent",
    "accept",
    "x-requested-with",
    "x-request-id",
    "traceparent",
    "tracestate",
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
"""The paths that need no key, because they only report that the server runs."""


def origin_pattern(more: Sequence[str]) -> str:
    """Return the pattern of the Origins that may send requests.

    Args:
        more: Further Origins; "*" in one matches any text.
    """
    written = (re.escape(origin).replace(r"\*", ".*") for origin in more)
    return "|".join(f"(?:{pattern})" for pattern in (*ORIGINS, *written))


class Guard:
    """Turns away requests that are not meant for this machine, or come from a page that may not send them.

    Args:
        app: The application to guard.
        origins: The pattern of the Origins that may send requests.
    """

    def __init__(self, app: ASGIApp, *, origins: str) -> None:
        self._app = app
        self._origins = re.compile(origins)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Refuse a request, or pass it on."""
        refused = self._refused(scope) if scope["type"] == "http" else None
        await _answer(self._app if refused is None else refused, scope, receive, send)

    def _refused(self, scope: Scope) -> HTTPException | None:
        headers = Headers(scope=scope)
        host = headers.get("host", "")
        if _is_loopback(scope) and not _is_here(_name_of(host)):
            return HTTPException(403, "the Host is not this machine's")
        origin = headers.get("origin")
        if origin is not None and not self._may_ask(origin, host):
            return HTTPException(403, "pages of this Origin may not send requests")
        return None

    def _may_ask(self, origin: str, host: str) -> bool:
        own = origin in {f"http://{host}", f"https://{host}"}
        return own or self._origins.fullmatch(origin) is not None


class Keys:
    """Turns away requests without a key; it lies within CORS, so that the page of a client can read that.

    Args:
        app: The application to guard.
        keys: A request must have one of these keys; without keys every request is admitted.
    """

    def __init__(self, app: ASGIApp, *, keys: Sequence[str]) -> None:
        self._app = app
        self._keys = [key.encode() for key in keys]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Refuse a request, or pass it on."""
        closed = scope["type"] == "http" and scope["method"] != "OPTIONS" and scope["path"] not in _OPEN_PATHS
        refused = HTTPException(401, "a key is required", {"www-authenticate": "Bearer"})
        await _answer(
            refused if closed and self._keys and not self._has_key(scope) else self._app, scope, receive, send
        )

    def _has_key(self, scope: Scope) -> bool:
        kind, _, key = Headers(scope=scope).get("authorization", "").partition(" ")
        given = key.strip().encode("latin-1", "replace")
        known = [hmac.compare_digest(given, one) for one in self._keys]  # Always all, for constant time.
        return kind.lower() == "bearer" and any(known)


async def _answer(answer: ASGIApp | HTTPException, scope: Scope, receive: Receive, send: Send) -> None:
    """Pass a request on, or answer it with a refusal."""
    if isinstance(answer, HTTPException):
        answer = await answer_failure(Request(scope), answer)
    await answer(scope, receive, send)


def address_of(name: str) -> IPv4Address | IPv6Address | None:
    """Return the address that a text is, or None; an IPv4 address inside an IPv6 one is meant as it is.

    A socket of ``::`` shows 127.0.0.1 as ``::ffff:127.0.0.1``, which Python up to 3.12 does not take for loopback.
    """
    try:
        address = ip_address(name)
    except ValueError:
        return None
    return getattr(address, "ipv4_mapped", None) or address


def _is_loopback(scope: Scope) -> bool:
    """Return whether a request came to a loopback address."""
    name = (scope.get("server") or ("",))[0]
    address = address_of(name)
    return name == "localhost" if address is None else address.is_loopback


def _name_of(host: str) -> str:
    """Return a Host without its port."""
    if host.startswith("["):
        return host[1:].partition("]")[0]
    return host.partition(":")[0].lower().removesuffix(".")


def _is_here(name: str) -> bool:
    address = address_of(name)
    if address is None:
        return name in {"localhost", socket.gethostname().lower()} or name.rpartition(".")[2] in _LOCAL
    return address.is_loopback or address.is_private
