"""One object that two entries share: a registry has a chunk table of it, another has none."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from axonfs.names import parse_spec
from axonfs.publish import publish
from tests.mount.conftest import CHUNK, MountFactory, run_axonfs
from tests.support.fetching import without_tables
from tests.support.registry import RegistryServer, make_model

pytestmark = pytest.mark.mount

SIZE = 20 * CHUNK + 17


@pytest.mark.complains
def test_native_reads_of_a_shared_object(start_mount: MountFactory, tmp_path: Path) -> None:
    """The reader that is left when the other entry's readers have closed still has its chunks
    fetched, and its object kept."""
    make_model(tmp_path / "source", {"model.bin": SIZE})
    for spec in ("nlp/tiny@1.0.0", "nlp/tiny@1.1.0"):
        publish(tmp_path / "source", parse_spec(spec), tmp_path / "registry", chunk_size=CHUNK)
    without_tables(tmp_path / "registry", "nlp/tiny@1.1.0")
    whole = (tmp_path / "source/model.bin").read_bytes()
    with RegistryServer(tmp_path / "registry") as server:
        mount = start_mount(server.url, options=("--no-passthrough",))
        tabled, plain = (mount.path / "nlp/tiny" / v / "model.bin" for v in ("1.0.0", "1.1.0"))
        worker = mount.worker()
        assert plain.read_bytes() == whole  # compared: the table's entry shares it from here on
        with tabled.open("rb", buffering=0) as other, plain.open("rb", buffering=0) as file:
            assert other.read(10) == file.read(10) == whole[:10]
            other.close()
            (backing,) = (
                path
                for path in (mount.cache / "objects").rglob("*")
                if path.is_file() and path.stat().st_size == SIZE
            )
            with backing.open("r+b") as rotten:
                for chunk in (9, 15):
                    rotten.seek(chunk * CHUNK)
                    rotten.write(b"rot")
            run_axonfs("verify", "nlp/tiny@1.1.0", "--cache", mount.cache, check=False)
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
            file.seek(8 * CHUNK)
            assert file.read(2 * CHUNK) == whole[8 * CHUNK :][: 2 * CHUNK]
            cleaned = run_axonfs("cache", "clean", "--cache", mount.cache)
            assert "1 object kept" in cleaned.stdout
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
            file.seek(0)
            assert file.read() == whole
        assert "is a bug" not in mount.log.read_text()
        assert mount.worker() == worker
