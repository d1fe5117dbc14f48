"""The keys of a registry's files: their paths below the registry's root.

    api/v1/index.json                                 every version
    api/v1/models/<model>/versions.json               the model's versions, and what `latest` is
    api/v1/models/<model>/<version>/manifest.yaml
    api/v1/models/<model>/<version>/signatures.jsonl  its signatures, if it has any
    api/v1/models/<model>/<version>/yanked            an empty file, if the version is yanked
    objects/sha256/ab/<digest>                        a file's bytes
    chunks/sha256/ab/<digest>                         the chunk table of that object
    index.html                                        a web page of all this, for people

Pure. The same for a directory, a bucket and a web server.
"""

from __future__ import annotations

from axonfs.formats.manifest import MANIFEST_NAME
from axonfs.names import LATEST, Spec, spec_of

INDEX = "api/v1/index.json"
MODELS = "api/v1/models/"
VERSIONS_NAME = "versions.json"
YANKED_NAME = "yanked"
SIGNATURES_NAME = "signatures.jsonl"
PAGE = "index.html"
# Names of the layout: no segment of a spec may be one of them.
RESERVED = frozenset({LATEST, MANIFEST_NAME, VERSIONS_NAME, SIGNATURES_NAME})


def object_key(digest: str) -> str:
    return f"objects/sha256/{digest[:2]}/{digest}"


def table_key(digest: str) -> str:
    return f"chunks/sha256/{digest[:2]}/{digest}"


def digest_of(key: str) -> str | None:
    """The digest whose object or chunk table has this key; None if it is another file's key."""
    digest = key.rpartition("/")[2]
    return digest if key in (object_key(digest), table_key(digest)) else None


def versions_key(model: str) -> str:
    return f"{MODELS}{model}/{VERSIONS_NAME}"


def version_home(spec: Spec) -> str:
    """The prefix of the keys of a version."""
    return MODELS + "/".join(spec.segments) + "/"


def manifest_key(spec: Spec) -> str:
    return version_home(spec) + MANIFEST_NAME


def yanked_key(spec: Spec) -> str:
    return version_home(spec) + YANKED_NAME


def signatures_key(spec: Spec) -> str:
    return version_home(spec) + SIGNATURES_NAME


def spec_of_manifest(key: str, of: str = MANIFEST_NAME) -> Spec | None:
    """The version whose manifest, or whose file `of`, has this key; None if it is another file's
    key."""
    home, slash, name = key.rpartition("/")
    if not slash or name != of or not home.startswith(MODELS):
        return None
    return spec_of(tuple(home.removeprefix(MODELS).split("/")))
