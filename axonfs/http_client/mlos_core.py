"""Register a model with MLOS Core, the runtime of Axon's users. One request, no retry.

Beside documents.py, which sends only GET. Trio only; may be cancelled at any await.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

import httpcore
import trio

from axonfs.errors import AccessDeniedError, AxonError, UnavailableError, UsageError
from axonfs.http_client.answers import HEADERS
from axonfs.http_client.connections import connections, request
from axonfs.http_client.faults import fault, network_fault
from axonfs.http_client.routes import Routes, Trust
from axonfs.http_client.urls import Url, shown, split_url
from axonfs.names import plain

DEFAULT_ENDPOINT = "http://localhost:8080"
ENDPOINT_VARIABLE = "MLOS_CORE_ENDPOINT"
# Seconds. MLOS Core may load the model before it answers.
PATIENCE = 30.0
MAX_ANSWER = 64 << 10
_HINT = f"check that it runs, and that {ENDPOINT_VARIABLE} is its URL"


async def register(
    endpoint: str, model: Mapping[str, str], *, ca_bundle: Path | None = None
) -> None:
    """Register a model with the MLOS Core at `endpoint`.

    Args:
        model: the fields of a request to /models/register: model_id, name, framework,
            execution_format, path, description, manifest_path.

    Raises:
        UsageError: the endpoint is not a URL.
        UnavailableError: MLOS Core does not answer.
        AccessDeniedError, AxonError: MLOS Core refuses; the message quotes it.
    """
    try:
        url = split_url(f"{endpoint.rstrip('/')}/models/register")
    except ValueError as exc:
        raise UsageError(
            f"{ENDPOINT_VARIABLE} is not a URL: {exc}", source=shown(endpoint)
        ) from exc
    try:
        with trio.fail_after(PATIENCE):
            await _post(url, model, ca_bundle)
    except (trio.TooSlowError, httpcore.TimeoutException) as exc:
        what = f"MLOS Core did not answer within {PATIENCE:g} s"
        raise fault(UnavailableError, what, shown(str(url)), hint=_HINT) from exc
    except (httpcore.NetworkError, httpcore.ProtocolError, httpcore.ProxyError) as exc:
        cause = network_fault(exc, shown(str(url)))
        what = f"MLOS Core does not answer: {cause.what}"
        raise fault(UnavailableError, what, shown(str(url)), hint=_HINT) from exc


async def _post(url: Url, model: Mapping[str, str], ca_bundle: Path | None) -> None:
    proxy = Routes.of_environment().proxy(url.origin)
    content = json.dumps(dict(model)).encode()
    kind = {"Content-Type": "application/json", "Content-Length": str(len(content))}
    parts = request(
        url,
        {**HEADERS, **kind, **url.credentials},
        connect=PATIENCE,
        wait=PATIENCE,
        forwarded=proxy is not None and not url.origin.secure,
    )
    async with (
        connections(url.origin.secure, proxy, Trust(ca_bundle)) as pool,
        pool.stream("POST", **parts, content=content) as response,
    ):
        if 200 <= response.status < 300:
            return
        body = bytearray()
        async for piece in response.aiter_stream():
            body += piece[: MAX_ANSWER - len(body)]  # reads the rest and drops it
        raise _refusal(response.status, bytes(body), url)


def _refusal(status: int, body: bytes, url: Url) -> AxonError:
    words = plain(body.decode("utf-8", "replace"))
    what = f"MLOS Core refused the model with status {status}"
    kind = AccessDeniedError if status in (401, 403) else AxonError
    return fault(kind, f"{what}: {words}" if words else what, shown(str(url)))
