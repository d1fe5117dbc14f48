"""Reading a registry in a bucket: signatures, credentials that expire, and what stores answer."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AsyncExitStack
from email.utils import formatdate
from pathlib import Path
from typing import TypeAlias

import pytest

from axonfs.errors import AccessDeniedError, AxonError, UnavailableError, UsageError
from axonfs.http_client import Bodies, Documents, Limits, Location, Routes
from axonfs.names import parse_spec
from axonfs.publish import publish
from axonfs.s3 import Refusal as S3Refusal
from axonfs.s3 import S3Signer, place_of
from axonfs.sources import RegistrySource
from axonfs.sources.registry import _rebased
from axonfs.storage import S3Storage
from tests.support.registry import make_model
from tests.support.seaweed import NO_AWS, READER, STRANGER, Seaweed
from tests.support.tinys3 import BUCKET, Refusal, TinyS3

SPEC = parse_spec("nlp/tiny@1.0.0")
ABSENT = parse_spec("nlp/tiny@2.0.0")
SIZE = 100_000
LIMITS = Limits(attempts=1)
DIRECT = Routes({})


@pytest.fixture
def model(tmp_path: Path) -> Path:
    return make_model(tmp_path / "model", {"a": SIZE})


@pytest.fixture
def profile(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A credentials file, as AWS's tools read it."""
    for name, text in NO_AWS.items():
        monkeypatch.setenv(name, text)
    path = tmp_path / "credentials"
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(path))
    log_in(path, "old")
    return path


def log_in(profile: Path, key: str) -> None:
    text = f"[default]\naws_access_key_id = {key}\naws_secret_access_key = secret\n"
    profile.write_text(text)


def log_out(profile: Path) -> None:
    profile.unlink()


@pytest.fixture
def tiny(tmp_path: Path, model: Path, profile: Path) -> Iterator[TinyS3]:
    publish(model, SPEC, tmp_path / "registry")
    with TinyS3(tmp_path / "registry") as server:
        yield server


class Reader:
    """A source, and what its bytes are read with."""

    def __init__(self, url: str, signer: S3Signer, documents: Documents, bodies: Bodies) -> None:
        signer.learn([url])
        self.source = RegistrySource(url, documents)
        self.bodies = bodies

    async def location(self) -> Location:
        found = await self.source.manifest(SPEC)
        assert found is not None
        manifest, base = found
        entry = manifest.file("a")
        assert entry is not None
        return self.source.locate(base, entry)

    def read(self, location: Location, start: int, stop: int) -> bytes:
        taken = bytearray()
        self.bodies.read(
            location, start, stop, SIZE, lambda _, piece: taken.extend(piece), unit=1 << 16
        )
        return bytes(taken)


Opened: TypeAlias = Callable[[str], Reader]


@pytest.fixture
async def opened() -> AsyncIterator[Opened]:
    async with AsyncExitStack() as stack:
        signer = S3Signer()
        signers = {"s3": signer}
        documents = Documents(LIMITS, routes=DIRECT, signers=signers)
        await stack.enter_async_context(documents)
        bodies = stack.enter_context(Bodies(LIMITS, routes=DIRECT, signers=signers))
        yield lambda url: Reader(url, signer, documents, bodies)


def url_of(tiny: TinyS3, more: str = "") -> str:
    return f"s3://{BUCKET}?endpoint_url={tiny.url}{more}"


async def test_credentials_that_expire_are_renewed_in_the_middle_of_a_read(
    tiny: TinyS3, profile: Path, model: Path, opened: Opened
) -> None:
    reader = opened(url_of(tiny))
    location = await reader.location()
    data = (model / "a").read_bytes()
    assert reader.read(location, 0, 50_000) == data[:50_000]
    log_in(profile, "new")
    expired = Refusal(400, "ExpiredToken")
    tiny.refusal = lambda key, path: expired if key == "old" else None
    assert reader.read(location, 50_000, SIZE) == data[50_000:]
    assert await reader.source.listings() is not None


@pytest.mark.parametrize(
    ("refusal", "message"),
    [
        (Refusal(400, "ExpiredToken"), r"credentials have expired .*; renew them"),
        (Refusal(403, "InvalidAccessKeyId"), r"refuses the AWS credentials .*AWS_PROFILE"),
        (
            Refusal(403, "RequestTimeTooSkewed", {"Date": formatdate(0)}),
            r"clock is \d+ s ahead of the store's .*; set the clock",
        ),
        (Refusal(301, "PermanentRedirect"), r"in another region .*; set AWS_REGION"),
        (Refusal(404, "NoSuchBucket"), r"there is no bucket 'models' .*; check its name"),
        (Refusal(403, "InvalidObjectState"), r"moved the file into an archive .*; restore it"),
    ],
)
async def test_a_refusal_says_what_to_do(
    tiny: TinyS3, opened: Opened, refusal: Refusal, message: str
) -> None:
    reader = opened(url_of(tiny))
    location = await reader.location()
    tiny.refusal = lambda key, path: refusal
    for failing in (reader.source.listings, lambda: reader.source.manifest(SPEC)):
        with pytest.raises(AxonError, match=message) as caught:
            await failing()
        assert caught.value.source is not None
        assert caught.value.source.startswith(f"s3://{BUCKET}/api/v1/")
    with pytest.raises(AxonError, match=message):
        reader.read(location, 0, 10)


async def test_a_store_that_is_overloaded_may_be_asked_again(tiny: TinyS3, opened: Opened) -> None:
    reader = opened(url_of(tiny))
    location = await reader.location()
    tiny.refusal = lambda key, path: Refusal(503, "SlowDown")
    with pytest.raises(UnavailableError, match="SlowDown") as caught:
        reader.read(location, 0, 10)
    assert (caught.value.transient, caught.value.overloaded) == (True, True)


async def test_the_region_that_the_store_names_is_used(tiny: TinyS3, opened: Opened) -> None:
    region = {"x-amz-bucket-region": "eu-south-9"}
    elsewhere = Refusal(400, "AuthorizationHeaderMalformed", region)
    tiny.refusal = lambda key, path: (
        None if "/eu-south-9/" in tiny.heads[-1]["authorization"] else elsewhere
    )
    assert await opened(url_of(tiny)).source.listings() is not None
    assert len(tiny.heads) == 2


async def test_the_options_of_a_url_are_signed(tiny: TinyS3, opened: Opened) -> None:
    reader = opened(url_of(tiny, "&request_payer=requester&region=eu-west-1"))
    reader.read(await reader.location(), 10, 20)
    head = tiny.heads[-1]
    assert head["x-amz-request-payer"] == "requester"
    assert "x-amz-request-payer" in head["authorization"].partition("SignedHeaders=")[2]
    assert "/eu-west-1/s3/" in head["authorization"]
    assert head["range"] == "bytes=10-19"


@pytest.mark.parametrize("prefix", ["a%20b", "a%2Bb+c", "100%25", "x%3Fy%23z", "%c3%a9", "a//b"])
async def test_the_options_of_a_url_count_for_every_prefix(
    model: Path,
    bucket_url: str,
    seaweed: Seaweed,
    monkeypatch: pytest.MonkeyPatch,
    opened: Opened,
    prefix: str,
) -> None:
    """Also where the prefix has characters that a URL must percent-encode."""
    monkeypatch.delenv("AWS_ENDPOINT_URL_S3")
    url = f"{bucket_url}/{prefix}?endpoint_url={seaweed.endpoint}"
    storage = S3Storage(url)
    publish(model, SPEC, storage)
    assert place_of(storage.name) == place_of(f"{bucket_url}/{prefix}")
    reader = opened(url)
    assert reader.read(await reader.location(), 0, SIZE) == (model / "a").read_bytes()


async def test_a_signature_serves_all_ranges_of_an_object(tiny: TinyS3, opened: Opened) -> None:
    reader = opened(url_of(tiny))
    location = await reader.location()
    for start in range(0, 5000, 1000):
        reader.read(location, start, start + 1000)
    assert len({head["authorization"] for head in tiny.heads[-5:]}) == 1


async def test_without_credentials_requests_are_not_signed(
    tiny: TinyS3, profile: Path, opened: Opened
) -> None:
    log_out(profile)
    reader = opened(url_of(tiny))
    assert await reader.source.listings() is not None
    assert "authorization" not in tiny.heads[-1]
    tiny.refusal = lambda key, path: Refusal(403, "AccessDenied")
    with pytest.raises(AccessDeniedError, match="AWS_ACCESS_KEY_ID"):
        reader.read(await found(reader, tiny), 0, 10)


async def found(reader: Reader, tiny: TinyS3) -> Location:
    refusal, tiny.refusal = tiny.refusal, lambda key, path: None
    location = await reader.location()
    tiny.refusal = refusal
    return location


async def test_where_files_may_not_be_listed_a_403_means_not_found(
    model: Path, bucket_url: str, seaweed: Seaweed, monkeypatch: pytest.MonkeyPatch, opened: Opened
) -> None:
    """As of S3 without ListBucket; SeaweedFS itself answers 404."""
    publish(model, SPEC, S3Storage(bucket_url))
    for name, text in seaweed.environment(READER).items():
        monkeypatch.setenv(name, text)
    reader = opened(bucket_url)
    assert reader.read(await reader.location(), 0, SIZE) == (model / "a").read_bytes()
    assert await reader.source.manifest(ABSENT) is None
    assert [str(hit.spec) for hit in await reader.source.search("tiny")] == [str(SPEC)]


async def test_a_403_for_each_missing_file_is_not_found(tiny: TinyS3, opened: Opened) -> None:
    tiny.refusal = lambda key, path: Refusal(403, "AccessDenied") if "2.0.0" in path else None
    reader = opened(url_of(tiny))
    assert await reader.source.listings() is not None
    assert await reader.source.manifest(ABSENT) is None


async def test_a_bucket_that_is_not_there_or_not_ones_own_is_named(
    bucket_url: str, seaweed: Seaweed, monkeypatch: pytest.MonkeyPatch, opened: Opened
) -> None:
    with pytest.raises(UnavailableError, match="there is no bucket 'nowhere'"):
        await opened("s3://nowhere/reg").source.listings()
    for name, text in seaweed.environment(STRANGER).items():
        monkeypatch.setenv(name, text)
    reader = opened(bucket_url)
    assert await reader.source.listings() is None
    assert reader.source.denial is not None
    with pytest.raises(AccessDeniedError, match=r"403 \(AccessDenied\)"):
        await reader.source.search("tiny")


async def test_a_profile_that_does_not_exist_is_named(tiny: TinyS3, opened: Opened) -> None:
    with pytest.raises(AccessDeniedError, match=r"\(none\) could not be found.*AWS_PROFILE"):
        await opened(url_of(tiny, "&profile=none")).source.listings()


async def test_without_botocore_the_extra_is_named(
    tiny: TinyS3, monkeypatch: pytest.MonkeyPatch, opened: Opened
) -> None:
    monkeypatch.setattr("axonfs.s3.account.find_spec", lambda name: None)
    with pytest.raises(AxonError, match=r"need botocore.*pip install 'axonfs\[s3\]'"):
        await opened(url_of(tiny)).source.listings()


def test_two_registries_do_not_differ_in_their_options_alone() -> None:
    """Manifests and lists are kept by the name, which has no options."""
    signer = S3Signer()
    signer.learn(["s3://models/a?region=eu-1", "s3://models/b?region=eu-2", "http://h"])
    signer.learn(["s3://models/a/?region=eu-1"])
    with pytest.raises(UsageError, match="s3://models/a is used with other options already"):
        signer.learn(["s3://models/a"])


def test_no_manifest_has_a_request_for_another_bucket_signed() -> None:
    """This user's credentials may open buckets that the registry's owner cannot read."""
    base = "s3://models/reg/"
    assert _rebased("s3://private/x", "http://r/", base) is None
    assert _rebased("s3://private/x", "http://r/", "http://r/") is None
    assert _rebased("packages/x", "http://r/", base) == "s3://models/reg/packages/x"
    assert _rebased("http://r/packages/x", "http://r/", base) == "s3://models/reg/packages/x"


def test_a_permission_that_lacks_is_named_if_the_store_names_it() -> None:
    """As for the key of its own KMS, without which a file may be listed and not read."""
    said = "User: arn:aws:iam::1:user/me is not authorized to perform: kms:Decrypt"
    error = S3Refusal(403, "AccessDenied", said, "", "").error("s3://b/k", anonymous=False)
    assert "403 (AccessDenied: User: arn:aws:iam::1:user/me is not" in str(error)
