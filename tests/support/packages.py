"""Registries whose versions are packages, made by hand: a manifest and one tar.gz, no objects."""

from __future__ import annotations

import gzip
import hashlib
import io
import tarfile
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from axonfs.names import parse_spec
from tests.support.axon import MANIFEST, axon_manifest
from tests.support.faulty import Exchange
from tests.support.files import write_files

PATH = "packages/model.axon"


def package_of(members: Mapping[str, bytes | tarfile.TarInfo]) -> bytes:
    """A tar.gz with these members, in this order."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz", format=tarfile.PAX_FORMAT) as archive:
        for path, content in members.items():
            header = tarfile.TarInfo(path) if isinstance(content, bytes) else content
            data = content if isinstance(content, bytes) else b""
            header.size = len(data)
            archive.addfile(header, io.BytesIO(data))
    return buffer.getvalue()


def stored(files: Mapping[str, bytes]) -> bytes:
    """A package of these files that is as long as any other of files as long as these."""
    return gzip.compress(gzip.decompress(package_of(files)), 0, mtime=0)


class Pause:
    """An answer that stops in its third quarter and goes on once it is let through."""

    def __init__(self) -> None:
        self.open = threading.Event()

    def __call__(self, exchange: Exchange) -> None:
        exchange.answered = True
        middle = len(exchange.body) * 3 // 4
        exchange.head()
        exchange.write(exchange.body[:middle])
        self.open.wait(20)
        exchange.write(exchange.body[middle:])


def add_package(
    registry: Path,
    spec: str,
    files: Mapping[str, bytes],
    package: bytes | None = None,
    *,
    sums: bool = True,
    mirrors: tuple[str, ...] = (),
    declared: bytes | None = None,
    path: str = PATH,
) -> bytes:
    """One more version in the directory of a registry; returns its package.

    Args:
        package: what is served, if not the files themselves.
        sums: whether the manifest has the sha256 of each file.
        declared: the package that the manifest speaks of, if not the one that is served.
        path: where the registry has it.
    """
    package = package_of(files) if package is None else package
    document = axon_manifest(parse_spec(spec), files)
    said: dict[str, Any] = document["distribution"]["package"]
    about = package if declared is None else declared
    said["url"] = f"https://registry.example.org/{path}"
    said["size"], said["sha256"] = len(about), hashlib.sha256(about).hexdigest()
    said["mirrors"] = list(mirrors)
    for file in document["spec"]["format"]["files"]:
        if not sums:
            del file["sha256"]
    manifest = MANIFEST.format(parse_spec(spec).model + "/" + parse_spec(spec).version)
    write_files(registry, {manifest: yaml.safe_dump(document).encode(), path: package})
    return package
