"""Names from outside: specs, and the paths that a manifest may use.

Pure. Every name that becomes a directory entry is checked here, so a registry cannot escape the
directory of a version or collide with the mount's own names. File names may have any character
that Linux allows; `printable` makes them safe to show.
"""

from __future__ import annotations

import re
import shlex
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from urllib.parse import quote, unquote_to_bytes

from axonfs.errors import MalformedError, UsageError

LATEST = "latest"
MAX_SEGMENT_BYTES = 255  # NAME_MAX of Linux
MAX_PATH_BYTES = 3072  # leaves 1 KiB of Linux's PATH_MAX for what is above a version
MAX_DEPTH = 16  # of a version's directory
# Hubs of models. Each serves the namespace with its name, and gets requests for that one only.
HUBS = ("hf", "modelscope")
# The namespace of OCI registries: oci/<alias>/<repository>, with the alias of a configured one.
OCI = "oci"
HUB_NAMESPACES = (*HUBS, OCI)
# The name below the mountpoint where models are by id, as in the cache of the Hub's own clients.
HUB_VIEW = ".hub"
_VIEW_FOLDER = "models"

# Capitals, `_`, `.` and `+` occur in Hugging Face ids and semver builds.
_SEGMENT = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._+-]*")
_REVISION = re.compile(r"[^\x00-\x20\x7f~^:?*\[\\]+")  # what git allows in the name of a ref
_ENCODED = re.compile(r"(?:[A-Za-z0-9._+-]|%[0-9A-Fa-f]{2})+")
_VERSION = re.compile(
    r"v?([0-9]{1,18})(?:\.([0-9]{1,18}))?(?:\.([0-9]{1,18}))?(?:-([0-9A-Za-z.-]+))?(?:\+.*)?"
)
_DIGEST = re.compile(r"[0-9a-f]{64}")
_GIT = re.compile(r"[0-9a-f]{40}")
_OCI_VERSION = re.compile(r"sha256[-:]([0-9a-f]{64})")


@dataclass(frozen=True, slots=True, order=True)
class Spec:
    """One version of a model; `name` may have several segments joined by `/`."""

    namespace: str
    name: str
    version: str

    @property
    def model(self) -> str:
        """`namespace/name`, without the version."""
        return f"{self.namespace}/{self.name}"

    @property
    def segments(self) -> tuple[str, ...]:
        """The version's directory below the mountpoint, segment by segment."""
        return (self.namespace, *self.name.split("/"), self.version)

    def __str__(self) -> str:
        return f"{self.namespace}/{self.name}@{self.version}"


def valid_segment(text: str) -> bool:
    """Whether `text` may be one segment of a namespace, name or version."""
    return bool(_SEGMENT.fullmatch(text)) and len(text) <= MAX_SEGMENT_BYTES


def revision_segment(revision: str) -> str | None:
    """The path segment for a hub's branch or tag, percent-encoded where needed.

    None if git does not allow such a ref, or if the segment is too long for a file name.
    """
    if not _REVISION.fullmatch(revision) or ".." in revision or "//" in revision:
        return None
    if revision[0] in "./" or revision[-1] == "/":
        return None
    try:
        segment = quote(revision, safe="+")
    except UnicodeEncodeError:
        return None
    if segment[0] in "+-":  # a segment begins with a letter or a digit
        segment = f"%{ord(segment[0]):02X}{segment[1:]}"
    return segment if len(segment) <= MAX_SEGMENT_BYTES else None


def revision_of(segment: str) -> str:
    """The branch or tag that a segment stands for."""
    return unquote_to_bytes(segment).decode("utf-8", "replace")


def _hub_version(text: str) -> str | None:
    """The segment for a revision that a user wrote, either percent-encoded or as in git."""
    if _ENCODED.fullmatch(text):
        return revision_segment(revision_of(text))
    return revision_segment(text)


def version_segment(namespace: str, text: str) -> str | None:
    """The version's segment in a directory of `namespace`, None if `text` cannot be a version."""
    if namespace in HUBS:
        return _hub_version(text)
    if namespace == OCI and (digest := oci_digest(text)):
        return oci_version(digest)
    return text if valid_segment(text) else None


def parse_spec(text: str) -> Spec:
    """`namespace/name@version`; the version is `latest` if left out.

    A hub's version may be any branch or tag, `refs/pr/1` or `refs%2Fpr%2F1`.

    Raises:
        UsageError: the text is not a spec; the message shows the form.
    """
    model, at, version = text.partition("@")
    segments = model.split("/")
    if at and not version:
        raise UsageError(f"'{printable(text)}' has an empty version", hint=_FORM)
    segment = version_segment(segments[0], version or LATEST)
    if (
        segment is None
        or not 2 <= len(segments) < MAX_DEPTH
        or not all(map(valid_segment, segments))
    ):
        raise UsageError(f"'{printable(text)}' is not a model", hint=_form(text))
    return Spec(segments[0], "/".join(segments[1:]), segment)


def _form(text: str) -> str:
    """What to write in place of `text`; of an OCI registry users may have a reference in mind."""
    model, colon, tag = text.rpartition(":")
    if colon and model.startswith(f"{OCI}/") and "@" not in model:
        return f"write {printable(model)}@{printable(tag)}"
    return _FORM


_FORM = "write namespace/name or namespace/name@version, such as nlp/llama-2-7b@1.0.0 or hf/gpt2"


def spec_of(segments: tuple[str, ...]) -> Spec | None:
    """The spec a directory below the mountpoint stands for, None if it cannot be one."""
    if not 3 <= len(segments) <= MAX_DEPTH or not all(map(valid_segment, segments[:-1])):
        return None
    namespace, version = segments[0], segments[-1]
    if namespace in HUBS and not _ENCODED.fullmatch(version):
        return None
    segment = version_segment(namespace, version)
    return Spec(namespace, "/".join(segments[1:-1]), segment) if segment else None


def check_path(path: str) -> str:
    """Return `path` unchanged if it is a plain relative path of a file inside a version.

    Raises:
        MalformedError: it is absolute, has an empty, `.` or `..` segment or NUL, or is `unusable`.
    """
    if "\0" in path or not {"", ".", ".."}.isdisjoint(path.split("/")):
        raise MalformedError(f"the path '{printable(path)}' is not a plain relative path")
    if why := unusable(path):
        raise MalformedError(f"the path '{printable(path)}' {why}")
    return path


def unusable(path: str) -> str | None:
    """Why Linux does not allow a file with this path; None if it does."""
    try:
        encoded = path.encode()
    except UnicodeEncodeError:
        return "is not UTF-8"
    if max(map(len, encoded.split(b"/"))) > MAX_SEGMENT_BYTES:
        return f"has a name of more than {MAX_SEGMENT_BYTES} bytes"
    return f"has more than {MAX_PATH_BYTES} bytes" if len(encoded) > MAX_PATH_BYTES else None


def check_digest(text: object) -> str:
    """Return `text` if it is a sha256 in lower-case hex.

    Raises:
        MalformedError: it is not.
    """
    if isinstance(text, str) and _DIGEST.fullmatch(text):
        return text
    raise MalformedError(f"'{printable(str(text))}' is not a sha256 digest")


def vouching_digest(text: object) -> str | None:
    """`text` in lower case if it is a real sha256, with which bytes can be verified; else None.

    Some manifests have a placeholder instead: words, zeros, or fewer digits. A `sha256:` prefix is
    allowed.
    """
    digest = text.lower().removeprefix("sha256:") if isinstance(text, str) else ""
    return digest if _DIGEST.fullmatch(digest) and digest.strip("0") else None


def is_commit(text: object) -> bool:
    """Whether `text` is a full git object id; unlike a branch it always names the same commit."""
    return isinstance(text, str) and bool(_GIT.fullmatch(text))


def oci_version(digest: str) -> str:
    """The version of an OCI manifest with this sha256: `sha256-…`, since no name here has a `:`."""
    return f"sha256-{digest}"


def oci_digest(version: str) -> str | None:
    """The sha256 that an OCI version, or a digest as in OCI references, names; None for a tag."""
    match = _OCI_VERSION.fullmatch(version)
    return match.group(1) if match else None


def view_folder(model_id: str) -> str | None:
    """The folder of a model in the hub view, as the Hub's clients name it: `models--org--name`.

    None if they refuse the id, which has one or two segments.
    """
    segments = model_id.split("/")
    if len(segments) > 2 or not all(map(_in_ids, segments)):
        return None
    return "--".join((_VIEW_FOLDER, *segments))


def view_id(folder: str) -> str | None:
    """The id whose folder in the hub view this is; None if there is none."""
    prefix, _, rest = folder.partition("--")
    model_id = rest.replace("--", "/", 1)
    return model_id if prefix == _VIEW_FOLDER and view_folder(model_id) == folder else None


def _in_ids(segment: str) -> bool:
    """Whether the Hub's clients allow the segment in an id."""
    return valid_segment(segment) and not re.search(r"--|\.\.|[-.]$", segment)


def hub_of(model: str) -> str:
    """The name of the hub that alone has `model`, if there is such a hub: its namespace, or
    `oci/<alias>`."""
    namespace, _, rest = model.partition("/")
    return f"{OCI}/{rest.partition('/')[0]}" if namespace == OCI else namespace


def is_fixed(spec: Spec) -> bool:
    """Whether the version of a hub's model never names anything else: a commit or a digest."""
    if spec.namespace == OCI:
        return oci_digest(spec.version) is not None
    return is_commit(spec.version)


def check_git(text: object) -> str:
    """Return `text` if it is a git object id.

    Raises:
        MalformedError: it is not.
    """
    if isinstance(text, str) and is_commit(text):
        return text
    raise MalformedError(f"'{printable(str(text))}' is not a git object id")


def printable(text: str, limit: int = 200) -> str:
    """`text` made safe for a terminal and a log line: control characters become `?`."""
    safe = text if text.isascii() and text.isprintable() else "".join(map(_printable, text))
    return safe if len(safe) <= limit else safe[: limit - 1] + "…"


def _printable(char: str) -> str:
    return char if char.isprintable() and unicodedata.category(char) != "Cf" else "?"


def plain(text: str, limit: int = 200) -> str:
    """Text from outside as one printable line, without runs of blanks."""
    return printable(" ".join(text.split()), limit)


def version_key(version: str) -> tuple[object, ...]:
    """Sort key in semver order: prereleases before their release, non-versions before all.

    Versions that are equal in semver (`1.0.0+a`, `1.0.0+b`) are ordered by their text, so that
    every program agrees on which is the newest. Source: semver.org, section 11.
    """
    match = _VERSION.fullmatch(version)
    if not match:
        return (0, version)
    numbers = tuple(int(part or 0) for part in match.group(1, 2, 3))
    prerelease = match.group(4)
    if prerelease is None:
        return (1, numbers, 1, (), version)
    identifiers = tuple(
        (0, int(part), "") if part.isdecimal() else (1, 0, part) for part in prerelease.split(".")
    )
    return (1, numbers, 0, identifiers, version)


def newest(versions: Sequence[str]) -> str | None:
    """The highest release, or the highest prerelease where there is no release."""
    releases = [version for version in versions if _is_release(version)]
    return max(releases or versions, key=version_key, default=None)


def _is_release(version: str) -> bool:
    key = version_key(version)
    return key[0] == 1 and key[2] == 1


def word(path: object) -> str:
    """A path as one word of a shell, for the commands in hints."""
    return shlex.quote(str(path))
