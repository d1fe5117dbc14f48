"""An outage does not look like a missing model: what a mount says while a source is down."""

from __future__ import annotations

import errno
import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from axonfs.names import parse_spec
from axonfs.publish import publish
from tests.mount.conftest import FILES, Mount, MountFactory, run_axonfs, source_bytes
from tests.support import faulty
from tests.support.faulty_origin import FaultyOrigin
from tests.support.hub import HubServer, Repo
from tests.support.registry import RegistryServer, make_model

pytestmark = pytest.mark.mount
SPEC = "nlp/tiny@1.0.0"

ASKING: dict[str, Callable[[Path], object]] = {
    "stat": os.stat,
    "readdir": os.listdir,
    "open": lambda path: os.open(path / "config.json", os.O_RDONLY),
    "readlink": lambda path: os.readlink(path.parent / "latest"),
}


@pytest.fixture
def settings(tmp_path: Path) -> dict[str, str]:
    """Little patience, as the environment of a mount."""
    config = tmp_path / "config.yaml"
    config.write_text("deadline: 2\nretries: 0\n")
    return {"AXONFS_CONFIG": str(config)}


@pytest.fixture
def second(tmp_path: Path) -> Iterator[RegistryServer]:
    """Another registry, with a model of its own."""
    source = make_model(tmp_path / "other", {"w.bin": 10}, seed=7)
    publish(source, parse_spec("cv/only@1.0.0"), tmp_path / "second")
    with RegistryServer(tmp_path / "second") as server:
        yield server


def pinned(registry: RegistryServer, cache: Path) -> str:
    """The URL of the registry, of which one version is pinned."""
    run_axonfs("pin", SPEC, "--cache", cache, "--registry", registry.url)
    return registry.url


def errno_of(ask: Callable[[Path], object], path: Path) -> str:
    """The name of the errno that asking for `path` ends with."""
    try:
        ask(path)
    except OSError as exc:
        return errno.errorcode[exc.errno or 0]
    return "none"


def told(mount: Mount, name: str) -> list[str]:
    """The failures in `status` that name it."""
    return [item["message"] for item in mount.status()["failures"] if name in item["message"]]


@pytest.mark.complains
def test_an_outage_is_told(
    registry_dir: Path, start_mount: MountFactory, settings: dict[str, str], tmp_path: Path
) -> None:
    """While a registry does not answer, an unknown name gives the registry's error and not ENOENT,
    and `status` and the log name the model."""
    with RegistryServer(registry_dir) as server:
        url = pinned(server, tmp_path / "cache")
        port = urlsplit(url).port or 0
    mount = start_mount(url, options=("--prefetch", "off"), env=settings)
    assert os.listdir(mount.path / "nlp/tiny/1.0.0")
    for name in ("nlp/tiny/9.9.9", "nlp/new/1.0.0", "new/model/1.0.0", "nlp/org/deep/0.1.0"):
        for how, ask in ASKING.items():
            if how != "readlink" or "tiny" not in name:
                assert errno_of(ask, mount.path / name) == "EIO", (name, how)
    for subject in ("nlp/tiny@9.9.9", "nlp/new", "new/model", "nlp/org"):
        (line,) = told(mount, subject)
        assert line.startswith(subject)
        assert url in line
        assert line in mount.log.read_text()
    assert os.readlink(mount.path / "nlp/tiny/latest") == "1.0.0"
    with RegistryServer(registry_dir, port):
        assert (mount.path / "nlp/tiny/1.1.0/vocab.txt").stat().st_size == FILES["vocab.txt"]
        assert (mount.path / "nlp/org/deep/0.1.0/vocab.txt").exists()
        for name in ("nlp/tiny/9.9.9", "nlp/new/1.0.0", "new/model/1.0.0"):
            assert errno_of(os.stat, mount.path / name) == "ENOENT"


@pytest.mark.complains
def test_names_that_loaders_probe(
    registry_dir: Path, start_mount: MountFactory, settings: dict[str, str], tmp_path: Path
) -> None:
    """A name that loaders or desktops look for in any directory, such as `config.json` or
    `autorun.inf`, gives ENOENT at once if no index lists it, whether or not a source answers."""
    with FaultyOrigin(registry_dir) as origin:
        run_axonfs("pin", SPEC, "--cache", tmp_path / "cache", "--registry", origin.url)
        origin.always(faulty.reset_before)
        mount = start_mount(origin.url, options=("--prefetch", "off"), env=settings)
        probed = ["adapter_config.json", "nlp/config.json", "nlp/tiny/adapter_config.json"]
        probed += [".git", ".hidden", ".Trash-0", "autorun.inf", "AutoRun.inf", "desktop.ini"]
        for name in probed:
            assert errno_of(os.stat, mount.path / name) == "ENOENT"
        version = mount.path / "nlp/tiny/1.0.0"
        assert errno_of(os.stat, version / "adapter_config.json") == "ENOENT"
        assert errno_of(os.stat, version / "sub/none") == "ENOENT"
        assert mount.status()["failures"] == []


@pytest.mark.complains
def test_pinned_at_once(registry_dir: Path, start_mount: MountFactory, tmp_path: Path) -> None:
    """Local versions are found and read without waiting for a source that does not answer."""
    with FaultyOrigin(registry_dir) as origin:
        run_axonfs("pin", SPEC, "--cache", tmp_path / "cache", "--registry", origin.url)
        origin.always(faulty.stall_before)
        mount = start_mount(origin.url, options=("--prefetch", "off"))
        began = time.monotonic()
        read = (mount.path / "nlp/tiny/1.0.0/vocab.txt").read_bytes()
        assert read == source_bytes(tmp_path, 0, "vocab.txt")
        assert time.monotonic() - began < 5  # far from the deadline, which is a minute


@pytest.mark.complains
@pytest.mark.parametrize(
    ("fault", "expected"),
    [
        (faulty.status(503), "EIO"),
        (faulty.status(401), "EACCES"),
        (faulty.status(403), "EACCES"),
        (faulty.stall_before, "ETIMEDOUT"),
    ],
)
def test_one_of_two(
    fault: faulty.Fault,
    expected: str,
    registry_dir: Path,
    second: RegistryServer,
    start_mount: MountFactory,
    settings: dict[str, str],
) -> None:
    """With several registries a name is missing only if all of them answer that; a version that one
    of them has is served while another does not answer."""
    with FaultyOrigin(registry_dir) as origin:
        origin.always(fault)
        mount = start_mount(origin.url, second.url, env=settings)
        assert (mount.path / "cv/only/1.0.0/w.bin").stat().st_size == 10
        assert errno_of(os.stat, mount.path / "nlp/tiny/1.0.0") == expected
        assert errno_of(os.stat, mount.path / "cv/only/9.9.9") == expected
        assert told(mount, "cv/only@9.9.9")
        origin.always(None)
        assert (mount.path / "nlp/tiny/1.0.0/vocab.txt").stat().st_size == FILES["vocab.txt"]
        assert errno_of(os.stat, mount.path / "cv/only/9.9.9") == "ENOENT"


@pytest.mark.complains
def test_offline_names(registry_dir: Path, start_mount: MountFactory, tmp_path: Path) -> None:
    """With `--offline` a name that is not local gives ENETUNREACH."""
    with RegistryServer(registry_dir) as server:
        url = pinned(server, tmp_path / "cache")
    mount = start_mount(url, options=("--offline",))
    for name in ("nlp/tiny/9.9.9", "nlp/new/1.0.0", "new/model/1.0.0", "hf/gpt2/main"):
        assert errno_of(os.stat, mount.path / name) == "ENETUNREACH", name
    assert told(mount, "new/model")
    assert (mount.path / "nlp/tiny/1.0.0/vocab.txt").read_bytes()


@pytest.mark.complains
def test_a_hub_that_does_not_answer(
    start_mount: MountFactory,
    settings: dict[str, str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """While a hub does not answer, a model or revision that is not known gives its error and not
    ENOENT; what is local is listed and read."""
    cache = tmp_path / "cache"
    repo = Repo("acme/story")
    commit = repo.commit({"config.json": b"{}\n", "w.safetensors": b"weights" * 1000})
    with HubServer(repo) as hub:
        names = {"HF_ENDPOINT": hub.url, "AXONFS_SOURCES": "hf", "HF_HOME": str(tmp_path)}
        for name, value in names.items():
            monkeypatch.setenv(name, value)
        run_axonfs("pin", "hf/acme/story", "--cache", cache)
    mount = start_mount(env=settings)
    model = mount.path / "hf/acme/story"
    began = time.monotonic()
    assert (model / commit / "w.safetensors").read_bytes() == b"weights" * 1000
    assert time.monotonic() - began < 1
    assert (model / "main/config.json").read_bytes() == b"{}\n"
    assert errno_of(os.stat, model / commit / "adapter_config.json") == "ENOENT"
    for name in ("hf/acme/story/dev", "hf/acme/none", "hf/none/none/main", "hf/gpt2/main"):
        for how in ("stat", "readdir", "open"):
            assert errno_of(ASKING[how], mount.path / name) == "EIO", (name, how)
        assert told(mount, name.removesuffix("/main").replace("story/dev", "story"))
    (item,) = mount.status()["hubs"]
    assert (item["name"], item["state"]) == ("hf", "failing")


def test_what_status_says_of_sources(
    registry: RegistryServer, start_mount: MountFactory, tmp_path: Path
) -> None:
    """`axonfs status` tells a registry that was not asked from one that answered."""
    mount = start_mount(registry.url, env={"AXONFS_SOURCES": "none"})
    assert "not asked yet" in run_axonfs("status", mount.path).stdout
    assert mount.status()["registries"][0]["state"] == "not asked"
    os.listdir(mount.path)
    assert "ok (last answer" in run_axonfs("status", mount.path).stdout
    assert mount.status()["registries"][0]["answered"] > 0


@pytest.mark.complains
def test_without_a_registry(start_mount: MountFactory) -> None:
    """In a mount without registries a name that none of its hubs has gives ENOENT, and `status`
    says that no registry is configured."""
    mount = start_mount(env={"AXONFS_SOURCES": "hf", "HF_ENDPOINT": "http://127.0.0.1:9"})
    assert errno_of(os.stat, mount.path / "vision/resnet50/1.0.0") == "ENOENT"
    (line,) = told(mount, "no registry is configured")
    assert line.startswith("vision: ")
    assert "axonfs registry add URL" in line
    assert "none is configured" in run_axonfs("status", mount.path).stdout


@pytest.mark.complains
def test_listing_beside_a_silent_registry(
    registry_dir: Path, start_mount: MountFactory, tmp_path: Path
) -> None:
    """What an earlier mount saw is listed within seconds while a registry is silent."""
    with FaultyOrigin(registry_dir) as origin:
        first = start_mount(origin.url, options=("--prefetch", "off"))
        assert os.listdir(first.path / "nlp/tiny/1.0.0")
        first.stop()
        origin.always(faulty.stall_before)
        mount = start_mount(origin.url, options=("--prefetch", "off"))
        began = time.monotonic()
        assert set(os.listdir(mount.path)) == {"nlp", ".axonfs"}
        assert set(os.listdir(mount.path / "nlp/tiny")) >= {"1.0.0", "1.1.0"}
        assert time.monotonic() - began < 20  # far from the deadline, which is a minute
