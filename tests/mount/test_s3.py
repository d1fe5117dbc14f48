"""A mount of a registry in an object store."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from axonfs.names import parse_spec
from axonfs.publish import publish
from axonfs.storage import S3Storage
from tests.mount.conftest import CHUNK, FILES, MODEL, NAME, MountFactory
from tests.support.registry import make_model
from tests.support.seaweed import NO_AWS, READER, Seaweed
from tests.support.tinys3 import BUCKET, Refusal, TinyS3

pytestmark = pytest.mark.mount
SPEC = parse_spec("nlp/tiny@1.0.0")


@pytest.fixture
def model(tmp_path: Path) -> Path:
    return make_model(tmp_path / "model", FILES)


def test_a_reader_who_may_only_get_files_has_the_whole_model(
    model: Path, bucket_url: str, seaweed: Seaweed, start_mount: MountFactory
) -> None:
    publish(model, SPEC, S3Storage(bucket_url), chunk_size=CHUNK)
    mount = start_mount(bucket_url, env=seaweed.environment(READER))
    assert sorted(os.listdir(mount.path / "nlp/tiny")) == ["1.0.0", "latest"]
    for name in FILES:
        found = (mount.path / "nlp/tiny/latest" / name).read_bytes()
        assert found == (model / name).read_bytes()


@pytest.fixture
def tiny(model: Path, tmp_path: Path) -> Iterator[TinyS3]:
    publish(model, SPEC, tmp_path / "registry", chunk_size=CHUNK)
    with TinyS3(tmp_path / "registry") as server:
        yield server


def test_credentials_that_expire_during_a_load_are_renewed_and_no_reader_notices(
    model: Path, tiny: TinyS3, tmp_path: Path, start_mount: MountFactory
) -> None:
    """The user logs in again, which rewrites the profile; the mount goes on."""
    profile = tmp_path / "credentials"
    profile.write_text("[default]\naws_access_key_id = old\naws_secret_access_key = x\n")
    environment = {**NO_AWS, "AWS_SHARED_CREDENTIALS_FILE": str(profile), "AXONFS_PREFETCH": "off"}
    mount = start_mount(f"s3://{BUCKET}?endpoint_url={tiny.url}", env=environment)
    with open(mount.path / MODEL, "rb") as file:
        start = file.read(CHUNK)
        profile.write_text("[default]\naws_access_key_id = new\naws_secret_access_key = x\n")
        expired = Refusal(400, "ExpiredToken")
        tiny.refusal = lambda key, path: expired if key == "old" else None
        rest = file.read()
    assert start + rest == (model / NAME).read_bytes()
