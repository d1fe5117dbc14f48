"""Runs the server of a registry directory."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator
from pathlib import Path

from axonfs.errors import AxonError
from axonfs.names import printable
from axonfs.observe import otlp
from axonfs.observe.listener import Listener
from axonfs.observe.prometheus import check_library, metrics_page
from axonfs.serve.access import Access
from axonfs.serve.connections import MAX_CONNECTIONS
from axonfs.serve.server import POLL_SECONDS, RegistryServer
from axonfs.serve.tls import Certificate
from axonfs.serve.writes import WritingHandler

GRACE_SECONDS = 10.0  # in which answers may end when the server stops


@contextlib.contextmanager
def serving(
    directory: Path,
    host: str,
    port: int,
    *,
    access: Access | None = None,
    certificate: Certificate | None = None,
    max_connections: int = MAX_CONNECTIONS,
    metrics: str | None = None,
) -> Iterator[RegistryServer]:
    """Serve the registry in `directory` until the end of the block.

    Args:
        metrics: an address of its own for metrics, as settings/listening.py has it; every program
            that reaches it sees them.

    Raises:
        AxonError: the directory does not exist, or the address is in use or unknown.
    """
    if not directory.is_dir():
        raise AxonError(f"{printable(str(directory))} is not a directory")
    try:
        server = RegistryServer(
            directory,
            host,
            port,
            WritingHandler,
            access=access,
            certificate=certificate,
            max_connections=max_connections,
        )
    except OSError as exc:
        raise AxonError(
            f"cannot listen on {printable(host)} port {port}: {exc.strerror}",
            hint="choose another --port",
        ) from exc
    accepting = threading.Thread(
        target=server.serve_forever, args=(POLL_SECONDS,), name="serve", daemon=True
    )
    accepting.start()
    try:
        with _watched(server, metrics):
            yield server
    finally:
        server.close(GRACE_SECONDS)
        accepting.join()


@contextlib.contextmanager
def _watched(server: RegistryServer, metrics: str | None) -> Iterator[None]:
    """Serve the server's metrics until the end of the block, and send them by OTLP if the
    environment asks for it."""
    with contextlib.ExitStack() as stack:
        if metrics:
            check_library()
            pages = {"/metrics": lambda headers: metrics_page(server.metrics(), headers)}
            stack.callback(Listener(metrics, pages).close)
        if sender := otlp.sender(server.metrics):
            stack.callback(sender.close)
        yield
