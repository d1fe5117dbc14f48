"""The gRPC server of the plugin, and its end.

Calls run in threads. Those that may wait for a complete model are few at a time, so that others
find a thread. What a call fails with becomes a status; nothing of a request is logged, since it
may carry secrets.
"""

from __future__ import annotations

import logging
import os
import re
import stat
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import grpc

from axonfs.csi.figures import Figures
from axonfs.csi.messages import METHODS, PACKAGE, message
from axonfs.csi.node import CALL_SECONDS, Identity, Node, answer
from axonfs.csi.refusal import RefusedError, status_of
from axonfs.daemon.kept import unlink_own
from axonfs.errors import UsageError

log = logging.getLogger(__name__)

THREADS = 64
# Calls that may wait for a model at a time.
WAITERS = 48
UNIX = "unix://"
MAX_REQUEST_BYTES = 1 << 20
# Seconds for calls under way to end.
END_SECONDS = 10.0

Call = Callable[[Any, float], dict[str, Any]]


def socket_of(endpoint: str) -> Path:
    """The path of the socket in `unix:///path`.

    Raises:
        UsageError: it is another kind of address.
    """
    path = endpoint.removeprefix(UNIX)
    if path == endpoint or not path.startswith("/"):
        raise UsageError(f"'{endpoint}' is not unix:///PATH", hint="unix:///csi/csi.sock")
    return Path(path)


class Server:
    """Serves the services at a Unix socket until it is stopped."""

    def __init__(self, path: Path, identity: Identity, node: Node, figures: Figures) -> None:
        self._path = path
        self._figures = figures
        self._waiting = threading.BoundedSemaphore(WAITERS)
        self._server = grpc.server(
            ThreadPoolExecutor(THREADS, thread_name_prefix="call"),
            options=[("grpc.max_receive_message_length", MAX_REQUEST_BYTES)],
        )
        for service, implementation in (("Identity", identity), ("Node", node)):
            handlers = {
                method: self._handler(method, getattr(implementation, _snake(method)))
                for method in METHODS[service]
            }
            name = f"{PACKAGE}.{service}"
            self._server.add_generic_rpc_handlers(
                (grpc.method_handlers_generic_handler(name, handlers),)
            )

    def start(self) -> None:
        """
        Raises:
            UsageError: the socket cannot be made.
        """
        try:
            self._path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            if self._path.exists() and stat.S_ISSOCK(self._path.stat().st_mode):
                self._path.unlink()
            before = os.umask(0o177)
            try:
                self._server.add_insecure_port(f"unix:{self._path}")
            finally:
                os.umask(before)
        except (OSError, RuntimeError) as exc:
            raise UsageError(f"cannot listen at {self._path}: {exc}") from exc
        self._server.start()
        self._identity = self._path.stat()

    def stop(self) -> None:
        """Take no more calls, and wait for those under way."""
        self._server.stop(END_SECONDS).wait()
        unlink_own(self._path, self._identity)

    def _handler(self, method: str, call: Call) -> Any:
        return grpc.unary_unary_rpc_method_handler(
            lambda request, context: self._called(method, call, request, context),
            request_deserializer=message(f"{method}Request").FromString,
            response_serializer=lambda found: found.SerializeToString(),
        )

    def _called(self, method: str, call: Call, request: Any, context: Any) -> Any:
        began = time.monotonic()
        code, text = grpc.StatusCode.OK, ""
        found = answer(method, {})
        try:
            found = answer(method, self._with_patience(method, call, request, context))
        except Exception as exc:
            code, text = status_of(exc)
            if code is grpc.StatusCode.INTERNAL and not isinstance(exc, RefusedError):
                log.exception("%s failed", method)
            else:
                log.warning("%s: %s: %s", method, code.name, text)
        self._figures.called(method, code.name, time.monotonic() - began)
        if code is not grpc.StatusCode.OK:
            context.set_code(code)
            context.set_details(text)
        return found

    def _with_patience(self, method: str, call: Call, request: Any, context: Any) -> dict[str, Any]:
        left = context.time_remaining()
        seconds = min(left, CALL_SECONDS) if left is not None else CALL_SECONDS
        if method != "NodePublishVolume":
            return call(request, seconds)
        free = self._waiting.acquire(blocking=False)
        try:
            return call(request, seconds if free else 0.0)
        finally:
            if free:
                self._waiting.release()


def _snake(method: str) -> str:
    return re.sub(r"(?<!^)(?=[A-Z])", "_", method).lower()
