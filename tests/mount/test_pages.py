"""The pages of docs/ that show a terminal, from an empty home directory."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

import pytest

from tests.mount.conftest import run_axonfs
from tests.support import fstab
from tests.support.axon import AxonRegistry
from tests.support.core import Core
from tests.support.dockerregistry import docker_registry
from tests.support.hub import TOKEN, HubServer, Repo, git_oid, sha256
from tests.support.modelscope import ModelScopeServer
from tests.support.nginx import free_port
from tests.support.packages import add_package
from tests.support.seaweed import Seaweed
from tests.support.transcript import Examples, Meanwhile, Step, Terminal, steps

pytestmark = pytest.mark.mount
DOCS = Path(__file__).resolve().parents[2] / "docs"
PAGES = (
    "axon.md",
    "cache.md",
    "versions.md",
    "huggingface.md",
    "python.md",
    "kernels.md",
    "s3.md",
    "oci.md",
    "directories.md",
    "registries.md",
    "signatures.md",
    "server.md",
    "operations.md",
    "mounting.md",
)
MIB = 1 << 20
WEIGHTS = bytes(range(256)) * (25 << 12)
STORY = {
    "config.json": b'{"model_type": "llama"}\n',
    "model.safetensors": WEIGHTS,
    "tokenizer.json": b'{"version": "1.0"}\n',
    "onnx/model.onnx": WEIGHTS[: 3 << 20],
}


@pytest.fixture
def registry(tmp_path: Path) -> Iterator[AxonRegistry]:
    """What the pages call http://models.example.org."""
    made = AxonRegistry(tmp_path / "axon")
    config, labels = b'{"layers": 50}\n', b"cat\ndog\n"
    files = {"model.onnx": WEIGHTS, "config.json": config}
    made.add("vision/resnet50@1.0.0", files)
    made.add("vision/resnet50@1.1.0", {**files, "labels.txt": labels})
    made.add("vision/resnet50@2.0.0-rc.1", {**files, "model.onnx": WEIGHTS[::-1]})
    made.add(
        "nlp/deepset/roberta-base-squad2@1.10",
        {"model.onnx": WEIGHTS[: 3 << 20]},
        description="Extractive question answering",
    )
    for name, package in (("mobilenet", None), ("broken", b"no package")):
        spec, path = f"vision/{name}@1.0.0", f"packages/{name}.axon"
        packed = {"model.onnx": name.encode() * 150_000, "labels.txt": b"cat\n"}
        add_package(made.directory, spec, packed, package, path=path)
    with made:
        yield made


@pytest.fixture
def hub() -> Iterator[HubServer]:
    """What the pages call https://huggingface.co."""
    story = Repo("acme/story", large=frozenset({"model.safetensors"}))
    story.commit(STORY)
    story.tags["v1.0"] = story.branches["main"]
    story.commit({**STORY, "README.md": b"# Story\n\nA small model that tells stories.\n"})
    plain = Repo("gpt2", large=frozenset({"model.safetensors"}))
    plain.commit({"config.json": b'{"model_type": "gpt2"}\n', "model.safetensors": WEIGHTS[:MIB]})
    gated = Repo("acme/gated", large=frozenset({"model.safetensors"}), gated="manual")
    gated.commit({"config.json": b'{"model_type": "gated"}\n', "model.safetensors": WEIGHTS[::-1]})
    with HubServer(story, plain, gated) as server:
        yield server


@pytest.fixture
def modelscope() -> Iterator[ModelScopeServer]:
    """What the pages call https://modelscope.cn."""
    repo = Repo("acme/story", large=frozenset({"model.safetensors"}))
    repo.commit(STORY, branch="master")
    with ModelScopeServer(repo) as server:
        yield server


@pytest.fixture
def events(hub: HubServer, tmp_path: Path) -> Mapping[str, Callable[[], object]]:
    """What happens on the pages between commands."""

    def push() -> None:
        story = hub.repos["acme/story"]
        files = story.commits[story.branches["main"]]
        story.commit({**files, "generation_config.json": b"{}\n"})

    def download() -> None:
        blobs = tmp_path / "home/.cache/huggingface/hub/models--gpt2/blobs"
        blobs.mkdir(parents=True)
        (commit,) = hub.repos["gpt2"].commits.values()
        for body in commit.values():
            for name in (sha256(body), git_oid(body)):
                (blobs / name).write_bytes(body)

    return {"push": push, "download": download}


@pytest.fixture
def store(request: pytest.FixtureRequest) -> Mapping[str, str]:
    """How the page about object stores reaches its bucket `models`."""
    if request.node.callspec.params["name"] != "s3.md":
        return {}
    seaweed: Seaweed = request.getfixturevalue("seaweed")
    return seaweed.environment()


@pytest.fixture
def oci(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Mapping[str, str]]:
    """What the page about OCI calls its registry, which is empty, and what it is here."""
    if request.node.callspec.params["name"] != "oci.md":
        yield {}
        return
    with docker_registry(tmp_path / "docker-registry") as server:
        port = server.host.rpartition(":")[2]
        yield {f"localhost{sign}5000": f"localhost{sign}{port}" for sign in ":-"}


@pytest.fixture
def within(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Sequence[str]]:
    """Where the page about fstab may change it: a mount namespace of its own."""
    if request.node.callspec.params["name"] != "mounting.md":
        yield ()
        return
    if os.getuid() != 0 or fstab.missing():
        pytest.skip("mount(8) cannot mount here")
    with fstab.machine(tmp_path / "fstab") as machine:
        yield machine.within
        machine.run("umount", "-l", tmp_path / "home/models")


@pytest.fixture
def terminal(
    registry: AxonRegistry,
    hub: HubServer,
    modelscope: ModelScopeServer,
    store: Mapping[str, str],
    oci: Mapping[str, str],
    within: Sequence[str],
    tmp_path: Path,
) -> Iterator[Terminal]:
    home = tmp_path / "home"
    home.mkdir()
    with Core() as core:
        environment = {
            "HOME": str(home),
            "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
            "LC_ALL": "C.UTF-8",
            "TZ": "UTC",
            "AXONFS_CACHE_DIR": str(home / ".cache/axonfs"),
            "AXONFS_CACHE_SIZE": os.environ["AXONFS_CACHE_SIZE"],
            "MLOS_CORE_ENDPOINT": core.url,
            "HF_ENDPOINT": hub.url,
            "MODELSCOPE_ENDPOINT": modelscope.url,
            **store,
        }
        names = {
            **oci,
            "8443": str(free_port()),
            "9464": str(free_port()),
            "http://models.example.org": registry.url,
            "https://huggingface.co": hub.url,
            "https://modelscope.cn": modelscope.url,
            "hf_yourtoken": TOKEN,
            "http://localhost:8080": core.url,
            **({"/models": str(home / "models")} if within else {}),
            "/home/you": str(home),
        }
        yield Terminal(home, environment, names, within)
    end_server(home / "pid")
    if os.path.ismount(home / "models"):
        run_axonfs("umount", home / "models", "--force", check=False)


def end_server(pid: Path) -> None:
    """End the server that a page has started, if the page did not come to that."""
    with contextlib.suppress(FileNotFoundError, ProcessLookupError):
        os.kill(int(pid.read_text()), signal.SIGTERM)


@pytest.mark.parametrize("name", PAGES)
def test_a_page_says_what_its_commands_say(
    name: str, terminal: Terminal, events: Mapping[str, Callable[[], object]]
) -> None:
    """Every command of the page, in order, in one home directory."""
    shown = list(steps((DOCS / name).read_text(encoding="utf-8")))
    assert len(shown) > 5
    for step in shown:
        if isinstance(step, Meanwhile):
            events[step.event]()
            continue
        if isinstance(step, Examples):
            assert terminal.run_examples(step) == ""
            continue
        code, printed = terminal.run(step)
        assert step.matches(printed), f"$ {step.command}\n{printed}"
        assert (code != 0) == step.fails, f"$ {step.command}\n{printed}"


def test_a_page_that_lags_is_noticed(tmp_path: Path) -> None:
    """The comparison itself: `…`, blanks, and nothing else is let through."""
    event, step = steps("<!-- meanwhile: push -->\n\n```console\n$ ls\na  b …\n…\nend\n```\n")
    assert event == Meanwhile("push")
    assert step == Step("ls", "a  b …\n…\nend\n")
    assert step.matches("a     b 1 2\nx\ny\nend\n")
    assert step.matches("a  b 1\nend\n")
    for printed in ("a b 1\nend\n", "a  b 1\n", "a  b 1\nend\nmore\n", "x\na  b 1\nend\n"):
        assert not step.matches(printed)
    (session,) = steps("```pycon\n>>> print('a name', 3)\na na… 3\n```\n")
    assert isinstance(session, Examples)
    here = Terminal(tmp_path, {}, {"name": "real name"})
    assert "a real name 3" in here.run_examples(session)
    assert Terminal(tmp_path, {}, {}).run_examples(session) == ""
    wrong = Examples(session.text.replace(", 3)", ", 4)"))
    assert "a name 4" in Terminal(tmp_path, {}, {}).run_examples(wrong)
