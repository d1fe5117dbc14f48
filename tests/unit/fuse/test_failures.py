"""The errors that readers get: one line each, and what `status` shows."""

from __future__ import annotations

import errno
import logging

import pytest

from axonfs.errors import UnavailableError
from axonfs.fuse.failures import Failures


def test_each_failure_says_what_where_and_why(caplog: pytest.LogCaptureFixture) -> None:
    """Also one of the cache's disk, which names no model of its own; the same one is told once."""
    failures = Failures()
    refused = UnavailableError("refused", spec="nlp/a@1", path="w.bin", source="http://r/")
    with caplog.at_level(logging.ERROR):
        for _ in range(2):
            assert failures.errno_of(refused, "read", "nlp/a/1/w.bin") == errno.EIO
            broken = OSError(errno.EROFS, "Read-only file system")
            assert failures.errno_of(broken, "lookup", "nlp/b") == errno.EROFS
    lines = [record.getMessage() for record in caplog.records]
    assert lines == [
        "nlp/a@1 w.bin: refused (from http://r/) [EIO]",
        "nlp/b: lookup failed: Read-only file system; look at the disk of the cache: axonfs status,"
        " df, dmesg [EROFS]",
    ]
    first, second = failures.recent()
    assert (first["spec"], first["path"], first["source"]) == ("nlp/a@1", "w.bin", "http://r/")
    assert (first["cause"], second["cause"]) == ("refused", "lookup failed: Read-only file system")
    assert (second["path"], second["errno"]) == ("nlp/b", errno.EROFS)
