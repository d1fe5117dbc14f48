"""`axonfs://`: the models as a file system of fsspec, as pandas and others use it."""

from __future__ import annotations

import errno
import io
import json
import pickle
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import fsspec
import pandas
import pytest
from safetensors.numpy import load, save

from axonfs.client import sessions
from axonfs.client.filesystem import AxonFileSystem
from axonfs.names import parse_spec
from axonfs.publish import publish
from tests.support.registry import CONFIG, SIZES, RegistryServer, published

ROOT = "nlp/tiny@1.0.0"
WEIGHTS = f"{ROOT}/model.safetensors"
TABLE = "name,size\nalpha,1\nbeta,22\n"


@pytest.fixture
def registry(tmp_path: Path) -> Iterator[RegistryServer]:
    published(tmp_path)
    directory = published(tmp_path, spec="nlp/org/deep@0.1.0", seed=1)
    source = tmp_path / "data"
    (source / "sub/inner").mkdir(parents=True)
    (source / "table.csv").write_text(TABLE)
    (source / "sub/inner/part.csv").write_text(TABLE)
    array = pandas.Series([1.5, 2.5]).to_numpy()
    (source / "one.safetensors").write_bytes(save({"weight": array}))
    publish(source, parse_spec("data/tables@2.0.0"), directory)
    with RegistryServer(directory) as server:
        yield server


@pytest.fixture
def options(registry: RegistryServer, tmp_path: Path) -> Iterator[dict[str, str]]:
    yield {"registries": registry.url, "cache": str(tmp_path / "cache")}
    sessions.close_all()


@pytest.fixture
def fs(options: dict[str, str]) -> Iterator[Any]:
    made = fsspec.filesystem("axonfs", **options)
    assert isinstance(made, AxonFileSystem)
    yield made
    made.client.close()
    AxonFileSystem.clear_instance_cache()


def test_directories_are_listed(fs: Any) -> None:
    assert fs.ls("", detail=False) == ["data", "nlp"]
    assert fs.ls("axonfs://nlp", detail=False) == ["nlp/org", ROOT]
    assert fs.ls("nlp/org", detail=False) == ["nlp/org/deep@0.1.0"]
    assert fs.ls("nlp/tiny", detail=False) == [ROOT]  # a model's versions, by its name
    assert fs.ls(ROOT, detail=False) == [
        f"{ROOT}/config.json",
        WEIGHTS,
        f"{ROOT}/tokenizer.json",
    ]
    assert fs.ls("data/tables@latest/sub/", detail=False) == ["data/tables@latest/sub/inner"]
    assert fs.ls(WEIGHTS, detail=False) == [WEIGHTS]
    for path in ("nope", "nlp/nope", "nlp/tiny@9", f"{ROOT}/nope", "a@b@c/d", "@1/x"):
        with pytest.raises(FileNotFoundError):
            fs.ls(path)


def test_info_and_its_kin(fs: Any) -> None:
    found = fs.info(f"axonfs://{WEIGHTS}")
    assert (found["name"], found["size"]) == (WEIGHTS, SIZES["model.safetensors"])
    assert (found["type"], found["verified_by"]) == ("file", "sha256")
    assert fs.ukey(WEIGHTS) == found["digest"]
    assert fs.size(WEIGHTS) == found["size"]
    assert fs.isfile(WEIGHTS)
    for path in ("", "nlp", "nlp/org", "nlp/tiny", ROOT, "data/tables@2.0.0/sub"):
        assert fs.isdir(path), path
        assert fs.info(path)["name"] == path
    assert fs.exists("nlp/tiny@latest/config.json")
    assert fs.exists("nlp/tiny@^1/config.json")
    assert not fs.exists(f"{ROOT}/nope")
    assert not fs.exists("nlp/tiny/config.json")
    assert fs.modified(WEIGHTS).tzinfo is not None
    with pytest.raises(FileNotFoundError, match="no such version"):
        fs.info("nlp/tiny@9/config.json")


def test_an_outage_is_no_missing_file(tmp_path: Path) -> None:
    fs = fsspec.filesystem("axonfs", registries="http://127.0.0.1:9", cache=str(tmp_path / "cache"))
    with pytest.raises(OSError, match="Connection refused"):
        fs.exists(WEIGHTS)
    fs.client.close()
    sessions.close_all()


def test_files_are_read(fs: Any, tmp_path: Path) -> None:
    expected = (tmp_path / "models/nlp/tiny/1.0.0/model.safetensors").read_bytes()
    with fs.open(WEIGHTS) as file:
        assert isinstance(file, io.BufferedReader)
        file.seek(100)
        assert file.read(10) == expected[100:110]
    with fs.open(f"{ROOT}/config.json", "rt") as file:
        assert json.load(file)["model_type"] == "llama"
    assert fs.cat(WEIGHTS) == expected
    for start, end in ((5, 20), (-10, None), (None, 7), (10, -20), (20, 10), (None, None)):
        assert fs.cat_file(WEIGHTS, start, end) == expected[start:end]
    assert fs.cat_ranges([WEIGHTS] * 2, [0, 50], [3, 55]) == [expected[:3], expected[50:55]]
    assert fs.head(WEIGHTS, 4) == expected[:4]
    assert fs.tail(WEIGHTS, 4) == expected[-4:]
    fs.get(ROOT, str(tmp_path / "copy"), recursive=True)
    assert (tmp_path / "copy/model.safetensors").read_bytes() == expected
    with pytest.raises(FileNotFoundError):
        fs.open(f"{ROOT}/nope")
    with pytest.raises(FileNotFoundError, match="no version in the path"):
        fs.open("nlp/tiny/config.json")


def test_files_have_their_size(fs: Any) -> None:
    with fs.open(WEIGHTS) as file:
        assert file.size == SIZES["model.safetensors"]
        assert file.tell() == 0
    assert fs.read_block("data/tables@2.0.0/table.csv", 1, 12, b"\n") == b"alpha,1\n"


def test_options_that_do_not_exist_are_refused(options: dict[str, str]) -> None:
    with pytest.raises(TypeError, match="no storage option registry"):
        fsspec.filesystem("axonfs", registry=options["registries"])
    fsspec.filesystem("axonfs", **options, use_listings_cache=False, skip_instance_cache=True)


def test_globs_and_walks(fs: Any) -> None:
    assert fs.glob("nlp/tiny@*/*.json") == [f"{ROOT}/config.json", f"{ROOT}/tokenizer.json"]
    assert fs.glob("axonfs://*/tables@2.0.0/**/*.csv") == [
        "data/tables@2.0.0/sub/inner/part.csv",
        "data/tables@2.0.0/table.csv",
    ]
    assert len(fs.find("nlp")) == 6
    walked = {path: (set(dirs), set(files)) for path, dirs, files in fs.walk("data/tables@2.0.0")}
    assert walked["data/tables@2.0.0"] == ({"sub"}, {"table.csv", "one.safetensors"})
    assert walked["data/tables@2.0.0/sub/inner"] == (set(), {"part.csv"})
    assert fs.du("data/tables@2.0.0/sub") == len(TABLE)


def test_nothing_is_written(fs: Any, tmp_path: Path) -> None:
    path = f"{ROOT}/config.json"
    calls: list[Callable[[], object]] = [
        lambda: fs.open(path, "wb"),
        lambda: fs.open(path, "ab"),
        lambda: fs.open(path, "w"),
        lambda: fs.pipe(path, b"x"),
        lambda: fs.put_file(str(tmp_path / "data/table.csv"), path),
        lambda: fs.touch(path),
        lambda: fs.rm(path),
        lambda: fs.rm(ROOT, recursive=True),
        lambda: fs.cp_file(path, f"{ROOT}/other"),
        lambda: fs.mv(path, f"{ROOT}/other"),
        lambda: fs.mkdir(f"{ROOT}/new"),
        lambda: fs.makedirs(f"{ROOT}/new/one"),
        lambda: fs.rmdir(f"{ROOT}/new"),
    ]
    for number, call in enumerate(calls):
        with pytest.raises(OSError, match="Read-only file system") as caught:
            call()
        assert caught.value.errno == errno.EROFS, number
    assert fs.cat(path) == CONFIG


def test_pandas_reads_a_table(options: dict[str, str]) -> None:
    frame = pandas.read_csv("axonfs://data/tables@^2/table.csv", storage_options=options)
    assert frame.to_dict("list") == {"name": ["alpha", "beta"], "size": [1, 22]}


def test_safetensors_are_read_by_their_bytes(options: dict[str, str]) -> None:
    with fsspec.open("axonfs://data/tables@2.0.0/one.safetensors", **options) as file:
        assert load(file.read())["weight"].tolist() == [1.5, 2.5]


def test_a_file_system_can_be_pickled(fs: Any) -> None:
    twin = pickle.loads(pickle.dumps(fs))
    assert twin.cat(f"{ROOT}/config.json") == CONFIG


def test_listings_are_kept_until_they_are_dropped(fs: Any, tmp_path: Path) -> None:
    assert fs.ls("nlp", detail=False) == ["nlp/org", ROOT]
    published(tmp_path, spec="nlp/tiny@2.0.0", seed=5)
    assert fs.ls("nlp", detail=False) == ["nlp/org", ROOT]
    fs.invalidate_cache()
    fs.client.versions("nlp/tiny")
    assert fs.cat("nlp/tiny@2.0.0/config.json") == CONFIG


def test_without_fsspec_the_client_works() -> None:
    code = "import sys; sys.modules['fsspec'] = None; import axonfs; print(axonfs.Client.__name__)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "Client\n"
