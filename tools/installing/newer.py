"""A release's files again with another version number, to upgrade to.

Used by tools/try_install. Nothing but the version differs, in `axonfs/_version.py` and in metadata.
"""

from __future__ import annotations

import base64
import hashlib
import re
import shutil
import subprocess
import tarfile
import zipfile
from pathlib import Path

_VERSION = re.compile(r'^__version__ = "(.+)"$', re.MULTILINE)


def make_newer(release: Path, arch: str, version: str, out: Path) -> None:
    """Write the wheel, the Debian package and the source of `version` into the directory `out`."""
    out.mkdir()
    for wheel in release.glob("axonfs-*.whl"):
        renumber_wheel(wheel, version, out)
    (source,) = release.glob("axonfs-*.tar.gz")
    _source(source, version, out)
    (deb,) = release.glob(f"axonfs_*_{arch}.deb")
    _deb(deb, version, out / f"axonfs_{version}_{arch}.deb")


def renumber_wheel(wheel: Path, version: str, out: Path) -> None:
    """Write a wheel with another version into the directory `out`."""
    _, old, rest = wheel.name.split("-", 2)
    record = f"axonfs-{version}.dist-info/RECORD"
    rows = []
    with (
        zipfile.ZipFile(wheel) as archive,
        zipfile.ZipFile(out / f"axonfs-{version}-{rest}", "w", zipfile.ZIP_DEFLATED) as target,
    ):
        for item in archive.infolist():
            data = archive.read(item)
            name = item.filename.replace(f"axonfs-{old}.dist-info/", f"axonfs-{version}.dist-info/")
            if name == record:
                continue
            if name == "axonfs/_version.py":
                data = _renumbered(data.decode(), version).encode()
            elif name.endswith(".dist-info/METADATA") and name.startswith(f"axonfs-{version}"):
                data = data.replace(
                    f"\nVersion: {old}\n".encode(), f"\nVersion: {version}\n".encode()
                )
            item.filename = name
            target.writestr(item, data)
            digest = base64.urlsafe_b64encode(hashlib.sha256(data).digest()).rstrip(b"=").decode()
            rows.append(f"{name},sha256={digest},{len(data)}\n")
        target.writestr(record, "".join([*rows, f"{record},,\n"]))


def _source(source: Path, version: str, out: Path) -> None:
    with tarfile.open(source) as archive:
        archive.extractall(out, filter="data")
    (tree,) = (path for path in out.iterdir() if path.is_dir())
    renamed = tree.rename(out / f"axonfs-{version}")
    file = renamed / "axonfs/_version.py"
    file.write_text(_renumbered(file.read_text(), version))
    with tarfile.open(out / f"axonfs-{version}.tar.gz", "w:gz") as archive:
        archive.add(renamed, renamed.name)
    shutil.rmtree(renamed)


def _deb(deb: Path, version: str, target: Path) -> None:
    tree = target.with_suffix(".tree")
    subprocess.run(["dpkg-deb", "-R", deb, tree], check=True)
    control = tree / "DEBIAN/control"
    control.write_text(re.sub(r"(?m)^Version: .*$", f"Version: {version}", control.read_text()))
    file = tree / "usr/lib/axonfs/lib/python3/site-packages/axonfs/_version.py"
    file.write_text(_renumbered(file.read_text(), version))
    build = ["dpkg-deb", "--root-owner-group", "-Zgzip", "-z1", "-b", str(tree), str(target)]
    subprocess.run(build, check=True, stdout=subprocess.DEVNULL)
    shutil.rmtree(tree)


def _renumbered(text: str, version: str) -> str:
    changed, count = _VERSION.subn(f'__version__ = "{version}"', text)
    if count != 1:
        raise ValueError("axonfs/_version.py has no version")
    return changed
