"""What the plugin remembers."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from axonfs.csi.records import Record, Records
from axonfs.csi.volume import Volume

PINNED = Record("v", "/target", Volume("nlp/a", "1.0.0", pin=True), "/nlp/a/1.0.0", "nlp/a@1.0.0")


def test_a_record_that_cannot_be_read(tmp_path: Path) -> None:
    """It is no reason to drop the pin of a volume that a pod has. One that is invalid says
    nothing."""
    records = Records(tmp_path)
    records.own(PINNED.spec)
    records.put(PINNED)
    assert records.get(PINNED.target) == PINNED
    assert records.unused() == set()
    (place,) = (path for path in tmp_path.iterdir() if path.name != "pins.json")
    place.unlink()
    place.mkdir()  # each read fails with EISDIR, as it would with EMFILE or EIO
    with pytest.raises(OSError, match="directory"):
        records.unused()
    place.rmdir()
    place.write_text("{")
    assert records.unused() == {PINNED.spec}


def test_a_record_of_another_version(tmp_path: Path) -> None:
    """A field that only another version of the plugin has is left out; the rest counts."""
    records = Records(tmp_path)
    records.put(PINNED)
    (place,) = tmp_path.iterdir()
    found = json.loads(place.read_text())
    place.write_text(json.dumps({**found, "new": 1, "volume": {**found["volume"], "new": 1}}))
    assert records.get(PINNED.target) == PINNED


def test_pins_that_cannot_be_read(tmp_path: Path) -> None:
    """One more pin does not replace those that cannot be read now."""
    records = Records(tmp_path)
    (tmp_path / "pins.json").mkdir()
    with pytest.raises(OSError, match="directory"):
        records.own(PINNED.spec)


def test_drafts(tmp_path: Path) -> None:
    """None stays, of a write that failed or of a plugin that was killed."""
    records = Records(tmp_path)
    records.put(PINNED)
    (place,) = tmp_path.iterdir()
    place.unlink()
    place.mkdir()
    with pytest.raises(OSError, match="directory"):
        records.put(PINNED)
    (tmp_path / "0.json.1.draft").write_text("")
    Records(tmp_path)
    assert list(tmp_path.iterdir()) == [place]
