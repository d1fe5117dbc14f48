"""The lock file: its bytes, and what is refused."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from axonfs.errors import MalformedError
from axonfs.formats.lockfile import MAX_LOCK_BYTES, Locked, parse_lock, render_lock
from axonfs.names import Spec, parse_spec

WHOLE = Locked(parse_spec("nlp/tiny@1.0.0"), "ab" * 32, "http://models.example.org/", 4, 3145728)
PART = Locked(
    parse_spec("nlp/org/deep@1.10"), "1" * 64, "http://h/", 1, 7, ("onnx/größe model.onnx",)
)


def test_the_bytes_of_a_lock_file_are_these() -> None:
    assert render_lock([WHOLE, PART]).decode() == (
        "# Written by `axonfs lock`; `axonfs pin --lock` pins exactly this.\n"
        "apiVersion: axonfs/v1\n"
        "kind: Lock\n"
        "versions:\n"
        "- spec: nlp/org/deep@1.10\n"
        f"  manifest: '{'1' * 64}'\n"
        "  source: http://h/\n"
        "  files: 1\n"
        "  size: 7\n"
        "  paths:\n"
        "  - onnx/größe model.onnx\n"
        "- spec: nlp/tiny@1.0.0\n"
        f"  manifest: {'ab' * 32}\n"
        "  source: http://models.example.org/\n"
        "  files: 4\n"
        "  size: 3145728\n"
    )


SEGMENTS = st.from_regex(r"[A-Za-z0-9_][A-Za-z0-9._+-]{0,8}", fullmatch=True)
PATHS = st.lists(SEGMENTS, min_size=1, max_size=3).map("/".join)
VERSIONS = st.builds(
    Locked,
    st.builds(Spec, SEGMENTS, PATHS, SEGMENTS.filter(lambda text: text != "latest")),
    st.binary(min_size=32, max_size=32).map(bytes.hex),
    st.from_regex(r"https?://[a-z]{1,9}/", fullmatch=True),
    st.integers(0, 1000),
    st.integers(0, 1 << 50),
    st.none() | st.lists(PATHS, min_size=1, max_size=3, unique=True).map(tuple),
)


@given(st.lists(VERSIONS, max_size=4, unique_by=lambda locked: locked.spec))
def test_it_reads_back_and_does_not_depend_on_the_order(versions: list[Locked]) -> None:
    raw = render_lock(versions)
    assert parse_lock(raw) == sorted(versions, key=lambda locked: locked.spec)
    assert render_lock(versions[::-1]) == raw


GOOD = render_lock([WHOLE]).decode()


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "not a lock file"),
        ("a: [", "not YAML"),
        (GOOD.replace("axonfs/v1", "axonfs/v2"), "not a lock file"),
        (GOOD.replace("Lock\n", "Model\n"), "not a lock file"),
        (GOOD.partition("versions")[0], "versions is not a list"),
        (GOOD.partition("versions")[0] + "versions: [1]", r"versions\[0\] is not a mapping"),
        (GOOD.replace("@1.0.0", ""), r"versions\[0\]\.spec names no version"),
        (GOOD.replace("@1.0.0", "@latest"), "names no version"),
        (GOOD.replace("nlp/tiny", "../tiny"), r"versions\[0\]\.spec: "),
        (GOOD.replace("@1.0.0", "@^1"), r"versions\[0\]\.spec: "),
        (GOOD.replace("ab" * 32, "abc"), r"versions\[0\]\.manifest: "),
        (GOOD.replace("files: 4", "files: four"), r"versions\[0\]\.files"),
        (GOOD.replace("size: 3145728", "size:"), r"versions\[0\]\.size"),
        (GOOD + "  paths: []\n", r"versions\[0\]\.paths"),
        (GOOD + "  paths: [../x]\n", "relative path"),
        (GOOD + GOOD.partition("versions:\n")[2], "listed twice"),
        (GOOD + "#" * MAX_LOCK_BYTES, "larger than 768 KiB"),
    ],
)
def test_what_is_invalid_is_refused(text: str, words: str) -> None:
    with pytest.raises(MalformedError, match=words):
        parse_lock(text.encode())
