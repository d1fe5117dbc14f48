"""Commands while a source does not answer: no model is said to be missing that may exist."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from trio.testing import MockClock

from axonfs.catalog.memo import TTL
from axonfs.errors import AxonError, NotFoundError, UnavailableError
from axonfs.names import parse_spec
from tests.support import faulty
from tests.support.commands import Run
from tests.support.faulty_origin import FaultyOrigin
from tests.support.fetching import rig
from tests.support.registry import RegistryServer, published

SPEC = "nlp/tiny@1.0.0"
SIZES = {"weights.bin": 5000}


@pytest.fixture
def down(tmp_path: Path) -> Iterator[FaultyOrigin]:
    """A registry to take down."""
    with FaultyOrigin(published(tmp_path, SIZES)) as origin:
        yield origin


@pytest.fixture
def up(tmp_path: Path) -> Iterator[RegistryServer]:
    """Another registry that answers."""
    with RegistryServer(published(tmp_path / "second", SIZES, spec="cv/only@1.0.0")) as server:
        yield server


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AXONFS_SOURCES", "none")
    monkeypatch.setenv("AXONFS_RETRIES", "0")
    monkeypatch.setenv("AXONFS_DEADLINE", "2")


ASKING = [
    ("info", "nlp/none@1.0.0"),
    ("info", "nlp/none"),
    ("info", "nlp/tiny@9.9.9"),
    ("info", "nlp/tiny@^9"),
    ("versions", "nlp/none"),
    ("pin", "nlp/none@^1"),
    ("install", "nlp/tiny@9.9.9"),
    ("update", "nlp/none"),
    ("lock", "-", "nlp/none@1.0.0"),
    ("search", "none"),
]


@pytest.mark.parametrize("line", ASKING, ids=" ".join)
@pytest.mark.parametrize("others", [False, True], ids=["alone", "beside another"])
def test_a_command_says_what_does_not_answer(
    run: Run, down: FaultyOrigin, up: RegistryServer, line: tuple[str, ...], others: bool
) -> None:
    urls = [down.url, *([up.url] if others else [])]
    named = [part for url in urls for part in ("--registry", url)]
    assert run("pin", SPEC, *named).code == 0
    down.always(faulty.status(503))
    done = run(*line, *named)
    assert done.code == 1
    assert down.url in done.err
    assert "503" in done.err
    assert "no such" not in done.err
    assert "no version matches" not in done.err
    down.always(None)
    missing = run(*line, *named)
    assert "503" not in missing.err


@pytest.mark.parametrize("line", [("info", "nlp/tiny@^9"), ("search", "none")], ids=" ".join)
def test_nothing_is_said_to_be_missing_before_each_registry_has_answered(
    run: Run, down: FaultyOrigin, monkeypatch: pytest.MonkeyPatch, line: tuple[str, ...]
) -> None:
    """What is local is known at once; a registry that has yet to fail may have what is asked."""
    assert run("pin", SPEC, "--registry", down.url).code == 0
    monkeypatch.setattr("axonfs.catalog.tree.PATIENCE", 0.0)
    down.always(faulty.status(503))
    done = run(*line, "--registry", down.url)
    assert (done.code, "no version matches" in done.err) == (1, False)
    assert down.url in done.err


def test_what_is_known_goes_on(run: Run, down: FaultyOrigin, up: RegistryServer) -> None:
    named = ["--registry", down.url, "--registry", up.url]
    assert run("pin", SPEC, *named).code == 0
    down.always(faulty.status(503))
    assert run("pin", SPEC, *named).code == 0
    assert json.loads(run("info", "nlp/tiny", "--json", *named).out)["version"] == "1.0.0"
    assert run("info", "cv/only", *named).code == 0
    assert run("search", "only", *named).code == 0
    assert run("list", *named).code == 0


async def test_not_found_is_certain_only_when_each_says_so(
    tmp_path: Path, down: FaultyOrigin, up: RegistryServer
) -> None:
    spec = parse_spec("nlp/none@1.0.0")
    for urls in ((down.url, up.url), (up.url, down.url)):
        down.always(None)
        async with rig(tmp_path / f"cache{urls.index(up.url)}", *urls) as parts:
            with pytest.raises(NotFoundError):
                await parts.tree.version(spec)
            down.always(faulty.status(503))
            with pytest.raises(UnavailableError) as caught:
                await parts.tree.version(spec)
            assert caught.value.spec == str(spec)
            assert (await parts.tree.version(parse_spec("cv/only@1.0.0"))).base


async def test_what_did_not_exist_is_asked_for_again(
    tmp_path: Path, down: FaultyOrigin, clock: MockClock
) -> None:
    """An answer that there is nothing is not served when it is old."""
    async with rig(tmp_path / "cache", down.url) as parts:
        assert (await parts.tree.versions("nlp/new")).versions == ()
        published(tmp_path, SIZES, spec="nlp/new@1.0.0")
        clock.jump(TTL)
        assert (await parts.tree.versions("nlp/new")).versions == ("1.0.0",)
        clock.jump(TTL)
        down.always(faulty.status(503))
        assert (await parts.tree.versions("nlp/new")).versions == ("1.0.0",)
        with pytest.raises(AxonError, match="503"):
            await parts.tree.versions("nlp/other")


async def test_a_source_that_answers_again_is_listed_at_once(
    tmp_path: Path, down: FaultyOrigin
) -> None:
    async with rig(tmp_path / "cache", down.url) as parts:
        await parts.tree.version(parse_spec(SPEC))
        down.always(faulty.status(503))
        parts.tree.invalidate()
        await parts.tree.catalog(fresh=True)
        assert parts.tree.outages.doubt("nlp/new") is not None
        published(tmp_path, SIZES, spec="nlp/new@1.0.0")
        published(tmp_path, SIZES, spec="nlp/other@1.0.0")
        down.always(None)
        assert (await parts.tree.version(parse_spec("nlp/new@1.0.0"))).base
        assert ("nlp", "other") in (await parts.tree.catalog()).directories
        assert parts.tree.outages.doubt("nlp/new") is None
        asked = len(down.requests)
        down.plan(*[faulty.status(503)] * 3, of="index.json")
        parts.tree.invalidate()
        for _ in range(5):  # only its index is missing: it is not asked for at each answer
            await parts.tree.catalog(fresh=True)
            parts.tree.forget(parse_spec("nlp/other@1.0.0"))
            await parts.tree.version(parse_spec("nlp/other@1.0.0"))
        assert len(down.requests) - asked < 6


@pytest.mark.parametrize("line", [("update",), ("search", "only"), ("info", "cv/only")])
def test_a_registry_that_is_down_is_told_once(
    run: Run, down: FaultyOrigin, up: RegistryServer, line: tuple[str, ...]
) -> None:
    named = ["--registry", down.url, "--registry", up.url]
    assert run("pin", "cv/only@1.0.0", *named).code == 0
    down.always(faulty.status(503))
    done = run(*line, *named)
    assert done.code == 0
    assert done.err.count("503") == 1
