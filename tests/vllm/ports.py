"""A port for a server that has to be told one."""

from __future__ import annotations

import socket


def free_port() -> int:
    """A loopback port that nothing listens on now; another process might still take it first."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port: int = listener.getsockname()[1]
        return port
