"""Publishing over HTTP: what a client sends is compared with its digests; tokens have limits."""

from __future__ import annotations

import hashlib
import http.server
import io
import re
import sys
from pathlib import Path

import pytest

from axonfs.errors import (
    AccessDeniedError,
    AxonError,
    UnsupportedError,
    UsageError,
)
from axonfs.formats.layout import manifest_key, object_key, signatures_key, table_key
from axonfs.formats.listing import parse_index
from axonfs.formats.manifest import parse_manifest
from axonfs.names import parse_spec
from axonfs.publish import PublishProgress, publish
from axonfs.publish.registry import Registry
from axonfs.serve import Access, RegistryServer, Tokens, WritingHandler
from axonfs.storage import Storage
from axonfs.storage.parts import PART_BYTES
from tests.integration.serve.publishing.sending import (
    DATA,
    DIGEST,
    MANIFEST,
    PART,
    TABLE,
    UPLOAD,
    VISION,
    manifest,
    send,
    storage,
    upload,
    written,
)
from tests.integration.serve.test_access import bearer, running_with, token
from tests.integration.serve.test_serve import Client
from tests.support.commands import Run
from tests.support.nginx import nginx
from tests.support.registry import SPEC, at_once, make_model
from tests.support.serving import QuietHandler, Served
from tests.support.signing import key_pair


def test_a_published_model_is_what_a_directory_has(
    server: RegistryServer, registry: Path, secret: str, tmp_path: Path
) -> None:
    sizes = {"a": 2 * PART_BYTES + 1, "sub/b": 1000, "empty": 0}
    model = make_model(tmp_path / "model", sizes)
    seen: list[int] = []
    done = publish(
        model,
        parse_spec(SPEC),
        storage(server, secret),
        progress=lambda state: seen.append(state.bytes_done),
    )
    assert seen[-1] == done.bytes
    assert 0 < sorted(seen)[len(seen) // 2] < done.bytes, "it moves with the parts"
    assert done.new_bytes == done.bytes == sum(sizes.values()) + 63
    publish(model, parse_spec(SPEC), tmp_path / "directory")
    same = [
        path for path in written(registry) if not path.endswith(("manifest.yaml", "index.json"))
    ]
    assert written(registry) == written(tmp_path / "directory")
    for path in same:
        assert (registry / path).read_bytes() == (tmp_path / "directory" / path).read_bytes()
    again = publish(model, parse_spec(SPEC), storage(server, secret))
    assert (again.already, again.new_bytes) == (True, 0)
    (model / "sub/b").write_bytes(b"changed")
    with pytest.raises(AxonError, match="already published with other files"):
        publish(model, parse_spec(SPEC), storage(server, secret))


def test_an_interrupted_publish_sends_only_what_is_missing(
    registry: Path, tokens: Path, secret: str, tmp_path: Path
) -> None:
    """Also after a restart of the server."""
    model = make_model(tmp_path / "model", {"a": 5 * PART_BYTES + 1})
    sent: list[str] = []

    class Counting(WritingHandler):
        def do_PUT(self) -> None:  # noqa: N802
            if "uploads" in self.path:
                sent.append(self.path)
            super().do_PUT()

    def stop(progress: PublishProgress) -> None:
        if len(sent) > 2:
            raise KeyboardInterrupt

    with (
        running_with(registry, Access(Tokens(tokens)), Counting) as server,
        pytest.raises(KeyboardInterrupt),
    ):
        publish(model, parse_spec(SPEC), storage(server, secret), progress=stop)
    assert not [path for path in written(registry) if "manifest" in path]
    with running_with(registry, Access(Tokens(tokens)), Counting) as server:
        sent.clear()
        publish(model, parse_spec(SPEC), storage(server, secret))
        assert len([path for path in sent if f"/{5 * PART_BYTES + 1}/" in path]) < 6
    assert f"api/v1/models/{SPEC.replace('@', '/')}/manifest.yaml" in written(registry)


def test_publishers_at_once_lose_nothing(
    server: RegistryServer, registry: Path, tokens: Path, secret: str, tmp_path: Path
) -> None:
    """Of the same file, with the same token and another one, and one in the directory itself."""
    model = make_model(tmp_path / "model", {"a": PART_BYTES + 1})
    other = token(tokens, "other", publish="*")
    places: list[Path | Storage] = [storage(server, secret), storage(server, other), registry]
    specs = [parse_spec(f"nlp/m{number}@1.0.0") for number in range(9)]
    at_once(lambda spec: publish(model, spec, places[int(spec.name[1:]) % 3]), specs)
    listings, _ = parse_index((registry / "api/v1/index.json").read_bytes())
    assert [one.spec for one in listings] == specs
    assert list((registry / "objects/tmp").rglob("*-*")) == []


def test_a_token_is_for_its_namespaces(
    server: RegistryServer, registry: Path, tokens: Path, secret: str, tmp_path: Path
) -> None:
    model = make_model(tmp_path / "model", {"a": 1000})
    reader = token(tokens, "reader", read="*")
    for whose, spec, error, said in (
        (secret, "vision/a@1.0.0", AccessDeniedError, "the token 'ci' may not publish into vision"),
        (reader, SPEC, AccessDeniedError, "the token 'reader' may not publish into nlp"),
        (
            "wrong",
            SPEC,
            AccessDeniedError,
            "not valid here .*; to replace the token",
        ),
        (None, SPEC, AccessDeniedError, "the request needs a token .*; to add a token"),
        (secret, "hf/a@1.0.0", UsageError, "mounts look for models below hf/ on that hub"),
    ):
        with pytest.raises(error, match=said):
            publish(model, parse_spec(spec), storage(server, whose))
    assert written(registry) == []


def test_what_the_server_itself_refuses(
    client: Client, registry: Path, tokens: Path, secret: str, tmp_path: Path
) -> None:
    """Whatever a client sends: a stranger may have written it."""
    assert upload(client, secret) == 201
    before = written(registry)
    boss, reader = token(tokens, "boss", publish="*"), token(tokens, "reader", read="*")
    good = manifest(parse_spec(SPEC), tmp_path)
    vision = manifest(parse_spec("vision/a@1.0.0"), tmp_path)
    lacking = good.replace(DIGEST.encode(), b"ab" * 32)
    table = hashlib.sha256(TABLE.encode()).hexdigest().encode()
    words = ", ".join(f"{number}{'x' * 200}" for number in range(100)).encode()
    wordy = re.sub(rb"(?m)^  tags: .*(\n  - .*)*$", b"  tags: [" + words + b"]", good)
    assert len(parse_manifest(wordy).tags) == 100
    uploads = "/api/v1/uploads"
    for whose, method, path, body, status, said in (
        (secret, "PUT", VISION, vision, 403, "may not publish into vision"),
        (reader, "PUT", MANIFEST, good, 403, "the token 'reader' may not publish into nlp"),
        (reader, "PUT", f"{UPLOAD}/0", DATA[:PART], 403, "may not publish"),
        (secret, "DELETE", MANIFEST, b"", 403, "may not remove versions from nlp"),
        (boss, "PUT", VISION.replace("vision", "hf"), good, 403, "below hf/ on that hub"),
        (boss, "PUT", VISION.replace("manifest.yaml", "yanked"), b"", 404, "does not have this"),
        (secret, "PUT", MANIFEST.replace("1.0.0", "latest"), good, 403, "may not be called latest"),
        (secret, "PUT", MANIFEST.replace("tiny", "other"), good, 400, "not of nlp/other@1.0.0"),
        (secret, "PUT", MANIFEST, lacking, 409, "'a.bin': the registry does not have the object"),
        (secret, "PUT", MANIFEST, good.replace(table, b"ab" * 32), 409, "does not match"),
        (secret, "PUT", MANIFEST, wordy, 400, "more than 16,384 bytes in the index"),
        (secret, "PUT", MANIFEST, b"no manifest", 400, ""),
        (secret, "PUT", MANIFEST, bytes((16 << 20) + 1), 413, "more than 16,777,216 bytes"),
        (secret, "PUT", "/api/v1/index.json", good, 404, "nothing can be written there"),
        (secret, "PUT", "/api/v1/models/nlp/tiny/versions.json", good, 404, "nothing can be"),
        (secret, "PUT", f"/{object_key(DIGEST)}", DATA, 404, "nothing can be written there"),
        (secret, "DELETE", f"/{object_key(DIGEST)}", b"", 404, "nothing can be written there"),
        (secret, "PUT", f"/{table_key(DIGEST)}", b"x", 404, "nothing can be written there"),
        (secret, "PUT", "/index.html", b"x", 404, "nothing can be written there"),
        (secret, "PUT", MANIFEST.replace("tiny", "../../x"), good, 404, "nothing can be written"),
        (secret, "PUT", MANIFEST.replace("tiny", "%2e%2e"), good, 404, "nothing can be written"),
        (secret, "PUT", f"{uploads}/{'.' * 64}/1/65536/0", b"x", 404, "nothing can be written"),
        (secret, "PUT", f"{UPLOAD}/0", DATA[: PART - 1], 400, "the part has another length"),
        (secret, "PUT", f"{UPLOAD}/2", DATA, 400, "the object has no such part"),
        (secret, "PUT", f"{uploads}/{DIGEST}/9/1/0", b"x", 400, "a part has 65,536 to"),
        (secret, "PUT", f"{uploads}/{DIGEST}/{1 << 54}/65536/0", b"x", 400, "an object has"),
        (secret, "PUT", f"{uploads}/{DIGEST}/{1 << 50}/65536/0", b"x", 400, "1,048,576 parts"),
        (secret, "POST", UPLOAD, b"no table", 400, "the chunk table has"),
        (secret, "PATCH", MANIFEST, b"x", 405, ""),
        (secret, "POST", MANIFEST, b"x", 405, "POST means nothing here"),
    ):
        client.connection.close()
        found, body = send(client, whose, method, path, body)
        assert (found, said in body.decode()) == (status, True), (method, path, body)
    assert written(registry) == before


def test_a_published_manifest_never_changes(
    client: Client, registry: Path, tokens: Path, secret: str, tmp_path: Path
) -> None:
    boss = token(tokens, "boss", remove="nlp")
    good = manifest(parse_spec(SPEC), tmp_path)
    upload(client, secret)
    assert send(client, secret, "PUT", MANIFEST, good)[0] == 201
    assert send(client, secret, "PUT", MANIFEST, good)[0] == 204
    other = good.replace(b"nlp", b"nlp ", 1) + b"\n"
    assert parse_manifest(other).spec == parse_spec(SPEC)
    assert send(client, secret, "PUT", MANIFEST, other)[0] == 412
    assert (registry / MANIFEST[1:]).read_bytes() == good
    assert send(client, secret, "PUT", MANIFEST.replace("manifest.yaml", "yanked"))[0] == 204
    assert parse_index((registry / "api/v1/index.json").read_bytes())[0] == []
    assert send(client, boss, "DELETE", MANIFEST)[0] == 204
    assert send(client, boss, "DELETE", MANIFEST)[0] == 204
    assert not (registry / MANIFEST[1:]).exists()


class _Page(Served):
    """Answers every path with a page, as servers of web applications do."""

    def handler(self) -> type[http.server.BaseHTTPRequestHandler]:
        class Handler(QuietHandler):
            def do_GET(self) -> None:  # noqa: N802
                self.answer(200, b"<html>")

        return Handler


class _Plain(Served):
    """`python -m http.server`."""

    def handler(self) -> type[http.server.BaseHTTPRequestHandler]:
        class Handler(http.server.SimpleHTTPRequestHandler):
            def log_message(self, *_: object) -> None:
                pass

        return Handler


def test_servers_that_take_no_uploads(
    run: Run, registry: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing is written, neither there nor here."""
    monkeypatch.setenv("AXONFS_TOKEN", "x")
    monkeypatch.chdir(tmp_path)
    model = make_model(tmp_path / "model", {"a": 10})
    before = sorted(tmp_path.iterdir())
    with (
        nginx(registry, tmp_path / "registry/nginx") as real,
        running_with(registry, Access()) as ours,
        _Page() as page,
        _Plain() as plain,
    ):
        for url in (real, ours.url, page.url, plain.url):
            done = run("publish", model, SPEC, "--to", url)
            assert done.code == 1
            assert done.err.startswith(
                f"axonfs: {SPEC}: this server takes no uploads (from {url});"
            )
    assert sorted(tmp_path.iterdir()) == before
    assert not (registry / "api").exists()
    with pytest.raises(UnsupportedError), running_with(registry, Access()) as ours:
        storage(ours, "x").prepare()


def test_the_life_of_a_registry_over_http(
    run: Run,
    server: RegistryServer,
    registry: Path,
    tokens: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Copies in both directions, yanks and removals, with the token of the settings."""
    secret = token(tokens, "boss", publish="*", remove="*")
    monkeypatch.setattr(sys, "stdin", io.StringIO(secret))
    assert run("registry", "add", server.url, "--with-token").code == 0
    model = make_model(tmp_path / "model", {"a": 1000})
    other = tmp_path / "other"
    for version in ("1.0.0", "1.1.0"):
        assert run("publish", model, f"nlp/tiny@{version}", "--to", other).code == 0
    assert run("registry", "yank", "nlp/tiny@1.1.0", "--from", other).code == 0
    copied = run("registry", "copy", other, server.url)
    assert copied.out == "2 versions copied; 2 objects, 1.0 KiB new\n"
    assert run("registry", "copy", other, server.url).out.startswith("0 versions copied, 2 already")
    assert '"yanked"' in (registry / "api/v1/index.json").read_text()
    for spec in ("nlp/tiny@1.0.0", "nlp/tiny@1.1.0"):
        key = manifest_key(parse_spec(spec))
        assert (registry / key).read_bytes() == (other / key).read_bytes()
    assert run("registry", "yank", "nlp/tiny@1.1.0", "--undo", "--from", server.url).code == 0
    done = run("registry", "remove-version", "nlp/tiny@1.0.0", "--from", server.url, "--yes")
    assert done.out.startswith("removed: nlp/tiny@1.0.0, 2 files")
    assert run("registry", "check", registry).out == "1 version, 2 objects, 1.0 KiB: 0 faults\n"


def test_signatures_travel_too(
    run: Run,
    client: Client,
    server: RegistryServer,
    registry: Path,
    secret: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Before the manifest, and each in place of what was read."""
    monkeypatch.setenv("AXONFS_TOKEN", secret)
    for name in ("team", "other"):
        key_pair(tmp_path / "keys", name)
    model = make_model(tmp_path / "model", {"a": 1000})
    key = ["--sign-key", tmp_path / "keys/team.key"]
    assert run("publish", model, SPEC, "--to", server.url, *key).code == 0
    file = registry / signatures_key(parse_spec(SPEC))
    assert len(file.read_bytes().splitlines()) == 1
    other = ["--sign-key", tmp_path / "keys/other.key"]
    assert run("registry", "sign", SPEC, "--to", server.url, *other).code == 0
    both = file.read_bytes()
    assert len(both.splitlines()) == 2
    for headers, body, status in (
        ({}, both, 412),
        ({"If-Match": '"x"'}, both, 412),
        ({"If-None-Match": "*"}, both, 412),
        ({"If-None-Match": "*"}, b"no signature", 400),
    ):
        path = f"/{signatures_key(parse_spec(SPEC))}"
        client.connection.request("PUT", path, body, {**bearer(secret), **headers})
        response = client.connection.getresponse()
        assert (response.status, response.read()[:4]) == (status, f"{status} ".encode())
    assert file.read_bytes() == both


def test_who_may_only_remove_removes_all_of_a_version(
    server: RegistryServer, registry: Path, tokens: Path, secret: str, tmp_path: Path
) -> None:
    spec = parse_spec(SPEC)
    publish(make_model(tmp_path / "model", {"a": 1000}), spec, storage(server, secret))
    Registry(storage(server, secret)).yank(spec)
    Registry(storage(server, token(tokens, "janitor", remove="nlp"))).remove(spec)
    assert [path for path in written(registry) if "1.0.0" in path] == []


def test_registries_lists_are_made_by_the_server(server: RegistryServer, secret: str) -> None:
    """A client that wants to list or to replace them is told so."""
    made = storage(server, secret)
    with pytest.raises(AccessDeniedError, match="cannot be listed over HTTP"):
        list(made.list("objects/"))
    with pytest.raises(AxonError, match="nothing can be written there"):
        made.put("api/v1/index.json", b"{}")
    assert Registry(made).manifest(parse_spec(SPEC)) is None
