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
    revision_of,
    revision_segment,
    spec_of,
    valid_segment,
    version_key,
)
from axonfs.versions import parse_wanted

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


@pytest.mark.parametrize(
    "path",
    [
        "a",
        "a/b.c",
        "onnx/model file.onnx",
        "-x",
        "..a",
        "größe.txt",
        "zero\u200djoiner",
        "👩\u200d🔬.png",
        "\u0645\u06cc\u200c\u062e.txt",
        "a\nb",
        "tab\t",
        "a\x1b[2J",
        "a\u202eb",
        "a\u2028b",
        " ",
        "a\\b",
        'q"',
        "x" * 255,
        "/".join("a" * 100),
    ],
)
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
        "a\udc80",
        "x" * 256,
        "ü" * 128,
        "/".join(["x" * 100] * 31),
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
    assert "\0" not in path
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


@pytest.mark.parametrize(
    ("revision", "segment"),
    [
        ("main", "main"),
        ("v1.0+cu12", "v1.0+cu12"),
        ("refs/pr/1", "refs%2Fpr%2F1"),
        ("dev/x", "dev%2Fx"),
        ("fix#1", "fix%231"),
        ("rel@1", "rel%401"),
        ("50%", "50%25"),
        ("a%2Fb", "a%252Fb"),
        ("-x", "%2Dx"),
        ("größe", "gr%C3%B6%C3%9Fe"),
        ("{a}'$&", "%7Ba%7D%27%24%26"),
    ],
)
def test_a_revision_has_one_segment_and_comes_back(revision: str, segment: str) -> None:
    assert revision_segment(revision) == segment
    assert revision_of(segment) == revision
    spec = Spec("hf", "org/name", segment)
    assert parse_spec(str(spec)) == spec
    assert spec_of(spec.segments) == spec
    if "%2F" not in revision:  # as a person writes it, it reads as the encoded `a/b`
        assert parse_spec(f"hf/org/name@{revision}") == spec
        assert parse_wanted(f"hf/org/name@{revision}").spec == spec


def test_any_case_of_an_encoded_segment_is_the_same_revision() -> None:
    for text in ("refs%2fpr%2f1", "refs%2Fpr%2f%31", "%72efs%2Fpr%2F1"):
        found = spec_of(("hf", "org", "name", text))
        assert found is not None
        assert found.version == "refs%2Fpr%2F1"


@pytest.mark.parametrize(
    "text", ["a b", "a..b", "%00", "%2e%2e", "..", ".git", "%2Fa", "a%2F", "a~1", "a:b", "ü" * 50]
)
def test_what_git_has_no_ref_of_is_no_revision(text: str) -> None:
    assert spec_of(("hf", "org", "name", text)) is None


def test_only_hubs_have_such_revisions() -> None:
    for text in ("nlp/a@refs/pr/1", "nlp/a@refs%2Fpr%2F1", "nlp/a@fix#1"):
        with pytest.raises(UsageError):
            parse_spec(text)
    assert parse_wanted("hf/org/name@>=1.0").constraint is not None


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


def test_messages_show_names_as_they_are() -> None:
    r"""Not as Python writes them: `x\y` has one backslash, and `it's` the same quotes as all."""
    for text, shown in ((r"nlp/x\y@1", r"'nlp/x\y@1'"), ("nlp/it's@1", "'nlp/it's@1'")):
        with pytest.raises(UsageError) as caught:
            parse_spec(text)
        assert str(caught.value).startswith(f"{shown} is not a model")
