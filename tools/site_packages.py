"""Fills a directory with AxonFS and its libraries for several versions of CPython at once.

Run by tools/release: `site_packages.py ARCH TARGET WHEELS VERSION…`. WHEELS has AxonFS's wheel; the
libraries are those of packaging/debian/requirements.lock. Compiled modules of different versions
have different names, so one directory serves all: a Debian package that has it survives an upgrade
of the distribution.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

from tools.wheels import GLIBC, MACHINES

ROOT = Path(__file__).parents[1]
LOCK = ROOT / "packaging/debian/requirements.lock"
# The installer's files, which are not the same twice, and what libraries ship for their developers.
_LEFT_OUT = (
    "bin",
    ".lock",
    "uv_cache.json",
    "REQUESTED",
    "RECORD",
    "direct_url.json",
    ".gitignore",
    "*.sh",
)


def main(arch: str, target: str, wheels: str, *versions: str) -> None:
    place = Path(target)
    for version in versions:
        part = place.with_name(f"{place.name}-{version}")
        platform = f"{MACHINES[arch]}-manylinux_{GLIBC.replace('.', '_')}"
        common = ["--target", str(part), "--python-version", version, "--python-platform", platform]
        _install(*common, "--require-hashes", "--only-binary", ":all:", "-r", str(LOCK))
        _install(*common, "--no-index", "--find-links", wheels, "axonfs")
        shutil.copytree(part, place, dirs_exist_ok=True, ignore=shutil.ignore_patterns(*_LEFT_OUT))
        shutil.rmtree(part)
    for path in place.rglob("*"):
        path.chmod(0o755 if path.is_dir() else 0o644)


def _install(*arguments: str) -> None:
    uv = Path(sys.executable).with_name("uv")
    common = ["pip", "install", "--quiet", "--no-deps", "--link-mode", "copy", "--no-progress"]
    subprocess.run([uv, *common, *arguments], check=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
