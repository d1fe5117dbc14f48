"""Publishing real directories: what is refused, and what an error leaves behind."""

from __future__ import annotations

import errno
import os
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from axonfs.errors import AxonError, MalformedError
from axonfs.names import parse_spec
from axonfs.publish import PublishProgress, publish
from axonfs.publish.faults import disk_faults
from tests.integration.publish.conftest import CHUNK, SPEC, contents
from tests.support.registry import make_model


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


@pytest.mark.parametrize(
    "text", ["nlp/tiny@latest", "nlp/latest@1", "nlp/tiny@versions.json", "nlp/manifest.yaml@1"]
)
def test_names_of_the_layout_are_refused(model: Path, registry: Path, text: str) -> None:
    with pytest.raises(AxonError, match="may not be called"):
        publish(model, parse_spec(text), registry)


def test_no_version_lies_inside_another(model: Path, registry: Path) -> None:
    publish(model, parse_spec("nlp/a/b@1"), registry)
    with pytest.raises(AxonError, match="cannot contain another"):
        publish(model, parse_spec("nlp/a/b/1@2"), registry)
    with pytest.raises(AxonError, match="below this name"):
        publish(model, parse_spec("nlp/a@b"), registry)
    publish(model, parse_spec("nlp/a@1"), registry)  # a model and a name that begins alike


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


def latin(model: Path) -> None:
    os.close(os.open(bytes(model) + b"/gr\xf6\xdfe", os.O_CREAT))


@pytest.mark.parametrize(
    ("spoil", "cause"),
    [
        (loop, "'sub/up' is a link to a directory that contains it"),
        (outside, "'link' is a link to a directory outside"),
        (dangling, "'link' is a broken link"),
        (ring, "'link' is a broken link"),
        (pipe, "'pipe' is neither a file nor a directory"),
        (device, "'null' is neither a file nor a directory"),
        (latin, "is not UTF-8"),
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
    with pytest.raises(AxonError, match="has no files"):
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
        disk_faults(str(registry)),
        open("/dev/full", "wb", buffering=0) as full,
    ):
        full.write(b"x")
    assert refusal.value.errno == errno.ENOSPC


def test_a_file_system_that_takes_no_file_of_that_size_is_named(tmp_path: Path) -> None:
    """As FAT32 on a USB stick. Here the file system's own limit gives the same errno."""
    with (
        pytest.raises(AxonError, match=r"takes no file of this size .*exFAT or ext4"),
        disk_faults(str(tmp_path)),
        open(tmp_path / "file", "wb", buffering=0) as file,
    ):
        os.ftruncate(file.fileno(), 1 << 62)


@pytest.mark.parametrize("size", [0, 1, 1000, 1 << 15, 1 << 27, 3 << 19])
def test_an_unusable_chunk_size_is_refused(model: Path, registry: Path, size: int) -> None:
    with pytest.raises(MalformedError, match="power of two"):
        publish(model, SPEC, registry, chunk_size=size)


def test_a_file_that_grows_while_it_is_read_is_noticed(model: Path, registry: Path) -> None:
    def grow(progress: PublishProgress) -> None:
        with open(model / progress.path, "ab") as file:
            file.write(b"more")
        assert progress.bytes_done < 100 * CHUNK, "read without end"

    def grow_once(progress: PublishProgress, seen: list[str] = []) -> None:  # noqa: B006
        if not seen:
            seen.append(progress.path)
            grow(progress)

    with pytest.raises(AxonError, match="changed while it was read"):
        publish(model, SPEC, registry, progress=grow_once)
    assert list((registry / "objects/tmp").iterdir()) == []


def test_what_progress_raises_ends_the_publish(model: Path, registry: Path) -> None:
    def enough(progress: PublishProgress) -> None:
        raise RuntimeError("enough")

    with pytest.raises(RuntimeError, match="enough"):
        publish(model, SPEC, registry, progress=enough)
    assert list((registry / "objects/tmp").iterdir()) == []
    assert not (registry / "api").exists()


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
