"""Signed requests: schemes other than http, whose URLs a signer turns into requests.

A registry in an object store has a URL like `s3://bucket/prefix`. Both clients take such a URL like
any other. For each request they ask the scheme's signer for the HTTP URL and the headers that
authorize it, and they tell the signer of each answer that is not the requested document.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple, Protocol

from axonfs.http_client.answers import Answer
from axonfs.http_client.urls import Url


class Signed(NamedTuple):
    """Where to send a request, and the headers that authorize it; any Range may be added."""

    url: Url
    headers: Mapping[str, str]


class Signer(Protocol):
    """Signs requests of one scheme. Both methods may block, and any thread may call them."""

    def sign(self, url: str) -> Signed:
        """
        Raises:
            AxonError: there are no credentials, or `url` is invalid.
        """
        ...

    def refused(self, url: str, signed: Signed, answer: Answer, said: bytes) -> bool:
        """Whether to sign the request again and repeat it: there are other credentials now.

        Args:
            signed: what `sign` returned for the request.
            answer: not a document: a redirect or an error.
            said: the start of its body.

        Raises:
            AxonError: the fault that the answer stands for.
        """
        ...


Signers = Mapping[str, Signer]  # by scheme


def signer_of(signers: Signers, url: str) -> Signer | None:
    """The signer of a URL's scheme; None for http and https."""
    return signers.get(url.partition(":")[0]) if signers else None
