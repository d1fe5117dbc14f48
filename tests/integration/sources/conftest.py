"""A hub with a small model, for the tests of what it lists, gives and refuses."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.support.hub import HubServer, Repo
from tests.support.tinyhub import FILES, LARGE


@pytest.fixture
def repo() -> Repo:
    return Repo.tagged(FILES, LARGE)


@pytest.fixture
def hub(repo: Repo) -> Iterator[HubServer]:
    with HubServer(repo) as server:
        yield server
