"""httpcore's connections to one kind of origin, as the clients on the event loop use them.

httpcore takes URLs and header fields as they are and follows nothing. What a request means is
said in the modules that make it. Trio only.
"""

from __future__ import annotations

import ssl
from collections.abc import Mapping
from typing import Any

import h11
import httpcore

from axonfs.http_client.dial import proxy_authorization
from axonfs.http_client.routes import Trust
from axonfs.http_client.urls import Url

_KEPT: dict[str, Any] = {
    "max_connections": None,
    "max_keepalive_connections": 8,
    "keepalive_expiry": 30.0,
}


def connections(secure: bool, proxy: Url | None, trust: Trust) -> httpcore.AsyncConnectionPool:
    """Connections to origins of one scheme, through `proxy` where there is one."""
    # Without TLS a context that trusts nobody will do, and costs nothing.
    context = trust.context if secure else ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    if proxy is None:
        return httpcore.AsyncConnectionPool(ssl_context=context, **_KEPT)
    headers = [(name.encode(), text.encode()) for name, text in proxy_authorization(proxy).items()]
    return httpcore.AsyncHTTPProxy(
        proxy_url=_target(proxy), proxy_headers=headers, ssl_context=context, **_KEPT
    )


def check_surplus(response: httpcore.Response) -> None:
    """Have the connection of an answer that was read closed if more bytes came behind it.

    httpcore would take them for the next answer: it looks for bytes on the socket alone before it
    uses a connection again, and its parser or TLS may have taken them off.
    """
    stream: Any = response.stream
    parser: h11.Connection = stream._stream._connection._h11_state
    layer = response.extensions["network_stream"].get_extra_info("ssl_object")
    if parser.trailing_data[0] or (layer and _decrypts_more(layer)):
        parser.send_failed()


def _decrypts_more(layer: ssl.SSLObject) -> bool:
    try:
        layer.read(1)
    except ssl.SSLWantReadError:
        return False
    except ssl.SSLError:
        pass
    return True


def request(
    url: Url, headers: Mapping[str, str], *, connect: float, wait: float, forwarded: bool = False
) -> dict[str, Any]:
    """What a pool's `stream` takes, beside the method.

    Args:
        connect, wait: seconds to connect, and from one byte to the next.
        forwarded: a proxy is asked for the URL, so that the request line has all of it.
    """
    lines = [("Host", url.origin.authority), *headers.items()]
    timeout = {"connect": connect, "read": wait, "write": wait, "pool": None}
    return {
        "url": _target(url),
        "headers": [(name.encode(), text.encode()) for name, text in lines],
        "extensions": {"timeout": timeout} | ({"target": str(url).encode()} if forwarded else {}),
    }


def _target(url: Url) -> httpcore.URL:
    scheme, host, port = url.origin
    return httpcore.URL(
        scheme=scheme.encode(), host=host.encode(), port=port, target=url.target.encode()
    )
