"""Constraints: what they let through, and what is no constraint. The tables are npm's own rules."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from axonfs.errors import UsageError
from axonfs.names import LATEST, Spec, version_key
from axonfs.versions import Constraint, Wanted, parse_constraint, parse_wanted, precedence

# semver.org, section 11.4.4, and the numeric and build rules around it.
PRECEDENCE = (
    "1.0.0-alpha",
    "1.0.0-alpha.1",
    "1.0.0-alpha.beta",
    "1.0.0-beta",
    "1.0.0-beta.2",
    "1.0.0-beta.11",
    "1.0.0-rc.1",
    "1.0.0-rc.2",
    "1.0.0-rc.10",
    "1.0.0",
    "2.0.0",
    "2.1.0",
    "2.1.1",
)


def test_precedence_is_that_of_semver() -> None:
    keys = [precedence(version) or () for version in PRECEDENCE]
    assert all(lower < higher for lower, higher in pairwise(keys))


def test_the_build_has_no_precedence() -> None:
    assert precedence("1.0.0+a") == precedence("1.0.0+b") == precedence("1.0.0")
    assert precedence("1.0.0-rc.1+5") == precedence("1.0.0-rc.1")


def test_a_word_has_no_precedence_and_no_constraint_takes_it() -> None:
    assert precedence("main") is None
    assert not parse_constraint("*").allows("main")


@pytest.mark.parametrize(
    ("text", "taken", "refused"),
    [
        ("^1.2.3", "1.2.3 1.2.4 1.10.0 1.9", "1.2.2 2.0.0 1.3.0-rc.1 2.0.0-rc.1"),
        ("^1.2", "1.2.0 1.2 v1.3 1.99.99", "1.1.9 2.0.0"),
        ("^1", "1.0.0 1.99.0", "0.9.9 2.0.0"),
        ("^0.2.3", "0.2.3 0.2.9", "0.2.2 0.3.0 1.0.0"),
        ("^0.0.3", "0.0.3", "0.0.2 0.0.4"),
        ("^0.0", "0.0.0 0.0.9", "0.1.0"),
        ("^0", "0.0.1 0.99.0", "1.0.0"),
        ("^1.2.3-beta.2", "1.2.3-beta.2 1.2.3-beta.10 1.2.3 1.3.0", "1.2.3-beta.1 1.2.4-beta.2"),
        ("~1.2.3", "1.2.3 1.2.99", "1.2.2 1.3.0"),
        ("~1.2", "1.2.0 1.2.99", "1.1.9 1.3.0"),
        ("~1", "1.0.0 1.99.0", "0.9.0 2.0.0"),
        ("~0.2.3", "0.2.9", "0.3.0"),
        ("*", "0.0.1 99.0.0", "1.0.0-rc.1"),
        ("1.*", "1.0.0 1.9.9", "0.9.0 2.0.0"),
        ("1.2.*", "1.2.0 1.2.9", "1.3.0 1.1.0"),
        ("=1.2.3", "1.2.3 1.2.3+build v1.2.3", "1.2.4 1.2.3-rc.1"),
        ("=1.2", "1.2.0 1.2.9", "1.3.0"),
        (">=1.2 <2", "1.2.0 1.99.0", "1.1.9 2.0.0 2.0.0-rc.1"),
        (">=1.2, <2", "1.2.0", "2.0.0"),
        (">= 1.2.0", "1.2.0 9.0.0", "1.1.0"),
        (">1.2", "1.3.0 2.0.0", "1.2.0 1.2.9"),
        (">1.2.3", "1.2.4", "1.2.3"),
        ("<=1.2", "1.2.9 1.0.0", "1.3.0"),
        ("<=1.2.3", "1.2.3", "1.2.4"),
        (">=1.0.0-rc.2", "1.0.0-rc.2 1.0.0-rc.10 1.0.0 2.0.0", "1.0.0-rc.1 2.0.0-rc.1"),
        ("^v1.2", "1.2.0", "2.0.0"),
    ],
)
def test_what_a_constraint_takes(text: str, taken: str, refused: str) -> None:
    constraint = parse_constraint(text)
    assert [version for version in taken.split() if not constraint.allows(version)] == []
    assert [version for version in refused.split() if constraint.allows(version)] == []


def test_the_highest_is_by_precedence_and_not_by_text() -> None:
    versions = ["1.2.0", "1.10.0", "1.9.0", "2.0.0", "1.11.0-rc.1", "main"]
    assert parse_constraint("^1.2").highest(versions) == "1.10.0"
    assert parse_constraint("~3").highest(versions) is None


@pytest.mark.parametrize(
    "text",
    [
        "",
        " ",
        "^",
        "^main",
        "1.2.3.4.*",
        "^1.2.3.4",
        ">",
        "<*",
        ">*",
        "^1.2-rc.1",
        "~1.2 ||",
        "^1;ls",
        "^-1",
        "1.2.*-rc",
        "^1 " * 80,
        "^1,,2",
        "\x1b[2J^1",
    ],
)
def test_what_is_no_constraint_is_wrong_usage_that_shows_the_forms(text: str) -> None:
    with pytest.raises(UsageError, match=r"\^1\.2") as refusal:
        parse_constraint(text)
    assert str(refusal.value).isprintable()


NUMBERS = st.integers(0, 3)
RELEASES = st.builds("{}.{}.{}".format, NUMBERS, NUMBERS, NUMBERS)


@given(RELEASES, RELEASES)
def test_signs_agree_with_the_order(one: str, other: str) -> None:
    keys = version_key(one), version_key(other)
    for sign, holds in (
        (">=", keys[0] >= keys[1]),
        (">", keys[0] > keys[1]),
        ("<=", keys[0] <= keys[1]),
        ("<", keys[0] < keys[1]),
        ("=", keys[0] == keys[1]),
    ):
        assert parse_constraint(f"{sign}{other}").allows(one) == holds


def test_a_version_is_never_taken_for_a_constraint() -> None:
    assert parse_wanted("nlp/a@1.2") == Wanted(Spec("nlp", "a", "1.2"))
    assert parse_wanted("nlp/a@1.2").exact
    assert parse_wanted("nlp/a") == Wanted(Spec("nlp", "a", LATEST))
    assert not parse_wanted("nlp/a").exact


def test_a_constraint_stands_in_the_place_of_the_version() -> None:
    wanted = parse_wanted("nlp/org/a@>=1.2 <2")
    assert wanted.spec == Spec("nlp", "org/a", LATEST)
    assert isinstance(wanted.constraint, Constraint)
    assert not wanted.exact
    assert str(wanted) == "nlp/org/a@>=1.2 <2"
    assert parse_wanted(str(wanted)) == wanted


@pytest.mark.parametrize("text", ["nlp/a@", "nlp/a@^x", "a@^1", "nlp/../a@^1", "nlp/a@^1@2"])
def test_what_is_neither_is_refused(text: str) -> None:
    with pytest.raises(UsageError):
        parse_wanted(text)
