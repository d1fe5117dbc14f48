"""Documents of an OCI registry that its URL says nothing of, through caches of which one has a page
of a login in place of everything."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from axonfs.http_client import Caches, Documents, Routes, SiteCaches
from axonfs.http_client.answers import Answer
from axonfs.http_client.signing import Signed
from axonfs.http_client.urls import split_url
from axonfs.oci.manifest import IMAGE
from axonfs.sources.oci_documents import OciDocuments
from axonfs.sources.oci_lists import OciLists
from tests.support.faulty import Exchange, FaultyOrigin
from tests.support.files import write_files

HOST, REPOSITORY, DIGEST = "r.example", "nlp/tiny", "a" * 64
PAGE = b"<html>please log in</html>"
INDEX = {"schemaVersion": 2, "mediaType": IMAGE, "manifests": []}
FILES = {
    "tags/list": {"name": REPOSITORY, "tags": ["1.0"]},
    "manifests/1.0": INDEX,
    f"referrers/sha256:{DIGEST}": INDEX,
}

Ask = Callable[[Documents], Awaitable[object]]
ASKS: dict[str, Ask] = {
    "tags/list": lambda some: OciLists(HOST, some, None).names(f"{REPOSITORY}/tags/list", "tags"),
    "manifests/1.0": lambda some: OciDocuments(HOST, some).named(REPOSITORY, "1.0"),
    f"referrers/sha256:{DIGEST}": lambda some: OciDocuments(HOST, some)._referrers(
        REPOSITORY, DIGEST
    ),
}


class Anonymous:
    """Signs nothing."""

    def sign(self, url: str) -> Signed:
        return Signed(split_url(url.replace("oci:", "https:")), {})

    def refused(self, url: str, signed: Signed, answer: Answer, said: bytes) -> bool:
        return False


def page(exchange: Exchange) -> None:
    exchange.status, exchange.body = 200, PAGE
    exchange.headers = {"Content-Type": "text/html", "Content-Length": str(len(PAGE))}


@pytest.mark.parametrize("path", FILES, ids=["tags", "tag", "referrers"])
async def test_a_page_of_one_cache_is_its_own_fault(tmp_path: Path, path: str) -> None:
    whole = {f"v2/{REPOSITORY}/{name}": json.dumps(body).encode() for name, body in FILES.items()}
    files = write_files(tmp_path / "www", whole)
    query = "?n=1000" if path == "tags/list" else ""
    url = f"oci://{HOST}/v2/{REPOSITORY}/{path}{query}"
    with FaultyOrigin(files) as one, FaultyOrigin(files) as other:
        site = SiteCaches(f"oci://{HOST}", [one.url, other.url], fallback=False)
        first = site.order(url)[0]
        bad = one if str(first.url) in one.url else other
        bad.always(page)
        signers, caches = {"oci": Anonymous()}, Caches([site])
        async with Documents(routes=Routes({}), signers=signers, caches=caches) as client:
            found = await ASKS[path](client)
        assert found != PAGE
        assert len(bad.requests) == 1
    assert "web page" in str(first.state.fault) or "not JSON" in str(first.state.fault)
