"""What a mount in the background, which runs in `/`, is told by its variables."""

from __future__ import annotations

from pathlib import Path

import pytest

from axonfs.cli.background import _environment


@pytest.mark.parametrize(
    ("given", "told"),
    [("none", "none"), ("team.pub nlp/=a@x.org,ca.pem", "{0}/team.pub nlp=a@x.org,{0}/ca.pem")],
)
def test_the_path_of_a_key_counts_from_the_working_directory(
    given: str, told: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("AXONFS_REQUIRE_SIGNATURE", given)
    assert _environment(0)["AXONFS_REQUIRE_SIGNATURE"] == told.format(tmp_path)
