"""What `doctor` and `status` say of sources, tokens and mounts."""

from __future__ import annotations

import io
import json
import os
import sys
from pathlib import Path
from typing import Any

import pytest

from axonfs.cli import doctor_checks
from axonfs.client.health import Health
from axonfs.connection.mountinfo import Mount
from tests.support.commands import Run
from tests.support.faulty import status
from tests.support.hub import HubServer, Repo
from tests.support.modelscope import ModelScopeServer
from tests.support.registry import RegistryServer, published
from tests.support.seaweed import NO_AWS
from tests.support.tinyoci import PASSWORD, USER, TinyOci

HUB_VARIABLES = ("HF_ENDPOINT", "HF_TOKEN", "HF_HOME", "HF_TOKEN_PATH", "HUGGING_FACE_HUB_TOKEN",
                 "MODELSCOPE_ENDPOINT", "MODELSCOPE_API_TOKEN", "MODELSCOPE_DOMAIN")  # fmt: skip
NOWHERE = "http://127.0.0.1:9"


@pytest.fixture(autouse=True)
def no_hub(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """No token of this machine's user, and no hub but those of a test."""
    for name in HUB_VARIABLES:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hf"))
    monkeypatch.setenv("HF_ENDPOINT", NOWHERE)
    monkeypatch.setenv("MODELSCOPE_ENDPOINT", NOWHERE)


def doctor(run: Run, *options: str) -> tuple[int, dict[str, Any]]:
    done = run("doctor", "--json", *options)
    return done.code, {item["name"]: item for item in json.loads(done.out)}


def test_a_hub_is_asked_and_its_token(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    with HubServer() as hub:
        monkeypatch.setenv("HF_ENDPOINT", hub.url)
        _, found = doctor(run)
        assert found["hub hf"]["state"] == "ok"
        assert "without a token" in found["hub hf"]["text"]
        hub.tokens = ("right",)
        monkeypatch.setenv("HF_TOKEN", "right")
        _, found = doctor(run)
        assert found["hub hf"]["state"] == "ok"
        assert "its token is ada's" in found["hub hf"]["text"]
        monkeypatch.setenv("HF_TOKEN", "wrong")
        code, found = doctor(run)
        assert (code, found["hub hf"]["state"]) == (1, "fail")
        assert "its token is refused" in found["hub hf"]["text"]
        assert "HF_TOKEN" in found["hub hf"]["hint"]
        assert "wrong" not in json.dumps(found)


def test_an_oci_registry_is_asked_and_its_log_in(
    run: Run, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("DOCKER_CONFIG", str(tmp_path))
    with TinyOci(tmp_path) as server:
        server.fault = status(200)
        server.wants, url = "basic", f"oci://{server.host}"
        _, found = doctor(run, "--registry", url)
        assert found[f"registry {url}"]["state"] == "warn"
        assert "asks for a log-in" in found[f"registry {url}"]["text"]
        assert f"docker login {server.host}" in found[f"registry {url}"]["hint"]
        monkeypatch.setattr(sys, "stdin", io.StringIO(f"{USER}:{PASSWORD}\n"))
        assert run("registry", "add", url, "--with-token").code == 0
        assert "with your log-in" in doctor(run)[1][f"registry {url}"]["text"]
        assert run("registry", "remove", url).code == 0
        for password, state in ((PASSWORD, "ok"), ("wr0ng", "fail")):
            entry = {"username": USER, "password": password}
            (tmp_path / "config.json").write_text(json.dumps({"auths": {server.host: entry}}))
            _, found = doctor(run, "--registry", url)
            assert found[f"registry {url}"]["state"] == state
            assert password not in json.dumps(found)


def test_a_hub_that_does_not_answer_is_a_warning(run: Run) -> None:
    """It may not be needed: a machine without the internet has its own registry."""
    _, found = doctor(run)
    for name in ("hub hf", "hub modelscope"):
        assert found[name]["state"] == "warn"
        assert NOWHERE in found[name]["text"]
        assert "axonfs config set sources" in found[name]["hint"]


def test_the_token_of_modelscope(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    with ModelScopeServer(Repo("org/model"), token="right") as hub:
        monkeypatch.setenv("MODELSCOPE_ENDPOINT", hub.url)
        monkeypatch.setenv("MODELSCOPE_API_TOKEN", "wrong")
        code, found = doctor(run)
        assert (code, found["hub modelscope"]["state"]) == (1, "fail")


def test_a_hub_that_a_variable_silences_is_no_fault(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    with HubServer() as hub:
        monkeypatch.setenv("HF_ENDPOINT", hub.url)
        monkeypatch.setenv("HF_HUB_OFFLINE", "1")
        found = doctor(run)[1]["hub hf"]
        assert (found["state"], found["hint"]) == ("ok", "")
        assert "HF_HUB_OFFLINE" in found["text"]
        assert hub.requests == []


def test_no_hub_is_asked_offline_or_where_it_is_no_source(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    with HubServer() as hub:
        monkeypatch.setenv("HF_ENDPOINT", hub.url)
        for name, value in (("AXONFS_OFFLINE", "1"), ("AXONFS_SOURCES", "none")):
            with monkeypatch.context() as patch:
                patch.setenv(name, value)
                assert "hub hf" not in doctor(run)[1]
        assert hub.requests == []


@pytest.mark.parametrize("state", ["dead", "wedged", "closed"])
def test_a_mount_of_another_user_is_theirs_to_mend(
    state: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(doctor_checks, "health", lambda mount: Health(state))
    theirs = doctor_checks.mount_check(Mount(Path("/theirs"), 7, owner=os.geteuid() + 4321))
    assert theirs.state == "warn"
    assert f"uid {os.geteuid() + 4321}'s mount at /theirs" in theirs.text
    own = doctor_checks.mount_check(Mount(Path("/own"), 7, owner=os.geteuid()))
    assert own.state == ("warn" if state == "closed" else "fail")


def test_status_without_a_mount(run: Run, tmp_path: Path) -> None:
    """What the cache holds is shown, and the exit code says that nothing is mounted."""
    with RegistryServer(published(tmp_path)) as server:
        run("pin", "nlp/tiny@1.0.0", "--registry", server.url)
    shown = run("status")
    assert shown.code == 1
    assert str(tmp_path / "cache") in shown.out
    assert f"nothing is mounted with the cache {tmp_path / 'cache'}" in shown.err
    as_json = run("status", "--json")
    assert as_json.code == 1
    state = json.loads(as_json.out)
    assert state["mountpoint"] is None
    assert state["cache_used"] > 0
    assert run("status", tmp_path / "nowhere").code == 1


@pytest.mark.parametrize(
    "line",
    [
        ("install", "vision/resnet50@1.0.0"),
        ("pin", "vision/resnet50"),
        ("pin", "vision/resnet50@^1"),
        ("info", "vision/resnet50@1.0.0"),
        ("info", "vision/resnet50"),
        ("versions", "vision/resnet50"),
        ("lock", "-", "vision/resnet50@1.0.0"),
        ("update", "vision/resnet50"),
    ],
)
def test_no_registry_is_said(run: Run, line: tuple[str, ...]) -> None:
    done = run(*line)
    assert done.code == 1
    assert "no registry is configured" in done.err
    assert "axonfs registry add URL" in done.err
    assert "no such" not in done.err
    assert "nothing matches" not in done.err


def test_an_alias_that_no_registry_has_is_said(run: Run) -> None:
    done = run("info", "oci/taem/bert@1", "--registry", "oci://127.0.0.1:9?alias=team")
    assert done.code == 1
    assert "oci/taem/bert@1: no registry is oci/taem; there is oci/team" in done.err


def test_no_registry_is_said_of_a_search(run: Run) -> None:
    done = run("search", "resnet")
    assert done.code == 0
    assert "no registry is configured; axonfs registry add URL adds one" in done.err
    assert "nothing matches" not in done.err


def test_registries_without_a_web_server_have_advice_of_their_own(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, text in {**NO_AWS, "AWS_PROFILE": "none"}.items():
        monkeypatch.setenv(name, text)
    published(tmp_path)
    for url in ("s3://models/prod", tmp_path / "gone", tmp_path / "registry"):
        run("registry", "add", url)
    _, found = doctor(run)
    assert "AWS_PROFILE" in found["registry s3://models/prod"]["hint"]
    assert "disk is mounted" in found[f"registry file://{tmp_path}/gone"]["hint"]
    assert found[f"registry file://{tmp_path}/registry"]["text"].endswith("1 version")


def test_no_registry_in_doctor(run: Run) -> None:
    assert "axonfs registry add URL" in doctor(run)[1]["registries"]["hint"]
