"""Addresses to listen on, in all the forms that people write."""

from __future__ import annotations

from pathlib import Path

import pytest

from axonfs.settings.listening import parse_listening, split_listening


@pytest.mark.parametrize(
    ("written", "address", "parts"),
    [
        (9464, "127.0.0.1:9464", ("127.0.0.1", 9464)),
        ("9464", "127.0.0.1:9464", ("127.0.0.1", 9464)),
        ("0.0.0.0:9464", "0.0.0.0:9464", ("0.0.0.0", 9464)),
        ("gpu-1.example:9464", "gpu-1.example:9464", ("gpu-1.example", 9464)),
        ("[::1]:9464", "[::1]:9464", ("::1", 9464)),
        ("unix:/run/axonfs.sock", "unix:/run/axonfs.sock", ("/run/axonfs.sock", 0)),
    ],
)
def test_an_address(written: object, address: str, parts: tuple[str, int]) -> None:
    assert parse_listening(written) == address
    assert split_listening(address) == parts
    assert parse_listening(address) == address


@pytest.mark.parametrize("written", [None, False, "off", "OFF"])
def test_off(written: object) -> None:
    assert parse_listening(written) is None


def test_a_relative_path(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    assert parse_listening("unix:axonfs.sock") == f"unix:{tmp_path}/axonfs.sock"


@pytest.mark.parametrize(
    "written",
    [
        "",
        "0",
        "65536",
        "-1",
        "host",
        "host:",
        "::1:9464",
        "[::1]",
        "http://x:80",
        "unix:",
        True,
        "٣",
    ],
)
def test_no_address(written: object) -> None:
    with pytest.raises(ValueError, match="is not"):
        parse_listening(written)
