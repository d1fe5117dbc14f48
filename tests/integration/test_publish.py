"""Publishing real directories: the layout, what is refused, what is kept, what is mended."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import shutil
import stat
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from axonfs.catalog import parse_index, parse_versions
from axonfs.chunktable import parse_table
from axonfs.errors import AxonError, MalformedError
from axonfs.manifest import Manifest, parse_manifest
from axonfs.names import Spec, parse_spec
from axonfs.publish import Progress, Published, publish
from axonfs.publish.publisher import _registry_faults
from tests.support.registry import make_model

SPEC = parse_spec("nlp/tiny@1.0.0")
CHUNK = 64 << 10


@pytest.fixture
def model(tmp_path: Path) -> Path:
    sizes = {"a.safetensors": 3 * CHUNK + 7, "b.safetensors": 2 * CHUNK, "sub/empty.txt": 0}
    return make_model(tmp_path / "model", sizes)


@pytest.fixture
def registry(tmp_path: Path) -> Path:
    return tmp_path / "registry"


def manifest_of(registry: Path, spec: Spec = SPEC) -> Manifest:
    path = registry.joinpath("api/v1/models", *spec.segments, "manifest.yaml")
    return parse_manifest(path.read_bytes(), spec)


def indexed(registry: Path) -> list[str]:
    listings, skipped = parse_index((registry / "api/v1/index.json").read_bytes())
    assert skipped == 0
    return [str(listing.spec) for listing in listings]


def blob(registry: Path, kind: str, digest: str) -> bytes:
    return (registry / kind / "sha256" / digest[:2] / digest).read_bytes()


def contents(registry: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(registry)): path.read_bytes()
        for path in registry.rglob("*")
        if path.is_file()
    }


def check_bytes(registry: Path, model: Path, spec: Spec = SPEC) -> None:
    """Every link from the manifest to every chunk, against the files themselves."""
    for entry in manifest_of(registry, spec).files:
        data = (model / entry.path).read_bytes()
        assert blob(registry, "objects", entry.digest) == data
        assert hashlib.sha256(data).hexdigest() == entry.digest
        if not data:
            assert entry.chunks is None
            continue
        assert entry.chunks is not None
        raw = blob(registry, "chunks", entry.digest)
        table = parse_table(raw, size=len(data), chunks=entry.chunks)
        size = table.chunk_size
        for chunk in range(table.count):
            piece = data[chunk * size : (chunk + 1) * size]
            assert table.right(chunk, memoryview(piece))


def test_a_published_directory_is_complete_to_the_last_chunk(model: Path, registry: Path) -> None:
    done = publish(model, SPEC, registry, chunk_size=CHUNK)
    check_bytes(registry, model)
    files = [path for path in model.rglob("*") if path.is_file()]
    size = sum(path.stat().st_size for path in files)
    assert done == Published(SPEC, len(files), size, size, already=False)
    assert indexed(registry) == [str(SPEC)]
    versions = registry / "api/v1/models/nlp/tiny/versions.json"
    assert parse_versions(versions.read_bytes()).latest == "1.0.0"
    assert list((registry / "objects/tmp").iterdir()) == []


def test_a_chunk_larger_than_the_copy_buffer_is_digested_right(tmp_path: Path) -> None:
    model = make_model(tmp_path / "model", {"a": (5 << 20) + 3, "b": 4 << 20})
    publish(model, SPEC, tmp_path / "registry", chunk_size=4 << 20)
    check_bytes(tmp_path / "registry", model)


def test_another_user_may_read_what_was_published(model: Path, registry: Path) -> None:
    umask = os.umask(0o022)
    try:
        publish(model, SPEC, registry)
    finally:
        os.umask(umask)
    for path in registry.rglob("*"):
        mode = stat.S_IMODE(path.stat().st_mode)
        assert mode == (0o755 if path.is_dir() else 0o644), path


def test_publishing_the_same_bytes_again_changes_nothing(model: Path, registry: Path) -> None:
    publish(model, SPEC, registry, chunk_size=CHUNK)
    before = contents(registry)
    done = publish(model, SPEC, registry, description="other words", chunk_size=4 * CHUNK)
    assert (done.already, done.new_bytes) == (True, 0)
    assert contents(registry) == before


def corrupt(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)


@pytest.mark.parametrize(
    "change",
    [
        lambda model: corrupt(model / "b.safetensors"),
        lambda model: (model / "new").write_bytes(b"x"),
        lambda model: (model / "b.safetensors").unlink(),
        lambda model: (model / "config.json").write_bytes(b"{}"),
    ],
    ids=["same size", "one more", "one less", "config"],
)
def test_other_bytes_under_a_published_version_are_refused(
    model: Path, registry: Path, change: Callable[[Path], None]
) -> None:
    publish(model, SPEC, registry)
    before = contents(registry)
    change(model)
    with pytest.raises(AxonError, match=r"nlp/tiny@1\.0\.0: it is already published"):
        publish(model, SPEC, registry)
    assert contents(registry) == before


def test_a_file_in_two_versions_is_stored_once(model: Path, registry: Path) -> None:
    publish(model, SPEC, registry)
    (model / "new.txt").write_bytes(b"hello")
    done = publish(model, parse_spec("nlp/tiny@1.1.0"), registry)
    assert done.new_bytes == 5
    assert len(list(registry.glob("objects/sha256/*/*"))) == 5


def test_two_chunk_sizes_share_one_table(model: Path, registry: Path) -> None:
    """The table's name is its object's, so the first one stays and both manifests name it."""
    publish(model, SPEC, registry, chunk_size=CHUNK)
    later = parse_spec("nlp/tiny@1.1.0")
    publish(model, later, registry, chunk_size=4 * CHUNK)
    check_bytes(registry, model)
    check_bytes(registry, model, later)
    assert manifest_of(registry, later).files == manifest_of(registry).files


@pytest.mark.parametrize("lost", ["objects", "chunks", "api/v1/index.json", "versions.json"])
def test_publishing_again_mends_what_is_missing(model: Path, registry: Path, lost: str) -> None:
    publish(model, SPEC, registry, chunk_size=CHUNK)
    before = contents(registry)
    path = registry / "api/v1/models/nlp/tiny" / lost if "versions" in lost else registry / lost
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink()
    assert publish(model, SPEC, registry, chunk_size=4 * CHUNK).already
    assert contents(registry) == before


@pytest.mark.parametrize("damage", [b"", b"{", b'{"apiVersion": "axonfs/v1", "models": []}'])
def test_a_damaged_index_is_made_anew(model: Path, registry: Path, damage: bytes) -> None:
    other = parse_spec("audio/deep/name@2.0")
    publish(model, other, registry)
    publish(model, SPEC, registry)
    (registry / "api/v1/index.json").write_bytes(damage)
    publish(model, SPEC, registry)
    publish(model, other, registry)
    assert indexed(registry) == [str(other), str(SPEC)]


def test_latest_is_the_newest_release(model: Path, registry: Path) -> None:
    for version in ("1.10.0", "1.9.0", "2.0.0-rc.1"):
        publish(model, parse_spec(f"nlp/tiny@{version}"), registry)
    versions = parse_versions((registry / "api/v1/models/nlp/tiny/versions.json").read_bytes())
    assert versions.versions == ("1.9.0", "1.10.0", "2.0.0-rc.1")
    assert versions.latest == "1.10.0"
    assert indexed(registry) == [f"nlp/tiny@{version}" for version in versions.versions]


@pytest.mark.parametrize(
    "text", ["nlp/tiny@latest", "nlp/latest@1", "nlp/tiny@versions.json", "nlp/manifest.yaml@1"]
)
def test_names_of_the_layout_are_refused(model: Path, registry: Path, text: str) -> None:
    with pytest.raises(AxonError, match="may not be called"):
        publish(model, parse_spec(text), registry)


def test_no_version_lies_inside_another(model: Path, registry: Path) -> None:
    publish(model, parse_spec("nlp/a/b@1"), registry)
    with pytest.raises(AxonError, match="inside a version"):
        publish(model, parse_spec("nlp/a/b/1@2"), registry)
    with pytest.raises(AxonError, match="below that name"):
        publish(model, parse_spec("nlp/a@b"), registry)
    publish(model, parse_spec("nlp/a@1"), registry)  # a model and a name that begins alike


def test_hidden_names_and_the_manifest_are_left_out(model: Path, registry: Path) -> None:
    (model / ".git/objects").mkdir(parents=True)
    (model / ".git/objects/x").write_bytes(b"x")
    (model / "sub/.hidden").write_bytes(b"x")
    (model / "manifest.yaml").write_bytes(b"x")
    (model / "sub/manifest.yaml").write_bytes(b"mine")
    done = publish(model, SPEC, registry)
    assert done.left_out == (".git/", "manifest.yaml", "sub/.hidden")
    assert [entry.path for entry in manifest_of(registry).files] == [
        "a.safetensors",
        "b.safetensors",
        "config.json",
        "sub/empty.txt",
        "sub/manifest.yaml",
    ]


def test_a_hugging_face_snapshot_is_followed(tmp_path: Path, registry: Path) -> None:
    blobs = make_model(tmp_path / "cache/blobs", {"1234": 5000})
    snapshot = tmp_path / "cache/snapshots/main"
    snapshot.mkdir(parents=True)
    (snapshot / "model.safetensors").symlink_to("../../blobs/1234")
    (snapshot / "config.json").symlink_to(blobs / "config.json")
    (tmp_path / "link").symlink_to(snapshot)
    publish(tmp_path / "link", SPEC, registry)
    check_bytes(registry, snapshot)


def test_links_to_directories_inside_are_followed(model: Path, registry: Path) -> None:
    (model / "sub/data").write_bytes(b"data")
    (model / "again").symlink_to("sub")
    publish(model, SPEC, registry)
    entry = manifest_of(registry).file("again/data")
    assert entry is not None
    assert entry.size == 4


def loop(model: Path) -> None:
    (model / "sub/up").symlink_to("..")


def outside(model: Path) -> None:
    (model.parent / "other").mkdir()
    (model / "link").symlink_to("../other")


def dangling(model: Path) -> None:
    (model / "link").symlink_to("nowhere")


def ring(model: Path) -> None:
    (model / "link").symlink_to("link")


def pipe(model: Path) -> None:
    os.mkfifo(model / "pipe")


def device(model: Path) -> None:
    (model / "null").symlink_to("/dev/null")


def newline(model: Path) -> None:
    (model / "a\nb").write_bytes(b"")


def latin(model: Path) -> None:
    os.close(os.open(bytes(model) + b"/gr\xf6\xdfe", os.O_CREAT))


@pytest.mark.parametrize(
    ("spoil", "cause"),
    [
        (loop, "'sub/up' is a link to a directory that it is in"),
        (outside, "'link' is a link to a directory outside"),
        (dangling, "'link' is a link that leads nowhere"),
        (ring, "'link' is a link that leads nowhere"),
        (pipe, "'pipe' is neither a file nor a directory"),
        (device, "'null' is neither a file nor a directory"),
        (newline, r"'a\?b' has control characters"),
        (latin, "has control characters"),
    ],
)
def test_what_cannot_be_published_is_named(
    model: Path, registry: Path, spoil: Callable[[Path], None], cause: str
) -> None:
    spoil(model)
    with pytest.raises(AxonError, match=cause):
        publish(model, SPEC, registry)
    assert not (registry / "api").exists()


def test_nothing_to_publish_is_an_error(tmp_path: Path, registry: Path) -> None:
    (tmp_path / "empty/.git").mkdir(parents=True)
    with pytest.raises(AxonError, match="holds no file"):
        publish(tmp_path / "empty", SPEC, registry)
    with pytest.raises(AxonError, match="not a directory"):
        publish(tmp_path / "nowhere", SPEC, registry)


def test_the_registry_is_not_published_into_itself(model: Path) -> None:
    with pytest.raises(AxonError, match="inside the directory"):
        publish(model, SPEC, model / "registry")


def test_a_registry_that_cannot_be_written_is_named(model: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(AxonError, match="Not a directory"):
        publish(model, SPEC, tmp_path / "file")


def test_a_full_disk_says_so_and_leaves_no_draft(tmp_path: Path, registry: Path) -> None:
    """RLIMIT_FSIZE would kill, a quota needs root: /dev/full gives the same errno for real."""
    with (
        pytest.raises(AxonError, match="full") as refusal,
        _registry_faults(registry),
        open("/dev/full", "wb", buffering=0) as full,
    ):
        full.write(b"x")
    assert refusal.value.errno == errno.ENOSPC


@pytest.mark.parametrize("size", [0, 1, 1000, 1 << 15, 1 << 27, 3 << 19])
def test_an_unusable_chunk_size_is_refused(model: Path, registry: Path, size: int) -> None:
    with pytest.raises(MalformedError, match="power of two"):
        publish(model, SPEC, registry, chunk_size=size)


def test_a_file_that_grows_while_it_is_read_is_noticed(model: Path, registry: Path) -> None:
    def grow(progress: Progress) -> None:
        with open(model / progress.path, "ab") as file:
            file.write(b"more")
        assert progress.bytes_done < 100 * CHUNK, "read without end"

    def grow_once(progress: Progress, seen: list[str] = []) -> None:  # noqa: B006
        if not seen:
            seen.append(progress.path)
            grow(progress)

    with pytest.raises(AxonError, match="changed while it was read"):
        publish(model, SPEC, registry, progress=grow_once)
    assert list((registry / "objects/tmp").iterdir()) == []


def test_progress_comes_to_the_end(model: Path, registry: Path) -> None:
    steps: list[Progress] = []
    done = publish(model, SPEC, registry, chunk_size=CHUNK, progress=steps.append)
    assert [step.bytes_done for step in steps] == sorted(step.bytes_done for step in steps)
    last = steps[-1]
    assert (last.bytes_done, last.bytes) == (done.bytes, done.bytes)
    assert (last.files_done, last.files) == (done.files, done.files)


def test_what_progress_raises_ends_the_publish(model: Path, registry: Path) -> None:
    def enough(progress: Progress) -> None:
        raise RuntimeError("enough")

    with pytest.raises(RuntimeError, match="enough"):
        publish(model, SPEC, registry, progress=enough)
    assert list((registry / "objects/tmp").iterdir()) == []
    assert not (registry / "api").exists()


README = """---
license: other
license_name: llama2
library_name: sentence-transformers
pipeline_tag: text-generation
tags: [facebook, llama]
---
intro
# The Model #
"""


def test_metadata_comes_from_the_readme_and_the_config(model: Path, registry: Path) -> None:
    (model / "README.md").write_text(README)
    publish(model, SPEC, registry, tags=["mine", "llama"])
    manifest = manifest_of(registry)
    assert manifest.description == "The Model"
    assert (manifest.license, manifest.framework) == ("llama2", "sentence-transformers")
    assert manifest.format == "safetensors"
    assert manifest.tags == ("mine", "llama", "facebook", "text-generation", "LlamaForCausalLM")
    listing = parse_index((registry / "api/v1/index.json").read_bytes())[0][0]
    assert listing.description == "The Model"
    assert listing.published == manifest.created > 0


def test_options_win_over_files(model: Path, registry: Path) -> None:
    (model / "README.md").write_text(README)
    publish(model, SPEC, registry, description="mine", license="MIT", framework="jax")
    manifest = manifest_of(registry)
    assert (manifest.description, manifest.license, manifest.framework) == ("mine", "MIT", "jax")


def test_eight_publishers_at_once_lose_nothing(model: Path, registry: Path) -> None:
    specs = [parse_spec(f"nlp/m{number % 3}@1.{number}") for number in range(8)]
    failures: list[BaseException] = []

    def one(spec: Spec) -> None:
        try:
            publish(model, spec, registry, chunk_size=CHUNK)
        except BaseException as exc:
            failures.append(exc)

    threads = [threading.Thread(target=one, args=(spec,)) for spec in specs]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []
    assert sorted(indexed(registry)) == sorted(map(str, specs))
    assert len(list(registry.glob("objects/sha256/*/*"))) == 4
    assert list((registry / "objects/tmp").iterdir()) == []
    document = json.loads((registry / "api/v1/models/nlp/m0/versions.json").read_bytes())
    assert document == {"versions": ["1.0", "1.3", "1.6"], "latest": "1.6"}
    for spec in specs:
        check_bytes(registry, model, spec)


def test_of_two_that_publish_one_version_with_other_bytes_one_is_refused(
    tmp_path: Path, registry: Path
) -> None:
    models = [make_model(tmp_path / str(seed), {"a": 5000}, seed) for seed in range(2)]
    outcomes: list[str] = []
    start = threading.Barrier(2)

    def one(model: Path) -> None:
        start.wait()
        try:
            publish(model, SPEC, registry)
            outcomes.append("published")
        except AxonError as exc:
            outcomes.append(str(exc))

    threads = [threading.Thread(target=one, args=(model,)) for model in models]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert outcomes.count("published") == 1
    assert sum("already published" in outcome for outcome in outcomes) == 1
