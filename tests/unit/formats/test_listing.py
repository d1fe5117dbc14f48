"""index.json and versions.json: what is kept, what is skipped, what is found."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from axonfs.errors import MalformedError
from axonfs.formats.listing import (
    MAX_INDEX_BYTES,
    Listing,
    Versions,
    parse_index,
    parse_versions,
    render_index,
    render_versions,
    search,
)
from axonfs.names import Spec, plain, version_key

SEGMENTS = st.from_regex(r"[A-Za-z0-9_][A-Za-z0-9._+-]{0,8}", fullmatch=True)
VERSIONS = SEGMENTS.filter(lambda text: text != "latest")
TEXTS = st.text(max_size=20).map(plain)
LISTINGS = st.builds(
    Listing,
    spec=st.builds(
        Spec, SEGMENTS, st.lists(SEGMENTS, min_size=1, max_size=3).map("/".join), VERSIONS
    ),
    description=TEXTS,
    framework=TEXTS,
    license=TEXTS,
    tags=st.lists(TEXTS.filter(bool), max_size=3).map(tuple),
    size=st.integers(0, 1 << 53),
    published=st.floats(0, 4e9),
)


@given(st.lists(LISTINGS, unique_by=lambda listing: listing.spec))
def test_an_index_reads_back_sorted_and_does_not_depend_on_the_order(
    listings: list[Listing],
) -> None:
    raw = render_index(listings)
    assert raw == render_index(listings[::-1])
    found, skipped = parse_index(raw)
    assert skipped == 0
    assert found == sorted(
        listings, key=lambda listing: (listing.spec.model, version_key(listing.spec.version))
    )


def test_the_bytes_of_an_index_are_these() -> None:
    listing = Listing(Spec("nlp", "a/b", "1.0"), "Größe", "pytorch", "MIT", ("x",), 5, 1.5)
    assert render_index([listing]).decode() == (
        '{\n "apiVersion": "axonfs/v1",\n "models": [\n  {\n   "namespace": "nlp",\n'
        '   "name": "a/b",\n   "version": "1.0",\n   "description": "Größe",\n'
        '   "framework": "pytorch",\n   "license": "MIT",\n   "tags": [\n    "x"\n   ],\n'
        '   "size": 5,\n   "published": 1.5\n  }\n ]\n}\n'
    )


GOOD = {"namespace": "nlp", "name": "a", "version": "1"}


@pytest.mark.parametrize(
    "entry",
    [
        None,
        7,
        [],
        {},
        {**GOOD, "namespace": ".."},
        {**GOOD, "name": "a/../b"},
        {**GOOD, "name": "a\n"},
        {**GOOD, "version": "latest"},
        {**GOOD, "version": 1},
        {**GOOD, "name": "/".join("a" * 20)},
        {**GOOD, "size": -1},
        {**GOOD, "size": True},
        {**GOOD, "size": 1.5},
        {**GOOD, "size": 1 << 54},
        {**GOOD, "size": 10**400},
        {**GOOD, "size": float("nan")},
        {**GOOD, "size": None},
    ],
)
def test_a_bad_entry_is_skipped_and_counted(entry: object) -> None:
    other = {**GOOD, "name": "other"}
    raw = json.dumps({"apiVersion": "axonfs/v1", "models": [entry, other]}).encode()
    assert parse_index(raw) == ([Listing(Spec("nlp", "other", "1"))], 1)


def test_of_two_entries_for_one_version_the_first_counts() -> None:
    entries = [{**GOOD, "size": 1}, {**GOOD, "size": 2}]
    raw = json.dumps({"apiVersion": "axonfs/v1", "models": entries}).encode()
    assert parse_index(raw) == ([Listing(Spec("nlp", "a", "1"), size=1)], 1)


def test_what_does_not_matter_may_be_of_any_type() -> None:
    odd: dict[str, object] = {
        **GOOD,
        "description": 1,
        "framework": [],
        "license": None,
        "published": "x",
        "tags": 3,
    }
    raw = json.dumps({"apiVersion": "axonfs/v1", "models": [odd, {**GOOD, "name": "b"}]}).encode()
    listings, skipped = parse_index(raw)
    assert skipped == 0
    assert listings[0] == Listing(Spec("nlp", "a", "1"))


def test_text_that_would_move_a_terminal_is_made_harmless() -> None:
    entry = {**GOOD, "description": "a\x1b[2J\nb\ud800", "tags": ["\x07", 5, ""]}
    raw = json.dumps({"apiVersion": "axonfs/v1", "models": [entry]}).encode()
    listing = parse_index(raw)[0][0]
    assert listing.description == "a?[2J b?"
    assert listing.tags == ("?",)


@pytest.mark.parametrize(
    "raw",
    [
        b"",
        b"[]",
        b"{",
        b"\xff",
        b"null",
        b'{"models": []}',
        b'{"apiVersion": "axonfs/v2", "models": []}',
        b'{"apiVersion": "axonfs/v1", "models": {}}',
        b"[" * 200_000,
        b'{"apiVersion": ' + b"9" * 10_000 + b"}",
        b" " * (MAX_INDEX_BYTES + 1),
    ],
    ids=range(11),
)
def test_what_is_not_an_index_is_refused(raw: bytes) -> None:
    with pytest.raises(MalformedError):
        parse_index(raw)


@given(st.sets(VERSIONS, min_size=1), st.data())
def test_versions_read_back(versions: set[str], data: st.DataObject) -> None:
    latest = data.draw(st.sampled_from(sorted(versions)))
    raw = render_versions(Versions(tuple(sorted(versions)), latest))
    assert parse_versions(raw) == Versions(tuple(sorted(versions, key=version_key)), latest)


def test_versions_from_elsewhere_are_cleaned() -> None:
    raw = b'{"versions": ["1.10", "1.9", "..", "latest", 3, "1.9", null, ["x"]], "latest": "7"}'
    assert parse_versions(raw) == Versions(("1.9", "1.10"), "1.10")
    assert parse_versions(b'{"versions": []}') == Versions((), None)


@pytest.mark.parametrize("raw", [b"", b"[]", b"{}", b'{"versions": "1"}', b"\x00"])
def test_what_is_not_a_list_of_versions_is_refused(raw: bytes) -> None:
    with pytest.raises(MalformedError):
        parse_versions(raw)


def listed(model: str, version: str = "1.0", text: str = "", *tags: str) -> Listing:
    namespace, _, name = model.partition("/")
    return Listing(Spec(namespace, name, version), text, "pytorch", "", tags)


CATALOG = [
    listed("nlp/bert-qa", "1.0", "questions"),
    listed("vision/resnet", "1.0", "like BERT for images"),
    listed("nlp/bert", "1.9"),
    listed("nlp/bert", "1.10"),
    listed("nlp/llama", "1.0", "", "bert-free"),
    listed("audio/whisper", "1.0", "speech"),
]


def found(query: str) -> list[str]:
    return [str(listing.spec) for listing in search(CATALOG, query)]


def test_search_ranks_the_exact_name_then_names_then_the_rest() -> None:
    assert found("Bert") == [
        "nlp/bert@1.10",
        "nlp/bert@1.9",
        "nlp/bert-qa@1.0",
        "nlp/llama@1.0",
        "vision/resnet@1.0",
    ]


def test_every_word_must_hit_and_may_hit_anywhere() -> None:
    assert found("bert images") == ["vision/resnet@1.0"]
    assert found("nlp bert qa") == ["nlp/bert-qa@1.0"]
    assert found("bert speech") == []
    assert found("whisper PyTorch") == ["audio/whisper@1.0"]
    assert found("nlp/bert")[:2] == ["nlp/bert@1.10", "nlp/bert@1.9"]


def test_words_do_not_match_across_two_fields() -> None:
    assert found("bert-qaquestions") == []


def test_an_empty_query_finds_everything() -> None:
    assert len(found("  ")) == len(CATALOG)
