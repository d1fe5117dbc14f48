"""Checks a manifest against the whole of Axon's schema, and lists everything that breaks it.

Pure. manifest.py takes what it needs and is lenient about the rest; this is for whoever writes a
manifest and wants every reader to take it. A rule is a function that yields what is wrong with a
node, each with the key path from there. Keys that the schema does not know are allowed.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from itertools import chain
from typing import TypeAlias
from urllib.parse import urlsplit

from axonfs.errors import MalformedError
from axonfs.formats.manifest import (
    API_VERSION,
    MANIFEST_NAME,
    MAX_MANIFEST_BYTES,
    MAX_SIZE,
    check_chunk_size,
    parse_manifest,
)
from axonfs.formats.safe_yaml import Node, parse_yaml
from axonfs.names import (
    LATEST,
    check_digest,
    check_path,
    printable,
    valid_segment,
    vouching_digest,
)
from axonfs.versions import precedence

Problem: TypeAlias = "tuple[str, str]"  # key path below the node, what is wrong
Rule: TypeAlias = Callable[[Node], Iterator[Problem]]

_NUMBER = re.compile(r"[0-9]+(\.[0-9]+)?")


@dataclass(frozen=True, slots=True)
class Violation:
    """One broken rule; `key` is like `spec.format.files[0].size`, empty for the document."""

    key: str
    problem: str

    def __str__(self) -> str:
        return f"{self.key} {self.problem}" if self.key else self.problem


def lint_manifest(raw: bytes) -> list[Violation]:
    """Everything that breaks a rule in the manifest `raw`, in the order of the schema."""
    try:
        root = parse_yaml(raw, limit=MAX_MANIFEST_BYTES)
    except MalformedError as exc:
        return [Violation("", exc.what)]
    rules = chain(_DOCUMENT(root), _vouched(root))
    found = [Violation(key.lstrip("."), problem) for key, problem in rules]
    if not found:  # rules that span the document, such as the sum of the sizes
        try:
            parse_manifest(raw)
        except MalformedError as exc:
            found.append(Violation("", exc.what))
    return found


# -- what a node may be ------------------------------------------------------------------------


def _mapping(required: Mapping[str, Rule], optional: Mapping[str, Rule] | None = None) -> Rule:
    def rule(node: Node) -> Iterator[Problem]:
        if not isinstance(node, dict):
            yield "", "is not a mapping"
            return
        for key, inner in required.items():
            if node.get(key) is None:
                yield f".{key}", "is missing"
            else:
                yield from _below(f".{key}", inner, node[key])
        for key, inner in (optional or {}).items():
            if node.get(key) is not None:
                yield from _below(f".{key}", inner, node[key])

    return rule


def _items(inner: Rule, *, least: int = 0) -> Rule:
    def rule(node: Node) -> Iterator[Problem]:
        if not isinstance(node, list):
            yield "", "is not a list"
            return
        if len(node) < least:
            yield "", "is empty"
        for number, item in enumerate(node):
            yield from _below(f"[{number}]", inner, item)

    return rule


def _below(key: str, rule: Rule, node: Node) -> Iterator[Problem]:
    for rest, problem in rule(node):
        yield key + rest, problem


def _that(holds: Callable[[Node], bool], problem: str) -> Rule:
    def rule(node: Node) -> Iterator[Problem]:
        if not holds(node):
            yield "", f"{problem}{_shown(node)}"

    return rule


def _shown(node: Node) -> str:
    return f": '{printable(str(node), 60)}'" if isinstance(node, str | int) else ""


def _one_of(*words: str) -> Rule:
    return _that(lambda node: node in words, f"is not {' or '.join(words)}")


def _refused_by(check: Callable[[str], object]) -> Rule:
    """A text that `check` does not raise MalformedError about."""

    def rule(node: Node) -> Iterator[Problem]:
        if not isinstance(node, str | int):
            yield "", "is not a text"
            return
        try:
            check(str(node))
        except MalformedError as exc:
            yield "", f"is refused: {exc.what}"

    return rule


def _check_digest(text: str) -> None:
    check_digest(text.lower())
    if vouching_digest(text) is None:
        raise MalformedError("zeros are a placeholder")


def _is_text(node: Node) -> bool:
    return isinstance(node, str | int) and str(node).strip() != ""


def _is_dimension(node: Node) -> bool:
    # A number below zero is a text here.
    return node == "-1" or isinstance(node, int)


def _is_number(node: Node) -> bool:
    # Without a fraction it is an int here, with one a text.
    return isinstance(node, str | int) and bool(_NUMBER.fullmatch(str(node)))


def _is_positive(node: Node) -> bool:
    return _is_number(node) and float(str(node)) > 0


def _is_url(node: Node) -> bool:
    try:
        parts = urlsplit(str(node))
        return isinstance(node, str) and parts.scheme in ("http", "https") and bool(parts.hostname)
    except ValueError:
        return False


def _is_time(node: Node) -> bool:
    try:
        datetime.fromisoformat(str(node))
    except ValueError:
        return False
    return isinstance(node, str)


def _is_name(node: Node) -> bool:
    return isinstance(node, str | int) and all(map(valid_segment, str(node).split("/")))


def _is_version(node: Node) -> bool:
    text = str(node) if isinstance(node, str | int) else ""
    return valid_segment(text) and text != LATEST and precedence(text) is not None


_text = _that(_is_text, "is not a text")
_switch = _one_of("true", "false")
_whole = _that(
    lambda node: isinstance(node, int) and node <= MAX_SIZE,
    f"is not a whole number up to {MAX_SIZE}",
)
_number = _that(_is_number, "is not a number")
_positive = _that(_is_positive, "is not a number above zero")
_count = _that(
    lambda node: isinstance(node, int) and 0 < node <= MAX_SIZE, "is not a whole number above zero"
)
_url = _that(_is_url, "is not an http:// or https:// URL")
_time = _that(_is_time, "is not a time as in RFC 3339")
_digest = _refused_by(_check_digest)
_path = _refused_by(check_path)
_anything = _mapping({})


# -- the schema --------------------------------------------------------------------------------


def _chunk_size(node: Node) -> Iterator[Problem]:
    try:
        check_chunk_size(node if isinstance(node, int) else 0)
    except MalformedError:
        yield "", "is not a power of two between 64 KiB and 64 MiB"


_FILE = _mapping(
    {"path": _path, "size": _whole},
    {"sha256": _digest, "chunks": _mapping({"size": _chunk_size, "sha256": _digest})},
)


def _files(node: Node) -> Iterator[Problem]:
    yield from _items(_FILE, least=1)(node)
    entries = node if isinstance(node, list) else []
    paths = [str(entry.get("path")) if isinstance(entry, dict) else "" for entry in entries]
    files, seen = set(paths), {""}
    for number, path in enumerate(paths):
        parts = path.split("/")
        parents = {"/".join(parts[:end]) for end in range(1, len(parts))}
        if path in seen:
            if path:
                yield f"[{number}].path", f"is there twice: '{printable(path)}'"
        elif MANIFEST_NAME in (path, parts[0]):
            yield f"[{number}].path", "is the manifest's own"
        elif both := parents & files:
            yield f"[{number}].path", f"is below another file, '{printable(min(both))}'"
        seen.add(path)


def _format(node: Node) -> Iterator[Problem]:
    yield from _FORMAT(node)
    if not isinstance(node, dict):
        return
    files, named = node.get("files"), node.get("execution_files")
    entries = files if isinstance(files, list) else []
    paths = {str(entry.get("path")) for entry in entries if isinstance(entry, dict)}
    for number, path in enumerate(named if isinstance(named, list) else []):
        if isinstance(path, str) and path not in paths:
            yield f".execution_files[{number}]", f"is not one of the files: '{printable(path)}'"


_FORMAT = _mapping(
    {"type": _text, "files": _files},
    {"execution_format": _text, "execution_files": _items(_path, least=1), "multi_encoder": _text},
)
_TENSOR = _mapping(
    {
        "name": _text,
        "dtype": _text,
        "shape": _items(_that(_is_dimension, "is not a size, or -1 for any")),
    },
    {"description": _text, "preprocessing": _mapping({"type": _text})},
)
_CORES = _mapping({"min_cores": _count}, {"recommended_cores": _count})
_MEMORY = _mapping({"min_gb": _positive}, {"recommended_gb": _positive})
_GPU = _mapping(
    {},
    {
        "required": _switch,
        "recommended": _switch,
        "min_vram_gb": _number,
        "cuda_version": _text,
    },
)
_STORAGE = _mapping({}, {"min_gb": _number, "recommended_gb": _number})
_METADATA = _mapping(
    {
        "name": _that(_is_name, "is not a name of plain segments"),
        "namespace": _that(
            lambda node: _is_name(node) and "/" not in str(node), "is not one plain segment"
        ),
        "version": _that(_is_version, "is not a semantic version"),
        "description": _text,
        "license": _text,
    },
    {
        "authors": _items(_mapping({"name": _text}, {"email": _text, "organization": _text})),
        "homepage": _url,
        "documentation": _url,
        "created": _time,
        "updated": _time,
        "tags": _items(_text),
    },
)
_SPEC = _mapping(
    {
        "framework": _mapping({"name": _text, "version": _text}),
        "format": _format,
        "io": _mapping({"inputs": _items(_TENSOR, least=1), "outputs": _items(_TENSOR, least=1)}),
        "requirements": _mapping(
            {"compute": _mapping({"cpu": _CORES, "memory": _MEMORY}, {"gpu": _GPU})},
            {"storage": _STORAGE},
        ),
    },
    {
        "performance": _mapping(
            {},
            {
                "inference_time": _anything,
                "throughput": _anything,
                "accuracy": _anything,
                "dataset": _text,
            },
        ),
        "dependencies": _mapping(
            {},
            {
                "models": _items(_text),
                "packages": _items(_mapping({"name": _text, "version": _text})),
            },
        ),
    },
)
_DISTRIBUTION = _mapping(
    {
        "package": _mapping(
            {"url": _url, "size": _count, "sha256": _digest}, {"mirrors": _items(_url)}
        ),
        "registry": _mapping({"url": _url, "namespace": _text}),
    }
)
_DOCUMENT = _mapping(
    {
        "apiVersion": _one_of(API_VERSION, "v1"),
        "kind": _one_of("Model"),
        "metadata": _METADATA,
        "spec": _SPEC,
        "distribution": _DISTRIBUTION,
    }
)


def _vouched(root: Node) -> Iterator[Problem]:
    """Something has to tell whether a file's bytes are right: its own sha256, or its package's.

    What has a chunk table is an object of its own, which no package brings.
    """
    package = _at(root, "distribution", "package", "sha256")
    packed = package is not None and not any(_digest(package))
    files = _at(root, "spec", "format", "files")
    for number, item in enumerate(files if isinstance(files, list) else []):
        if not isinstance(item, dict) or item.get("sha256") is not None:
            continue
        key = f".spec.format.files[{number}].sha256"
        if item.get("chunks") is not None:
            yield key, "is missing beside its chunks"
        elif not packed:
            yield key, "is missing, and no package has one"


def _at(node: Node, *keys: str) -> Node:
    """What is below `node` at the path `keys`; None if nothing is."""
    for key in keys:
        node = node.get(key) if isinstance(node, dict) else None
    return node
