"""What /proc says of the signals of a thread."""

from __future__ import annotations

import threading
from pathlib import Path

from axonfs.fuse.signals import pending


def test_a_thread_may_have_a_name_that_is_not_utf8() -> None:
    """The kernel cuts a name off after 15 bytes, within a character or not."""
    found = []

    def look() -> None:
        thread = threading.get_native_id()
        Path(f"/proc/self/task/{thread}/comm").write_bytes("x模型加载器".encode())
        found.append(pending(thread))

    named = threading.Thread(target=look)
    named.start()
    named.join()
    assert found[0] is not None
    assert (found[0].own, found[0].first) == (0, False)
