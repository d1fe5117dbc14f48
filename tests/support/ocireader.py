"""Sources that read an OCI registry, and what their tests share."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import TypeAlias

from axonfs.http_client import Bodies, Documents, Limits, Location, Routes
from axonfs.names import Spec, parse_spec
from axonfs.oci import OciSigner, place_of
from axonfs.sources import OciRegistry
from tests.support.dockerregistry import Packed
from tests.support.faulty import Exchange
from tests.support.tinyoci import PASSWORD, USER, TinyOci

BODY = bytes(range(256)) * 400
REPOSITORY = "nlp/tiny"
SPEC = parse_spec("oci/team/nlp/tiny@1.0")
LIMITS = Limits(attempts=1)
DIRECT = Routes({})


def model() -> Packed:
    return Packed().add("config.json", b"{}").add("model.bin", BODY)


def log_in(docker: Path, host: str, password: str = PASSWORD) -> None:
    entry = {"username": USER, "password": password}
    docker.write_text(json.dumps({"auths": {host: entry}}))


class Reader:
    """A source, and what its bytes are read with."""

    def __init__(self, url: str, signer: OciSigner, documents: Documents, bodies: Bodies) -> None:
        signer.learn([url])
        self.source = OciRegistry(place_of(url), documents, bodies=bodies)
        self.bodies = bodies

    async def version(self) -> Spec:
        found = await self.source.alias(SPEC)
        assert found is not None
        return Spec(SPEC.namespace, SPEC.name, found)

    async def location(self) -> Location:
        found = await self.source.manifest(await self.version())
        assert found is not None
        manifest, base = found
        entry = manifest.file("model.bin")
        assert entry is not None
        return self.source.locate(base, entry)

    def read(self, location: Location, start: int, stop: int, size: int = len(BODY)) -> bytes:
        taken = bytearray()
        self.bodies.read(
            location, start, stop, size, lambda _, piece: taken.extend(piece), unit=1 << 16
        )
        return bytes(taken)


Opened: TypeAlias = Callable[[str], Reader]


def url_of(tiny: TinyOci, more: str = "") -> str:
    return f"oci://{tiny.host}?alias=team{more}"


def page(exchange: Exchange) -> None:
    exchange.status, exchange.body = 200, b"<html>Log in</html>"
    exchange.headers = {"Content-Length": str(len(exchange.body))}
