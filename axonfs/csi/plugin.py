"""Puts the plugin together and runs it until a signal ends it."""

from __future__ import annotations

import logging
import os
import signal
from collections.abc import Mapping
from dataclasses import dataclass
from http import HTTPStatus
from pathlib import Path

from axonfs.connection import release_dead
from axonfs.csi.figures import Figures
from axonfs.csi.mount import NodeMount
from axonfs.csi.node import Identity, Node
from axonfs.csi.policy import read_policy
from axonfs.csi.proof import Proofs
from axonfs.csi.publisher import Publisher
from axonfs.csi.records import Records
from axonfs.csi.refusal import RefusedError
from axonfs.csi.server import Server, socket_of
from axonfs.daemon.kept import Guard, name_process
from axonfs.observe import prometheus
from axonfs.observe.listener import Listener, Page, Pages
from axonfs.settings.settings import Settings

log = logging.getLogger(__name__)

# The variables of tokens: proofs must not use the node's own.
_SECRET_VARIABLES = ("AXONFS_TOKEN", "HF_TOKEN", "HUGGING_FACE_HUB_TOKEN", "MODELSCOPE_API_TOKEN")
# Seconds to keep a mount's descriptors at the end, until a keeper comes for them.
GRACE = 45.0


@dataclass(frozen=True, slots=True)
class Options:
    """The plugin's own options.

    Args:
        endpoint: `unix:///PATH` for the kubelet.
        guard: the socket for the mount's keeper.
        kubelet: the kubelet's directory, below which all targets are.
        policy: the file of the rules; None allows everything.
        metrics: where metrics and probes are served, None for nowhere.
    """

    endpoint: str
    node: str
    guard: Path
    kubelet: Path
    policy: Path | None
    metrics: str | None


def run(settings: Settings, options: Options) -> int:
    """Serve until SIGTERM or SIGINT.

    Raises:
        AxonError: an address or the policy cannot be used.
    """
    name_process()
    for name in _SECRET_VARIABLES:
        os.environ.pop(name, None)
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM, signal.SIGINT})
    read_policy(options.policy)
    socket = socket_of(options.endpoint)
    mount = NodeMount(settings.mountpoint, settings.cache)
    records = Records(socket.parent / "volumes")
    proofs = Proofs(settings, mount)
    publisher = Publisher(mount, records, proofs, options.kubelet, options.policy)
    identity, figures = Identity(publisher), Figures()
    guard = Guard(options.guard)
    pages = _Pages(publisher, identity, figures, guard)
    listener = Listener(options.metrics, pages.all()) if options.metrics else None
    server = Server(socket, identity, Node(publisher, options.node), figures)
    publisher.tidy()
    server.start()
    log.info("serving at %s for node %s", options.endpoint, options.node)
    number = signal.sigwait({signal.SIGTERM, signal.SIGINT})
    log.info("ending: %s", signal.Signals(number).name)
    server.stop()
    if listener is not None:
        listener.close()
    _leave(guard, settings.mountpoint)
    return 0


def _leave(guard: Guard, mountpoint: Path) -> None:
    """Wait for a keeper, if this process has the only copies of the mount's descriptors; else the
    mount ends with it, and what is left of it is unmounted."""
    if guard.sole:
        log.info("keeping the mount for its next keeper, %.0f s at most", GRACE)
    connection = _connection_of(mountpoint)
    if not guard.leave(GRACE):
        log.warning("no keeper came: the mount ends")
        release_dead(connection)


def _connection_of(mountpoint: Path) -> int:
    try:
        return NodeMount(mountpoint, Path()).connection()
    except RefusedError:
        return -1


class _Pages:
    """The answers to scrapes and probes."""

    def __init__(
        self, publisher: Publisher, identity: Identity, figures: Figures, guard: Guard
    ) -> None:
        self._publisher = publisher
        self._identity = identity
        self._figures = figures
        self._guard = guard

    def all(self) -> Pages:
        return {"/metrics": self.metrics, "/healthz": self.healthz, "/readyz": self.readyz}

    def healthz(self, headers: Mapping[str, str]) -> Page:
        """Whether this process answers. It must not end because the mount does not answer: it may
        have the only copies of the mount's descriptors."""
        return Page(b"ok\n")

    def readyz(self, headers: Mapping[str, str]) -> Page:
        fault = self._identity.ready()
        if fault is None:
            return Page(b"ok\n")
        return Page(f"503 {fault}\n".encode(errors="replace"), HTTPStatus.SERVICE_UNAVAILABLE)

    def metrics(self, headers: Mapping[str, str]) -> Page:
        families = self._figures.families(
            volumes=sum(1 for _ in self._publisher.records.all()),
            pins=self._publisher.pins.under_way,
            guarded=self._guard.alive,
            ready=self._identity.ready() is None,
        )
        return prometheus.metrics_page(families, headers)
