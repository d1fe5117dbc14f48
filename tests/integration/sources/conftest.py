"""A hub and an OCI registry, each with a small model: what they list, give and refuse."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack
from pathlib import Path

import pytest

from axonfs.http_client import Bodies, Documents
from axonfs.oci import OciSigner
from tests.support.hub import HubServer, Repo
from tests.support.ocireader import DIRECT, LIMITS, REPOSITORY, Opened, Reader, model
from tests.support.tinyhub import FILES, LARGE
from tests.support.tinyoci import TinyOci, lay_out


@pytest.fixture
def repo() -> Repo:
    return Repo.tagged(FILES, LARGE)


@pytest.fixture
def hub(repo: Repo) -> Iterator[HubServer]:
    with HubServer(repo) as server:
        yield server


@pytest.fixture
def docker(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Docker's config file, without credentials."""
    monkeypatch.setenv("DOCKER_CONFIG", str(tmp_path / "docker"))
    (tmp_path / "docker").mkdir()
    return tmp_path / "docker/config.json"


@pytest.fixture
def tiny(tmp_path: Path, docker: Path) -> Iterator[TinyOci]:
    lay_out(tmp_path / "site", REPOSITORY, "1.0", model())
    with TinyOci(tmp_path / "site") as server:
        yield server


@pytest.fixture
async def opened() -> AsyncIterator[Opened]:
    async with AsyncExitStack() as stack:
        signer = OciSigner()
        signers = {"oci": signer}
        documents = Documents(LIMITS, routes=DIRECT, signers=signers)
        await stack.enter_async_context(documents)
        bodies = stack.enter_context(Bodies(LIMITS, routes=DIRECT, signers=signers))
        yield lambda url: Reader(url, signer, documents, bodies)
