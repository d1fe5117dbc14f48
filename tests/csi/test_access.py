"""Who may have which models: the policy by namespaces, and tokens that prove a right to read."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import grpc
import pytest

from axonfs.csi.proof import AT_A_TIME
from tests.csi.conftest import NodeFactory, digest, refused
from tests.csi.node import Node
from tests.support.faulty import Exchange, status
from tests.support.faulty_origin import FaultyOrigin
from tests.support.hub import TOKEN, HubServer, Repo

SLOW = "slow-"
asking: set[str] = set()  # the slow tokens that have asked
go_on = threading.Event()  # the registry answers them
NODE_TOKEN, TEAM_TOKEN, LISTING_TOKEN = "node-secret", "team-secret", "listing-secret"
VERSION = {"model": "nlp/tiny", "version": "1.0.0"}
DEEP = {"model": "nlp/org/deep", "version": "0.1.0"}
POLICY = """\
rules:
  - namespaces: [team-a, "ml-*"]
    models: ["nlp/*"]
  - namespaces: [gated]
    models: "*"
    token: required
"""


def registry(exchange: Exchange) -> None:
    """A registry in which the team's token reads all but nlp/org, and another one no files."""
    token = exchange.seen.headers.get("authorization", "").removeprefix("Bearer ")
    path = exchange.seen.path
    closed = {NODE_TOKEN: False, TEAM_TOKEN: "/org/" in path, LISTING_TOKEN: "/api/" not in path}
    if token.startswith(SLOW):
        asking.add(token)
        go_on.wait(20.0)
    if closed.get(token, True):
        status(403 if token in closed else 401)(exchange)


@pytest.fixture(scope="module")
def origin(sources: Path) -> Iterator[FaultyOrigin]:
    with FaultyOrigin(sources / "registry") as origin:
        origin.always(registry)
        yield origin


@pytest.fixture(scope="module")
def policy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("policy") / "policy.yaml"
    path.write_text(POLICY)
    return path


@pytest.fixture(scope="module")
def hub() -> Iterator[HubServer]:
    """A gated model, whose small files the Hub shows to everybody."""
    repo = Repo("acme/gated", gated="manual")
    repo.commit({"config.json": b"{}\n", "model.bin": b"weights" * 1000})
    with HubServer(repo) as hub:
        yield hub


@pytest.fixture(scope="module")
def node(nodes: NodeFactory, origin: FaultyOrigin, hub: HubServer, policy: Path) -> Node:
    node = nodes(
        origin.url,
        plugin_options=("--policy", policy),
        env={"HF_ENDPOINT": hub.url},
        mount_env={"AXONFS_TOKEN": NODE_TOKEN, "HF_TOKEN": TOKEN},
    )
    node.start()
    return node


def test_a_namespace_has_what_a_rule_allows(node: Node, sources: Path) -> None:
    target = node.publish("allowed", namespace="ml-serving", **VERSION)
    pod = node.pod(target)
    assert pod.ask("read part0.bin") == digest(sources, "part0.bin")
    pod.close()
    node.unpublish("allowed")


@pytest.mark.parametrize(
    ("namespace", "attributes"),
    [
        ("team-b", VERSION),
        ("team-b", {}),
        ("team-a", {}),
        ("team-a", {"model": "hf/Qwen/Qwen3-0.6B", "version": "main"}),
        ("team-a", {"model": "nlpx/none", "version": "1"}),
        ("", VERSION),
    ],
)
def test_what_no_rule_allows(node: Node, namespace: str, attributes: dict[str, str]) -> None:
    """It is PERMISSION_DENIED before anything is asked, so nothing says whether there is one; also
    for a pod whose namespace the kubelet does not tell."""
    attributes = {"namespace": namespace, **attributes}
    said = refused("PERMISSION_DENIED", lambda: node.publish("refused", **attributes))
    assert "no rule allows it" in said
    assert not node.target("refused").exists()


def test_pins_that_a_rule_refuses(node: Node, policy: Path) -> None:
    """Such a pod may have the version, and not keep it on the node."""
    policy.write_text("rules: [{namespaces: '*', models: '*', pin: refused}]")
    try:
        for wanted in ({"pin": "true"}, {"ready": "complete"}):
            asked = partial(node.publish, "pinned", **VERSION, **wanted)
            assert "may not pin" in refused("PERMISSION_DENIED", asked)
        node.publish("pinned", **VERSION)
    finally:
        policy.write_text(POLICY)
        node.unpublish("pinned")


def test_a_policy_counts_at_once(node: Node, policy: Path) -> None:
    """The file is read at each call. A pod keeps the volume that it has; a malformed file refuses
    all."""
    node.publish("before", **VERSION)
    try:
        policy.write_text("rules: []\n")
        refused("PERMISSION_DENIED", lambda: node.publish("before", **VERSION))
        assert (node.target("before") / "config.json").exists()
        policy.write_text("rules: 5\n")
        refused("FAILED_PRECONDITION", lambda: node.publish("after", **VERSION))
        policy.unlink()
        refused("FAILED_PRECONDITION", lambda: node.publish("after", **VERSION))
    finally:
        policy.write_text(POLICY)
    node.publish("before", **VERSION)
    node.unpublish("before")


def test_a_token_is_required(node: Node) -> None:
    said = refused("UNAUTHENTICATED", lambda: node.publish("no", namespace="gated", **VERSION))
    assert "nodePublishSecretRef" in said
    every: dict[str, Any] = {"namespace": "gated", "secrets": {"token": TEAM_TOKEN}}
    assert "one version" in refused("INVALID_ARGUMENT", lambda: node.publish("no", **every))


def test_a_token_proves_a_right(node: Node, sources: Path, origin: FaultyOrigin) -> None:
    """A pod gets what its own token may read, though the node reads it with its own; the same bytes
    are local for all others, and open nothing to them. The mount never sees the pod's token."""
    secrets = {"token": f"{TEAM_TOKEN}\n"}
    target = node.publish("gated", namespace="gated", secrets=secrets, **VERSION)
    pod = node.pod(target)
    before = len(origin.requests)
    assert pod.ask("read part4.bin") == digest(sources, "part4.bin")
    used = {seen.headers["authorization"] for seen in origin.requests[before:]}
    assert used <= {f"Bearer {NODE_TOKEN}"}
    pod.close()
    asked = len(origin.requests)
    node.publish("gated", namespace="gated", secrets=secrets, **VERSION)
    assert len(origin.requests) == asked  # a proof counts for some minutes
    node.unpublish("gated")


@pytest.mark.parametrize(
    ("token", "attributes", "code"),
    [
        ("unknown", VERSION, "UNAUTHENTICATED"),
        (TEAM_TOKEN, DEEP, "PERMISSION_DENIED"),
        (LISTING_TOKEN, VERSION, "PERMISSION_DENIED"),
        ("", VERSION, "INVALID_ARGUMENT"),
        ("two\nlines", VERSION, "INVALID_ARGUMENT"),
    ],
)
def test_a_token_that_proves_nothing(
    node: Node, token: str, attributes: dict[str, str], code: str
) -> None:
    """A token that is unknown, may not read the model, or may list it and not read its files. It is
    in no message and in no log."""
    for namespace in ("gated", "team-a"):
        given: dict[str, Any] = {"namespace": namespace, "secrets": {"token": token}, **attributes}
        said = refused(code, partial(node.publish, "wrong", **given))
        assert not token or token not in said
    assert node.plugin is not None
    assert node.mount is not None
    for log in (node.plugin.log, node.mount.log):
        assert "secret" not in log.read_text().replace("volume's secret", "")


def test_few_tokens_are_checked_at_a_time(node: Node) -> None:
    """Each check takes memory, so many pods with tokens, invalid ones too, wait for each other. One
    that waits too long is asked again by the kubelet."""
    go_on.clear()

    def publish(number: int) -> str:
        given: dict[str, Any] = {"secrets": {"token": f"{SLOW}{number}"}, "seconds": 6.0}
        with pytest.raises(grpc.RpcError) as caught:
            node.publish(f"slow-{number}", namespace="gated", **given, **VERSION)
        if caught.value.code() is grpc.StatusCode.UNAVAILABLE:
            go_on.set()
        return str(caught.value.code().name)

    with ThreadPoolExecutor(AT_A_TIME + 1) as pool:
        codes = sorted(pool.map(publish, range(AT_A_TIME + 1)))
    assert codes == ["UNAUTHENTICATED"] * AT_A_TIME + ["UNAVAILABLE"]
    assert len(asking) == AT_A_TIME


def test_a_gated_model_of_the_hub(node: Node) -> None:
    """The secret that the Hub's own client uses proves it as well; the node's token, which reads
    it for all, proves nothing."""
    gated: dict[str, Any] = {"model": "hf/acme/gated", "version": "main", "namespace": "gated"}
    for key in ("token", "HF_TOKEN"):
        other: dict[str, Any] = {"secrets": {key: "hf_another"}, **gated}
        refused("UNAUTHENTICATED", partial(node.publish, "hub", **other))
    target = node.publish("hub", secrets={"HF_TOKEN": TOKEN}, **gated)
    assert (target / "model.bin").read_bytes() == b"weights" * 1000
    node.unpublish("hub")


def test_a_secret_without_a_token(node: Node) -> None:
    given: dict[str, Any] = {"namespace": "gated", "secrets": {"password": "x"}, **VERSION}
    assert "no key 'token'" in refused("INVALID_ARGUMENT", lambda: node.publish("none", **given))
