"""The steps of requests that httpcore sends, and of the pauses between requests.

Beside documents.py and calls.py, which enter them; dial.py and exchanges.py have those of bodies.
"""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable
from typing import Any

from axonfs.errors import AxonError
from axonfs.http_client.urls import Origin, Url, shown
from axonfs.steps import Cause, Step

NO_NAME = "check the host name in the URL, and this machine's name servers (getent hosts NAME)"
NO_CONNECTION = "check that the server runs, and that no firewall drops what is sent to it"
NO_TLS = "the port accepts connections and says nothing in TLS: check the server and the URL"
NO_PROXY = "check the proxy that HTTPS_PROXY or HTTP_PROXY names"
# httpcore's words for what it begins.
_BEGUN = {
    "connection.connect_tcp.started": (Cause.CONNECTING, "connecting to", NO_CONNECTION),
    "connection.start_tls.started": (Cause.CONNECTING, "in the TLS handshake with", NO_TLS),
    "proxy.start_tls.started": (Cause.CONNECTING, "in the TLS handshake with", NO_TLS),
    "http11.send_request_headers.started": (
        Cause.FIRST_BYTE,
        "waiting for the answer of",
        None,
    ),
    "http11.receive_response_body.started": (Cause.RECEIVING, "receiving from", None),
}

# Those of them that are about the connection to a proxy, if there is one.
_OF_PROXY = frozenset({"connection.connect_tcp.started", "connection.start_tls.started"})


def told(step: Step, origin: Origin, proxy: Url | None) -> Callable[[str, Any], None]:
    """Has `step` say what httpcore does for a request to `origin`."""

    def tell(event: str, info: Any) -> None:
        if proxy is not None and (event in _OF_PROXY or _is_tunnel(info)):
            step.hint = NO_PROXY
            step.turn(Cause.CONNECTING, f"waiting for the proxy {shown(str(proxy))}")
        elif begun := _BEGUN.get(event):
            cause, text, step.hint = begun
            step.turn(cause, f"{text} {origin.authority}")

    return tell


def _is_tunnel(info: Any) -> bool:
    """Whether an event is of the request that has a proxy connect to a server."""
    request = info.get("request") if isinstance(info, dict) else None
    return getattr(request, "method", b"") == b"CONNECT"


def told_async(
    step: Step, origin: Origin, proxy: Url | None
) -> Callable[[str, Any], Awaitable[None]]:
    """The same for httpcore's asynchronous requests."""
    tell = told(step, origin, proxy)

    async def tell_async(event: str, info: Any) -> None:
        tell(event, info)

    return tell_async


def signing(url: str) -> Step:
    """The search for the credentials of a request, which may ask a server of its own."""
    return Step(Cause.DOCUMENT, "looking for credentials", about=f"for {shown(url)}")


def pausing(origin: str, seconds: float) -> Step:
    """A pause that `origin` asked for."""
    return Step(Cause.PAUSED, _until(f"the end of the pause that {origin} asked for", seconds))


def retrying(exc: AxonError, attempt: str, seconds: float, *, caches: bool = False) -> Step:
    """The pause before the next attempt, as in "attempt 3 of 6".

    Args:
        caches: whether only site caches may be asked, and all of them are set aside.
    """
    cause = Cause.CACHES if caches else Cause.PAUSED if exc.retry_after else Cause.RETRYING
    asked = f" (the source asked for {exc.retry_after:.0f} s)" if exc.retry_after else ""
    return Step(cause, _until(f"{attempt}{asked}", seconds), about=f"after: {exc.what}")


def _until(what: str, seconds: float) -> Callable[[], str]:
    end = time.monotonic() + seconds
    return lambda: f"waiting for {what}, {max(end - time.monotonic(), 0):.1f} s more"
