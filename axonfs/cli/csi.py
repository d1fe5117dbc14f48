"""`axonfs csi`: the Kubernetes node plugin."""

from __future__ import annotations

import importlib.util
import os
import socket
from contextlib import suppress
from pathlib import Path

import click

from axonfs.cli.options import LocalPath, cache_option
from axonfs.distro import install_extra
from axonfs.errors import UsageError
from axonfs.settings.listening import parse_listening
from axonfs.settings.settings import load

_file = LocalPath("the policy file", dir_okay=False)
_directory = LocalPath("the directory", file_okay=False)


@click.command
@click.argument("mountpoint", required=False)
@click.option(
    "--endpoint",
    metavar="unix:///PATH",
    default="unix:///csi/csi.sock",
    show_default=True,
    help="Socket for the kubelet. What the plugin has to remember is beside it.",
)
@click.option("--node-id", metavar="NAME", help="Name of this node; by default the host's.")
@click.option(
    "--guard",
    metavar="SOCKET",
    type=LocalPath("the socket"),
    help="Socket for axonfs mount --guard, whose descriptors the plugin keeps. By default run/guard"
    " in the cache directory.",
)
@click.option(
    "--kubelet-dir",
    metavar="DIR",
    type=_directory,
    default="/var/lib/kubelet",
    show_default=True,
    help="The kubelet's directory; volumes are mounted below it only.",
)
@click.option(
    "--policy",
    metavar="FILE",
    type=_file,
    help="YAML file that says which namespaces may have which models; without it all may have all.",
)
@cache_option
@click.option(
    "--metrics",
    metavar="[ADDRESS:]PORT",
    help="Serve metrics for Prometheus, /healthz and /readyz there. ADDRESS is 127.0.0.1 by"
    " default; unix:PATH is a Unix socket.",
)
def csi(
    mountpoint: str | None,
    endpoint: str,
    node_id: str | None,
    guard: str | None,
    kubelet_dir: str,
    policy: str | None,
    cache: str | None,
    metrics: str | None,
) -> None:
    """Run the Kubernetes node plugin for the mount at MOUNTPOINT.

    It gives pods read-only volumes of the models in the mount, which `axonfs mount --guard` makes
    in another container of the node. It needs the extra axonfs[csi]. docs/kubernetes.md has the
    manifests.
    """
    if not (_is_installed("grpc") and _is_installed("google.protobuf")):
        what = "the plugin needs grpcio and protobuf, which are not installed"
        raise UsageError(what, hint=install_extra("csi"))
    from axonfs.cli.logs import log_to_stderr
    from axonfs.csi.plugin import Options, run
    from axonfs.observe.prometheus import check_library

    if os.geteuid() != 0:
        raise UsageError("only root may mount volumes for pods")
    settings = load({"mountpoint": mountpoint, "cache": cache})
    log_to_stderr(settings.log_format, settings.log_level, settings.cache)
    if metrics:
        check_library()
    options = Options(
        endpoint=endpoint,
        node=node_id or socket.gethostname(),
        guard=Path(guard) if guard else settings.cache / "run" / "guard",
        kubelet=Path(kubelet_dir),
        policy=Path(policy) if policy else None,
        metrics=parse_listening(metrics) if metrics else None,
    )
    click.get_current_context().exit(run(settings, options))


def _is_installed(module: str) -> bool:
    with suppress(ModuleNotFoundError):  # the package that it is to be in
        return importlib.util.find_spec(module) is not None
    return False
