"""Commands without a mount, as a user types them: real registry, real cache, real output."""

from __future__ import annotations

import io
import json
import os
import shutil
import signal
import stat
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from axonfs.client import transport
from axonfs.rundir import take_lock
from axonfs.settings.settings import load
from axonfs.store import Store
from tests.support.commands import Run
from tests.support.locks import owned
from tests.support.registry import SIZES, SPEC, RegistryServer, make_model, published


@pytest.fixture
def registry(tmp_path: Path) -> Iterator[RegistryServer]:
    with RegistryServer(published(tmp_path)) as server:
        yield server


def test_from_publish_to_uninstall(run: Run, tmp_path: Path) -> None:
    model = make_model(tmp_path / "model")
    done = run("publish", model, SPEC, "--to", tmp_path / "reg", "--description", "a small one")
    assert (done.code, done.err) == (0, "")
    assert done.out.startswith(f"{SPEC} is published: 3 files, 3.0 MiB")
    assert "already published" in run("publish", model, SPEC, "--to", tmp_path / "reg").out
    (model / "config.json").write_text("{}")
    refused = run("publish", model, SPEC, "--to", tmp_path / "reg")
    assert refused.code == 1
    assert "already published" in refused.err
    with RegistryServer(tmp_path / "reg") as server:
        assert run("registry", "add", server.url).code == 0
        assert "a small one" in run("search", "SMALL").out
        info = run("info", "nlp/tiny", "--files")
        assert "model.safetensors" in info.out
        assert "0 B (0 %)" in info.out
        installed = run("install", "nlp/tiny")
        assert installed.out.startswith(f"{SPEC} is pinned: 3 files, 3.0 MiB (3.0 MiB fetched")
        assert run("list", "--format", "names").out == "nlp/tiny\n"
        assert run("pin", "--check").out.startswith(f"{SPEC} is complete")
        gone = run("uninstall", SPEC)
        assert gone.out == f"{SPEC} is unpinned, 3.0 MiB freed\n"
        assert run("list", "--format", "names").out == ""
        run("pin", SPEC)
        assert run("uninstall", "nlp/tiny", "--all-versions").code == 0
        assert run("list", "--format", "json").out == "[]\n"


def test_path_waits_for_another_that_uses_the_cache(
    run: Run, registry: RegistryServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Programs that start at once each ask for the path, and no mount runs."""
    run("registry", "add", registry.url)
    run("pin", SPEC)
    threading.Timer(0.5, os.close, [take_lock(tmp_path / "cache")]).start()
    found = run("path", SPEC)
    assert (found.code, found.out) == (0, f"{tmp_path}/cache/pinned/{SPEC}\n")
    monkeypatch.setattr(transport, "PATIENCE", 0.2)
    with owned(tmp_path / "cache"):
        assert run("path", SPEC) == found
        shutil.rmtree(found.out.rstrip())
        refused = run("path", SPEC)
    assert (refused.code, "is in use by process" in refused.err) == (1, True)


def test_json_is_all_there_is_on_stdout(run: Run, registry: RegistryServer) -> None:
    run("registry", "add", registry.url)
    (found,) = json.loads(run("search", "tiny", "--json").out)
    assert found["spec"] == SPEC
    assert json.loads(run("info", "nlp/tiny", "--json").out)["format"] == "safetensors"
    assert json.loads(run("versions", "nlp/tiny", "--json").out)["latest"] == "1.0.0"
    (pin,) = json.loads(run("pin", SPEC, "--json").out)
    assert pin["fetched"] == pin["total"]
    assert json.loads(run("pin", "--check", "--json").out)[0]["whole"] is True
    (listed,) = json.loads(run("list", "--format", "json").out)
    assert (listed["Namespace"], listed["Name"]) == ("nlp", "tiny")
    assert listed["Path"] is None
    assert listed["Pinned"] is True
    assert json.loads(run("verify", "--json").out)["bad"] == []
    assert json.loads(run("update", "--json").out)[0]["new"] == "1.0.0"
    assert json.loads(run("cache", "stats", "--json").out)["pins"] == 1
    assert len(json.loads(run("cache", "list", "--json").out)) == 3
    status = json.loads(run("status", "--json").out)
    assert status["mountpoint"] is None
    assert status["cache_used"] > SIZES["model.safetensors"]
    assert json.loads(run("cache", "clean", "--all", "--yes", "--json").out)["unpinned"] == [SPEC]


def test_pin_check_says_what_is_missing_and_fails(run: Run, registry: RegistryServer) -> None:
    run("registry", "add", registry.url)
    assert run("pin", "--check").err == "nothing is pinned\n"
    missing = run("pin", "--check", SPEC)
    assert (missing.code, missing.out) == (1, f"{SPEC}: is not pinned\n")
    run("pin", SPEC, "--include", "*.json")
    part = run("pin", "--check", SPEC, "--include", "*")
    assert part.code == 1
    assert part.out == f"{SPEC} model.safetensors: is not part of the pin\n"


def test_verify_fails_on_bad_bytes_until_they_are_repaired(
    run: Run, registry: RegistryServer, tmp_path: Path
) -> None:
    run("registry", "add", registry.url)
    run("pin", SPEC)
    assert run("verify").out == "3 files, 3.0 MiB checked, 0 bad\n"
    largest = max((tmp_path / "cache/objects").rglob("*"), key=lambda path: path.stat().st_size)
    with largest.open("r+b") as file:
        file.write(b"\0\0\0\0")
    bad = run("verify")
    assert bad.code == 1
    assert f"{SPEC} model.safetensors: 1 bad chunk, dropped" in bad.out
    assert run("pin", "--check").code == 1
    repaired = run("pin", SPEC)
    assert "(1.0 MiB fetched" in repaired.out
    with largest.open("r+b") as file:
        file.write(b"\0\0\0\0")
    assert "repaired" in run("verify", "--repair").out
    assert run("verify").code == 0


def test_everything_pinned_goes_on_without_the_registry(run: Run, registry: RegistryServer) -> None:
    run("registry", "add", registry.url)
    run("config", "set", "deadline", "2")
    run("pin", SPEC)
    registry.__exit__(None, None, None)
    try:
        assert run("pin", "--check").code == 0
        assert run("list").code == 0
        found = run("search", "tiny")
        assert (found.code, SPEC in found.out) == (0, True)
        assert run("info", SPEC).code == 0
        other = run("pin", "nlp/other@1.0.0")
        assert other.code == 1
        assert "nlp/other@1.0.0" in other.err
        doctor = run("doctor")
        assert doctor.code == 1
        assert f"fail  registry {registry.url}" in doctor.out
    finally:
        registry.__enter__()


def test_a_hostile_registry_cannot_command_the_terminal(run: Run, tmp_path: Path) -> None:
    directory = published(tmp_path)
    index = directory / "api/v1/index.json"
    document = json.loads(index.read_text())
    document["models"][0]["description"] = "evil\x1b[2J\x1b]0;owned\x07\u202e"
    index.write_text(json.dumps(document))
    with RegistryServer(directory) as server:
        found = run("search", "tiny", "--registry", server.url)
    assert "evil" in found.out
    assert not set(found.out + found.err) & set("\x1b\x07\u202e")


def test_a_token_is_sent_and_never_shown(
    run: Run, registry: RegistryServer, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(sys, "stdin", io.StringIO("s3cret-token\n"))
    added = run("registry", "add", registry.url, "--with-token")
    assert added.code == 0
    config, tokens = tmp_path / "config.yaml", tmp_path / "tokens.yaml"
    assert "s3cret-token" in tokens.read_text()
    assert "s3cret-token" not in config.read_text()
    assert stat.S_IMODE(tokens.stat().st_mode) == 0o600
    shown = [
        run(*line)
        for line in (
            ["registry", "list"],
            ["registry", "list", "--json"],
            ["config", "list"],
            ["config", "list", "--json"],
            ["config", "get", "tokens"],
            ["search", "tiny"],
        )
    ]
    assert all(done.code == 0 for done in [added, *shown])
    shown.append(run("status", "--json"))
    assert not any("s3cret" in done.out + done.err for done in [added, *shown])
    assert load().token(registry.url) == "s3cret-token"
    run("registry", "remove", registry.url)
    assert "s3cret" not in config.read_text() + tokens.read_text()


def test_a_token_for_an_oci_registry_has_a_user(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    for text, code in (("s3cret", 2), ("me:", 2), (":s3cret", 2), ("me:s3cret", 0)):
        monkeypatch.setattr(sys, "stdin", io.StringIO(f"{text}\n"))
        added = run("registry", "add", "oci://one.example.org", "--with-token")
        assert (added.code, "write USER:PASSWORD" in added.err) == (code, code != 0)
        assert "s3cret" not in added.out + added.err


def test_who_gives_a_token_to_a_registry_without_tls_is_told(
    run: Run, registry: RegistryServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    for url, told in (
        ("http://models.example.org", True),
        ("https://models.example.org", False),
        ("oci://one.example.org?plain_http=yes", True),
        ("oci://two.example.org", False),
        (registry.url, False),
    ):
        monkeypatch.setattr(sys, "stdin", io.StringIO("me:s3cret-token\n"))
        added = run("registry", "add", url, "--with-token")
        assert (added.code, "over plain HTTP, where others can read it" in added.err) == (0, told)
    monkeypatch.setenv("AXONFS_DEADLINE", "1")
    copied = run("registry", "copy", registry.url, "http://models.example.org")
    assert "over plain HTTP, where others can read it" in copied.err


def test_registries_are_asked_in_the_order_they_are_set(run: Run) -> None:
    run("registry", "add", "http://one")
    run("registry", "add", "http://two/")
    assert run("config", "get", "registries").out == "http://one http://two\n"
    run("registry", "set", "default", "http://two")
    run("registry", "set", "default", "http://three")
    assert run("config", "get", "registries").out == "http://three http://two http://one\n"
    run("registry", "add", "http://three")
    assert run("config", "get", "registries").out == "http://three http://two http://one\n"
    assert run("registry", "remove", "http://never").code == 2


def test_settings_are_typed(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("AXONFS_CACHE_SIZE")
    assert run("config", "set", "cache_size", "200G").out == f"cache_size is {200 << 30}\n"
    assert load().cache_size == 200 << 30
    assert run("config", "set", "sources", "none").out == "sources is none\n"
    run("config", "set", "offline", "yes")
    assert run("config", "get", "offline").out == "true\n"
    run("config", "set", "offline", "default")
    assert run("config", "get", "offline").out == "false\n"
    assert run("config", "set", "streams", "0").code == 2
    assert json.loads(run("config", "list", "--json").out)["cache_size"] == 200 << 30


def test_a_mount_that_can_show_nothing_is_refused(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AXONFS_SOURCES", "none")
    place = tmp_path / "mnt"
    place.mkdir()
    none = run("mount", place)
    assert none.code == 2
    assert "no registry is configured" in none.err
    assert "axonfs registry add URL" in none.err
    assert run("mount", place, "--offline").code == 2  # and nothing is in the cache


def test_a_place_that_cannot_be_mounted_on_is_named(run: Run, tmp_path: Path) -> None:
    run("registry", "add", "http://127.0.0.1:9")
    file = tmp_path / "file"
    file.write_text("x")
    for place, words in (
        (tmp_path / "a/b", f"its parent directory does not exist; mkdir -p {tmp_path}/a/b"),
        (file, "is not a directory"),
        (tmp_path, "is not empty"),
    ):
        done = run("mount", place)
        assert done.code == 2
        assert words in done.err
    gone = run("umount", tmp_path)
    assert gone.code == 1
    assert "no AxonFS is mounted there" in gone.err


def test_a_pin_that_does_not_fit_says_how_much_is_missing(
    run: Run, registry: RegistryServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AXONFS_CACHE_SIZE", "1MiB")
    done = run("pin", SPEC, "--registry", registry.url)
    assert done.code == 1
    assert (
        "only 1.0 MiB is available within the cache limit of 1.0 MiB, short by 2.0 MiB" in done.err
    )


def test_looking_works_beside_an_owner_that_does_not_answer(
    run: Run, registry: RegistryServer, tmp_path: Path
) -> None:
    run("registry", "add", registry.url)
    run("pin", SPEC)
    command = [sys.executable, "-m", "axonfs"]
    with_owner = Store.open(tmp_path / "cache")
    try:
        for line in (["list"], ["pin", "--check"], ["cache", "stats"], ["info", SPEC]):
            done = subprocess.run([*command, *line], capture_output=True, text=True, timeout=60)
            assert done.returncode == 0, done.stderr
        refused = subprocess.run(
            [*command, "unpin", SPEC], capture_output=True, text=True, timeout=60
        )
        assert refused.returncode == 1
        assert str(os.getpid()) in refused.stderr
    finally:
        with_owner.close()


@pytest.mark.usefixtures("interruptible")
def test_ctrl_c_ends_a_pin_with_130_and_the_next_one_goes_on(run: Run, tmp_path: Path) -> None:
    sizes = {f"w{number}.bin": 50 << 20 for number in range(5)}
    directory = published(tmp_path, sizes, spec="nlp/large@1.0.0")
    with RegistryServer(directory) as server:
        run("registry", "add", server.url)
        process = subprocess.Popen(
            [sys.executable, "-m", "axonfs", "pin", "nlp/large"],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        deadline = time.monotonic() + 30
        while not server.paths("/objects/") and time.monotonic() < deadline:
            time.sleep(0.005)
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=30)
        assert process.returncode == 130, err
        assert "Traceback" not in err
        assert out == ""
        done = run("pin", "nlp/large")
        assert done.code == 0
        assert run("pin", "--check").code == 0


def test_serve_says_its_url_and_ends_on_a_signal(tmp_path: Path) -> None:
    directory = published(tmp_path)
    for number, code in ((signal.SIGTERM, 0), (signal.SIGINT, 130)):
        process = subprocess.Popen(
            [sys.executable, "-m", "axonfs", "registry", "serve", directory, "--port", "0"],
            stdout=subprocess.PIPE,
            text=True,
        )
        assert process.stdout is not None
        line = process.stdout.readline()
        assert line.startswith("serving http://127.0.0.1:")
        process.send_signal(number)
        assert process.wait(20) == code
        process.stdout.close()


def test_doctor_in_json(run: Run, registry: RegistryServer) -> None:
    run("registry", "add", registry.url)
    checks = {item["name"]: item for item in json.loads(run("doctor", "--json").out)}
    assert checks[f"registry {registry.url}"]["state"] == "ok"
    assert checks["cache"]["state"] == "ok"
    assert checks["kernel"]["state"] == "ok"
