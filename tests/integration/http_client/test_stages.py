"""What is said of a request while it waits."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import closing
from functools import partial

import pytest
import trio

from axonfs.http_client.documents import Documents
from axonfs.steps import Step, outermost, trail


@pytest.fixture
def silent(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """A proxy that takes every connection and says nothing."""
    with closing(socket.create_server(("127.0.0.1", 0))) as server:
        where = f"127.0.0.1:{server.getsockname()[1]}"
        for name in ("https_proxy", "http_proxy"):
            monkeypatch.setenv(name, f"http://user:secret@{where}")
        yield where


async def test_a_proxy_that_says_nothing_is_named(silent: str) -> None:
    """The server behind it, which never got the request, is not blamed; no password is shown."""
    found: Step | None = None
    async with Documents() as documents, trio.open_nursery() as nursery:
        nursery.start_soon(partial(documents.get, "https://models.test/index.json", limit=1 << 20))
        (task,) = nursery.child_tasks
        with trio.fail_after(10):
            while found is None or "proxy" not in found.text:
                await trio.sleep(0.01)
                found = next(reversed(trail(outermost(task))), None)
        await trio.sleep(0.2)
        found = trail(outermost(task))[-1]
        nursery.cancel_scope.cancel()
    assert (found.cause, found.text) == ("connecting", f"waiting for the proxy http://{silent}/")
    assert "HTTPS_PROXY" in str(found.hint)
