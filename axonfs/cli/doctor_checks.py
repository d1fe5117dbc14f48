"""The checks of `axonfs doctor`: the machine, the cache, the mounts, the registries and hubs.

The checks change nothing, except for a temporary file in the cache directory. The checks of
registries and hubs test whether they answer, how fast, over HTTPS, and whether the tokens work.

There is no check of the clock. A wrong clock matters only to TLS, and a TLS error gets a hint here
that shows the machine's time.
"""

from __future__ import annotations

import os
import platform
import re
import shutil
import stat
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import trio

from axonfs.cli.extensions import NATIVE, RECORDS, by_whom, why_not_of
from axonfs.client.health import health
from axonfs.client.other_users import Other, state_of
from axonfs.connection.mountinfo import Mount, mounts
from axonfs.connection.mounting import DEVICE, FUSE_CONFIG, user_allow_other
from axonfs.errors import (
    ADD_REGISTRY,
    AccessDeniedError,
    AxonError,
    NotFoundError,
    UnsupportedError,
)
from axonfs.http_client import Documents, Files, Limits, Trust, why_no_records
from axonfs.rundir import guard
from axonfs.s3 import S3Signer
from axonfs.settings.settings import Settings
from axonfs.sources import HubSource, RegistrySource, configured_hubs, hub_tokens
from axonfs.units import counted, size

OK, WARN, FAIL = "ok", "warn", "fail"
OLDEST_KERNEL = (5, 4)
PASSTHROUGH_KERNEL = (6, 9)
LITTLE_SPACE = 5 << 30
PATIENCE = 15.0
_LIMITS = Limits(connect=5, first_byte=10, stall=10, deadline=PATIENCE, attempts=1)
_LOCAL = ("localhost", "127.0.0.1", "::1")


@dataclass(frozen=True, slots=True)
class Check:
    """The result of one check; `state` is ok, warn or fail, and `hint` says what to do."""

    name: str
    state: str
    text: str
    hint: str = ""


def machine_checks(settings: Settings) -> Iterator[Check]:
    """Check what mounting needs: the device, the helper program and the kernel."""
    yield fuse_device(DEVICE)
    yield _helper()
    if settings.allow_other and os.geteuid() != 0:
        yield allow_other(FUSE_CONFIG)
    yield kernel(platform.release())
    yield extensions()
    yield passthrough(platform.release())


def fuse_device(device: Path) -> Check:
    """Check that /dev/fuse exists and that this user may open it."""
    try:
        mode = device.stat().st_mode
    except OSError:
        return Check(
            "device",
            FAIL,
            f"{device} does not exist",
            "modprobe fuse, or in a container pass it in (--device /dev/fuse --cap-add SYS_ADMIN)",
        )
    shown = f"{device} has mode {stat.S_IMODE(mode):04o}"
    if not stat.S_ISCHR(mode):
        return Check("device", FAIL, f"{device} is not a device", "remove it and modprobe fuse")
    try:
        os.close(os.open(device, os.O_RDWR | os.O_CLOEXEC))
    except OSError as exc:
        return Check(
            "device",
            FAIL,
            f"{shown} and cannot be opened: {exc.strerror}",
            f"as root: chmod 0666 {device}",
        )
    return Check("device", OK, f"{shown} and opens")


def _helper() -> Check:
    found = shutil.which("fusermount3")
    if found is not None:
        return Check("fusermount3", OK, found)
    state = WARN if os.geteuid() == 0 else FAIL
    return Check("fusermount3", state, "not installed; only root can mount", "apt install fuse3")


def allow_other(config: Path) -> Check:
    """Check that users may mount with --allow-other."""
    if user_allow_other(config):
        return Check("allow_other", OK, f"{config} has user_allow_other")
    return Check(
        "allow_other",
        FAIL,
        "only root may mount for other users here",
        f"add the line user_allow_other to {config}",
    )


def kernel(release: str) -> Check:
    """Check that the kernel is recent enough."""
    if not _older(release, OLDEST_KERNEL):
        return Check("kernel", OK, release)
    oldest = ".".join(map(str, OLDEST_KERNEL))
    return Check("kernel", WARN, f"{release} is older than {oldest}", "upgrade the kernel")


def _older(release: str, version: tuple[int, int]) -> bool:
    numbers = re.match(r"(\d+)\.(\d+)", release)
    return numbers is not None and tuple(map(int, numbers.groups())) < version


_FROM_DISK = "programs read pinned versions from the disk with axonfs path"


def extensions() -> Check:
    """Check that the C extensions are built, without which reads and TLS take more processor."""
    from axonfs.fuse.openreply import UNAVAILABLE

    why_not = {NATIVE: UNAVAILABLE, RECORDS: why_no_records()}
    if not any(why_not.values()):
        return Check("extensions", OK, by_whom(why_not))
    return Check("extensions", WARN, by_whom(why_not), "then install axonfs again")


def passthrough(release: str) -> Check:
    """Check for passthrough, with which the kernel reads complete files itself, at disk speed."""
    from axonfs.fuse.openreply import UNAVAILABLE

    if UNAVAILABLE is not None:
        return Check("passthrough", WARN, f"needs the extension {NATIVE}")
    if os.geteuid() != 0:
        return Check("passthrough", OK, f"only mounts of root have it; {_FROM_DISK}")
    if _older(release, PASSTHROUGH_KERNEL):
        return Check("passthrough", WARN, f"needs Linux 6.9, this is {release}", _FROM_DISK)
    return Check("passthrough", OK, "built")


def cache_checks(settings: Settings) -> Iterator[Check]:
    """Check that the cache directory can be used, and for free space."""
    directory = settings.cache
    try:
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        guard(directory)
        with tempfile.TemporaryFile(dir=directory) as file:
            sparse = _is_sparse(file.fileno())
    except OSError as exc:
        yield Check(
            "cache",
            FAIL,
            f"{directory} cannot be written: {exc.strerror}",
            "choose another with --cache DIR or axonfs config set cache DIR",
        )
        return
    except UnsupportedError as exc:
        yield Check("cache", FAIL, f"{directory}: {exc.what}", exc.hint or "")
        return
    yield Check("cache", OK, f"{directory} can be written")
    if not sparse:
        yield Check(
            "sparse files",
            WARN,
            f"the file system of {directory} has no sparse files, so a file that"
            " is read in part takes its whole size",
            "use ext4, xfs, btrfs or tmpfs",
        )
    yield from _stacked(directory)
    yield _space(directory, settings.cache_size)


def _stacked(directory: Path) -> Iterator[Check]:
    """Check for a stacked file system, on which the kernel refuses passthrough."""
    from axonfs.store import file_system

    kind = file_system(directory)
    if kind in ("overlay", "ecryptfs") and os.geteuid() == 0:
        what = f"{directory} is on {kind}, a stacked file system, where passthrough does not work"
        hint = "put the cache on a volume or another disk with --cache"
        yield Check("passthrough", WARN, what, hint)


def _is_sparse(descriptor: int) -> bool:
    os.ftruncate(descriptor, 8 << 20)
    return os.fstat(descriptor).st_blocks * 512 < 4 << 20


def _space(directory: Path, limit: int | None) -> Check:
    disk = shutil.disk_usage(directory)
    usable = disk.used + disk.free  # `total` counts blocks that are reserved for root
    text = f"{size(disk.free)} of {size(usable)} free"
    if disk.free < min(LITTLE_SPACE, usable // 10):
        return Check("space", WARN, text, "free some space, or choose another disk with --cache")
    if limit is not None and limit > usable:
        return Check(
            "space",
            WARN,
            f"{text}, less than the cache limit of {size(limit)}",
            "set a smaller cache_size",
        )
    return Check("space", OK, text)


def mount_checks(settings: Settings) -> Iterator[Check]:
    """Check that each mount answers."""
    found = mounts()
    if not found:
        yield Check("mounts", OK, "nothing is mounted")
    for mount in found:
        yield mount_check(mount)


def mount_check(mount: Mount) -> Check:
    """Check that one mount answers, and report its own faults."""
    place, answer = mount.mountpoint, health(mount)
    name = f"mount {place}"
    if mount.owner != os.geteuid() and answer.state != "alive":
        return Check(name, WARN, state_of(Other(mount, answer)))  # its owner has to fix it
    if answer.state == "dead":
        return Check(name, FAIL, "its process has ended", f"axonfs umount --force {place}")
    if answer.state == "wedged":
        return Check(name, FAIL, "it does not answer", f"axonfs umount --force {place}")
    if answer.state == "closed":
        return Check(name, WARN, "it is closed to this user", "mount it with --allow-other")
    failures = answer.status.get("failures") or []
    if failures:
        last = str(failures[-1].get("message", ""))
        return Check(
            name, WARN, f"{len(failures)} recent failures, the last: {last}", _see(answer.status)
        )
    if shortage := answer.status.get("cache_shortage"):
        return Check(name, WARN, f"answers, but {shortage}")
    connection = answer.status.get("connection") or {}
    if why := connection.get("why_not_own"):
        return Check(name, WARN, f"answers, but uses the connection of libfuse: {why}")
    text = f"answers (pid {answer.pid}), cache {answer.status.get('cache')}"
    if log := answer.status.get("log"):
        text += f", log {log}"
    if why := connection.get("why_no_passthrough"):
        text += f"; no passthrough: {why}"
    if found := by_whom(why_not_of(answer.status.get("extensions"))):
        text += f"; {found}"
    return Check(name, OK, text)


def _see(status: dict[str, Any]) -> str:
    """Where to read more about a mount's failures."""
    return "see axonfs status" + (f", and {status['log']}" if status.get("log") else "")


def registry_checks(settings: Settings) -> Iterator[Check]:
    """Request the index of each registry, and the account of each hub's token."""
    if settings.offline:
        yield Check("registries", OK, "not checked: offline")
        return
    if not settings.registries:
        yield Check("registries", WARN, "none is configured", ADD_REGISTRY)
    yield from trio.run(_ask_all, settings)


async def _ask_all(settings: Settings) -> list[Check]:
    checks: dict[str, Check] = {}
    signer = S3Signer(settings.ca_bundle)
    signer.learn(settings.registries)
    async with (
        Documents(
            _LIMITS, Trust(settings.ca_bundle), signers={"s3": signer, "file": Files()}
        ) as documents,
        trio.open_nursery() as nursery,
    ):
        for url in settings.registries:
            source = RegistrySource(url, documents, token=settings.token(url))
            nursery.start_soon(_ask, source, url, bool(settings.token(url)), checks)
        hubs = configured_hubs(settings, documents, None, hub_tokens(settings))
        for hub in hubs.values():
            nursery.start_soon(_ask_hub, hub, checks)
    return [checks[name] for name in (*settings.registries, *hubs)]


async def _ask_hub(hub: HubSource, checks: dict[str, Check]) -> None:
    started, name = time.monotonic(), f"hub {hub.namespace}"
    if hub.silenced:
        text = f"{hub.url} is not checked while {hub.silenced} is set"
        checks[hub.namespace] = Check(name, OK, text)
        return
    without = f"if you do not need it: axonfs config set sources, without {hub.namespace}"
    try:
        with trio.fail_after(PATIENCE):
            text, state, hint = *await _token_of(hub), ""
    except trio.TooSlowError:
        text, state, hint = f"no answer within {PATIENCE:.0f} s", WARN, without
    except AccessDeniedError as exc:
        hint = f"set {hub.token_variable} to a valid token{hub.log_in}, or unset it"
        text, state = f"its token is refused: {exc.what}", FAIL
    except AxonError as exc:
        text, state, hint = exc.what, WARN, f"{_hint(exc)}; {without}"
    else:
        text = f"answers in {(time.monotonic() - started) * 1000:.0f} ms, {text}"
    checks[hub.namespace] = Check(name, state, f"{hub.url} {text}", hint)


async def _token_of(hub: HubSource) -> tuple[str, str]:
    """What the hub says about its token, as a text and the state of the check.

    Raises:
        AccessDeniedError: the hub refuses the token.
        AxonError: the hub does not answer.
    """
    try:
        account = await hub.account()
    except AccessDeniedError:
        if hub.has_token:
            raise
        return "without a token", OK
    if not hub.has_token:
        return "without a token", OK
    if account is None:
        return "but it does not say whether the token works", WARN
    return f"its token is {account}'s", OK


async def _ask(source: RegistrySource, url: str, has_token: bool, checks: dict[str, Check]) -> None:
    started, name = time.monotonic(), f"registry {url}"
    try:
        with trio.fail_after(PATIENCE):
            listings = await source.listings()
            searches = listings is None and await _searches(source)
    except trio.TooSlowError:
        checks[url] = Check(name, FAIL, f"no answer within {PATIENCE:.0f} s", _CHECK_URL)
        return
    except AxonError as exc:
        refused = has_token and isinstance(exc, AccessDeniedError)
        what = f"its token is refused: {exc.what}" if refused else exc.what
        checks[url] = Check(name, FAIL, what, _hint(exc) if _is_web(url) else exc.hint or "")
        return
    took = f"answers in {(time.monotonic() - started) * 1000:.0f} ms"
    if searches:
        checks[url] = Check(name, OK, f"{took}; it has no index but can be searched")
    elif listings is None:
        text = f"{took}, but it has no index"
        hint = "check the URL; without an index, ls and search find nothing, but names resolve"
        checks[url] = Check(name, WARN, text, hint)
    elif has_token and _is_open(url):
        checks[url] = Check(
            name, WARN, f"{took}, but its token is sent over plain HTTP", "use https"
        )
    else:
        checks[url] = Check(name, OK, f"{took}, {counted(len(listings), 'version')}")


async def _searches(source: RegistrySource) -> bool:
    """Whether a registry without an index answers searches, as those of Axon do."""
    try:
        await source.search("model")
    except NotFoundError:
        return False
    return True


def _is_web(url: str) -> bool:
    return url.startswith(("http:", "https:"))


def _is_open(url: str) -> bool:
    parts = urlsplit(url)
    return parts.scheme == "http" and parts.hostname not in _LOCAL


_CHECK_URL = "check the URL, the network and the proxy (HTTPS_PROXY)"


def _hint(exc: AxonError) -> str:
    if isinstance(exc, AccessDeniedError):
        return "set its token: axonfs registry add URL --with-token"
    if "certificate" in exc.what.lower():
        clock = time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime())
        private = "for a private certificate authority: axonfs config set ca_bundle PEM"
        return f"check the clock, which shows {clock}; {private}"
    return _CHECK_URL
