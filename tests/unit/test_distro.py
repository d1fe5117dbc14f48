"""What hints say to install, by the os-release files of distributions."""

from __future__ import annotations

import platform
import sys
from pathlib import Path

import pytest

from axonfs.distro import install_extra, install_fuse

# As these distributions ship them; lines that say nothing of packages are left out.
FILES = {
    "Debian 12": 'ID=debian\nVERSION_ID="12"\n',
    "Ubuntu 24.04": 'ID=ubuntu\nID_LIKE=debian\nVERSION_ID="24.04"\n',
    "Linux Mint 22": 'ID=linuxmint\nID_LIKE="ubuntu debian"\n',
    "Fedora 43": "ID=fedora\nVERSION_ID=43\n",
    "RHEL 9": 'ID="rhel"\nID_LIKE="fedora"\n',
    "Rocky 9": 'ID="rocky"\nID_LIKE="rhel centos fedora"\n',
    "Amazon Linux 2023": 'ID="amzn"\nID_LIKE="fedora"\n',
    "Arch": "ID=arch\n",
    "EndeavourOS": 'ID="endeavouros"\nID_LIKE="arch"\n',
    "Alpine": "ID=alpine\nVERSION_ID=3.22.1\n",
    "openSUSE Tumbleweed": 'ID="opensuse-tumbleweed"\nID_LIKE="opensuse suse"\n',
    "SLES 15": 'ID="sles"\nID_LIKE="suse"\n',
    "NixOS": "ID=nixos\n",
}
WANTED = {
    "Debian 12": "apt install fuse3",
    "Ubuntu 24.04": "apt install fuse3",
    "Linux Mint 22": "apt install fuse3",
    "Fedora 43": "dnf install fuse3 fuse3-libs",
    "RHEL 9": "dnf install fuse3 fuse3-libs",
    "Rocky 9": "dnf install fuse3 fuse3-libs",
    "Amazon Linux 2023": "dnf install fuse3 fuse3-libs",
    "Arch": "pacman -S fuse3",
    "EndeavourOS": "pacman -S fuse3",
    "Alpine": "apk add fuse3 fuse3-libs",
    "openSUSE Tumbleweed": "zypper install fuse3",
    "SLES 15": "zypper install fuse3",
    "NixOS": "install your distribution's package fuse3",
}


def release(monkeypatch: pytest.MonkeyPatch, path: Path) -> None:
    monkeypatch.setattr(platform, "_os_release_candidates", (str(path),))
    monkeypatch.setattr(platform, "_os_release_cache", None)


@pytest.mark.parametrize("name", FILES)
def test_a_distribution_gets_the_command_of_its_package_manager(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "os-release").write_text(FILES[name])
    release(monkeypatch, tmp_path / "os-release")
    assert install_fuse() == WANTED[name]


def test_a_machine_without_the_file_gets_the_name_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    release(monkeypatch, tmp_path / "missing")
    assert install_fuse() == WANTED["NixOS"]


@pytest.mark.parametrize(
    ("file", "command"),
    [
        ("uv-receipt.toml", "uv tool install 'axonfs[s3]'"),
        ("pipx_metadata.json", "pipx install --force 'axonfs[s3]'"),
        ("bin/pip", "{}/bin/pip install 'axonfs[s3]'"),
        ("bin/python", "pip install 'axonfs[s3]'"),
    ],
)
def test_an_extra_is_added_by_the_tool_that_installed(
    file: str, command: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / file).parent.mkdir(exist_ok=True)
    (tmp_path / file).touch()
    monkeypatch.setattr(sys, "prefix", str(tmp_path))
    assert install_extra("s3") == command.format(tmp_path)


@pytest.mark.parametrize(
    ("file", "text", "command"),
    [
        (
            "uv-receipt.toml",
            '[tool]\nrequirements = [{ name = "axonfs", extras = ["csi", "top"] }]\n',
            "uv tool install 'axonfs[csi,s3,top]'",
        ),
        (
            "pipx_metadata.json",
            '{"main_package": {"package": "axonfs", "package_or_url": "axonfs[top]>=0.1"}}',
            "pipx install --force 'axonfs[s3,top]'",
        ),
        ("pipx_metadata.json", '{"main_package": null}', "pipx install --force 'axonfs[s3]'"),
    ],
)
def test_the_extras_that_are_there_stay(
    file: str, text: str, command: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """uv and pipx remove those that their command does not name."""
    (tmp_path / file).write_text(text)
    monkeypatch.setattr(sys, "prefix", str(tmp_path))
    assert install_extra("s3") == command


def test_the_debian_package_takes_no_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "prefix", "/usr/lib/axonfs")
    hint = install_extra("trace")
    assert hint == "the Debian package does not bring it: pipx install 'axonfs[trace]'"
