"""Reading OCI registries: redirects, mirrors, what models say of themselves, and odd answers."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import pytest

from axonfs.errors import (
    ChangedError,
    MalformedError,
    UsageError,
)
from axonfs.names import Spec, oci_version, parse_spec
from axonfs.sources import oci_registries
from tests.support.dockerregistry import DockerRegistry, Packed, sha256
from tests.support.ocireader import (
    BODY,
    REPOSITORY,
    SPEC,
    Opened,
    log_in,
    model,
    page,
    url_of,
)
from tests.support.tinyoci import TinyOci, lay_out, put_blob, put_manifest


async def test_a_web_page_is_no_registry(tiny: TinyOci, opened: Opened) -> None:
    tiny.fault = page
    reader = opened(url_of(tiny))
    for failing in (
        lambda: reader.source.alias(SPEC),
        lambda: reader.source.manifest(Spec("oci", "team/nlp/tiny", oci_version("a" * 64))),
        reader.source.ping,
    ):
        with pytest.raises(MalformedError, match=r"web page.*oci://.*; check the"):
            await failing()
    with pytest.raises(MalformedError, match=r"list is not JSON.*; check its URL"):
        await reader.source.versions(SPEC.model)


async def test_a_manifest_with_other_bytes_than_its_digest_says_is_refused(
    tiny: TinyOci, opened: Opened, tmp_path: Path
) -> None:
    reader = opened(url_of(tiny))
    spec = await reader.version()
    manifests = tmp_path / "site/v2" / REPOSITORY / "manifests"
    digest = spec.version.replace("-", ":")
    (manifests / digest).write_bytes(json.dumps(Packed().add("x", b"y").manifest).encode())
    with pytest.raises(MalformedError, match=rf"sent other bytes.*@{digest}"):
        await reader.source.manifest(spec)


async def test_a_manifest_that_is_huge_is_refused(
    tiny: TinyOci, opened: Opened, tmp_path: Path
) -> None:
    put_manifest(tmp_path / "site", REPOSITORY, "huge", b" " * (4 << 20) + b"{}")
    with pytest.raises(MalformedError, match=r"larger than 4\.0 MiB"):
        await opened(url_of(tiny)).source.alias(parse_spec("oci/team/nlp/tiny@huge"))


async def test_a_layer_with_another_size_than_its_manifest_says_is_refused(
    tiny: TinyOci, opened: Opened, tmp_path: Path
) -> None:
    reader = opened(url_of(tiny))
    location = await reader.location()
    put_blob(tmp_path / "site", REPOSITORY, sha256(BODY), BODY + b"!")
    with pytest.raises(ChangedError, match="bytes now"):
        reader.read(location, 0, 50)


async def test_a_mirror_is_read_first_and_the_registry_where_it_does_not_answer(
    tiny: TinyOci, opened: Opened, tmp_path: Path
) -> None:
    lay_out(tmp_path / "other", f"proxy/{REPOSITORY}", "1.0", model())
    with TinyOci(tmp_path / "other") as mirror:
        reader = opened(url_of(tiny, f"&mirror={mirror.host}/proxy"))
        location = await reader.location()
        assert reader.read(location, 0, 50) == BODY[:50]
        assert tiny.origin.requests == []
        blob = tmp_path / "other/v2/proxy" / REPOSITORY / "blobs" / sha256(BODY)
        blob.unlink()
        assert reader.read(location, 50, 99) == BODY[50:99]
        assert len(tiny.origin.requests) == 1
    with pytest.raises(UsageError, match="used with other options"):
        opened(url_of(tiny))
    assert reader.read(location, 99, 199) == BODY[99:199]  # the mirror is gone


async def test_the_registry_is_read_where_its_mirror_gives_no_token(
    tiny: TinyOci, opened: Opened, docker: Path, tmp_path: Path
) -> None:
    lay_out(tmp_path / "other", REPOSITORY, "1.0", model())
    with TinyOci(tmp_path / "other") as mirror:
        mirror.wants, mirror.lifetime = "bearer", 0.001  # type: ignore[assignment]
        reader = opened(url_of(tiny, f"&mirror={mirror.host}"))
        location = await reader.location()
        log_in(docker, mirror.host, "wrong")
        assert reader.read(location, 0, 50) == BODY[:50]
        assert len(tiny.origin.requests) == 1


async def test_a_mirror_behind_a_web_page_is_not_read(
    tiny: TinyOci, opened: Opened, tmp_path: Path
) -> None:
    with TinyOci(tmp_path) as mirror:
        mirror.fault = page
        reader = opened(url_of(tiny, f"&mirror={mirror.host}"))
        assert reader.read(await reader.location(), 0, 50) == BODY[:50]


async def test_the_config_of_a_model_says_what_it_is(
    tiny: TinyOci, opened: Opened, tmp_path: Path
) -> None:
    told = {
        "descriptor": {
            "description": "a  test",
            "licenses": ["MIT"],
            "createdAt": "2026-01-02T03:04:05Z",
        },
        "config": {"format": "safetensors"},
    }
    packed = Packed(config=json.dumps(told).encode()).add("a", b"b")
    lay_out(tmp_path / "site", REPOSITORY, "told", packed)
    source = opened(url_of(tiny)).source
    version = await source.alias(parse_spec("oci/team/nlp/tiny@told"))
    found = await source.manifest(Spec(SPEC.namespace, SPEC.name, str(version)))
    assert found is not None
    made = found[0]
    assert (made.description, made.license, made.format) == ("a test", "MIT", "safetensors")
    assert made.created == 1767323045.0


async def test_a_model_is_served_without_its_config(
    tiny: TinyOci, opened: Opened, tmp_path: Path
) -> None:
    packed = model()
    (tmp_path / "site/v2" / REPOSITORY / "blobs" / sha256(packed.config)).unlink()
    reader = opened(url_of(tiny))
    assert reader.read(await reader.location(), 0, 50) == BODY[:50]


async def test_two_registries_with_one_alias_are_refused(opened: Opened, tiny: TinyOci) -> None:
    urls = ["oci://a.example.com?alias=x", "oci://b.example.com?alias=x"]
    with pytest.raises(UsageError, match=r"would both be oci/x.*alias=NAME"):
        oci_registries(urls, opened(url_of(tiny)).source._documents, None)


async def test_the_digest_of_a_version_is_that_of_its_manifest(
    docker_registry: DockerRegistry, opened: Opened
) -> None:
    digest = docker_registry.push("a/b/c", "v1", model())
    source = opened(f"oci://{docker_registry.host}/a?alias=team").source
    version = await source.alias(parse_spec("oci/team/b/c@v1"))
    assert version == digest.replace(":", "-")
    spec = parse_spec(f"oci/team/b/c@{digest}")
    found = await source.manifest(spec)
    assert found is not None
    assert [(entry.path, entry.digest) for entry in found[0].files] == [
        ("config.json", hashlib.sha256(b"{}").hexdigest()),
        ("model.bin", hashlib.sha256(BODY).hexdigest()),
    ]
    assert found[1] == f"oci://{docker_registry.host}/a/b/c@{digest}/"
    absent = parse_spec(f"oci/team/b/c@sha256:{'0' * 64}")
    assert await source.manifest(absent) is None
