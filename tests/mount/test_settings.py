"""Settings that change while a mount runs: which apply at once, and what an invalid file costs."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from axonfs.client.health import mount_at
from tests.mount.conftest import FILES, MountFactory, patched, run_axonfs, settled
from tests.support.faulty_origin import FaultyOrigin
from tests.support.fetching import Gate, on_objects
from tests.support.registry import RegistryServer, published

pytestmark = [pytest.mark.mount, pytest.mark.complains]
KERNEL = tuple(map(int, os.uname().release.split(".")[:2]))
FILE = "nlp/tiny/1.0.0/vocab.txt"


@pytest.fixture
def file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The config file of the commands and of the mounts."""
    path = tmp_path / "config.yaml"
    monkeypatch.setenv("AXONFS_CONFIG", str(path))
    for name in ("AXONFS_CACHE_DIR", "AXONFS_CACHE_SIZE", "AXONFS_REGISTRY"):
        monkeypatch.delenv(name, raising=False)
    write(path, {"cache": str(tmp_path / "cache"), "cache_size": "4G"})
    return path


def write(path: Path, document: dict[str, Any]) -> None:
    path.write_text(yaml.safe_dump(document))
    path.chmod(0o600)


Start = Callable[..., Path]


BOTH = pytest.mark.parametrize("start", ["background", "foreground"], indirect=True)


@pytest.fixture
def start(
    request: pytest.FixtureRequest, file: Path, tmp_path: Path, start_mount: MountFactory
) -> Iterator[Start]:
    """A function that mounts with options, in the background and in the foreground."""
    place = tmp_path / "m"
    place.mkdir()

    def begin(*options: str, **env: str) -> Path:
        if getattr(request, "param", "background") == "foreground":
            environment = {"AXONFS_CONFIG": str(file), **env}
            return start_mount(options=options, env=environment).path
        with pytest.MonkeyPatch.context() as patch:
            for name, value in env.items():
                patch.setenv(name, value)
            run_axonfs("mount", place, *options)
        return place

    yield begin
    if mount_at(place) is not None:
        run_axonfs("umount", "--force", place, check=False)


def status(place: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((place / ".axonfs/status.json").read_text())
    return found


@pytest.fixture
def second(tmp_path: Path) -> Iterator[RegistryServer]:
    """A registry with a model of its own."""
    with RegistryServer(published(tmp_path / "second", spec="cv/other@1.0.0")) as server:
        yield server


@BOTH
def test_registries_apply_at_once(
    start: Start, registry: RegistryServer, second: RegistryServer, file: Path
) -> None:
    """A changed setting applies to a running mount at once, and the command says so."""
    run_axonfs("registry", "add", registry.url)
    place = start()
    with (place / FILE).open("rb") as reader:
        assert not (place / "cv").exists()
        assert "cv" not in os.listdir(place)
        done = run_axonfs("registry", "add", second.url)
        assert f"applies now to the mount at {place}" in done.stderr
        if KERNEL >= (6, 16):  # else it keeps for some seconds that there is no such name
            assert (place / "cv/other/1.0.0/config.json").exists()
        settled(lambda: (place / "cv/other/1.0.0/config.json").exists(), 20)
        settled(lambda: "cv" in os.listdir(place), 20)
        assert len(reader.read()) == FILES["vocab.txt"]
    done = run_axonfs("registry", "set", "default", second.url)
    assert f"applies now to the mount at {place}" in done.stderr
    assert [item["url"].rstrip("/") for item in status(place)["registries"]] == [
        second.url.rstrip("/"),
        registry.url.rstrip("/"),
    ]
    run_axonfs("registry", "remove", registry.url)
    assert len(status(place)["registries"]) == 1
    assert status(place)["worker"]["ends"] == []
    assert f"settings of {place}: as configured" in run_axonfs("doctor", check=False).stdout


def test_other_settings_apply_at_once(start: Start, registry: RegistryServer, file: Path) -> None:
    run_axonfs("registry", "add", registry.url)
    place = start()
    for key, value in (("cache_size", "1G"), ("prefetch", "off"), ("offline", "true"),
                       ("scrub", "off"), ("streams", "3")):  # fmt: skip
        done = run_axonfs("config", "set", key, value)
        assert f"applies now to the mount at {place}" in done.stderr
    found = status(place)
    assert found["cache_limit"] == 1 << 30
    assert found["prefetch"]["mode"] == "off"
    assert found["offline"] is True
    assert found["scrub"]["state"] == "off"
    assert found["settings"]["streams"] == {"value": 3, "from": str(file)}
    done = run_axonfs("config", "set", "streams", "3")
    assert f"the mount at {place} already has this value" in done.stderr
    done = run_axonfs("config", "set", "mode", "0440")
    assert f"the mount at {place} keeps its mode until it is mounted again" in done.stderr


def test_a_limit_applies_without_another_worker(
    start: Start, registry: RegistryServer, file: Path
) -> None:
    """Not even a command that is being answered delays a changed bandwidth."""
    run_axonfs("registry", "add", registry.url)
    place = start("--prefetch", "off")
    worker = status(place)["worker"]["pid"]
    for value, rate in (("200M", 200 << 20), ("off", 0)):
        done = run_axonfs("config", "set", "bandwidth", value)
        assert f"applies now to the mount at {place}" in done.stderr
        assert status(place)["fetch"]["bandwidth"] == rate
        assert status(place)["settings"]["bandwidth"] == {"value": rate, "from": str(file)}
    assert done.stdout == "bandwidth is off\n"
    assert status(place)["worker"]["pid"] == worker
    run_axonfs("config", "set", "bandwidth", "1M")
    os.kill(worker, 9)
    settled(lambda: status(place)["worker"]["pid"] != worker, 30)
    assert status(place)["fetch"]["bandwidth"] == 1 << 20
    assert "1.0 MiB/s at the most" in run_axonfs("status").stdout


def test_the_limits_of_the_cache_apply_without_another_worker(
    start: Start, registry: RegistryServer, file: Path
) -> None:
    """A namespace over its quota gives up its files, but for open ones."""
    run_axonfs("registry", "add", registry.url)
    place = start("--prefetch", "off", "--keep-free", "off", "--cache-ttl", "2d")
    worker = status(place)["worker"]["pid"]
    model = place / "nlp/tiny/1.0.0"
    (model / "model.safetensors").read_bytes()
    with (model / "vocab.txt").open("rb") as opened:
        opened.read()
        kept = os.fstat(opened.fileno()).st_size
        for key, value in (("cache_size", "1G"), ("cache_quotas", "nlp=500 vision=50%")):
            done = run_axonfs("config", "set", key, value)
            assert f"applies now to the mount at {place}" in done.stderr
        settled(lambda: status(place)["cache_used"] == kept)
        assert status(place)["cache_quotas"] == [
            {"scope": "nlp", "used": kept, "limit": 500},
            {"scope": "vision", "used": 0, "limit": 512 << 20},
        ]
    settled(lambda: status(place)["cache_used"] == 0)
    done = run_axonfs("config", "set", "cache_ttl", "1d")
    assert "was started with --cache-ttl, so it keeps that value" in done.stderr
    assert "vision 0 B of 512 MiB (0 %)" in run_axonfs("status").stdout
    assert status(place)["worker"]["pid"] == worker


@BOTH
def test_what_the_command_line_said_stays(
    start: Start, registry: RegistryServer, second: RegistryServer, file: Path
) -> None:
    """Flags and variables of the mount go before the file, over restarts too."""
    run_axonfs("registry", "add", second.url)
    place = start("--registry", registry.url, "--prefetch", "all", AXONFS_CACHE_SIZE="2G")
    done = run_axonfs("registry", "remove", second.url)
    assert (
        f"the mount at {place} was started with --registry, so it keeps that value" in done.stderr
    )
    done = run_axonfs("config", "set", "cache_size", "1G")
    assert f"the mount at {place} was started with AXONFS_CACHE_SIZE set" in done.stderr
    done = run_axonfs("config", "set", "prefetch", "off")
    assert f"the mount at {place} was started with --prefetch" in done.stderr
    doctor = run_axonfs("doctor", check=False).stdout
    assert "prefetch is all (from its command line), but configured as off" in doctor
    run_axonfs("restart", place)
    found = status(place)
    assert [item["url"].rstrip("/") for item in found["registries"]] == [registry.url.rstrip("/")]
    assert (found["prefetch"]["mode"], found["cache_limit"]) == ("all", 2 << 30)


@BOTH
def test_a_restart_applies_an_edit_by_hand(
    start: Start, registry: RegistryServer, file: Path, tmp_path: Path
) -> None:
    """In both kinds of mounts; `doctor` says what differs until then."""
    document = {"cache": str(tmp_path / "cache"), "registries": [registry.url]}
    write(file, document)
    place = start()
    write(file, {**document, "prefetch": "off", "cache_size": "3G", "mode": "0440"})
    doctor = run_axonfs("doctor", check=False).stdout
    assert "prefetch is auto (from default), but configured as off" in doctor
    assert f"axonfs restart {place}" in doctor
    run_axonfs("restart", place)
    found = status(place)
    assert (found["prefetch"]["mode"], found["cache_limit"]) == ("off", 3 << 30)
    assert (place / FILE).stat().st_mode & 0o777 == 0o444
    assert "mode is 0444 (from when it was mounted)" in run_axonfs("doctor", check=False).stdout


SPOILT = ["registries: [", "streams: many\n", "deadline: 2020-13-45\n", "tokens: {2020-01-01: x}\n"]


@pytest.mark.parametrize("spoilt", [*SPOILT, "pipe", "directory", None])
def test_a_config_that_became_invalid(
    start: Start, registry: RegistryServer, file: Path, spoilt: str | None, tmp_path: Path
) -> None:
    """A config file that becomes invalid costs no mount: it keeps its last settings and says so."""
    document = {"cache": str(tmp_path / "cache"), "registries": [registry.url], "prefetch": "off"}
    write(file, document | ({} if spoilt else {"tokens": {registry.url: "secret"}}))
    place = start()
    if spoilt is None:
        file.chmod(0o644)
    elif spoilt in ("pipe", "directory"):
        file.unlink()
        {"pipe": os.mkfifo, "directory": os.mkdir}[spoilt](file)
    else:
        file.write_text(spoilt)
    worker = status(place)["worker"]["pid"]
    os.kill(worker, 9)
    settled(lambda: status(place)["worker"]["pid"] != worker, 30)
    assert "it uses its previous settings" in run_axonfs("restart", place).stderr
    found = status(place)
    assert found["prefetch"]["mode"] == "off"
    assert str(file) in found["settings_fault"]
    assert len((place / FILE).read_bytes()) == FILES["vocab.txt"]
    subprocess.run(["rm", "-rf", file], check=True)
    write(file, document)
    done = run_axonfs("config", "set", "streams", "5")
    assert f"applies now to the mount at {place}" in done.stderr
    assert status(place)["settings_fault"] is None


FAILS_WITH_3_STREAMS = """
import os
from axonfs import engine
from axonfs.errors import AxonError
open_engine = engine.open_engine
def refuses(settings, **rest):
    if settings.streams == 3 and os.path.exists({flaw!r}):
        raise AxonError("it does not start")
    return open_engine(settings, **rest)
engine.open_engine = refuses
"""


def test_settings_with_which_no_worker_starts(
    start: Start, registry: RegistryServer, file: Path, tmp_path: Path
) -> None:
    """The next worker has those that worked, and says why; a restart tries the others again."""
    run_axonfs("registry", "add", registry.url)
    flaw = tmp_path / "flaw"
    flaw.touch()
    place = start(**patched(tmp_path, FAILS_WITH_3_STREAMS.format(flaw=str(flaw))))
    done = run_axonfs("config", "set", "streams", "3")
    assert f"the mount at {place} keeps its settings: it does not start" in done.stderr
    assert "it does not start" in status(place)["settings_fault"]
    assert len((place / FILE).read_bytes()) == FILES["vocab.txt"]
    assert "it uses its previous settings" in run_axonfs("restart", place).stderr
    flaw.unlink()
    run_axonfs("restart", place)
    assert status(place)["settings_fault"] is None
    assert status(place)["settings"]["streams"]["value"] == 3


def test_commands_under_way_are_not_cut_off(
    start_mount: MountFactory, registry_dir: Path, file: Path, second: RegistryServer
) -> None:
    """A change waits for them; the command says so."""
    gate = Gate()
    with FaultyOrigin(registry_dir) as origin:
        document = {"cache": str(file.parent / "cache"), "cache_size": "4G"}
        write(file, {**document, "registries": [origin.url]})
        place = start_mount(env={"AXONFS_CONFIG": str(file)}).path
        origin.always(on_objects(gate))
        command = [sys.executable, "-m", "axonfs", "pin", "nlp/tiny@1.0.0"]
        pin = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        assert gate.arrived.wait(20)
        done = run_axonfs("registry", "add", second.url)
        assert f"applies to the mount at {place} when it has answered other commands (pin)" in (
            done.stderr
        )
        origin.always(None)
        gate.open.set()
        assert pin.wait(30) == 0
        settled(lambda: len(status(place)["registries"]) == 2, 20)


def test_a_mount_with_another_config_is_left_alone(
    start_mount: MountFactory, registry: RegistryServer, file: Path
) -> None:
    start_mount(registry.url, cache=file.parent / "other")
    assert "mount" not in run_axonfs("config", "set", "streams", "3").stderr


def test_a_mount_of_the_same_cache_with_another_config(
    start_mount: MountFactory, registry: RegistryServer, file: Path, tmp_path: Path
) -> None:
    """The command says which file that mount reads."""
    other = tmp_path / "{other}.yaml"
    place = start_mount(registry.url, env={"AXONFS_CONFIG": str(other)}).path
    done = run_axonfs("config", "set", "streams", "3")
    assert f"the mount at {place} uses another config file, {other}" in done.stderr


def test_many_edits_at_a_time(start: Start, registry: RegistryServer, file: Path) -> None:
    """Each command meets a mount whose worker another one has just had replaced."""
    run_axonfs("registry", "add", registry.url)
    place = start()
    words = [sys.executable, "-m", "axonfs", "registry", "add"]
    edits = [
        subprocess.Popen([*words, f"http://127.0.0.1:{port}"], stderr=subprocess.PIPE, text=True)
        for port in range(1, 9)
    ]
    said = [edit.communicate(timeout=60)[1] for edit in edits]
    outcomes = (
        f"applies now to the mount at {place}",
        f"the mount at {place} already has this value",
    )
    assert all(any(outcome in text for outcome in outcomes) for text in said), said
    assert len(status(place)["registries"]) == 9
    assert status(place)["settings_fault"] is None
