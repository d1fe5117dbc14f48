"""One browser for all tests of a module."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.support.browser import Page, chromium


@pytest.fixture(scope="module")
def tab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Page]:
    """A tab of a browser, which complains of nothing in it."""
    with chromium(tmp_path_factory.mktemp("chromium")) as browser:
        page = browser.page()
        yield page
        assert page.faults == []
