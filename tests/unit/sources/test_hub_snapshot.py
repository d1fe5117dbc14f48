"""Snapshots: manifests made of a hub's listing, and what only they may say."""

from __future__ import annotations

import pytest

from axonfs.errors import MalformedError, UsageError
from axonfs.formats.manifest import (
    SNAPSHOT,
    FileEntry,
    Manifest,
    git_digest,
    parse_manifest,
    render_manifest,
)
from axonfs.http_client.fields import next_page
from axonfs.names import HUBS, is_commit, parse_spec
from axonfs.settings.settings import convert

OID, DIGEST = "e69de29bb2d1d6434b8b29ae775ad8c2e48c5391", "ab" * 32
SPEC = parse_spec(f"hf/acme/tiny@{OID}")


def snapshot(*files: FileEntry, kind: str = SNAPSHOT) -> bytes:
    return render_manifest(Manifest(SPEC, files, license="mit", kind=kind))


def test_a_snapshot_comes_back_as_it_was() -> None:
    files = (
        FileEntry("config.json", 7, git_digest(OID), git=OID),
        FileEntry("manifest.yaml", 0, git_digest(OID), git=OID),
        FileEntry("model.safetensors", 1 << 40, DIGEST),
    )
    raw = snapshot(*files)
    parsed = parse_manifest(raw, SPEC)
    assert parsed.files == files
    assert parsed.kind == SNAPSHOT
    assert render_manifest(parsed) == raw
    assert git_digest(OID) != git_digest("0" * 40)


def test_a_repository_may_be_empty() -> None:
    assert parse_manifest(snapshot(), SPEC).files == ()


@pytest.mark.parametrize(
    "file",
    [
        FileEntry("config.json", 7, git_digest(OID), git=OID),
        FileEntry("manifest.yaml", 7, DIGEST),
    ],
)
def test_a_registry_s_manifest_may_not_say_so(file: FileEntry) -> None:
    with pytest.raises(MalformedError):
        snapshot(file, kind="Model")
    raw = snapshot(file).replace(b"kind: Snapshot", b"kind: Model")
    with pytest.raises(MalformedError):
        parse_manifest(raw, SPEC)


def test_what_a_git_id_is() -> None:
    assert is_commit(OID)
    for text in (OID[:-1], OID.upper(), OID + "0", "main", None, 7):
        assert not is_commit(text)
    with pytest.raises(MalformedError, match="git object id"):
        parse_manifest(snapshot(FileEntry("a", 1, "", git="main")), SPEC)


@pytest.mark.parametrize(
    ("link", "url"),
    [
        ('<https://h/b?cursor=2>; rel="next"', "https://h/b?cursor=2"),
        ("<?cursor=2>; rel=next", "https://h/a?cursor=2"),
        ('</p>; rel="prev", </n>; rel="next"', "https://h/n"),
        ('</n>; title=x; rel="next"', "https://h/n"),
        ('</n>; title="a, b; rel=prev \\" >"; REL = Next', "https://h/n"),
        ("</p>;rel=prev,, , </n>;rel=next ,", "https://h/n"),
        ('</n>; rel="prev next"', "https://h/n"),
        ("</n> ;\t rel = next; rel=prev", "https://h/n"),
        ('</n>; anchor="#x";; rel="next"', "https://h/n"),
        ("<//h/n>; rel=next", "https://h/n"),
        ('</p>; title="</n>; rel=next"', None),
        ("</n>; rel=prev; rel=next", None),
        ('</p>; rel="prev"', None),
        ('</p>; rel="nextish"', None),
        ('</xet>; rel="xet-auth"', None),
        ("nonsense", None),
        ("", None),
        (None, None),
    ],
)
def test_the_next_page(link: str | None, url: str | None) -> None:
    assert next_page("https://h/a?x=1", link) == url


def test_which_hubs_are_on() -> None:
    assert convert("sources", "hf modelscope", "") == HUBS
    assert convert("sources", ["modelscope"], "") == ("modelscope",)
    assert convert("sources", "none", "") == convert("sources", [], "") == ()
    for text in ("gitlab", "none hf", 7):
        with pytest.raises(UsageError, match="sources"):
            convert("sources", text, "")
