"""The settings that a mount keeps in a file in memory, from worker to worker."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from axonfs.errors import UsageError
from axonfs.settings.applied import REMOUNT, apply, keep_options, remounted, works
from axonfs.settings.signers import SignatureRules


@pytest.fixture
def kept() -> Iterator[int]:
    """The file in memory."""
    descriptor = os.memfd_create("settings")
    yield descriptor
    os.close(descriptor)


@pytest.mark.parametrize("length", [1, 40, -1])
def test_a_worker_that_was_killed_while_it_wrote(
    kept: int, length: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What it left in part costs the settings that were kept, and not the mount. Nobody knows
    whether they had a rule for signatures, so no version is admitted."""
    config = tmp_path / "config.yaml"
    monkeypatch.setenv("AXONFS_CONFIG", str(config))
    config.write_text("streams: 3\n")
    works(apply({}, kept, first=True), kept)
    text = os.pread(kept, 1 << 20, 0)
    os.ftruncate(kept, length % len(text))
    config.write_text("streams: [\n")
    applied = apply({}, kept, first=False)
    assert "not YAML" in str(applied.fault)
    assert applied.settings.streams == 16
    assert SignatureRules.of(applied.settings.require_signature).everywhere


def test_rules_for_signatures_outlive_a_config_file_that_is_not_in_use(
    kept: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = tmp_path / "config.yaml"
    monkeypatch.setenv("AXONFS_CONFIG", str(config))
    config.write_text("streams: 3\nrequire_signature: [/a.pub]\n")
    works(apply({}, kept, first=True), kept)
    config.write_text("require_signature: [\n")
    assert apply({}, kept, first=False).settings.require_signature == ("/a.pub",)
    config.unlink()
    applied = apply({}, kept, first=False)
    assert "the config file is gone" in str(applied.fault)
    assert applied.settings.require_signature == ("/a.pub",)
    config.write_text("streams: 4\nrequire_signature: [/b.pub]\n")
    for fault in (False, True):  # the first worker with this file is killed before it answers
        applied = apply({}, kept, first=False)
        assert (applied.fault is not None) == fault
        assert applied.settings.require_signature == ("/b.pub",)
    assert applied.settings.streams == 3
    config.write_text("streams: 4\n")  # without any rule, on purpose
    assert apply({}, kept, first=False).settings.require_signature == ()


def test_options_of_a_remount_go_before_flags_and_the_file(
    kept: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They outlive workers, and a config file that is invalid."""
    config = tmp_path / "config.yaml"
    monkeypatch.setenv("AXONFS_CONFIG", str(config))
    config.write_text("streams: 3\nretries: 1\n")
    flags = {"streams": "4", "bandwidth": "1M"}
    first = apply(flags, kept, first=True)
    works(first, kept)
    options = remounted(first, {"streams": "5", "retries": "2"})
    keep_options(options, kept)
    for text in ("streams: 3\n", "streams: [\n"):
        config.write_text(text)
        applied = apply(flags, kept, first=False)
        if applied.fault is None:
            works(applied, kept)
        assert (applied.settings.streams, applied.settings.retries) == (5, 2)
        assert applied.provenance["streams"] == REMOUNT
        assert applied.settings.bandwidth == 1 << 20
    assert remounted(applied, {"streams": "6"}) == {"streams": "6", "retries": "2"}


def test_options_with_which_no_worker_starts_are_not_in_use(
    kept: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AXONFS_CONFIG", str(tmp_path / "none.yaml"))
    first = apply({"streams": "4"}, kept, first=True)
    works(first, kept)
    keep_options({"streams": "5"}, kept)
    assert apply({"streams": "4"}, kept, first=False).settings.streams == 5
    applied = apply({"streams": "4"}, kept, first=False)  # that worker did not come to `works`
    assert applied.fault
    assert applied.settings.streams == 4


@pytest.mark.parametrize(
    ("given", "complaint"),
    [
        ({"cache": "/elsewhere"}, "cache cannot change"),
        ({"tokens": {"https://x": "y"}}, "no option"),
        ({"\x1b[31m": "1"}, "no option"),
        ({"uid": "root"}, "not a user"),
    ],
)
def test_a_remount_refuses(
    given: dict[str, object],
    complaint: str,
    kept: int,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("AXONFS_CONFIG", str(tmp_path / "none.yaml"))
    applied = apply({}, kept, first=True)
    with pytest.raises(UsageError, match=complaint) as caught:
        remounted(applied, given)
    assert str(caught.value).isprintable()
