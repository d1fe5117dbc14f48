"""What a pod asks for: the attributes of a volume, checked. Pure.

`volumeAttributes` of a pod's inline volume or of a persistent volume reach the plugin as the
volume context; the kubelet adds the pod's namespace and name where the CSIDriver object says
podInfoOnMount.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from axonfs.csi.messages import number
from axonfs.csi.refusal import invalid
from axonfs.errors import UsageError
from axonfs.names import parse_spec, printable
from axonfs.versions import Wanted, parse_wanted

MODEL, VERSION, PIN, READY = "model", "version", "pin", "ready"
KNOWN = (MODEL, VERSION, PIN, READY)
# The kubelet's and the sidecars' own attributes begin with these.
_FOREIGN = ("csi.storage.k8s.io/", "storage.kubernetes.io/")
_POD_NAMESPACE = "csi.storage.k8s.io/pod.namespace"
_POD_NAME = "csi.storage.k8s.io/pod.name"
_EPHEMERAL = "csi.storage.k8s.io/ephemeral"
_SWITCH = {"true": True, "false": False}

_MODES = "VolumeCapability.AccessMode.Mode"
_READERS = frozenset(
    number(_MODES, name) for name in ("SINGLE_NODE_READER_ONLY", "MULTI_NODE_READER_ONLY")
)
# What volumes have anyway. No others: the runtimes mount a volume into a container with flags of
# their own, so that noexec would hold nowhere.
_MOUNT_FLAGS = frozenset({"ro", "nosuid", "nodev", "relatime", "noatime"})


@dataclass(frozen=True, slots=True)
class Volume:
    """A volume's attributes: a version of a model; or all versions of one; or all models.

    Args:
        version: as a user writes it, a constraint too; None for the directory above the versions.
        pin: keep the version from eviction, and fetch what is missing.
        complete: the pod starts once all of it is local.
    """

    model: str | None = None
    version: str | None = None
    pin: bool = False
    complete: bool = False

    @property
    def wanted(self) -> Wanted | None:
        """The version, if the volume is one."""
        return parse_wanted(f"{self.model}@{self.version}") if self.version else None

    def __str__(self) -> str:
        if self.model is None:
            return "all models"
        return f"{self.model}@{self.version}" if self.version else f"all versions of {self.model}"


@dataclass(frozen=True, slots=True)
class Pod:
    """Who asks, as the kubelet says; None where it says nothing."""

    namespace: str | None
    name: str | None
    ephemeral: bool


def pod_of(context: Mapping[str, str]) -> Pod:
    return Pod(
        context.get(_POD_NAMESPACE) or None,
        context.get(_POD_NAME) or None,
        context.get(_EPHEMERAL) == "true",
    )


def volume_of(context: Mapping[str, str]) -> Volume:
    """The volume that the attributes describe.

    Raises:
        RefusedError: one is unknown or invalid; the message names it.
    """
    own = {name: text for name, text in context.items() if not name.startswith(_FOREIGN)}
    for name in own:
        if name not in KNOWN:
            raise invalid(f"there is no attribute '{printable(name)}'; known: {', '.join(KNOWN)}")
    model, version = own.get(MODEL, "").strip(), own.get(VERSION, "").strip()
    ready = own.get(READY, "lazy")
    if ready not in ("lazy", "complete"):
        raise invalid(f"ready: '{printable(ready)}' is neither lazy nor complete")
    pin = _switch(own.get(PIN), ready == "complete")
    if ready == "complete" and not pin:
        raise invalid("ready: complete needs pin: 'true', or what is local may be evicted again")
    if version and not model:
        raise invalid("there is a version without a model")
    if pin and not version:
        raise invalid("pin and ready: complete need a version; 'latest' is one")
    return _parsed(model, version, Volume(model or None, version or None, pin, ready == "complete"))


def _switch(text: str | None, default: bool) -> bool:
    if text is None:
        return default
    if text not in _SWITCH:
        raise invalid(f"pin: '{printable(text)}' is neither 'true' nor 'false'")
    return _SWITCH[text]


def _parsed(model: str, version: str, volume: Volume) -> Volume:
    if "@" in model:
        raise invalid(f"model: '{printable(model)}' has a version; that is an attribute of its own")
    try:
        if version:
            parse_wanted(f"{model}@{version}")
        elif model:
            parse_spec(model)
    except UsageError as exc:
        raise invalid(str(exc)) from exc
    return volume


def check_capability(capability: Any, pod: Pod) -> str:
    """The group that a capability of a request asks for, "" if none.

    Raises:
        RefusedError: it is missing, or asks for what no volume of this plugin can do.
    """
    if not capability.HasField("access_mode") or not (
        capability.HasField("mount") or capability.HasField("block")
    ):
        raise invalid("volume_capability is missing or empty")
    if capability.HasField("block"):
        raise invalid("models are files, not block devices: use volumeMode: Filesystem")
    mode = capability.access_mode.mode
    # An inline volume has no access mode of its own, and the kubelet sends SINGLE_NODE_WRITER.
    if mode not in _READERS and not (pod.ephemeral and mode):
        raise invalid("models are read-only: use accessModes: [ReadOnlyMany]")
    _check_flags(capability.mount.mount_flags)
    return str(capability.mount.volume_mount_group)


def _check_flags(flags: Iterable[str]) -> None:
    for flag in flags:
        if flag not in _MOUNT_FLAGS:
            known = ", ".join(sorted(_MOUNT_FLAGS))
            raise invalid(f"the mount option '{printable(flag)}' is not one of: {known}")
