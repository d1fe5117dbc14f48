"""What a copy from or to an OCI registry refuses, what registries refuse, and log-ins."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from axonfs.http_client import Answer, Said
from axonfs.names import parse_spec
from axonfs.publish import publish
from axonfs.registries import copy, sides
from axonfs.settings.settings import Settings
from tests.integration.registries.oci.copying import (
    NEW,
    OLD,
    OTHER,
    Line,
    get,
    never,
)
from tests.support.commands import Run
from tests.support.dockerregistry import DockerRegistry, Packed
from tests.support.faulty import Exchange, status
from tests.support.registry import make_model
from tests.support.tinyoci import PASSWORD, USER, TinyOci, basic, lay_out


def test_what_a_registry_refuses_of_one_version_does_not_stop_the_others(
    run: Run, registry: Path, docker_registry: DockerRegistry, line: Line, oci: str
) -> None:
    def refused(said: Said) -> Said:
        url = said.answer.url
        return Said(Answer(url, 413, {}), b"") if url.endswith("nlp/tiny/manifests/1.0.0") else said

    line.answered = refused
    done = run("registry", "copy", registry, oci)
    assert (done.code, done.out[:18]) == (1, "2 versions copied;")
    assert f"{OLD}: the registry answered 413 to the manifest" in done.err


def test_refusals_of_a_server_end_the_copy_once_they_are_many(run: Run, tmp_path: Path) -> None:
    """A registry may deny one repository, or have a broken manifest."""
    specs = [f"nlp/{name}@1.0" for name in "abcdefg"]
    for spec in specs:
        lay_out(tmp_path / "site", spec.partition("@")[0], "1.0", Packed().add("x", spec.encode()))
    with TinyOci(tmp_path / "site") as server:

        def denied(exchange: Exchange) -> None:
            if exchange.seen.path.startswith(("/v2/nlp/c/", "/v2/nlp/e/")):
                status(403)(exchange)

        server.fault = denied
        some = run("registry", "copy", f"oci://{server.host}", tmp_path / "some", *specs)
        assert (some.code, some.out[:18]) == (1, "5 versions copied;")
        assert (specs[2] in some.err, specs[4] in some.err) == (True, True)
        server.fault = status(403)
        none = run("registry", "copy", f"oci://{server.host}", tmp_path / "none", *specs)
    assert (none.code, none.out) == (1, "")
    assert [spec in none.err for spec in specs] == [True] * 3 + [False] * 4


def test_another_client_stores_the_same_manifest(
    run: Run, registry: Path, docker_registry: DockerRegistry, line: Line, oci: str
) -> None:
    """Docker's registry may then take its bytes for wrong ones."""

    def busy(said: Said) -> Said:
        if "/manifests/" not in said.answer.url:
            return said
        line.answered = lambda said: said
        body = b'{"errors": [{"code": "DIGEST_INVALID", "message": "did not match"}]}'
        return Said(Answer(said.answer.url, 400, {}), body)

    line.answered = busy
    assert run("registry", "copy", registry, oci, OLD).code == 0


def test_a_tag_that_somebody_makes_meanwhile_stays(
    run: Run, registry: Path, docker_registry: DockerRegistry, line: Line, oci: str, prefix: str
) -> None:
    repository = f"{prefix}/nlp/tiny"
    first = iter([True])  # several threads write

    def pushed(said: Said) -> Said:
        if next(first, False):
            docker_registry.push(repository, "1.0.0", Packed().add("x", b"theirs"))
        return said

    line.answered = pushed
    done = run("registry", "copy", registry, oci, OLD)
    assert done.code == 1
    assert "somebody else has made the tag meanwhile" in done.err
    raw = get(docker_registry, f"{repository}/manifests/1.0.0")
    assert len(json.loads(raw)["layers"]) == 1


def test_what_cannot_be_copied(
    run: Run,
    registry: Path,
    tmp_path: Path,
    docker_registry: DockerRegistry,
    oci: str,
    prefix: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    other = tmp_path / "other"
    publish(make_model(tmp_path / "x", {"x": 5}), parse_spec(OLD), other)
    publish(make_model(tmp_path / "x", {"x": 5}), parse_spec("nlp/Tiny@1.0"), other)
    assert run("registry", "copy", registry, oci, OLD).code == 0
    before = get(docker_registry, f"{prefix}/nlp/tiny/manifests/1.0.0")
    done = run("registry", "copy", other, oci)
    assert done.code == 1
    assert f"{OLD}: the tag names other files ('a.safetensors' differs)" in done.err
    assert "nlp/Tiny@1.0: OCI allows no capitals in a name" in done.err
    assert get(docker_registry, f"{prefix}/nlp/tiny/manifests/1.0.0") == before
    nothing = run("registry", "copy", f"{oci}/none", tmp_path / "back")
    assert nothing.code == 1
    assert "the registry lists no repository NAMESPACE/NAME below this prefix" in nothing.err
    lacks = run("registry", "copy", oci, tmp_path / "back", "nlp/tiny@9.0")
    assert "nlp/tiny@9.0: the registry does not have this version" in lacks.err
    assert run("registry", "stats", oci).code == 2
    monkeypatch.setenv("TMPDIR", "/nowhere")
    nowhere = run("registry", "copy", registry, oci, NEW, OTHER)
    assert nowhere.out == "0 versions copied; 0 objects, 0 B new\n"
    assert nowhere.err.count("the object cannot be kept in /nowhere on its way") == 2


@pytest.mark.parametrize("source", [True, False])
def test_a_token_of_a_server_goes_to_no_oci_registry(
    run: Run, registry: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, source: bool
) -> None:
    with TinyOci(tmp_path / "site") as server:
        server.wants = "basic"
        ends = [f"oci://{server.host}", registry][:: 1 if source else -1]
        sent = []
        for token in ("axonfs_secret", f"{USER}:{PASSWORD}"):
            monkeypatch.setenv("AXONFS_TOKEN", token)
            assert run("registry", "copy", *ends, OLD).code == 1
            sent += [seen.headers.get("authorization") for seen in server.origin.requests]
            server.origin.requests.clear()
    assert set(sent) == {None, basic()}


def test_a_log_in_that_is_kept_with_other_options_is_used(registry: Path, tmp_path: Path) -> None:
    lay_out(tmp_path / "site", "nlp/a", "1.0", Packed().add("x", b"x"))
    with TinyOci(tmp_path / "site") as server:
        server.wants = "basic"
        kept = {f"oci://{server.host}?alias=team": f"{USER}:{PASSWORD}"}
        with sides(Settings(tokens=kept), f"oci://{server.host}", f"file://{tmp_path}/to") as both:
            copy(*both, [parse_spec("nlp/a@1.0")], copied=bool, failed=never)
