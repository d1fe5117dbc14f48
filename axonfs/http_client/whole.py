"""Whole bodies of small answers on the event loop: read, decoded, compared, or abandoned."""

from __future__ import annotations

import contextlib
import hashlib
import io
import re
from collections.abc import AsyncIterator

import httpcore
import trio

from axonfs.errors import CorruptError, MalformedError, UnavailableError
from axonfs.http_client.answers import Answer, codings
from axonfs.http_client.coding import CodingError, CutError, decoded
from axonfs.http_client.faults import fault
from axonfs.http_client.limits import DRAIN_BYTES, DRAIN_SECONDS
from axonfs.http_client.urls import shown
from axonfs.units import size

DECODED_PIECE = 1 << 20
# Not the digest of what refers to a manifest (/referrers/), which is of that manifest.
_DIGEST = re.compile(r"/(?:manifests|blobs)/sha256:([0-9a-f]{64})$")
_LOST = (httpcore.NetworkError, httpcore.TimeoutException, httpcore.ProtocolError)


def check_digest(url: str, body: bytes) -> None:
    """
    Raises:
        CorruptError: `url` is one of an OCI registry with the digest of what it has, and that is
            not `body`.
    """
    named = _DIGEST.search(url)
    if named and hashlib.sha256(body).hexdigest() != named[1]:
        raise CorruptError("its bytes do not match the digest in its URL")


def plain(body: bytes, answer: Answer, limit: int) -> bytes:
    """The decoded bytes of a body in content codings; `limit` applies to them."""
    read, found = decoded(io.BytesIO(body).read, codings(answer)), bytearray()
    try:
        while piece := read(DECODED_PIECE):
            found += piece
            if len(found) > limit:
                raise too_large(answer, limit)
    except CodingError as exc:
        cut = isinstance(exc, CutError)
        raise fault(UnavailableError, str(exc), shown(answer.url), transient=cut) from exc
    return bytes(found)


async def drain(response: httpcore.Response) -> bytes:
    """Read an unused body if it is short and has arrived, so that its connection can be reused;
    return its start.

    Programs look up missing names often, and each of these answers has such a body.
    """
    said = bytearray()
    with contextlib.suppress(*_LOST), trio.move_on_after(DRAIN_SECONDS):
        pieces = response.aiter_stream()
        async for piece in pieces:
            said += piece
            if len(said) > DRAIN_BYTES:
                await abandon(pieces)
    return bytes(said)


async def abandon(pieces: AsyncIterator[bytes]) -> None:
    """End a body early, by a cancellation at the innermost await of httpcore's generators.

    Closing only the outermost generator would leave the inner ones to the garbage collector, and
    trio warns about that.
    """
    with trio.CancelScope() as scope:
        scope.cancel()
        async for _ in pieces:
            pass


def too_large(answer: Answer, limit: int) -> MalformedError:
    return fault(MalformedError, f"the document is larger than {size(limit)}", shown(answer.url))
