"""The web page that a publisher writes beside the models: when it does, and when not."""

from __future__ import annotations

import logging
import stat
from pathlib import Path

import pytest

from axonfs.formats.layout import PAGE
from axonfs.names import parse_spec
from axonfs.page import page
from axonfs.publish import publish
from axonfs.publish.registry import Registry
from axonfs.s3 import Account, place_of
from axonfs.storage import Content, Directory, S3Storage
from tests.integration.publish.conftest import SPEC

OURS = '<meta name="generator" content="axonfs {} registry page">'


class Recorded(Directory):
    """Notes the keys of the documents that are written; refuses to write the page if told to."""

    def __init__(self, root: Path, *, refuses: bool = False) -> None:
        super().__init__(root)
        self.written: list[str] = []
        self._refuses = refuses

    def replace(self, key: str, body: bytes, before: Content | None) -> bool:
        if key == PAGE and self._refuses:
            raise PermissionError(13, "Permission denied", key)
        self.written.append(key)
        return super().replace(key, body, before)


def test_the_page_is_written_last_and_once(model: Path, registry: Path) -> None:
    first, second = Recorded(registry), Recorded(registry)
    publish(model, SPEC, first)
    assert first.written[-1] == PAGE
    assert (registry / PAGE).read_bytes() == page()
    assert stat.S_IMODE((registry / PAGE).stat().st_mode) & 0o444 == 0o444
    publish(model, parse_spec("nlp/tiny@1.1.0"), second)
    assert PAGE not in second.written


@pytest.mark.parametrize(
    ("before", "replaced"),
    [
        (OURS.format("0.0.1").encode(), True),
        (OURS.format("999.0.0").encode(), False),
        (b"<title>Our models</title>", False),
        (b"", False),
        (b"x" * (2 << 20), False),
    ],
)
def test_an_older_page_is_replaced_and_one_of_others_stays(
    model: Path, registry: Path, caplog: pytest.LogCaptureFixture, before: bytes, replaced: bool
) -> None:
    registry.mkdir()
    (registry / PAGE).write_bytes(before)
    publish(model, SPEC, registry)
    assert (registry / PAGE).read_bytes() == (page() if replaced else before)
    assert caplog.records == []


def test_a_bucket_has_it_as_a_page(model: Path, bucket_url: str) -> None:
    """A browser shows it, instead of saving it."""
    publish(model, SPEC, S3Storage(bucket_url))
    place = place_of(bucket_url)
    found = Account(place).client().get_object(Bucket=place.bucket, Key=f"{place.prefix}{PAGE}")
    assert found["ContentType"] == "text/html; charset=utf-8"
    assert found["CacheControl"] == "no-cache"
    assert found["Body"].read() == page()


def test_a_lost_page_is_written_by_the_next_publish(model: Path, registry: Path) -> None:
    publish(model, SPEC, registry)
    (registry / PAGE).unlink()
    assert publish(model, SPEC, registry).already
    assert (registry / PAGE).read_bytes() == page()


def test_a_page_that_cannot_be_written_fails_no_publish(
    model: Path, registry: Path, caplog: pytest.LogCaptureFixture
) -> None:
    storage = Recorded(registry, refuses=True)
    publish(model, SPEC, storage)
    assert Registry(storage).manifest(SPEC) is not None
    (record,) = caplog.records
    assert record.levelno == logging.WARNING
    assert "index.html is not up to date" in record.getMessage()
