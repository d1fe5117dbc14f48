"""The order in which a host behind site caches asks for a plan's parts."""

from __future__ import annotations

import pytest

from axonfs.ahead.bulk import turned


@pytest.mark.parametrize(
    ("begin", "order"), [(0.0, "abcd"), (0.3, "bcda"), (0.5, "cdab"), (0.999, "dabc")]
)
def test_what_comes_before_the_beginning_comes_last(begin: float, order: str) -> None:
    assert "".join(turned("abcd", begin)) == order
    assert turned("", begin) == []
