"""Publishes volumes at targets, and takes them away: the work behind the calls of the node
service.

Nothing about a volume changes under a running pod: a call for a target that has its volume leaves
the mount as it is. If the mount of the node was lost with its connection, the next call mounts
the same version of the new one over the old. Blocking; one call at a time works on a target.
"""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import grpc

from axonfs.csi.mount import NodeMount, root_of
from axonfs.csi.pins import Pins
from axonfs.csi.policy import Decision, read_policy
from axonfs.csi.proof import Proofs
from axonfs.csi.records import Record, Records
from axonfs.csi.refusal import RefusedError, status_of
from axonfs.csi.targets import Target, target_at
from axonfs.csi.volume import Pod, Volume
from axonfs.errors import UsageError
from axonfs.mounttable import FILESYSTEM, Entry
from axonfs.names import parse_spec, printable

log = logging.getLogger(__name__)

OTHERS_READ = 0o004
# After these the kubelet asks again, or has the volume unpublished. After any other it may do
# neither, so nothing is to be left of the call.
NOT_FINAL = frozenset({grpc.StatusCode.ABORTED, grpc.StatusCode.UNAVAILABLE})


@dataclass(frozen=True, slots=True)
class Request:
    """A checked request to publish. `seconds` may pass before the answer."""

    volume_id: str
    target: str
    volume: Volume
    pod: Pod
    secrets: Mapping[str, str]
    group: str
    seconds: float


class Publisher:
    """Knows what is published where.

    Args:
        root: the kubelet's directory; targets are below it.
        policy: the file of the rules, read at each call; None allows everything.
    """

    def __init__(
        self, mount: NodeMount, records: Records, proofs: Proofs, root: Path, policy: Path | None
    ) -> None:
        self.mount = mount
        self.records = records
        self.pins = Pins(mount, records)
        self._proofs = proofs
        self._root = root
        self._policy = policy
        self._lock = threading.Lock()
        self._busy: set[str] = set()

    def publish(self, request: Request) -> None:
        """Have the volume at the target.

        Raises:
            RefusedError, AxonError: it cannot be, or not yet.
        """
        with self._alone(request.target), target_at(request.target, self._root) as target:
            self._check_group(request.group)
            if target is None:
                what = f"the directory that {request.target} is to be in does not exist"
                raise RefusedError(grpc.StatusCode.FAILED_PRECONDITION, what)
            entry, record = target.mounted(), self.records.get(request.target)
            if entry is not None:
                _check_same(entry, record, request)
            try:
                self._have(request, target, entry, record)
            except Exception as exc:
                if entry is None and status_of(exc)[0] not in NOT_FINAL:
                    self.records.drop(request.target)
                    self.pins.sweep()
                raise

    def _have(
        self, request: Request, target: Target, entry: Entry | None, record: Record | None
    ) -> None:
        """Check that the pod may have the volume, and put it there. `record`: the target's own."""
        known = record if record is not None and _fits(record, request) else None
        self._check_policy(request, request.volume.model)
        wanted = known or self._chosen(request)
        running = entry is not None and entry.device == self.mount.connection()
        self._check_access(request, wanted, running=running)
        self._put(request, wanted, target, entry)

    def unpublish(self, target_path: str) -> None:
        """Have nothing at the target, and no target."""
        with self._alone(target_path):
            with target_at(target_path, self._root) as target:
                if target is not None:
                    target.clear()
            self.records.drop(target_path)
        self.pins.sweep()

    def tidy(self) -> None:
        """Forget targets that are gone, as after a boot, and the pins that were for them."""
        try:
            for record in self.records.all():
                self._forget_gone(record.target)
            self.pins.sweep()
        except OSError as exc:  # the next call tries again
            log.warning("what is published cannot be read: %s", exc)

    def _forget_gone(self, place: str) -> None:
        with suppress(RefusedError, OSError), target_at(place, self._root) as target:
            if target is None or target.directory is None:
                self.records.drop(place)

    def published(self, volume_id: str, path: str) -> tuple[Record, bool] | None:
        """The record of a volume at a path, and whether its mount is the node's present one.

        None if it is not published there.
        """
        record = self.records.get(path)
        if record is None or record.volume_id != volume_id:
            return None
        with target_at(path, self._root) as target:
            entry = target.mounted() if target is not None else None
        if entry is None or entry.filesystem != FILESYSTEM:
            return None
        return record, entry.device == self._present()

    def _present(self) -> int:
        try:
            return self.mount.connection()
        except RefusedError:
            return -1

    @contextmanager
    def _alone(self, target: str) -> Iterator[None]:
        """The block is the only one that works on the target."""
        with self._lock:
            if target in self._busy:
                what = f"another call for {target} is under way"
                raise RefusedError(grpc.StatusCode.ABORTED, what)
            self._busy.add(target)
        try:
            yield
        finally:
            with self._lock:
                self._busy.discard(target)

    def _check_group(self, group: str) -> None:
        """Refuse a group whose members could not read the mount: files are everybody's to read, or
        of one owner and group, since all pods share them."""
        if not group:
            return
        settings = self.mount.status()["settings"]
        mode = int(str(settings["mode"]["value"]), 8)
        if not mode & OTHERS_READ and group != str(settings["gid"]["value"]):
            what = f"files of the mount have mode {mode:04o}, so the group {group} cannot read them"
            raise RefusedError(grpc.StatusCode.FAILED_PRECONDITION, what)

    def _check_policy(self, request: Request, model: str | None) -> Decision:
        try:
            policy = read_policy(self._policy)
        except UsageError as exc:
            raise RefusedError(grpc.StatusCode.FAILED_PRECONDITION, str(exc)) from exc
        volume, namespace = request.volume, request.pod.namespace
        decision = policy.decide(namespace, model, below=not volume.version)
        if decision is Decision.REFUSED:
            who = namespace or "a pod whose namespace the kubelet does not tell"
            wanted = model if volume.version else volume
            below = f" and of what is below, {model}/*" if model and not volume.version else ""
            what = f"{who} may not have {wanted}{below} on this node: no rule allows it"
            raise RefusedError(grpc.StatusCode.PERMISSION_DENIED, what)
        if volume.pin and model is not None and not policy.may_pin(namespace, model):
            what = f"{namespace} may not pin {model} on this node: a rule refuses it"
            raise RefusedError(grpc.StatusCode.PERMISSION_DENIED, what)
        return decision

    def _chosen(self, request: Request) -> Record:
        """The record of a volume that is published for the first time."""
        volume = request.volume
        if (wanted := volume.wanted) is not None:
            spec = str(self.mount.version(str(wanted))["spec"])
            root = root_of(spec)
        else:
            spec, root = "", "/"
        if volume.model is not None and not spec:
            self.mount.versions(volume.model)
            root = "/" + volume.model
        return Record(request.volume_id, request.target, volume, root, spec)

    def _check_access(self, request: Request, record: Record, *, running: bool) -> None:
        """Compare the model that was found, which may have another name, with the policy, and have
        its source check the pod's token, unless the pod already has the volume."""
        found = parse_spec(record.spec).model if record.spec else request.volume.model
        decisions = {self._check_policy(request, name) for name in {request.volume.model, found}}
        if not request.secrets and Decision.TOKEN not in decisions:
            return
        if not request.secrets and record.spec:
            what = f"{request.volume} needs a token: see nodePublishSecretRef"
            raise RefusedError(grpc.StatusCode.UNAUTHENTICATED, what)
        if not record.spec:
            why = "a rule asks for a token, and " if Decision.TOKEN in decisions else ""
            what = f"{why}a token is for one version: give the volume a model and a version"
            raise RefusedError(grpc.StatusCode.INVALID_ARGUMENT, what)
        if not running:
            self._proofs.check(request.secrets, record.spec, request.seconds)

    def _put(self, request: Request, record: Record, target: Target, entry: Entry | None) -> None:
        present = self.mount.connection()
        mounted = entry is not None and entry.device == present
        if not mounted or self.records.get(request.target) != record:
            self.records.put(record)
        if record.pinned:
            self.pins.want(record.spec)
        if mounted:
            return
        if record.volume.complete and entry is None:
            self._wait(record, request.seconds)
        if record.spec:  # the mount has to answer before its directory is opened
            self.mount.version(record.spec)
        else:
            self.mount.ask({"op": "ping"})
        source = self.mount.open(record.root)
        try:
            target.mount(source)
        finally:
            os.close(source)
        if entry is not None:
            log.warning("%s was mounted again: its mount had ended", printable(request.target))

    def _wait(self, record: Record, seconds: float) -> None:
        far = self.pins.wait(record.spec, seconds)
        if far is not None:
            what = f"{record.spec} is not complete yet: {far}; the kubelet asks again"
            raise RefusedError(grpc.StatusCode.ABORTED, what)


def _fits(record: Record, request: Request) -> bool:
    """Whether a record is of the same volume with the same attributes."""
    return record.volume_id == request.volume_id and record.volume == request.volume


def _check_same(entry: Entry, record: Record | None, request: Request) -> None:
    """
    Raises:
        RefusedError: something else is mounted at the target.
    """
    if entry.filesystem != FILESYSTEM:
        what = f"a {entry.filesystem} file system is mounted at {request.target}"
        raise RefusedError(grpc.StatusCode.FAILED_PRECONDITION, what)
    # The kernel marks a directory whose name it has forgotten.
    root = entry.root.removesuffix("//deleted")
    if record is None or not _fits(record, request) or root != record.root:
        what = f"{request.target} has another volume, or this one with other attributes"
        raise RefusedError(grpc.StatusCode.ALREADY_EXISTS, what)
