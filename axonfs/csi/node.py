"""The calls of the services Identity and Node: requests in, answers out.

There is no Controller: a model is there before any volume of it, so persistent volumes are static.
There is no staging either, since one mount serves all volumes of the node.
"""

from __future__ import annotations

from typing import Any

import grpc

from axonfs._version import __version__
from axonfs.csi.messages import message, number
from axonfs.csi.publisher import Publisher, Request
from axonfs.csi.records import Record
from axonfs.csi.refusal import RefusedError, invalid
from axonfs.csi.volume import check_capability, pod_of, volume_of
from axonfs.errors import AxonError
from axonfs.names import printable

DRIVER = "axonfs.mlos.io"
_CAPABILITIES = ("GET_VOLUME_STATS", "VOLUME_CONDITION", "VOLUME_MOUNT_GROUP")
# Seconds that a call may take if the kubelet does not say; and how much of them is for the answer.
CALL_SECONDS, RESERVE = 100.0, 5.0
_BYTES, _INODES = (number("VolumeUsage.Unit", name) for name in ("BYTES", "INODES"))


class Identity:
    """Who the plugin is, and whether the node's mount answers."""

    def __init__(self, publisher: Publisher) -> None:
        self._publisher = publisher

    def get_plugin_info(self, request: Any, seconds: float) -> dict[str, Any]:
        return {"name": DRIVER, "vendor_version": __version__}

    def get_plugin_capabilities(self, request: Any, seconds: float) -> dict[str, Any]:
        return {}

    def probe(self, request: Any, seconds: float) -> dict[str, Any]:
        return {"ready": {"value": self.ready() is None}}

    def ready(self) -> str | None:
        """Why the mount does not answer; None if it does."""
        try:
            self._publisher.mount.connection()
            self._publisher.mount.ask({"op": "ping"})
        except (AxonError, RefusedError) as exc:
            return str(exc)
        return None


class Node:
    """Publishes volumes on this node."""

    def __init__(self, publisher: Publisher, node: str) -> None:
        self._publisher = publisher
        self._node = node

    def node_get_info(self, request: Any, seconds: float) -> dict[str, Any]:
        return {"node_id": self._node}

    def node_get_capabilities(self, request: Any, seconds: float) -> dict[str, Any]:
        kinds = [number("NodeServiceCapability.RPC.Type", name) for name in _CAPABILITIES]
        return {"capabilities": [{"rpc": {"type": kind}} for kind in kinds]}

    def node_publish_volume(self, request: Any, seconds: float) -> dict[str, Any]:
        _need(request, "volume_id", "target_path")
        pod = pod_of(request.volume_context)
        group = check_capability(request.volume_capability, pod)
        self._publisher.publish(
            Request(
                volume_id=request.volume_id,
                target=request.target_path,
                volume=volume_of(request.volume_context),
                pod=pod,
                secrets=dict(request.secrets),
                group=group,
                seconds=max(seconds - RESERVE, 0.0),
            )
        )
        return {}

    def node_unpublish_volume(self, request: Any, seconds: float) -> dict[str, Any]:
        _need(request, "volume_id", "target_path")
        self._publisher.unpublish(request.target_path)
        return {}

    def node_get_volume_stats(self, request: Any, seconds: float) -> dict[str, Any]:
        """The bytes of the volume's files, and how many of them are local.

        What is not local yet counts as available: as much may still be fetched.
        """
        _need(request, "volume_id", "volume_path")
        found = self._publisher.published(request.volume_id, request.volume_path)
        if found is None:
            what = f"{printable(request.volume_id)} is not published at that path"
            raise RefusedError(grpc.StatusCode.NOT_FOUND, what)
        record, present = found
        if not present:
            text = "the connection of its mount has ended; it is mounted again at the next call"
            return {"volume_condition": {"abnormal": True, "message": text}}
        size, local, files = self._usage(record)
        usage = [_usage(_BYTES, size, local)]
        if files is not None:
            usage.append(_usage(_INODES, files, files))
        fine = {"abnormal": False, "message": "the mount of the node has it"}
        return {"usage": usage, "volume_condition": fine}

    def _usage(self, record: Record) -> tuple[int, int, int | None]:
        """Bytes, local bytes, and files where that is one number."""
        mount = self._publisher.mount
        if record.spec:
            found = mount.version(record.spec)
            return int(found["size"]), int(found["local"]), len(found["files"])
        if record.volume.model is not None:
            versions = mount.versions(record.volume.model)
            size = sum(int(item["size"] or 0) for item in versions)
            return size, sum(int(item["local"]) for item in versions), None
        status = mount.status()
        return int(status["cache_limit"] or 0), int(status["cache_used"]), None


def _need(request: Any, *names: str) -> None:
    for name in names:
        if not getattr(request, name):
            raise invalid(f"{name} is missing")


def _usage(unit: int, total: int, used: int) -> dict[str, int]:
    return {"unit": unit, "total": total, "used": used, "available": max(total - used, 0)}


def answer(method: str, fields: dict[str, Any]) -> Any:
    """The response message of a method."""
    return message(f"{method}Response")(**fields)
