"""Publishing into an object store: interrupted uploads, publishers at once, what is refused."""

from __future__ import annotations

import base64
import hashlib
import threading
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from axonfs.errors import AccessDeniedError, AxonError, UnavailableError
from axonfs.formats.layout import INDEX, object_key
from axonfs.formats.listing import parse_index
from axonfs.names import parse_spec
from axonfs.publish import PublishProgress, publish
from axonfs.s3 import Account, place_of
from axonfs.storage import Content, Listed, S3Storage
from axonfs.storage.parts import PART_BYTES
from tests.support.faulty_origin import FaultyOrigin
from tests.support.registry import RegistryServer, at_once, make_model, published
from tests.support.seaweed import READER, WRITER, Seaweed
from tests.support.tinys3 import Refusal, TinyS3
from tests.support.wiring import Authority

SPEC = parse_spec("nlp/tiny@1.0.0")
PARTS = 4


class Counted(S3Storage):
    """Counts its requests by operation."""

    def __init__(self, url: str) -> None:
        super().__init__(url)
        self.asked = Counter[str]()

    def request(self, operation: str, key: str, **arguments: Any) -> dict[str, Any]:
        self.asked[operation] += 1
        return super().request(operation, key, **arguments)


class Unconditional(S3Storage):
    """A store that does not know conditional writes, and ignores the headers."""

    def request(self, operation: str, key: str, **arguments: Any) -> dict[str, Any]:
        kept = {name: item for name, item in arguments.items() if not name.startswith("If")}
        return super().request(operation, key, **kept)


def indexed(storage: S3Storage) -> list[str]:
    found = storage.read(INDEX, 1 << 20)
    assert found is not None
    return [str(listing.spec) for listing in parse_index(found.body)[0]]


def test_an_interrupted_upload_is_continued(tmp_path: Path, bucket_url: str) -> None:
    """Parts that the store has are not sent again, and the object is whole."""
    model = make_model(tmp_path / "model", {"a": (PARTS - 1) * PART_BYTES + 1})

    def stop_after_two(progress: PublishProgress) -> None:
        if progress.bytes_done >= 2 * PART_BYTES:
            raise RuntimeError("enough")

    first, second = Counted(bucket_url), Counted(bucket_url)
    with pytest.raises(RuntimeError, match="enough"):
        publish(model, SPEC, first, progress=stop_after_two)
    assert first.asked["complete_multipart_upload"] == 0
    done = publish(model, SPEC, second)
    assert second.asked["create_multipart_upload"] == 0
    assert second.asked["upload_part"] <= PARTS - 2
    assert (done.already, done.new_bytes) == (False, (model / "a").stat().st_size)
    check_object(second, bucket_url, model / "a")
    assert list(second.unfinished("objects/")) == []


def check_object(storage: S3Storage, url: str, path: Path) -> None:
    """The object has the file's bytes; the store keeps a checksum of them."""
    (listed,) = [one for one in storage.list("objects/") if one.size == path.stat().st_size]
    assert listed.key == object_key(listed.key.rpartition("/")[2])
    client, place = Account(place_of(url)).client(), place_of(url)
    named = {"Bucket": place.bucket, "Key": place.prefix + listed.key}
    found = client.get_object(**named, ChecksumMode="ENABLED")
    assert found["Body"].read() == path.read_bytes()
    assert found["ChecksumCRC32"].endswith(f"-{PARTS}")
    assert found["CacheControl"].endswith("immutable")


def test_a_small_object_has_its_digest_as_its_checksum(tmp_path: Path, bucket_url: str) -> None:
    publish(make_model(tmp_path / "model", {"a": 1000}), SPEC, S3Storage(bucket_url))
    client, place = Account(place_of(bucket_url)).client(), place_of(bucket_url)
    for listed in S3Storage(bucket_url).list("objects/"):
        named = {"Bucket": place.bucket, "Key": place.prefix + listed.key}
        found = client.head_object(**named, ChecksumMode="ENABLED")
        digest = bytes.fromhex(listed.key.rpartition("/")[2])
        assert base64.b64decode(found["ChecksumSHA256"]) == digest


def test_publishers_at_once_lose_nothing(tmp_path: Path, bucket_url: str) -> None:
    model = make_model(tmp_path / "model", {"a": 1000})
    specs = [parse_spec(f"nlp/m{number % 2}@1.{number}") for number in range(6)]
    at_once(lambda spec: publish(model, spec, S3Storage(bucket_url)), specs)
    assert sorted(indexed(S3Storage(bucket_url))) == sorted(map(str, specs))


@pytest.mark.parametrize("refusal", ["completed", "replaced"])
def test_publishers_of_one_large_object_at_once(
    tmp_path: Path, bucket_url: str, refusal: str
) -> None:
    """They send the parts of one upload. One completes it before the other one has sent all; or
    the other one has sent a part again, which gets another ETag where the store encrypts."""
    model = make_model(tmp_path / "model", {"a": PART_BYTES + 1})

    class Slower(Counted):
        overtaken = threading.Lock()  # parts are sent by several threads

        def request(self, operation: str, key: str, **arguments: Any) -> dict[str, Any]:
            first = not self.asked[operation]
            overtakes = operation == "upload_part" and refusal == "completed"
            if overtakes and self.overtaken.acquire(blocking=False):
                faster = parse_spec("nlp/tiny@2.0.0")
                assert not publish(model, faster, S3Storage(bucket_url)).already
            if operation == "complete_multipart_upload" and first and refusal == "replaced":
                arguments["MultipartUpload"]["Parts"][0]["ETag"] = '"' + "0" * 32 + '"'
            return super().request(operation, key, **arguments)

    slower = Slower(bucket_url)
    done = publish(model, SPEC, slower)
    assert (done.already, done.bytes) == (False, sum(one.stat().st_size for one in model.iterdir()))
    expected = {"nlp/tiny@1.0.0", "nlp/tiny@2.0.0"} if refusal == "completed" else {str(SPEC)}
    assert set(indexed(slower)) == expected
    assert slower.asked["create_multipart_upload"] == 1 + (refusal == "replaced")
    (large,) = [one for one in slower.list("objects/") if one.size > PART_BYTES]
    found = slower.read(large.key, large.size)
    assert found is not None
    assert found.body == (model / "a").read_bytes()


def test_other_files_under_a_published_version_are_refused(tmp_path: Path, bucket_url: str) -> None:
    model = make_model(tmp_path / "model", {"a": 1000})
    publish(model, SPEC, S3Storage(bucket_url))
    assert publish(model, SPEC, S3Storage(bucket_url)).already
    other = make_model(tmp_path / "other", {"a": 1000}, seed=1)
    with pytest.raises(AxonError, match="already published with other files"):
        publish(other, SPEC, S3Storage(bucket_url))


def test_a_store_without_conditional_writes_wants_one_publisher_at_a_time(
    tmp_path: Path, bucket_url: str, caplog: pytest.LogCaptureFixture
) -> None:
    model = make_model(tmp_path / "model", {"a": 1000})
    for number in range(3):
        publish(model, parse_spec(f"nlp/tiny@1.{number}"), Unconditional(bucket_url))
    assert len(indexed(S3Storage(bucket_url))) == 3
    assert "no conditional writes: let only one program publish" in caplog.text
    other = make_model(tmp_path / "other", {"a": 1000}, seed=1)
    with pytest.raises(AxonError, match="already published with other files"):
        publish(other, parse_spec("nlp/tiny@1.0"), Unconditional(bucket_url))


def test_a_file_that_changes_between_its_two_reads_is_not_uploaded(
    tmp_path: Path, bucket_url: str
) -> None:
    """The digests come from the first read, the uploaded bytes from the second."""
    model = make_model(tmp_path / "model", {"a": 1000})

    digest = hashlib.sha256((model / "a").read_bytes()).hexdigest()

    class Late(S3Storage):
        def size(self, key: str) -> int | None:
            if key == object_key(digest):
                (model / "a").write_bytes(bytes(1000))
            return super().size(key)

    with pytest.raises(AxonError, match="changed while it was read"):
        publish(model, SPEC, Late(bucket_url))
    assert list(S3Storage(bucket_url).list("api/")) == []


def test_a_long_listing_comes_in_pages(bucket_url: str) -> None:
    """A store lists at most 1000 keys at a time; buckets have many more."""

    class ShortPages(S3Storage):
        def _call(self, operation: str, key: str | None, **arguments: Any) -> dict[str, Any]:
            if operation == "list_objects_v2":
                arguments["MaxKeys"] = 2
            return super()._call(operation, key, **arguments)

    storage = ShortPages(bucket_url)
    keys = [f"api/v1/models/a/b/{number}/manifest.yaml" for number in range(5)]
    for key in keys:
        storage.put(key, b"x")
    assert [listed.key for listed in storage.list("api/v1/models/")] == keys


def test_a_size_is_known_where_only_get_is_allowed(tmp_path: Path, bucket_url: str) -> None:
    """Some gateways and policies answer 403 to each HEAD."""

    class NoHead(S3Storage):
        def _call(self, operation: str, key: str | None, **arguments: Any) -> dict[str, Any]:
            if operation == "head_object":
                denied = AccessDeniedError("the store answered 403")
                denied.status = 403
                raise denied
            return super()._call(operation, key, **arguments)

    model = make_model(tmp_path / "model", {"a": 1000, "empty": 0})
    assert not publish(model, SPEC, NoHead(bucket_url)).already
    assert publish(model, SPEC, NoHead(bucket_url)).new_bytes == 0


def test_credentials_that_expire_while_one_publishes_are_named(
    tmp_path: Path, bucket_url: str
) -> None:
    """The first answer is one to HEAD, which has no code; the one to GET has it."""
    with TinyS3(tmp_path) as tiny:
        tiny.refusal = lambda key, path: Refusal(400, "ExpiredToken")
        storage = S3Storage(f"s3://models/reg?endpoint_url={tiny.url}")
        with pytest.raises(AccessDeniedError, match=r"credentials have expired.*; renew them"):
            publish(make_model(tmp_path / "model"), SPEC, storage)


def test_credentials_that_are_renewed_while_one_publishes_are_used(
    tmp_path: Path, bucket_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They expire between two requests of an upload. The user logs in again, which rewrites the
    profile; the publish goes on."""
    profile = tmp_path / "credentials"
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(profile))
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)

    def log_in(secret: str) -> None:
        keys = f"aws_access_key_id = {WRITER[0]}\naws_secret_access_key = {secret}\n"
        profile.write_text(f"[default]\n{keys}")

    class Expiring(S3Storage):
        def request(self, operation: str, key: str, **arguments: Any) -> dict[str, Any]:
            if operation == "create_multipart_upload":
                found = super().request(operation, key, **arguments)
                log_in("expired")
                self._account.renew()
                self._account._renewed = float("-inf")
                self._account.client()
                log_in(WRITER[1])
                return found
            return super().request(operation, key, **arguments)

    log_in(WRITER[1])
    model = make_model(tmp_path / "model", {"a": 2 * PART_BYTES + 1})
    storage = Expiring(bucket_url)
    assert publish(model, SPEC, storage).files == 2
    assert indexed(storage) == [str(SPEC)]


def test_a_new_version_that_is_listed_late_stays_in_the_lists(
    tmp_path: Path, bucket_url: str
) -> None:
    """Some stores list a new file only after a while, and some users may not list at all."""

    class Forgetful(S3Storage):
        def list(self, prefix: str) -> Iterator[Listed]:
            return iter(())

    model = make_model(tmp_path / "model", {"a": 1000})
    for number in range(3):
        publish(model, parse_spec(f"nlp/tiny@1.{number}"), Forgetful(bucket_url))
    assert indexed(S3Storage(bucket_url)) == [f"nlp/tiny@1.{number}" for number in range(3)]


def test_a_publisher_who_may_not_read_is_told(
    tmp_path: Path, bucket_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("axonfs.publish.registry.CONTEST_PAUSE", 0.01)

    class WriteOnly(S3Storage):
        def read(self, key: str, limit: int) -> Content | None:
            return None

    model = make_model(tmp_path / "model", {"a": 1000})
    publish(model, SPEC, S3Storage(bucket_url))
    with pytest.raises(AxonError, match="may not read it") as caught:
        publish(model, SPEC, WriteOnly(bucket_url))
    assert caught.value.source == f"{bucket_url}/api/v1/models/nlp/tiny/1.0.0/manifest.yaml"
    with pytest.raises(AxonError, match="may not read it") as caught:
        publish(model, parse_spec("nlp/tiny@2.0.0"), WriteOnly(bucket_url))
    assert caught.value.source == f"{bucket_url}/api/v1/models/nlp/tiny/versions.json"


def test_a_store_with_a_private_authority_is_trusted_by_its_bundle(
    tmp_path: Path, bucket_url: str, authority: Authority, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("axonfs.s3.account.ATTEMPTS", 1)
    published(tmp_path)
    (tmp_path / "registry/models").symlink_to(".")
    with FaultyOrigin(tmp_path / "registry", authority) as origin:
        url = f"s3://models?endpoint_url={origin.url}"
        found = S3Storage(url, authority.bundle).read(INDEX, 1 << 20)
        assert found is not None
        with pytest.raises(UnavailableError, match=r"over TLS.*axonfs config set ca_bundle"):
            S3Storage(url).read(INDEX, 1 << 20)


def test_what_a_store_refuses_is_said(
    tmp_path: Path, bucket_url: str, seaweed: Seaweed, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = make_model(tmp_path / "model", {"a": 1000})
    with pytest.raises(UnavailableError, match=r"there is no bucket 'nowhere'.*check its name"):
        publish(model, SPEC, S3Storage("s3://nowhere/reg"))
    for who, what in (
        (READER, r"403 \(AccessDenied\).*policy does not allow"),
        (("writer", "wrong"), r"refuses the AWS credentials \(SignatureDoesNotMatch\)"),
        (("nobody", "wrong"), r"refuses the AWS credentials \(InvalidAccessKeyId\)"),
    ):
        for name, text in seaweed.environment(who).items():
            monkeypatch.setenv(name, text)
        with pytest.raises(AccessDeniedError, match=what):
            publish(model, SPEC, S3Storage(bucket_url))
    with RegistryServer(tmp_path) as other:
        storage = S3Storage(f"s3://models/reg?endpoint_url={other.url}")
        with pytest.raises(AxonError, match=r"without a code .* the endpoint is that of an object"):
            publish(model, SPEC, storage)
    url = f"{bucket_url}?endpoint_url=http://127.0.0.1:1"
    monkeypatch.setattr("axonfs.s3.account.ATTEMPTS", 1)
    with pytest.raises(UnavailableError, match=r"Could not connect.*check the endpoint"):
        publish(model, SPEC, S3Storage(url))
