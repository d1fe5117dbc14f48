"""Specs, paths and versions: what is a name, and what must never become one."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from axonfs.errors import MalformedError, UsageError
from axonfs.names import (
    Spec,
    check_digest,
    check_path,
    newest,
    parse_spec,
    plain,
    printable,
    spec_of,
    valid_segment,
    version_key,
)

SEGMENTS = st.from_regex(r"[A-Za-z0-9_][A-Za-z0-9._+-]{0,12}", fullmatch=True)


@given(st.lists(SEGMENTS, min_size=3, max_size=6))
def test_a_spec_reads_back_from_its_text_and_from_its_directory(parts: list[str]) -> None:
    spec = Spec(parts[0], "/".join(parts[1:-1]), parts[-1])
    assert parse_spec(str(spec)) == spec
    assert spec_of(spec.segments) == spec
    assert spec.model == "/".join(parts[:-1])


def test_the_version_left_out_is_latest() -> None:
    assert parse_spec("nlp/deepset/roberta") == Spec("nlp", "deepset/roberta", "latest")


@pytest.mark.parametrize(
    "text",
    [
        "",
        "llama",
        "nlp/",
        "/llama",
        "nlp//llama",
        "nlp/llama@",
        "nlp/llama@1@2",
        "nlp/../x@1",
        "nlp/.git@1",
        "nlp/llama@-1",
        "nlp/lla ma",
        "nlp/ll\nama",
        "nlp/lläma",
        "a/" * 16 + "b",
        "nlp/" + "x" * 256,
    ],
)
def test_what_is_not_a_spec_is_a_usage_error_that_shows_the_form(text: str) -> None:
    with pytest.raises(UsageError, match="namespace/name"):
        parse_spec(text)


@pytest.mark.parametrize("segments", [(), ("a",), ("a", "b"), ("a", "b", ".."), ("a",) * 17])
def test_no_spec_stands_behind_these_directories(segments: tuple[str, ...]) -> None:
    assert spec_of(segments) is None


@pytest.mark.parametrize("text", ["Qwen2.5-7B", "_x", "1.0.0+cu12", "x" * 255])
def test_segments_of_real_models_are_valid(text: str) -> None:
    assert valid_segment(text)


@pytest.mark.parametrize("path", ["a", "a/b.c", "onnx/model file.onnx", "-x", "..a", "größe.txt"])
def test_plain_relative_paths_pass(path: str) -> None:
    assert check_path(path) == path


@pytest.mark.parametrize(
    "path",
    [
        "",
        "/a",
        "a/",
        "a//b",
        ".",
        "..",
        "a/../b",
        "./a",
        "a\x00b",
        "a\nb",
        "a\x1b[2J",
        "a\u202eb",
        "a\u2028b",
        "a\udc80",
        "x" * 256,
        "/".join("a" * 17),
        "/".join(["x" * 100] * 11),
    ],
)
def test_other_paths_are_refused_with_a_message_safe_to_print(path: str) -> None:
    with pytest.raises(MalformedError) as refusal:
        check_path(path)
    assert str(refusal.value).isprintable()


@given(st.text(max_size=40))
def test_no_path_that_passes_leaves_its_directory(path: str) -> None:
    try:
        check_path(path)
    except MalformedError:
        return
    assert not any(ord(char) < 32 or 127 <= ord(char) < 160 for char in path)
    assert not path.startswith("/")
    assert not {"", ".", ".."} & set(path.split("/"))


@pytest.mark.parametrize("text", [None, 1, "", "a" * 63, "A" * 64, "g" * 64, "a" * 64 + "\n"])
def test_only_a_sha256_is_a_digest(text: object) -> None:
    with pytest.raises(MalformedError, match="sha256"):
        check_digest(text)


def test_a_digest_passes_as_it_is() -> None:
    assert check_digest("0123456789abcdef" * 4) == "0123456789abcdef" * 4


@given(st.text(), st.integers(1, 50))
def test_printable_text_is_safe_and_stays_so(text: str, limit: int) -> None:
    once = printable(text, limit)
    assert once.isprintable()
    assert len(once) <= limit
    assert printable(once, limit) == once


@given(st.text())
def test_plain_text_is_one_line_and_stays_so(text: str) -> None:
    assert plain(text).isprintable()
    assert plain(plain(text)) == plain(text)


# semver.org, section 11, and what stands around it.
ORDER = (
    "main",
    "nightly",
    "0.9",
    "1.0.0-alpha",
    "1.0.0-alpha.1",
    "1.0.0-alpha.beta",
    "1.0.0-beta",
    "1.0.0-beta.2",
    "1.0.0-beta.11",
    "1.0.0-rc.1",
    "1.0.0",
    "v1.0.1",
    "1.2",
    "1.10.0",
    "2",
)


@given(st.permutations(ORDER))
def test_versions_are_in_semver_order(shuffled: list[str]) -> None:
    assert sorted(shuffled, key=version_key) == list(ORDER)


@given(st.lists(SEGMENTS, min_size=1))
def test_the_newest_version_does_not_depend_on_the_order(versions: list[str]) -> None:
    assert newest(versions) == newest(versions[::-1]) == newest(sorted(versions))
    assert newest(versions) in versions


def test_the_newest_is_a_release_where_there_is_one() -> None:
    assert newest(["2.0.0-rc.1", "1.9.0", "1.10.0", "main"]) == "1.10.0"
    assert newest(["main", "1.0.0-rc.2", "1.0.0-rc.10"]) == "1.0.0-rc.10"
    assert newest(["1.0.0+b", "1.0.0+a"]) == "1.0.0+b"
    assert newest([]) is None
