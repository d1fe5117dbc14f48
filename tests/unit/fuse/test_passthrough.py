"""The count of an inode's handles, of cached ones: nothing of it reaches the kernel."""

from __future__ import annotations

from axonfs.fuse.passthrough import Passthrough


def test_the_last_cached_handle_names_its_inode() -> None:
    counted = Passthrough(-1, "nothing is passed through here")
    for handle in (1, 2):
        assert counted.opened(7, handle, None) == 0
    assert counted.released(1) == 0
    assert counted.released(2) == 7
    assert counted.released(2) == 0


def test_the_last_handle_that_is_passed_through_names_none() -> None:
    counted = Passthrough(-1, "nothing is passed through here")
    counted.restore(7, 1, 5)
    counted.restore(7, 2, 5)
    assert counted.released(1) == 0
    assert counted.files == 1
