"""Documents that are refused: no YAML, too large, or with anchors, aliases or tags."""

from __future__ import annotations

import time

import pytest

from axonfs.errors import MalformedError
from axonfs.formats.manifest import MAX_MANIFEST_BYTES, parse_manifest

BOMB = "a: &a [x,x]\nb: &b [*a,*a]\nc: [*b,*b]\n"


@pytest.mark.parametrize(
    ("text", "rule"),
    [
        ("", "not a mapping"),
        ("- 1", "not a mapping"),
        ("a: [", "not YAML"),
        ("a: \x00", "not YAML"),
        ("a: b: c", "not YAML"),
        (BOMB, "anchor"),
        ("a: *b", "alias"),
        ("a: !!python/object/apply:os.system [id]", "tag"),
        ("!x a: 1", "tag"),
        ("a: !!str 1", "tag"),
        ("a: 1\na: 2", "is repeated"),
        ("[1]: 2", "key"),
        ("{a: 1}: 2", "key"),
        ("a: 1\n---\nb: 2", "more than one"),
        ("[" * 100, "deep"),
        ("[" * 1_000_000, "deep"),
    ],
)
def test_yaml_with_tricks_is_refused(text: str, rule: str) -> None:
    with pytest.raises(MalformedError, match=rule):
        parse_manifest(text.encode())


@pytest.mark.parametrize("raw", [b"\xff\xfe\x00", b"a: \xc3(", b"\xef\xbb\xbf\xff"])
def test_bytes_that_are_no_text_are_refused(raw: bytes) -> None:
    with pytest.raises(MalformedError, match="not YAML"):
        parse_manifest(raw)


def test_a_manifest_that_is_too_large_is_refused_before_it_is_parsed() -> None:
    begin = time.monotonic()
    with pytest.raises(MalformedError, match="larger than 16 MiB"):
        parse_manifest(b"- a\n" * (MAX_MANIFEST_BYTES // 4 + 1))
    assert time.monotonic() - begin < 0.5
