"""Names from outside: specs, and the paths a manifest may use.

Pure. Everything that becomes a directory entry goes through here, so nothing that a registry
says can climb out of its version, hide in a terminal, or collide with the mount's own names.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass

from axonfs.errors import MalformedError, UsageError

LATEST = "latest"
MAX_SEGMENT_BYTES = 255  # NAME_MAX of Linux
MAX_PATH_BYTES = 1024
MAX_DEPTH = 16

# Capitals, `_`, `.` and `+` occur in Hugging Face ids and semver builds.
_SEGMENT = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._+-]*")
_VERSION = re.compile(
    r"v?([0-9]{1,18})(?:\.([0-9]{1,18}))?(?:\.([0-9]{1,18}))?(?:-([0-9A-Za-z.-]+))?(?:\+.*)?"
)
_DIGEST = re.compile(r"[0-9a-f]{64}")
_GIT = re.compile(r"[0-9a-f]{40}")


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


def parse_spec(text: str) -> Spec:
    """`namespace/name@version`; the version is `latest` if left out.

    Raises:
        UsageError: the text is not a spec; the message shows the form.
    """
    model, at, version = text.partition("@")
    segments = model.split("/")
    if at and not version:
        raise UsageError(f"{printable(text)!r} has an empty version", hint=_FORM)
    version = version or LATEST
    if not 2 <= len(segments) < MAX_DEPTH or not all(map(valid_segment, [*segments, version])):
        raise UsageError(f"{printable(text)!r} is not a model", hint=_FORM)
    return Spec(segments[0], "/".join(segments[1:]), version)


_FORM = "write namespace/name or namespace/name@version, such as nlp/llama-2-7b@1.0.0 or hf/gpt2"


def spec_of(segments: tuple[str, ...]) -> Spec | None:
    """The spec a directory below the mountpoint stands for, None if it cannot be one."""
    if not 3 <= len(segments) <= MAX_DEPTH or not all(map(valid_segment, segments)):
        return None
    return Spec(segments[0], "/".join(segments[1:-1]), segments[-1])


def check_path(path: str) -> str:
    """`path` as it is, if it is a plain relative path of a file inside a version.

    Raises:
        MalformedError: absolute, empty, `.` or `..` segments, NUL, control or formatting
            characters, not UTF-8, too long or too deep.
    """
    encoded = path.encode("utf-8", "surrogatepass")
    segments = path.split("/")
    if not path or len(encoded) > MAX_PATH_BYTES or len(segments) > MAX_DEPTH:
        raise MalformedError(f"the path {printable(path)!r} is empty, too long or too deep")
    for segment in segments:
        if (
            segment in ("", ".", "..")
            or len(segment.encode("utf-8", "replace")) > MAX_SEGMENT_BYTES
        ):
            raise MalformedError(f"the path {printable(path)!r} is not a plain relative path")
    if any(unicodedata.category(char) == "Cs" for char in path):
        raise MalformedError(f"the path {printable(path)!r} is not UTF-8")
    if any(unicodedata.category(char) in ("Cc", "Cf", "Zl", "Zp") for char in path):
        raise MalformedError(f"the path {printable(path)!r} has control characters")
    return path


def check_digest(text: object) -> str:
    """`text` if it is a sha256 in lower-case hex.

    Raises:
        MalformedError: it is anything else.
    """
    if isinstance(text, str) and _DIGEST.fullmatch(text):
        return text
    raise MalformedError(f"{printable(str(text))!r} is not a sha256 digest")


def vouching_digest(text: object) -> str | None:
    """`text` in lower case if it can tell what some bytes are: a sha256, and no placeholder.

    Placeholders are words, zeros, and whatever else is not 64 hex digits.
    """
    digest = text.lower() if isinstance(text, str) else ""
    return digest if _DIGEST.fullmatch(digest) and digest.strip("0") else None


def is_commit(text: object) -> bool:
    """Whether `text` is a git object id in full: a revision that cannot move."""
    return isinstance(text, str) and bool(_GIT.fullmatch(text))


def check_git(text: object) -> str:
    """`text` if it is a git object id.

    Raises:
        MalformedError: it is anything else.
    """
    if isinstance(text, str) and is_commit(text):
        return text
    raise MalformedError(f"{printable(str(text))!r} is not a git object id")


def printable(text: str, limit: int = 200) -> str:
    """`text` made safe for a terminal and a log line: control characters become `?`."""
    safe = "".join(
        char if char.isprintable() and unicodedata.category(char) != "Cf" else "?" for char in text
    )
    return safe if len(safe) <= limit else safe[: limit - 1] + "…"


def plain(text: str, limit: int = 200) -> str:
    """Text from outside as one printable line, without runs of blanks."""
    return printable(" ".join(text.split()), limit)


def version_key(version: str) -> tuple[object, ...]:
    """Sort key in semver order: prereleases before their release, other words before all.

    Versions that semver holds equal (`1.0.0+a`, `1.0.0+b`) are ordered by their text, so that
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
