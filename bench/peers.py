"""Other mounts of a file on an HTTP server: rclone, httpdirfs, and JuiceFS with SeaweedFS.

Each has the options that its authors recommend for large files, and its own cache directory. A peer
is a function that mounts with a new cache and yields the file's path. mounts.py is the experiment.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path

from bench.downloads import program
from bench.experiment import NotRunError
from bench.fixtures import unmount
from bench.origin import Origin
from tests.support.seaweed import BUCKET, WRITER, Seaweed, seaweedfs

UP_SECONDS = 30.0
_numbers = itertools.count()
_RCLONE = (
    *("--config", "/dev/null", "--cache-dir", "CACHE", "--read-only"),
    *("--vfs-cache-mode", "full", "--vfs-read-chunk-streams", "16"),
    *("--vfs-read-chunk-size", "4M", "--dir-cache-time", "1h"),
)

Peer = Callable[[], AbstractContextManager[Path]]


@contextlib.contextmanager
def _mounted(name: str, work: Path, command: list[str], file: str) -> Iterator[Path]:
    """Run `command` with new directories for MOUNT and CACHE in it; yield MOUNT/file."""
    home = work / f"{name}-{next(_numbers)}"
    places = {"MOUNT": str(home / "mount"), "CACHE": str(home / "cache")}
    for place in places.values():
        Path(place).mkdir(parents=True)
    with open(home / "log", "wb") as log:
        command = [places.get(word, word) for word in command]
        process = subprocess.Popen(command, stdout=log, stderr=log, cwd=work)
    path = home / "mount" / file
    try:
        _wait_for(lambda: os.path.ismount(home / "mount") and path.exists(), process, home / "log")
        yield path
    finally:
        unmount(process, home / "mount")
        shutil.rmtree(home, ignore_errors=True)


def _wait_for(done: Callable[[], bool], process: subprocess.Popen[bytes], log: Path) -> None:
    deadline = time.monotonic() + UP_SECONDS
    while not done():
        if process.poll() is not None or time.monotonic() > deadline:
            last = log.read_text(errors="replace").splitlines()[-1:]
            raise NotRunError(f"the peer did not start: {''.join(last)}")
        time.sleep(0.05)


def rclone(origin: Origin, work: Path, file: str) -> Peer:
    """rclone mount with a full cache, 16 streams of 4 MiB."""
    command = [program("rclone"), "mount", ":http:", "MOUNT", "--http-url", f"{origin.url}/"]
    command += _RCLONE
    return lambda: _mounted("rclone", work, command, file)


def httpdirfs(origin: Origin, work: Path, file: str) -> Peer:
    """httpdirfs --cache, with its check for ranges off: it does not detect nginx's ranges."""
    command = [program("httpdirfs"), "-f", "--cache", "--cache-location", "CACHE"]
    command += ["--no-range-check"]
    command += [f"{origin.url}/", "MOUNT"]
    return lambda: _mounted("httpdirfs", work, command, file)


@contextlib.contextmanager
def juicefs(source: Path, work: Path) -> Iterator[Peer]:
    """JuiceFS with its data in SeaweedFS, both on loopback, holding a copy of `source`."""
    home = work / "juicefs"
    home.mkdir()
    with object_store(home / "seaweed") as store, juicefs_on(store, source, home) as peer:
        yield peer


@contextlib.contextmanager
def object_store(home: Path) -> Iterator[Seaweed]:
    try:
        with seaweedfs(home) as store:
            yield store
    except RuntimeError as exc:
        raise NotRunError(str(exc)) from exc


@contextlib.contextmanager
def juicefs_on(store: Seaweed, source: Path, home: Path) -> Iterator[Peer]:
    """JuiceFS with its data in a bucket, holding a copy of `source`."""
    meta, bucket = f"sqlite3://{home}/meta.db", f"{store.endpoint}/{BUCKET}"
    keys = ["--access-key", WRITER[0], "--secret-key", WRITER[1]]
    form = [program("juicefs"), "format", "--storage", "s3", "--bucket", bucket, *keys]
    _checked([*form, meta, "bench"])
    command = [program("juicefs"), "mount", "--foreground", meta, "MOUNT"]
    command += ["--cache-dir", "CACHE", "--no-usage-report", "--backup-meta", "0"]
    command += ["--metrics", f"127.0.0.1:{store.spare_port}"]
    with _mounted("juicefs", home, command, "") as mount:
        shutil.copyfile(source, mount / source.name)
    yield lambda: _mounted("juicefs", home, command, source.name)


def rclone_on(store: Seaweed, work: Path, key: str) -> Peer:
    """rclone mount of a bucket, with the options of `rclone`."""
    where = f":s3,provider=SeaweedFS,endpoint='{store.endpoint}'"
    where += f",access_key_id={WRITER[0]},secret_access_key={WRITER[1]}:{BUCKET}"
    command = [program("rclone"), "mount", where, "MOUNT", *_RCLONE]
    return lambda: _mounted("rclone", work, command, key)


def _checked(command: list[str]) -> None:
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        last = "".join(done.stderr.strip().splitlines()[-1:])
        raise NotRunError(f"{command[0]} {command[1]}: {last}")
