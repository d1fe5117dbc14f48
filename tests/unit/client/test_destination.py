"""Where an export writes: names that it refuses."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from axonfs.client.destination import Destination
from axonfs.errors import AxonError, MalformedError


@pytest.mark.parametrize("path", ["../x", "/etc/x", "a/../../x", "", ".", "a//b"])
def test_a_path_that_leads_elsewhere(tmp_path: Path, path: str) -> None:
    there = Destination(tmp_path / "out")
    with pytest.raises(MalformedError, match="is not a plain relative path"):
        there.place(path, "x").__enter__()
    there.close()


def test_two_files_that_are_one_name_there(tmp_path: Path) -> None:
    """On a file system that takes `A` and `a` for the same, which a hard link stands in for."""
    there = Destination(tmp_path)
    (tmp_path / "A").write_text("x")
    for name in ("A", "a"):
        with there.place(name, "x") as place:
            if name == "a":
                os.link(tmp_path / "A", tmp_path / "a")
                os.unlink(tmp_path / "A")
                with pytest.raises(AxonError, match="has the same name as 'A'"):
                    there.note(place)
            else:
                there.note(place)
    there.close()


def test_a_file_that_is_named_as_a_draft_is_refused(tmp_path: Path) -> None:
    """It could take the place of another file's draft, and would go with the drafts."""
    there = Destination(tmp_path / "out")
    with pytest.raises(AxonError, match="has the name of a draft"):
        there.place("part/.axonfs-0123456789abcdef.part", "x").__enter__()
    assert not list((tmp_path / "out").iterdir())
    there.close()
