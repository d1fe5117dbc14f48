"""What a command says of a setting that it changed, for a mount that runs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from axonfs.cli.reload import NOW, outcome

PLACE = Path("/models/{0}")


@pytest.mark.parametrize(
    ("name", "change", "told"),
    [
        ("streams", {}, NOW),
        ("uid", {}, "keeps its uid until"),
        ("streams", {"origins": {"streams": "flag"}}, "was started with --streams"),
        ("streams", {"origins": {"streams": "AXONFS_STREAMS"}}, "with AXONFS_STREAMS set"),
        ("streams", {"file": "/etc/{x}.yaml"}, "uses another config file, /etc/{x}.yaml"),
        ("streams", {"changed": []}, "already has this value"),
        ("streams", {"applied": False}, "applies after: axonfs restart"),
        ("streams", {"waits_for": ["{}"]}, "when it has answered other commands ({})"),
    ],
)
def test_a_setting_applies_or_the_command_says_why_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, change: dict[str, Any], told: str
) -> None:
    """Whatever characters are in the names of files."""
    monkeypatch.setenv("AXONFS_CONFIG", str(tmp_path / "config.yaml"))
    answer = {
        "origins": {"streams": "file"},
        "file": str(tmp_path / "config.yaml"),
        "changed": ["streams"],
        "applied": True,
        "waits_for": [],
    }
    text = outcome(name, {**answer, **change}, PLACE)
    assert told in text
    assert text == NOW or str(PLACE) in text
