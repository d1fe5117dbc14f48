"""Storing an artifact, so that a registry lists it among what refers to a model. Blocking."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from axonfs.errors import AxonError, MalformedError, UnavailableError, UnsupportedError
from axonfs.oci.manifest import Descriptor, digest_of, kind_of
from axonfs.oci.referrers import NO_CONFIG, render_artifact, tag_of, with_artifact
from axonfs.oci.uploads import Repository

LISTINGS = 5  # attempts to have an index name an artifact
_REFUSED = frozenset({400, 415})  # answers by which registries say that they take no artifact


@dataclass(frozen=True, slots=True)
class NewArtifact:
    """An artifact to store.

    Args:
        subject: the digest of the manifest that it refers to.
        documents: its blobs that are in memory, by digest.
        replaced: the digests of artifacts that say less.
    """

    raw: bytes
    subject: str
    documents: Mapping[str, bytes] = field(default_factory=dict)
    replaced: frozenset[str] = frozenset()

    @property
    def digest(self) -> str:
        return digest_of(self.raw)


def new_artifact(
    image: bytes,
    documents: Mapping[str, bytes],
    tables: Iterable[Descriptor],
    *,
    yanked: bool = False,
    replaced: frozenset[str] = frozenset(),
) -> NewArtifact:
    """An artifact that refers to the model with the manifest `image`.

    Args:
        documents: the bodies of layers by their media types.
        tables: layers that are stored by other means.
    """
    layers = [Descriptor(kind, digest_of(body), len(body)) for kind, body in documents.items()]
    layers += {table.digest: table for table in tables}.values()
    subject = Descriptor(kind_of(image), digest_of(image), len(image))
    raw = render_artifact(subject, layers, yanked=yanked)
    bodies = {digest_of(body): body for body in (NO_CONFIG, *documents.values())}
    return NewArtifact(raw, subject.digest, bodies, replaced)


def put_document(to: Repository, digest: str, body: bytes) -> int:
    """Store a small blob, unless the repository has it; return how much was sent."""
    if to.has_blob(digest, len(body)):
        return 0
    to.put_bytes(digest, body)
    return len(body)


def put_artifact(to: Repository, artifact: NewArtifact) -> None:
    """Store an artifact, whose other blobs are there, and have what lists the model's referrers
    name it.

    Raises:
        UnsupportedError: the registry takes no artifacts.
    """
    for digest, body in artifact.documents.items():
        put_document(to, digest, body)
    try:
        if to.put_manifest(f"sha256:{artifact.digest}", artifact.raw):
            return
    except UnavailableError as exc:
        if exc.status in _REFUSED:
            raise UnsupportedError(exc.what, source=exc.source) from exc
        raise
    _list(to, tag_of(artifact.subject), artifact)


def _list(to: Repository, tag: str, artifact: NewArtifact) -> None:
    """Have the index under `tag` name the artifact.

    Another client may put an index in its place that it made from the one of before. So it is read
    again.
    """
    for _ in range(LISTINGS):
        index = to.manifest(tag)
        try:
            made = with_artifact(index, artifact.raw, artifact.replaced)
        except MalformedError as exc:
            exc.hint = f"something else has the tag {tag} there"
            raise
        if made == index:
            return
        to.put_manifest(tag, made)
    what = f"the index under the tag {tag} does not keep what is added to it"
    raise AxonError(what, hint="run the command again once no other client writes there")
