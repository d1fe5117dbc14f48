"""Where metrics are served: addresses that cannot be used, and the path of a Unix socket."""

from __future__ import annotations

import socketserver
from pathlib import Path

import pytest

from axonfs.errors import AxonError
from axonfs.observe.listener import Listener


@pytest.mark.parametrize("address", [f"{'a' * 70}:9464", "a..b:9464", f"unix:/{'a' * 200}"])
def test_an_address_that_cannot_be_used_is_an_error_for_users(address: str) -> None:
    """The mount tries it again, and does not end."""
    with pytest.raises(AxonError, match="cannot serve metrics at "):
        Listener(address, {})


def test_the_socket_of_the_next_worker_stays(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The next worker listens at the same path as soon as this one has closed its socket."""
    path, close = tmp_path / "metrics.sock", socketserver.TCPServer.server_close

    def closed(server: socketserver.TCPServer) -> None:
        close(server)
        path.write_text("of the next worker")

    found = Listener(f"unix:{path}", {})
    monkeypatch.setattr(socketserver.TCPServer, "server_close", closed)
    found.close()
    assert path.exists()
