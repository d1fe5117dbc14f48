"""`axonfs registry copy` from and to OCI registries: Debian's docker-registry."""

from __future__ import annotations

import json
import secrets
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from axonfs.errors import AxonError
from axonfs.formats.layout import manifest_key
from axonfs.formats.manifest import parse_manifest
from axonfs.http_client import Answer, Calls, Said
from axonfs.names import parse_spec
from axonfs.oci.manifest import INDEX, digest_of
from axonfs.oci.referrers import VERSION, with_artifact
from axonfs.publish import publish
from axonfs.publish.registry import Registry
from axonfs.publish.signatures import add
from axonfs.registries import copy, sides
from axonfs.settings.settings import Settings
from axonfs.signatures import parse_signature
from axonfs.storage import Directory
from tests.support.commands import Run
from tests.support.dockerregistry import IMAGE, TITLE, DockerRegistry, Packed
from tests.support.faulty import Exchange, status
from tests.support.registry import make_model, published
from tests.support.signing import bundle
from tests.support.tinyoci import PASSWORD, USER, TinyOci, basic, lay_out, put_blob, put_manifest

OLD, NEW, OTHER = "nlp/tiny@1.0.0", "nlp/tiny@1.1.0+cu118", "cv/team/net@0.1"
SIZES = {"a.safetensors": (2 << 20) + 5, "b.txt": 70, "sub/empty.txt": 0}
TAR = "application/vnd.cncf.model.weight.v1.tar"


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No log-ins, and no uploads that were interrupted."""
    monkeypatch.setenv("DOCKER_CONFIG", str(tmp_path / "docker"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "uploads"))


@pytest.fixture
def prefix(docker_registry: DockerRegistry) -> str:
    """The prefix of repositories that no other test has."""
    return f"t{secrets.token_hex(4)}"


@pytest.fixture
def oci(docker_registry: DockerRegistry, prefix: str) -> str:
    return f"oci://{docker_registry.host}/{prefix}"


def signed(registry: Path, spec: str, key: str) -> None:
    """Add a signature that nobody has made."""
    target = Registry(Directory(registry))
    manifest = target.published(parse_spec(spec))
    add(target, manifest, [parse_signature(bundle(manifest, key))])


@pytest.fixture
def registry(tmp_path: Path) -> Path:
    """Three versions: one is signed and has small chunks, one is yanked and has a `+`."""
    published(tmp_path, SIZES, spec=OLD, chunk_size=64 << 10)
    for seed, spec in enumerate((NEW, OTHER), 1):
        made = published(tmp_path, SIZES, spec=spec, seed=seed)
    signed(made, OLD, "one")
    Registry(Directory(made)).yank(parse_spec(NEW))
    return made


def files(registry: Path) -> dict[str, bytes]:
    """All files but the lock."""
    return {
        str(path.relative_to(registry)): path.read_bytes()
        for path in registry.rglob("*")
        if path.is_file() and path.name != ".axonfs.lock"
    }


def of_old(files: dict[str, bytes]) -> dict[str, bytes]:
    """The manifest and the signatures of that version."""
    found = {path: body for path, body in files.items() if "/tiny/1.0.0/" in path}
    assert len(found) == 2
    return found


def get(server: DockerRegistry, path: str) -> bytes:
    return server.request("GET", f"/v2/{path}", headers={"Accept": f"{IMAGE}, {INDEX}"})[1]


def tags(server: DockerRegistry, repository: str) -> set[str]:
    return set(json.loads(get(server, f"{repository}/tags/list"))["tags"])


def test_there_and_back(
    run: Run, registry: Path, tmp_path: Path, docker_registry: DockerRegistry, oci: str, prefix: str
) -> None:
    """Byte for byte: manifests, chunk tables, signatures, yanks, and the lists that follow."""
    there = run("registry", "copy", registry, oci)
    assert (there.code, there.err) == (0, "")
    assert there.out == "3 versions copied; 10 objects, 6.0 MiB new\n"
    back = run("registry", "copy", oci, tmp_path / "back")
    assert (back.code, back.err) == (0, "")
    assert back.out == "3 versions copied; 8 objects, 6.0 MiB new\n"
    assert files(tmp_path / "back") == files(registry)
    raw = get(docker_registry, f"{prefix}/nlp/tiny/manifests/1.0.0")
    layers = {one["annotations"][TITLE]: one["size"] for one in json.loads(raw)["layers"]}
    assert {path: layers.get(path) for path in SIZES} == SIZES, "other tools can pull it"
    referring = f"sha256-{digest_of(raw)}"
    assert referring in tags(docker_registry, f"{prefix}/nlp/tiny")
    shown = run("versions", "oci/x/nlp/tiny", "--registry", f"{oci}?alias=x", "--json")
    assert len(json.loads(shown.out)["versions"]) == 2, "what refers to a model is none"


class Line:
    """Sees the requests that write to an OCI registry."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.writes: list[str] = []
        self.dies_before = -1
        self.answered: Callable[[Said], Said] = lambda said: said
        real = Calls.send

        def send(calls: Calls, method: str, url: Any, *more: Any, **named: Any) -> Said:
            if method in ("GET", "HEAD"):
                return real(calls, method, url, *more, **named)
            if len(self.writes) == self.dies_before:
                raise DeathError
            self.writes.append(f"{method} {url}")
            return self.answered(real(calls, method, url, *more, **named))

        monkeypatch.setattr(Calls, "send", send)


class DeathError(Exception):
    """The program dies before a write."""


@pytest.fixture
def line(monkeypatch: pytest.MonkeyPatch) -> Line:
    return Line(monkeypatch)


def never(error: AxonError) -> None:
    raise error


def copied(source: str, target: str, *specs: str) -> None:
    with sides(Settings(), source, target) as (reader, to):
        copy(reader, to, map(parse_spec, specs), copied=bool, failed=never)


def test_a_second_copy_brings_only_what_is_new(
    run: Run, registry: Path, tmp_path: Path, oci: str, line: Line
) -> None:
    assert run("registry", "copy", registry, oci, OLD, NEW).code == 0
    line.writes.clear()
    again = run("registry", "copy", registry, oci, "nlp/tiny@1", NEW, OLD)
    assert again.code == 1
    assert "nlp/tiny@1: the registry does not have this version" in again.err
    assert again.out == "0 versions copied, 2 already there; 0 objects, 0 B new\n"
    assert line.writes == []
    signed(registry, OLD, "two")
    run("registry", "copy", registry, oci, OLD)
    assert len(line.writes) == 4, "the signatures, the artifact, and its tag"
    copied(oci, f"file://{tmp_path}/back", OLD)
    assert of_old(files(tmp_path / "back")) == of_old(files(registry))


def test_killed_before_each_of_its_writes(
    tmp_path: Path, docker_registry: DockerRegistry, line: Line, oci: str, prefix: str
) -> None:
    """The tag comes last, and the next copy sends what is left."""
    registry = published(tmp_path, {"empty": 0}, spec=OLD)
    for number in range(100):
        line.writes.clear()
        line.dies_before = number
        repository = f"{prefix}/n{number}/nlp/tiny"
        try:
            copied(f"file://{registry}", f"{oci}/n{number}", OLD)
            break
        except DeathError:
            pass
        with pytest.raises(Exception, match="404"):
            get(docker_registry, f"{repository}/manifests/1.0.0")
        line.writes.clear()
        line.dies_before = -1
        copied(f"file://{registry}", f"{oci}/n{number}", OLD)
        left = len(line.writes)
        copied(f"{oci}/n{number}", f"file://{tmp_path}/back{number}", OLD)
        assert files(tmp_path / f"back{number}") == files(registry)
    assert number == 15
    assert left == 2, "the artifact, and the tag"


def test_signatures_of_several_artifacts_are_the_newest(
    run: Run, registry: Path, tmp_path: Path, docker_registry: DockerRegistry, oci: str, prefix: str
) -> None:
    """A registry that lists referrers keeps the artifacts of before; each has up to 16."""
    listed = []
    for keys in (range(10), range(10, 20)):
        for key in keys:
            signed(registry, OLD, f"key {key}")
        copied(f"file://{registry}", oci, OLD)
        digest = digest_of(get(docker_registry, f"{prefix}/nlp/tiny/manifests/1.0.0"))
        index = get(docker_registry, f"{prefix}/nlp/tiny/manifests/sha256-{digest}")
        listed += json.loads(index)["manifests"]
    both = {**json.loads(index), "manifests": listed}
    docker_registry.push_manifest(f"{prefix}/nlp/tiny", f"sha256-{digest}", both)
    copied(oci, f"file://{tmp_path}/back", OLD)
    assert of_old(files(tmp_path / "back")) == of_old(files(registry))
    docker_registry.push(f"{prefix}/nlp/tiny", f"sha256-{digest}", Packed().add("x", b"x"))
    for both_sides in ([registry, oci], [oci, tmp_path / "back"]):
        other = run("registry", "copy", *both_sides, OLD)
        assert other.code == 1
        assert "the list of what refers to the model is not an index (from oci://" in other.err
        assert f"/manifests/sha256-{digest})" in other.err


def test_a_registry_that_lists_referrers_gets_no_tag_for_them(
    registry: Path, docker_registry: DockerRegistry, line: Line, oci: str, prefix: str
) -> None:
    def with_subject(said: Said) -> Said:
        answer = said.answer
        return Said(Answer(answer.url, answer.status, {**answer.headers, "oci-subject": "x"}), b"")

    line.answered = with_subject
    copied(f"file://{registry}", oci, OLD)
    assert tags(docker_registry, f"{prefix}/nlp/tiny") == {"1.0.0"}


def test_what_a_registry_refuses_of_one_version_does_not_stop_the_others(
    run: Run, registry: Path, docker_registry: DockerRegistry, line: Line, oci: str
) -> None:
    def refused(said: Said) -> Said:
        url = said.answer.url
        return Said(Answer(url, 413, {}), b"") if url.endswith("nlp/tiny/manifests/1.0.0") else said

    line.answered = refused
    done = run("registry", "copy", registry, oci)
    assert (done.code, done.out[:18]) == (1, "2 versions copied;")
    assert f"{OLD}: the registry answered 413 to the manifest" in done.err


def test_refusals_of_a_server_end_the_copy_once_they_are_many(run: Run, tmp_path: Path) -> None:
    """A registry may deny one repository, or have a broken manifest."""
    specs = [f"nlp/{name}@1.0" for name in "abcdefg"]
    for spec in specs:
        lay_out(tmp_path / "site", spec.partition("@")[0], "1.0", Packed().add("x", spec.encode()))
    with TinyOci(tmp_path / "site") as server:

        def denied(exchange: Exchange) -> None:
            if exchange.seen.path.startswith(("/v2/nlp/c/", "/v2/nlp/e/")):
                status(403)(exchange)

        server.fault = denied
        some = run("registry", "copy", f"oci://{server.host}", tmp_path / "some", *specs)
        assert (some.code, some.out[:18]) == (1, "5 versions copied;")
        assert (specs[2] in some.err, specs[4] in some.err) == (True, True)
        server.fault = status(403)
        none = run("registry", "copy", f"oci://{server.host}", tmp_path / "none", *specs)
    assert (none.code, none.out) == (1, "")
    assert [spec in none.err for spec in specs] == [True] * 3 + [False] * 4


def test_another_client_stores_the_same_manifest(
    run: Run, registry: Path, docker_registry: DockerRegistry, line: Line, oci: str
) -> None:
    """Docker's registry may then take its bytes for wrong ones."""

    def busy(said: Said) -> Said:
        if "/manifests/" not in said.answer.url:
            return said
        line.answered = lambda said: said
        body = b'{"errors": [{"code": "DIGEST_INVALID", "message": "did not match"}]}'
        return Said(Answer(said.answer.url, 400, {}), body)

    line.answered = busy
    assert run("registry", "copy", registry, oci, OLD).code == 0


def test_a_tag_that_somebody_makes_meanwhile_stays(
    run: Run, registry: Path, docker_registry: DockerRegistry, line: Line, oci: str, prefix: str
) -> None:
    repository = f"{prefix}/nlp/tiny"

    def pushed(said: Said) -> Said:
        line.answered = lambda said: said
        docker_registry.push(repository, "1.0.0", Packed().add("x", b"theirs"))
        return said

    line.answered = pushed
    done = run("registry", "copy", registry, oci, OLD)
    assert (done.code, "somebody else has made the tag meanwhile" in done.err) == (1, True)
    raw = get(docker_registry, f"{repository}/manifests/1.0.0")
    assert len(json.loads(raw)["layers"]) == 1


def test_a_registry_without_artifacts_gets_no_part_of_a_version(
    run: Run, registry: Path, docker_registry: DockerRegistry, line: Line, oci: str, prefix: str
) -> None:
    def without_artifacts(said: Said) -> Said:
        url = said.answer.url
        return Said(Answer(url, 400, {}), b"") if "/manifests/sha256:" in url else said

    line.answered = without_artifacts
    done = run("registry", "copy", registry, oci, OLD, NEW)
    assert done.code == 1
    assert f"{OLD}: the registry answered 400 to the manifest (from http://" in done.err
    assert NEW not in done.err, "no other version would be taken"
    assert "it seems to take no artifacts" in done.err
    with pytest.raises(Exception, match="404"):
        get(docker_registry, f"{prefix}/nlp/tiny/manifests/1.0.0")


def test_the_list_of_referrers_is_asked_first(
    run: Run, registry: Path, tmp_path: Path, docker_registry: DockerRegistry, oci: str, prefix: str
) -> None:
    """A registry that has one; it serves what Debian's has taken."""
    copied(f"file://{registry}", oci, OLD)
    repository, root = f"{prefix}/nlp/tiny", tmp_path / "tiny"
    raw = get(docker_registry, f"{repository}/manifests/1.0.0")
    index = get(docker_registry, f"{repository}/manifests/sha256-{digest_of(raw)}")
    put_manifest(root, "nlp/tiny", "1.0.0", raw)
    (root / "v2/nlp/tiny/referrers").mkdir()
    (root / f"v2/nlp/tiny/referrers/sha256:{digest_of(raw)}").write_bytes(index)
    (entry,) = json.loads(index)["manifests"]
    artifact = get(docker_registry, f"{repository}/manifests/{entry['digest']}")
    (root / "v2/nlp/tiny/manifests" / entry["digest"]).write_bytes(artifact)
    for blob in (*json.loads(raw)["layers"], *json.loads(artifact)["layers"]):
        body = get(docker_registry, f"{repository}/blobs/{blob['digest']}")
        put_blob(root, "nlp/tiny", blob["digest"], body)
    other = {**entry, "artifactType": "sbom"}
    many = [{**entry, "digest": f"sha256:{number:064x}"} for number in range(65)]

    def paged(exchange: Exchange) -> None:
        if "/referrers/" in exchange.seen.path and "page=2" not in exchange.seen.path:
            answer(exchange, [other])
            exchange.headers["Link"] = f'<{exchange.seen.path}&page=2>; rel="next"'

    def elsewhere(exchange: Exchange) -> None:
        if "/referrers/" in exchange.seen.path:
            answer(exchange, [other])
        elif "/manifests/sha256-" in exchange.seen.path:
            answer(exchange, [entry])

    def of_mirror(exchange: Exchange) -> None:
        """It has no referrers, and one tag on each page."""
        if "/referrers/" in exchange.seen.path or "/manifests/sha256-" in exchange.seen.path:
            answer(exchange, [])
        elif "/tags/" in exchange.seen.path and "last=" not in exchange.seen.path:
            exchange.body = b'{"tags": ["0.9"]}'
            exchange.headers["Content-Length"] = str(len(exchange.body))
            exchange.headers["Link"] = f'<{exchange.seen.path}&last=0.9>; rel="next"'

    def crowded(exchange: Exchange) -> None:
        if "/referrers/" in exchange.seen.path:
            answer(exchange, many)

    with TinyOci(root) as server:
        for name, server.fault in {"a": None, "b": paged, "c": elsewhere}.items():
            done = run("registry", "copy", f"oci://{server.host}", tmp_path / name, OLD)
            assert (done.code, done.err) == (0, "")
            assert of_old(files(tmp_path / name)) == of_old(files(registry)), name
        server.fault = None
        with TinyOci(root) as mirror:
            mirror.fault = of_mirror
            url = f"oci://{server.host}?mirror={mirror.host}"
            done = run("registry", "copy", url, tmp_path / "e", "nlp/tiny")
            assert (done.code, done.err) == (0, "")
            assert of_old(files(tmp_path / "e")) == of_old(files(registry))
            assert mirror.seen("/manifests/1.0.0")
        server.fault = crowded
        done = run("registry", "copy", f"oci://{server.host}", tmp_path / "d", OLD)
        assert (done.code, "more than 64 artifacts with versions" in done.err) == (1, True)


def answer(exchange: Exchange, manifests: list[dict[str, Any]]) -> None:
    """Answer with an index."""
    exchange.status, exchange.body = 200, json.dumps({"manifests": manifests}).encode()
    exchange.headers = {"Content-Length": str(len(exchange.body))}


def test_others_write_the_index_of_referrers_at_the_same_time(
    registry: Path, docker_registry: DockerRegistry, line: Line, oci: str, prefix: str
) -> None:
    server, repository = docker_registry, f"{prefix}/nlp/tiny"
    theirs = {"mediaType": IMAGE, "artifactType": "sbom"}

    def replaced(said: Said) -> Said:
        """Somebody else puts an index that was made from the one of before."""
        tag = said.answer.url.rpartition("/")[2]
        if tag.startswith("sha256-"):
            line.answered = lambda said: said
            digest = server.push(repository, "theirs", Packed().add("sbom", b"x"))
            size = len(get(server, f"{repository}/manifests/{digest}"))
            index = {"schemaVersion": 2, "mediaType": INDEX}
            manifests = [{**theirs, "digest": digest, "size": size}]
            server.push_manifest(repository, tag, {**index, "manifests": manifests})
        return said

    line.answered = replaced
    copied(f"file://{registry}", oci, OLD)
    subject = digest_of(get(server, f"{repository}/manifests/1.0.0"))
    index = json.loads(get(server, f"{repository}/manifests/sha256-{subject}"))
    assert [one["artifactType"] for one in index["manifests"]] == ["sbom", VERSION]


def test_from_one_oci_registry_to_another(
    run: Run,
    registry: Path,
    tmp_path: Path,
    docker_registry: DockerRegistry,
    line: Line,
    oci: str,
    prefix: str,
) -> None:
    """Manifests keep their digests: of what came from a registry of files, of archives, and of an
    index."""
    assert run("registry", "copy", registry, f"{oci}/a", OLD, NEW).code == 0
    server, strange = docker_registry, f"{prefix}/a/nlp/strange"
    digest = server.push(strange, "2.0", Packed().add("d", b"no archive", TAR))
    size = len(get(server, f"{strange}/manifests/{digest}"))
    listed = [{"mediaType": IMAGE, "digest": digest, "size": size}]
    index = {"schemaVersion": 2, "mediaType": INDEX, "manifests": listed}
    server.push_manifest(strange, "index", index)
    note = {"annotations": {"vnd.docker.reference.type": "attestation-manifest"}}
    listed.append({**listed[0], "digest": server.push(strange, "note", Packed()), **note})
    listed[1]["size"] = len(get(server, f"{strange}/manifests/note"))
    server.push_manifest(strange, "attested", index)
    other = f"{oci}/b".replace("127.0.0.1", "localhost")
    done = run("registry", "copy", f"{oci}/a", other)
    assert (done.code, done.err) == (0, "")
    assert done.out.startswith("6 versions copied;")
    for name in ("nlp/tiny", "nlp/strange"):
        names = tags(server, f"{prefix}/a/{name}")
        assert tags(server, f"{prefix}/b/{name}") == names
        for tag in names:
            there = get(server, f"{prefix}/b/{name}/manifests/{tag}")
            named = digest if tag == "attested" else tag
            assert there == get(server, f"{prefix}/a/{name}/manifests/{named}")
    assert run("registry", "copy", f"{oci}/b", tmp_path / "back", OLD).code == 0
    assert of_old(files(tmp_path / "back")) == of_old(files(registry))
    assert run("registry", "copy", f"{oci}/a", other).out.startswith("0 versions copied, 6")
    line.writes.clear()
    assert run("registry", "copy", f"{oci}/a", f"{oci}/c", "nlp/strange@2.0").code == 0
    assert len(line.writes) == 3, "a registry takes two blobs from itself, and the manifest"


@pytest.mark.parametrize("allowed", [True, False])
def test_a_registry_with_tokens_takes_blobs_from_itself(
    registry: Path,
    tmp_path: Path,
    docker_registry: DockerRegistry,
    line: Line,
    oci: str,
    prefix: str,
    allowed: bool,
) -> None:
    """Such a registry wants a token for both repositories; without one the files travel."""
    copied(f"file://{registry}", f"{oci}/a", OLD)
    with TinyOci(tmp_path) as tokens:
        challenge = f'Bearer realm="{tokens.origin.url}token",service="s"'

        def wanted(said: Said) -> Said:
            url = said.answer.url
            if "mount=" in url and not (allowed and tokens.queries):
                return Said(Answer(url, 401, {"www-authenticate": challenge}), b"")
            return said

        line.answered = wanted
        line.writes.clear()
        copied(f"{oci}/a", f"{oci}/b", OLD)
        names = [f"{prefix}/b/nlp/tiny:pull,push", f"{prefix}/a/nlp/tiny:pull"]
        assert tokens.queries[0]["scope"] == [f"repository:{name}" for name in names]
    raw = get(docker_registry, f"{prefix}/b/nlp/tiny/manifests/1.0.0")
    sent = {write.rpartition("digest=")[2] for write in line.writes}
    layers = {layer["digest"] for layer in json.loads(raw)["layers"]}
    assert layers & sent == (set() if allowed else layers)


def test_a_strangers_model_becomes_a_version(
    run: Run,
    tmp_path: Path,
    docker_registry: DockerRegistry,
    oci: str,
    prefix: str,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """And the same one each time."""
    model = Packed(config=b"{}", config_type="application/vnd.oci.empty.v1+json")
    weights = bytes(range(256)) * 8192
    model.add("w.safetensors", weights, "application/octet-stream", {TITLE: "w.safetensors"})
    model.add("README.md", b"---\nlicense: mit\n---\n# A test\n", "x/y", {TITLE: "README.md"})
    docker_registry.push(f"{prefix}/nlp/strange", "1.0", model)
    docker_registry.push(f"{prefix}/nlp/strange", "latest", model)
    docker_registry.push(f"{prefix}/nlp/packed", "1.0", Packed().add("d", b"x", TAR))
    docker_registry.push(f"{prefix}/nlp/empty", "1.0", Packed())
    docker_registry.push(f"{prefix}/nlp/newest", "latest", Packed().add("d", b"x"))
    docker_registry.push(f"{prefix}/single", "1.0", Packed().add("d", b"x"))
    done = run("registry", "copy", oci, tmp_path / "one")
    assert done.code == 1
    assert done.out == "1 version copied; 2 objects, 2.0 MiB new\n"
    assert "nlp/packed@1.0: the model has layers that are archives" in done.err
    assert "axonfs publish" in done.err
    assert "nlp/empty@1.0: the model has no files" in done.err
    assert "nlp/newest@latest: its only tag is latest" in done.err
    assert f"left out: {prefix}/single (not NAMESPACE/NAME below {oci})" in caplog.text
    spec = parse_spec("nlp/strange@1.0")
    raw = (tmp_path / "one" / manifest_key(spec)).read_bytes()
    manifest = parse_manifest(raw, spec)
    assert (manifest.description, manifest.license) == ("A test", "mit")
    assert all(entry.chunks for entry in manifest.files)
    assert run("registry", "check", tmp_path / "one").code == 0
    again = run("registry", "copy", oci, tmp_path / "one", "nlp/strange")
    assert again.out == "0 versions copied, 1 already there; 0 objects, 0 B new\n"
    run("registry", "copy", oci, tmp_path / "two", spec)
    assert (tmp_path / "two" / manifest_key(spec)).read_bytes() == raw
    docker_registry.push(f"{prefix}/nlp/strange", "1.0", Packed().add("w.safetensors", b"else"))
    docker_registry.push(f"{prefix}/nlp/strange", "1.0.0_cu", model)
    for version in ("1.0.0_cu", "1.0.0+cu"):  # two names of one tag, and of one version
        run("registry", "copy", oci, tmp_path / "one", f"nlp/strange@{version}")
    shown = run("versions", "nlp/strange", "--registry", tmp_path / "one", "--json")
    found = [one["version"] for one in json.loads(shown.out)["versions"]]
    assert found == ["1.0", "1.0.0+cu"]
    newest = run("registry", "copy", oci, f"{oci}/copy")
    assert (newest.code, "its only tag is latest" in newest.err) == (1, True)
    moved = run("registry", "copy", oci, tmp_path / "one", spec)
    assert (moved.code, "already published with other files" in moved.err) == (1, True)


def test_a_manifest_of_other_files_is_refused(
    run: Run, registry: Path, tmp_path: Path, docker_registry: DockerRegistry, oci: str, prefix: str
) -> None:
    """Somebody has put another manifest in place of the version's own."""
    server, repository = docker_registry, f"{prefix}/nlp/tiny"
    assert run("registry", "copy", registry, oci, OLD).code == 0
    subject = digest_of(get(server, f"{repository}/manifests/1.0.0"))
    index = get(server, f"{repository}/manifests/sha256-{subject}")
    (entry,) = json.loads(index)["manifests"]
    assert entry["artifactType"] == VERSION
    artifact = json.loads(get(server, f"{repository}/manifests/{entry['digest']}"))
    own = get(server, f"{repository}/blobs/{artifact['layers'][0]['digest']}")
    found = parse_manifest(own).file("b.txt")
    assert found is not None
    wrong = own.replace(found.digest.encode(), b"0" * 63 + b"1")
    artifact["layers"][0] |= {"digest": server.push_blob(repository, wrong), "size": len(wrong)}
    raw = json.dumps(artifact).encode()
    server.push_manifest(repository, f"sha256:{digest_of(raw)}", artifact)
    for replaced in ([entry["digest"].removeprefix("sha256:")], []):  # alone, and beside the true
        made = json.loads(with_artifact(index, raw, replaced))
        server.push_manifest(repository, f"sha256-{subject}", made)
        done = run("registry", "copy", oci, tmp_path / "back", OLD)
        assert done.code == 1
        assert f"{OLD}: the version's manifest does not name the files of the model" in done.err
        assert "'b.txt' differs" in done.err
        assert not (tmp_path / "back/api").exists()
    server.push_manifest(repository, f"sha256-{subject}", json.loads(index))
    server.request("DELETE", f"/v2/{repository}/manifests/{entry['digest']}")
    gone = run("registry", "copy", oci, tmp_path / "back", OLD)
    assert (gone.code, "no longer has the artifact" in gone.err) == (1, True)


def test_what_cannot_be_copied(
    run: Run,
    registry: Path,
    tmp_path: Path,
    docker_registry: DockerRegistry,
    oci: str,
    prefix: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    other = tmp_path / "other"
    publish(make_model(tmp_path / "x", {"x": 5}), parse_spec(OLD), other)
    publish(make_model(tmp_path / "x", {"x": 5}), parse_spec("nlp/Tiny@1.0"), other)
    assert run("registry", "copy", registry, oci, OLD).code == 0
    before = get(docker_registry, f"{prefix}/nlp/tiny/manifests/1.0.0")
    done = run("registry", "copy", other, oci)
    assert done.code == 1
    assert f"{OLD}: the tag names other files ('a.safetensors' differs)" in done.err
    assert "nlp/Tiny@1.0: OCI allows no capitals in a name" in done.err
    assert get(docker_registry, f"{prefix}/nlp/tiny/manifests/1.0.0") == before
    nothing = run("registry", "copy", f"{oci}/none", tmp_path / "back")
    assert nothing.code == 1
    assert "the registry lists no repository NAMESPACE/NAME below this prefix" in nothing.err
    lacks = run("registry", "copy", oci, tmp_path / "back", "nlp/tiny@9.0")
    assert "nlp/tiny@9.0: the registry does not have this version" in lacks.err
    assert run("registry", "stats", oci).code == 2
    monkeypatch.setenv("TMPDIR", "/nowhere")
    nowhere = run("registry", "copy", registry, oci, NEW, OTHER)
    assert nowhere.out == "0 versions copied; 0 objects, 0 B new\n"
    assert nowhere.err.count("the object cannot be kept in /nowhere on its way") == 2


@pytest.mark.parametrize("source", [True, False])
def test_a_token_of_a_server_goes_to_no_oci_registry(
    run: Run, registry: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, source: bool
) -> None:
    with TinyOci(tmp_path / "site") as server:
        server.wants = "basic"
        ends = [f"oci://{server.host}", registry][:: 1 if source else -1]
        sent = []
        for token in ("axonfs_secret", f"{USER}:{PASSWORD}"):
            monkeypatch.setenv("AXONFS_TOKEN", token)
            assert run("registry", "copy", *ends, OLD).code == 1
            sent += [seen.headers.get("authorization") for seen in server.origin.requests]
            server.origin.requests.clear()
    assert set(sent) == {None, basic()}


def test_a_log_in_that_is_kept_with_other_options_is_used(registry: Path, tmp_path: Path) -> None:
    lay_out(tmp_path / "site", "nlp/a", "1.0", Packed().add("x", b"x"))
    with TinyOci(tmp_path / "site") as server:
        server.wants = "basic"
        kept = {f"oci://{server.host}?alias=team": f"{USER}:{PASSWORD}"}
        with sides(Settings(tokens=kept), f"oci://{server.host}", f"file://{tmp_path}/to") as both:
            copy(*both, [parse_spec("nlp/a@1.0")], copied=bool, failed=never)
