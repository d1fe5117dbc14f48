"""Requests to the server of a registry that is written, repeated after faults that may pass.

Above calls.py, which sends each of them. Every request here may be repeated. Redirects are not
followed: a write must go where the user said. Blocking; any thread.
"""

from __future__ import annotations

import time
import weakref
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from axonfs.errors import AxonError, UnavailableError
from axonfs.http_client.answers import Answer
from axonfs.http_client.calls import Calls
from axonfs.http_client.fields import media_type
from axonfs.http_client.limits import Limits
from axonfs.http_client.routes import Trust
from axonfs.http_client.urls import REDIRECTS, shown, target_of
from axonfs.names import plain

PIECE = 1 << 20  # bytes that are given to the socket at a time
MAX_SAID = 64 << 10
_TRANSIENT = frozenset({408, 425, 429, 500, 502, 503, 504})


@dataclass(frozen=True, slots=True)
class Written:
    """The answer to a request; `repeated` says that an earlier attempt may have done its work."""

    answer: Answer
    body: bytes = field(repr=False)
    repeated: bool

    @property
    def status(self) -> int:
        return self.answer.status

    @property
    def said(self) -> str:
        """What a text in the answer says to a person; "" if there is no text."""
        kind, _ = media_type(self.answer.headers.get("content-type"))
        text = plain(self.body.decode("utf-8", "replace"), 300) if kind == "text/plain" else ""
        return text.removeprefix(f"{self.status} ")


class Writer:
    """Sends requests to one server. Its connections close when it is dropped.

    Args:
        token: sent as a bearer token.
        trust: the certificate authorities; by default the system's.
    """

    def __init__(
        self, limits: Limits, token: str | None = None, trust: Trust | None = None
    ) -> None:
        self._limits = limits
        self._secrets = {"Authorization": f"Bearer {token}"} if token else {}
        self._calls = Calls(limits, trust)
        weakref.finalize(self, self._calls.close)

    def send(
        self,
        method: str,
        url: str,
        body: bytes = b"",
        *,
        headers: Mapping[str, str] | None = None,
        limit: int = MAX_SAID,
    ) -> Written:
        """Send a request, and again after a fault that may pass.

        Args:
            limit: how many bytes the body of the answer may have, if that is more than MAX_SAID.

        Returns:
            The answer, whatever its status, if another attempt would not change it.

        Raises:
            MalformedError: the answer is larger than `limit`.
            UnavailableError, DeadlineError: no usable answer after all retries.
        """
        sent = {**self._secrets, **(headers or {})}
        number = 1
        while True:
            try:
                return self._attempt(method, url, body, sent, max(limit, MAX_SAID), number)
            except AxonError as exc:
                if not exc.transient or number >= self._limits.attempts:
                    raise
                time.sleep(self._limits.pause(number, exc.retry_after))
                number += 1

    def _attempt(
        self,
        method: str,
        url: str,
        body: bytes,
        headers: Mapping[str, str],
        limit: int,
        number: int,
    ) -> Written:
        target, content = target_of(url), _pieces(body) if body else b""
        said = self._calls.send(method, target, headers, content, len(body), limit)
        found = Written(said.answer, said.body, repeated=number > 1)
        _check(found)
        return found


def _pieces(body: bytes) -> Iterator[bytes]:
    """The body in pieces that are not copied: httpcore copies what a socket does not take."""
    view = memoryview(body)
    for at in range(0, len(view), PIECE):
        yield view[at : at + PIECE]  # type: ignore[misc]  # a socket takes any buffer


def _check(found: Written) -> None:
    """
    Raises:
        UnavailableError: another attempt may have another answer, or the answer is a redirect.
    """
    if found.status in REDIRECTS:
        elsewhere = shown(found.answer.headers.get("location", ""))
        what = f"the server answered {found.status}: it is at {elsewhere}"
        raise found.answer.fault(UnavailableError, what)
    if found.status in _TRANSIENT:
        what = f"the server answered {found.status}" + f": {found.said}" * bool(found.said)
        raise found.answer.fault(UnavailableError, what, transient=True)
