"""Artifacts by which a copied model keeps its version: how they are stored, listed and found."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from axonfs.formats.manifest import parse_manifest
from axonfs.http_client import Answer, Said
from axonfs.oci.manifest import INDEX, digest_of
from axonfs.oci.referrers import VERSION, with_artifact
from tests.integration.registries.oci.copying import (
    NEW,
    OLD,
    Line,
    answer,
    copied,
    files,
    get,
    of_old,
    signed,
    tags,
)
from tests.support.commands import Run
from tests.support.dockerregistry import IMAGE, DockerRegistry, Packed
from tests.support.faulty import Exchange
from tests.support.tinyoci import TinyOci, put_blob, put_manifest


def test_signatures_of_several_artifacts_are_the_newest(
    run: Run, registry: Path, tmp_path: Path, docker_registry: DockerRegistry, oci: str, prefix: str
) -> None:
    """A registry that lists referrers keeps the artifacts of before; each has up to 16."""
    listed = []
    for keys in (range(10), range(10, 20)):
        for key in keys:
            signed(registry, OLD, f"key {key}")
        copied(f"file://{registry}", oci, OLD)
        digest = digest_of(get(docker_registry, f"{prefix}/nlp/tiny/manifests/1.0.0"))
        index = get(docker_registry, f"{prefix}/nlp/tiny/manifests/sha256-{digest}")
        listed += json.loads(index)["manifests"]
    both = {**json.loads(index), "manifests": listed}
    docker_registry.push_manifest(f"{prefix}/nlp/tiny", f"sha256-{digest}", both)
    copied(oci, f"file://{tmp_path}/back", OLD)
    assert of_old(files(tmp_path / "back")) == of_old(files(registry))
    docker_registry.push(f"{prefix}/nlp/tiny", f"sha256-{digest}", Packed().add("x", b"x"))
    for both_sides in ([registry, oci], [oci, tmp_path / "back"]):
        other = run("registry", "copy", *both_sides, OLD)
        assert other.code == 1
        assert "the list of what refers to the model is not an index (from oci://" in other.err
        assert f"/manifests/sha256-{digest})" in other.err


def test_a_registry_that_lists_referrers_gets_no_tag_for_them(
    registry: Path, docker_registry: DockerRegistry, line: Line, oci: str, prefix: str
) -> None:
    def with_subject(said: Said) -> Said:
        answer = said.answer
        return Said(Answer(answer.url, answer.status, {**answer.headers, "oci-subject": "x"}), b"")

    line.answered = with_subject
    copied(f"file://{registry}", oci, OLD)
    assert tags(docker_registry, f"{prefix}/nlp/tiny") == {"1.0.0"}


def test_a_registry_without_artifacts_gets_no_part_of_a_version(
    run: Run, registry: Path, docker_registry: DockerRegistry, line: Line, oci: str, prefix: str
) -> None:
    def without_artifacts(said: Said) -> Said:
        url = said.answer.url
        return Said(Answer(url, 400, {}), b"") if "/manifests/sha256:" in url else said

    line.answered = without_artifacts
    done = run("registry", "copy", registry, oci, OLD, NEW)
    assert done.code == 1
    assert f"{OLD}: the registry answered 400 to the manifest (from http://" in done.err
    assert NEW not in done.err, "no other version would be taken"
    assert "it seems to take no artifacts" in done.err
    with pytest.raises(Exception, match="404"):
        get(docker_registry, f"{prefix}/nlp/tiny/manifests/1.0.0")


def test_the_list_of_referrers_is_asked_first(
    run: Run, registry: Path, tmp_path: Path, docker_registry: DockerRegistry, oci: str, prefix: str
) -> None:
    """A registry that has one; it serves what Debian's has taken."""
    copied(f"file://{registry}", oci, OLD)
    repository, root = f"{prefix}/nlp/tiny", tmp_path / "tiny"
    raw = get(docker_registry, f"{repository}/manifests/1.0.0")
    index = get(docker_registry, f"{repository}/manifests/sha256-{digest_of(raw)}")
    put_manifest(root, "nlp/tiny", "1.0.0", raw)
    (root / "v2/nlp/tiny/referrers").mkdir()
    (root / f"v2/nlp/tiny/referrers/sha256:{digest_of(raw)}").write_bytes(index)
    (entry,) = json.loads(index)["manifests"]
    artifact = get(docker_registry, f"{repository}/manifests/{entry['digest']}")
    (root / "v2/nlp/tiny/manifests" / entry["digest"]).write_bytes(artifact)
    for blob in (*json.loads(raw)["layers"], *json.loads(artifact)["layers"]):
        body = get(docker_registry, f"{repository}/blobs/{blob['digest']}")
        put_blob(root, "nlp/tiny", blob["digest"], body)
    other = {**entry, "artifactType": "sbom"}
    many = [{**entry, "digest": f"sha256:{number:064x}"} for number in range(65)]

    def paged(exchange: Exchange) -> None:
        if "/referrers/" in exchange.seen.path and "page=2" not in exchange.seen.path:
            answer(exchange, [other])
            exchange.headers["Link"] = f'<{exchange.seen.path}?page=2>; rel="next"'

    def elsewhere(exchange: Exchange) -> None:
        if "/referrers/" in exchange.seen.path:
            answer(exchange, [other])
        elif "/manifests/sha256-" in exchange.seen.path:
            answer(exchange, [entry])

    def of_mirror(exchange: Exchange) -> None:
        """It has no referrers, and one tag on each page."""
        if "/referrers/" in exchange.seen.path or "/manifests/sha256-" in exchange.seen.path:
            answer(exchange, [])
        elif "/tags/" in exchange.seen.path and "last=" not in exchange.seen.path:
            exchange.body = b'{"tags": ["0.9"]}'
            exchange.headers["Content-Length"] = str(len(exchange.body))
            exchange.headers["Link"] = f'<{exchange.seen.path}&last=0.9>; rel="next"'

    def crowded(exchange: Exchange) -> None:
        if "/referrers/" in exchange.seen.path:
            answer(exchange, many)

    with TinyOci(root) as server:
        for name, server.fault in {"a": None, "b": paged, "c": elsewhere}.items():
            done = run("registry", "copy", f"oci://{server.host}", tmp_path / name, OLD)
            assert (done.code, done.err) == (0, "")
            assert of_old(files(tmp_path / name)) == of_old(files(registry)), name
        server.fault = None
        with TinyOci(root) as mirror:
            mirror.fault = of_mirror
            url = f"oci://{server.host}?mirror={mirror.host}"
            done = run("registry", "copy", url, tmp_path / "e", "nlp/tiny")
            assert (done.code, done.err) == (0, "")
            assert of_old(files(tmp_path / "e")) == of_old(files(registry))
            assert mirror.seen("/manifests/1.0.0")
        server.fault = crowded
        done = run("registry", "copy", f"oci://{server.host}", tmp_path / "d", OLD)
        assert (done.code, "more than 64 artifacts of AxonFS" in done.err) == (1, True)


def test_others_write_the_index_of_referrers_at_the_same_time(
    registry: Path, docker_registry: DockerRegistry, line: Line, oci: str, prefix: str
) -> None:
    server, repository = docker_registry, f"{prefix}/nlp/tiny"
    theirs = {"mediaType": IMAGE, "artifactType": "sbom"}

    def replaced(said: Said) -> Said:
        """Somebody else puts an index that was made from the one of before."""
        tag = said.answer.url.rpartition("/")[2]
        if tag.startswith("sha256-"):
            line.answered = lambda said: said
            digest = server.push(repository, "theirs", Packed().add("sbom", b"x"))
            size = len(get(server, f"{repository}/manifests/{digest}"))
            index = {"schemaVersion": 2, "mediaType": INDEX}
            manifests = [{**theirs, "digest": digest, "size": size}]
            server.push_manifest(repository, tag, {**index, "manifests": manifests})
        return said

    line.answered = replaced
    copied(f"file://{registry}", oci, OLD)
    subject = digest_of(get(server, f"{repository}/manifests/1.0.0"))
    index = json.loads(get(server, f"{repository}/manifests/sha256-{subject}"))
    assert [one["artifactType"] for one in index["manifests"]] == ["sbom", VERSION]


def test_a_manifest_of_other_files_is_refused(
    run: Run, registry: Path, tmp_path: Path, docker_registry: DockerRegistry, oci: str, prefix: str
) -> None:
    """Somebody has put another manifest in place of the version's own."""
    server, repository = docker_registry, f"{prefix}/nlp/tiny"
    assert run("registry", "copy", registry, oci, OLD).code == 0
    subject = digest_of(get(server, f"{repository}/manifests/1.0.0"))
    index = get(server, f"{repository}/manifests/sha256-{subject}")
    (entry,) = json.loads(index)["manifests"]
    assert entry["artifactType"] == VERSION
    artifact = json.loads(get(server, f"{repository}/manifests/{entry['digest']}"))
    own = get(server, f"{repository}/blobs/{artifact['layers'][0]['digest']}")
    found = parse_manifest(own).file("b.txt")
    assert found is not None
    wrong = own.replace(found.digest.encode(), b"0" * 63 + b"1")
    artifact["layers"][0] |= {"digest": server.push_blob(repository, wrong), "size": len(wrong)}
    raw = json.dumps(artifact).encode()
    server.push_manifest(repository, f"sha256:{digest_of(raw)}", artifact)
    for replaced in ([entry["digest"].removeprefix("sha256:")], []):  # alone, and beside the true
        made = json.loads(with_artifact(index, raw, replaced))
        server.push_manifest(repository, f"sha256-{subject}", made)
        done = run("registry", "copy", oci, tmp_path / "back", OLD)
        assert done.code == 1
        assert f"{OLD}: the version's manifest does not name the files of the model" in done.err
        assert "'b.txt' differs" in done.err
        assert not (tmp_path / "back/api").exists()
    server.push_manifest(repository, f"sha256-{subject}", json.loads(index))
    server.request("DELETE", f"/v2/{repository}/manifests/{entry['digest']}")
    gone = run("registry", "copy", oci, tmp_path / "back", OLD)
    assert (gone.code, "no longer has the artifact" in gone.err) == (1, True)
