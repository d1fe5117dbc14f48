"""What to install, and how on this machine: the commands that hints name. Blocking."""

from __future__ import annotations

import json
import platform
import re
import shlex
import sys
import tomllib
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

DEBIAN_PACKAGE = Path("/usr/lib/axonfs")
# By the ID of os-release, or the first known one of ID_LIKE. On Debian, Ubuntu and openSUSE fuse3
# requires the package of libfuse3, whose name has the number of its soname.
INSTALL_FUSE = {
    "debian": "apt install fuse3",
    "ubuntu": "apt install fuse3",
    "fedora": "dnf install fuse3 fuse3-libs",
    "rhel": "dnf install fuse3 fuse3-libs",
    "arch": "pacman -S fuse3",
    "alpine": "apk add fuse3 fuse3-libs",
    "opensuse": "zypper install fuse3",
    "suse": "zypper install fuse3",
}


def install_fuse() -> str:
    """The command that installs libfuse3 and fusermount3 here, with some words around it where the
    distribution is unknown."""
    try:
        release = platform.freedesktop_os_release()
    except OSError:
        release = {}
    return _command(release) or "install your distribution's package fuse3"


def install_extra(extra: str) -> str:
    """The command that adds an extra to this installation, by the tool that made it."""
    prefix, wanted = Path(sys.prefix), f"'axonfs[{','.join(sorted({extra, *_extras()}))}]'"
    if (prefix / "uv-receipt.toml").exists():
        return f"uv tool install {wanted}"
    if (prefix / "pipx_metadata.json").exists():
        return f"pipx install --force {wanted}"
    if prefix == DEBIAN_PACKAGE:
        return f"the Debian package does not bring it: pipx install {wanted}"
    pip = prefix / "bin/pip"
    environment = prefix != Path(sys.base_prefix) and pip.exists()
    return f"{shlex.quote(str(pip)) if environment else 'pip'} install {wanted}"


def _extras() -> set[str]:
    """The extras that uv or pipx installed; their commands remove what they do not name."""
    receipt, metadata = Path(sys.prefix, "uv-receipt.toml"), Path(sys.prefix, "pipx_metadata.json")
    with suppress(OSError, ValueError, LookupError, TypeError, AttributeError):
        if receipt.exists():
            wanted = tomllib.loads(receipt.read_text())["tool"]["requirements"]
            own = [one for one in wanted if one["name"] == "axonfs"]
            return {str(extra) for one in own for extra in one.get("extras", ())}
        package = json.loads(metadata.read_text())["main_package"]["package_or_url"]
        if found := re.fullmatch(r"[^\[\]]+\[([\w\s,.-]+)\].*", package):
            return {extra.strip() for extra in found[1].split(",")}
    return set()


def _command(release: Mapping[str, str]) -> str | None:
    known = (release.get("ID", ""), *release.get("ID_LIKE", "").split())
    return next((INSTALL_FUSE[name] for name in known if name in INSTALL_FUSE), None)
