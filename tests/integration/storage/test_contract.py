"""What every kind of storage promises its publishers."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

import pytest

from axonfs.errors import MalformedError
from axonfs.formats.chunktable import ChunkTable, chunk_digest
from axonfs.formats.layout import object_key
from axonfs.storage import Content, Directory, S3Storage, Storage

KEY = "api/v1/index.json"
CHUNK = 64 << 10


@pytest.fixture(params=["directory", "s3"])
def storage(tmp_path: Path, request: pytest.FixtureRequest) -> Storage:
    made: Storage = Directory(tmp_path / "registry")
    if request.param == "s3":
        made = S3Storage(request.getfixturevalue("bucket_url"))
    made.prepare()
    return made


def read(storage: Storage, key: str = KEY) -> Content:
    found = storage.read(key, 1000)
    assert found is not None
    return found


def upload(storage: Storage, path: Path, *, settled: bool = True) -> str:
    """Upload the file, whose size is at most a chunk's; return its key."""
    data = path.read_bytes()
    digest = hashlib.sha256(data).hexdigest()
    with path.open("rb") as file, storage.upload(file.fileno(), bool) as new:
        new.write(memoryview(data))
        if settled:
            table = ChunkTable(len(data), CHUNK, chunk_digest(data))
            new.settle(object_key(digest), digest, table)
    return object_key(digest)


def keys(storage: Storage, prefix: str) -> list[str]:
    return sorted(listed.key for listed in storage.list(prefix))


def test_a_document_is_replaced_only_if_it_is_still_what_was_read(storage: Storage) -> None:
    assert storage.read(KEY, 1000) is None
    assert storage.replace(KEY, b"one", None)
    assert not storage.replace(KEY, b"two", None)
    first = read(storage)
    assert first.body == b"one"
    assert storage.replace(KEY, b"longer than before", first)
    assert not storage.replace(KEY, b"three", first)
    assert read(storage).body == b"longer than before"
    assert storage.replace(KEY, b"same size, other bytes"[:18], read(storage))
    storage.delete(KEY)
    assert not storage.replace(KEY, b"four", first)
    assert storage.read(KEY, 1000) is None


def test_a_file_that_never_changes_is_written_once(storage: Storage) -> None:
    assert storage.put("chunks/sha256/ab/abc", b"table")
    assert not storage.put("chunks/sha256/ab/abc", b"other")
    assert read(storage, "chunks/sha256/ab/abc").body == b"table"
    assert storage.size("chunks/sha256/ab/abc") == 5


def test_a_document_that_is_too_large_is_refused(storage: Storage) -> None:
    storage.replace(KEY, bytes(1001), None)
    with pytest.raises(MalformedError, match=r"more than 1\.0 KiB"):
        storage.read(KEY, 1000)


def test_an_upload_appears_when_it_is_settled(storage: Storage, tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"weights")
    key = upload(storage, tmp_path / "file", settled=False)
    assert storage.size(key) is None
    assert keys(storage, "objects/") == []
    assert upload(storage, tmp_path / "file") == key
    assert read(storage, key).body == b"weights"
    (found,) = storage.list("objects/")
    assert (found.key, found.size) == (key, 7)
    assert abs(storage.now() - found.modified) < 60


def test_files_are_listed_by_prefix(storage: Storage) -> None:
    for key in ("api/v1/models/a/b/1/manifest.yaml", "api/v1/models/a/bc/1/manifest.yaml"):
        storage.replace(key, b"x", None)
    assert keys(storage, "api/v1/models/a/b/") == ["api/v1/models/a/b/1/manifest.yaml"]
    assert len(keys(storage, "api/v1/models/")) == 2
    assert keys(storage, "nothing/") == []
    assert len(keys(storage, "")) == 2


def test_deleting_what_is_not_there_does_nothing(storage: Storage) -> None:
    storage.delete(KEY)
    storage.replace(KEY, b"x", None)
    storage.delete(KEY)
    assert storage.size(KEY) is None


def test_a_pipe_in_a_directory_is_no_file_and_nobody_waits_for_its_writer(tmp_path: Path) -> None:
    (tmp_path / "api/v1").mkdir(parents=True)
    os.mkfifo(tmp_path / KEY)
    with pytest.raises(MalformedError, match="it is not a file"):
        Directory(tmp_path).read(KEY, 1000)


def test_the_age_of_a_file_is_by_the_clock_that_gave_it_its_time(
    storage: Storage, monkeypatch: pytest.MonkeyPatch
) -> None:
    """This machine's clock may differ from a file server's."""
    storage.put(KEY, b"x")
    (found,) = storage.list("api/")
    monkeypatch.setattr("time.time", lambda: 0.0)
    assert abs(storage.now() - found.modified) < 60
