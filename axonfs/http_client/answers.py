"""Request headers, and the checks of an answer's status and headers before its body is used.

Pure. Both clients use this module, so an answer means the same to both. HTTP's inclusive ranges
exist only here.
"""

from __future__ import annotations

import re
import time
from collections.abc import Mapping
from dataclasses import dataclass

from axonfs._version import __version__
from axonfs.errors import AccessDeniedError, AxonError, ChangedError, EtagError, UnavailableError
from axonfs.http_client.coding import KNOWN, MAX_CODINGS, NONE
from axonfs.http_client.faults import fault
from axonfs.http_client.fields import elements
from axonfs.http_client.limits import parse_retry_after
from axonfs.http_client.urls import shown
from axonfs.names import printable
from axonfs.ranges import Range

HEADERS = {
    "User-Agent": f"axonfs/{__version__}",
    "Accept": "*/*",
    "Accept-Encoding": "identity",  # ranges and digests are of the plain bytes
}

# Client errors that are temporary: timeout, too early, too many requests.
_TEMPORARY = frozenset({408, 425, 429})
_OVERLOADED = frozenset({429, 503})
_CONTENT_RANGE = re.compile(
    r"bytes\s+(\d{1,19})\s*-\s*(\d{1,19})\s*/\s*(\d{1,19}|\*)", re.ASCII | re.IGNORECASE
)


@dataclass(frozen=True, slots=True)
class Answer:
    """Status and headers (names in lower case) of the answer from `url`."""

    url: str
    status: int
    headers: Mapping[str, str]

    def fault(self, kind: type[AxonError], what: str, *, transient: bool = False) -> AxonError:
        retry_after = parse_retry_after(self.headers.get("retry-after"), time.time())
        error = fault(
            kind,
            what,
            shown(self.url),
            transient=transient,
            retry_after=retry_after if transient else None,
            hint=_HINTS.get(self.status),
        )
        error.status = self.status
        error.code = self.headers.get("x-error-code")
        error.overloaded = self.status in _OVERLOADED
        return error


_HINTS = {
    401: "the source requires a token",
    403: "the token or the account is not allowed to read it",
    407: "check the user and password in HTTP_PROXY or HTTPS_PROXY",
}


def content_range(text: str | None) -> tuple[Range, int | None] | None:
    """A Content-Range header as half-open range and total size (None for `*`); None if invalid."""
    match = _CONTENT_RANGE.fullmatch((text or "").strip())
    if match is None:
        return None
    first, last, total = match.groups()
    if int(last) < int(first):
        return None
    return Range(int(first), int(last) + 1), None if total == "*" else int(total)


def content_length(headers: Mapping[str, str]) -> int | None:
    """The length of the body from the headers; None if it is missing or malformed."""
    text = headers.get("content-length", "").strip()
    if "transfer-encoding" in headers or not re.fullmatch(r"\d{1,19}", text, re.ASCII):
        return None
    return int(text)


def check_framing(answer: Answer) -> None:
    """
    Raises:
        UnavailableError: two fields give the end of the body. The difference between them could
            hide a second answer (RFC 9112, section 6.3).
    """
    if "transfer-encoding" in answer.headers and "content-length" in answer.headers:
        raise answer.fault(
            UnavailableError, "invalid answer with both Content-Length and Transfer-Encoding"
        )


def check_status(answer: Answer, expected: frozenset[int], missing: type[AxonError]) -> None:
    """Return if the status is one of `expected` and the body can be decoded.

    Raises:
        AxonError: the error that the status stands for; `missing` for 404 and 410.
    """
    status = answer.status
    if status in expected:
        return _check_codings(answer)
    what = f"the server answered {status}"
    if status in (401, 403):
        raise answer.fault(AccessDeniedError, what)
    if status in (404, 410):
        raise answer.fault(missing, what)
    if status == 416:
        raise answer.fault(ChangedError, "the object no longer has the requested range (416)")
    # An unexpected success (204, or 206 for a whole document) is usually a proxy's mistake.
    raise answer.fault(
        UnavailableError, what, transient=status in _TEMPORARY or status < 300 or status >= 500
    )


def codings(answer: Answer) -> list[str]:
    """The content codings of the body, in the order in which they were applied."""
    named = elements(answer.headers.get("content-encoding"))
    return [coding for coding in named if coding not in NONE]


def _check_codings(answer: Answer) -> None:
    found = codings(answer)
    if len(found) > MAX_CODINGS or not KNOWN.issuperset(found):
        named = printable(", ".join(found), 40)
        what = f"unsupported content encoding '{named}', though 'identity' was requested"
        raise answer.fault(UnavailableError, what)


def same_etag(one: str, other: str) -> bool:
    """Whether two ETags name the same content. Weak ones count too: digests verify the bytes."""
    return one.removeprefix("W/") == other.removeprefix("W/")


def body_range(answer: Answer, asked: Range, size: int, etag: str | None) -> Range:
    """The range of an object of `size` bytes that the body of a 200 or 206 holds.

    The range contains the first byte of `asked`, and may be longer or shorter than `asked`.

    Raises:
        EtagError: the answer has another ETag, or none.
        ChangedError: the object has another size now.
        UnavailableError: the answer does not fit the request.
    """
    held = _partial(answer, asked, size) if answer.status == 206 else _all(answer, size)
    if etag and not codings(answer):  # a coded body has an ETag of its own
        check_etag(answer, etag)
    return held


def check_etag(answer: Answer, etag: str) -> None:
    """
    Raises:
        EtagError: the answer has another ETag, or none.
    """
    theirs = answer.headers.get("etag")
    if not (theirs and same_etag(etag, theirs)):
        now = f"its ETag is now {printable(theirs, 80)}" if theirs else "it has no ETag now"
        raise answer.fault(EtagError, f"{now}; it was {printable(etag, 80)}")


def _all(answer: Answer, size: int) -> Range:
    length = content_length(answer.headers)
    if length is not None and length != size and not codings(answer):
        raise answer.fault(ChangedError, f"it has {length} bytes now, not {size}")
    return Range(0, size)


def is_coded(answer: Answer, size: int) -> bool:
    """Whether the body must be decoded to get an object of `size` bytes.

    Some servers declare a Content-Encoding for every file named .gz and send the file unchanged.
    Then the length equals the object's. Ranges of the object are not coded either.
    """
    coded = answer.status == 200 and bool(codings(answer))
    return coded and content_length(answer.headers) != size


def _partial(answer: Answer, asked: Range, size: int) -> Range:
    text = answer.headers.get("content-range")
    sent = content_range(text)
    if sent is None:
        what = f"invalid or missing Content-Range: '{printable(text or '', 80)}'"
        raise answer.fault(UnavailableError, what, transient=True)
    body, total = sent
    if total is not None and total != size:
        raise answer.fault(ChangedError, f"it has {total} bytes now, not {size}")
    length = content_length(answer.headers)
    holds = body.start <= asked.start < body.stop <= size
    if not holds or (length is not None and length != body.size):
        long = "" if length is None else f" with a Content-Length of {length}"
        what = f"it sent other bytes than requested: '{printable(text or '', 80)}'{long}"
        raise answer.fault(UnavailableError, what, transient=True)
    return body


def range_headers(asked: Range, etag: str | None) -> dict[str, str]:
    """The request headers for the range `asked` of an object whose ETag was `etag`."""
    headers = {"Range": f"bytes={asked.start}-{asked.stop - 1}"}
    # If-Range allows strong validators only, and header values must be ASCII.
    if etag and etag.isascii() and not etag.startswith("W/"):
        headers["If-Range"] = etag
    return headers
