"""The page's document: its policy, what it may not contain, and which documents it may replace."""

from __future__ import annotations

import base64
import hashlib
import re

import pytest

from axonfs import page as package
from axonfs.page import MAX_PAGE_BYTES, may_replace, page

TEXT = page().decode()


@pytest.mark.parametrize("tag", ["script", "style"])
def test_the_policy_allows_what_the_document_contains_and_nothing_else(tag: str) -> None:
    (content,) = re.findall(f"<{tag}>(.*?)</{tag}>", TEXT, re.DOTALL)
    digest = base64.b64encode(hashlib.sha256(content.encode()).digest()).decode()
    (policy,) = re.findall(r'Content-Security-Policy" content="([^"]*)"', TEXT)
    assert f"{tag}-src 'sha256-{digest}'" in policy.split("; ")
    assert "default-src 'none'" in policy
    assert "unsafe" not in policy


def test_the_document_needs_nothing_else_and_makes_no_elements_from_texts() -> None:
    addresses = set(re.findall(r"https?://[^\s\"'`)]+", TEXT))
    assert addresses == {"http://www.w3.org/2000/svg"}
    assert not re.search(r"innerHTML|outerHTML|insertAdjacent|document\.write|eval\(", TEXT)
    assert not re.search(r"<[^<>]*\son[a-z]+=", TEXT)
    assert len(page()) < MAX_PAGE_BYTES


def test_a_page_of_an_older_axonfs_is_replaced_and_no_other(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(package, "__version__", "1.10.0")
    mark = '<meta name="generator" content="axonfs {} registry page">'
    for version, expected in (("1.9.0", True), ("1.10.0", True), ("1.11.0", False)):
        assert may_replace(mark.format(version).encode()) is expected
    assert may_replace(page())
    assert not may_replace(b"<title>The models of our team</title>")
