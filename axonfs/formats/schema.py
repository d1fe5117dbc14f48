"""Lists every rule of Axon's schema that a manifest breaks.

The rules for single keys are in manifest.schema.json, the only file that this module reads; editors
use it too. This module adds what a schema cannot say: rules that compare keys, and the `format` of
a text. manifest.py is more lenient: a mount needs little of a manifest, lint checks all that any
reader may need. Only `axonfs manifest` imports this module: jsonschema takes 0.1 s to import.

The schema has two keywords of its own. `requiredByAxon` lists keys that only Axon's clients need.
`errorMessage` says what is wrong; VS Code and yaml-language-server show it too. A value that breaks
several keywords of a rule has one violation, for the first of them. So `format`, whose message
names the reason, stands before `pattern`, which is for editors.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from functools import cache, partial
from importlib import resources
from itertools import chain
from typing import Any
from urllib.parse import urlsplit

from jsonschema import Draft202012Validator, FormatChecker, ValidationError
from jsonschema.protocols import Validator
from jsonschema.validators import extend

from axonfs.errors import MalformedError
from axonfs.formats.manifest import MANIFEST_NAME, MAX_MANIFEST_BYTES, parse_manifest
from axonfs.formats.safe_yaml import Node, parse_yaml
from axonfs.names import check_digest, check_path, printable, vouching_digest

_FORMATS = FormatChecker(formats=())
_OF_TYPE = {"object": "is not a mapping", "array": "is not a list"}


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
    found = [*_broken_keys(root), *chain(_clashes(root), _execution_files(root), _unvouched(root))]
    if not found:  # rules for the whole document, such as the sum of the sizes
        try:
            parse_manifest(raw)
        except MalformedError as exc:
            found.append(Violation("", exc.what))
    return found


def load_schema() -> dict[str, Any]:
    """The JSON Schema of manifests."""
    file = resources.files("axonfs.formats") / "manifest.schema.json"
    schema: dict[str, Any] = json.loads(file.read_bytes())
    return schema


def _broken_keys(root: Node) -> Iterator[Violation]:
    problems: dict[str, str] = {}
    for error in _validator(for_axon=not _published(root)).iter_errors(root):
        problems.setdefault(_key(error), _problem(error))
    return (Violation(key, problem) for key, problem in problems.items())


def _published(root: Node) -> bool:
    """Whether `axonfs publish` wrote the manifest: only it writes chunk tables.

    It makes no package, so Axon's own clients cannot install the version.
    """
    files = _list_at(root, "spec", "format", "files")
    return any(isinstance(item, dict) and item.get("chunks") is not None for item in files)


def _key(error: ValidationError) -> str:
    steps = (f"[{step}]" if isinstance(step, int) else f".{step}" for step in error.absolute_path)
    return "".join(steps).removeprefix(".")


def _problem(error: ValidationError) -> str:
    if error.validator == "properties":
        return "is missing"
    if error.validator == "minItems" or error.validator_value == "text":
        return "is empty"
    if isinstance(error.cause, MalformedError):
        return f"is refused: {error.cause.what}"
    rule: Any = error.schema
    said = rule.get("errorMessage")
    return said + _shown(error.instance) if said else _OF_TYPE[rule["type"]]


def _shown(value: object) -> str:
    return f": '{printable(str(value), 60)}'" if isinstance(value, str | int) else ""


@cache
def _validator(*, for_axon: bool) -> Validator:
    """The schema's validator; it takes a key whose value is null for missing.

    Args:
        for_axon: require what only Axon's own clients need, and refuse empty texts.
    """
    keywords = {"properties": partial(_properties, for_axon), "required": lambda *_: iter(())}
    strict = extend(Draft202012Validator, keywords)  # type: ignore[no-untyped-call]
    made: Validator = strict(load_schema(), format_checker=_FORMATS)
    return made


def _properties(
    for_axon: bool,
    validator: Any,
    properties: dict[str, Any],
    node: Node,
    schema: dict[str, Any],
) -> Iterator[ValidationError]:
    """The keyword `properties`, and `required` with it: errors keep the order of the schema."""
    if not isinstance(node, dict):
        return
    lists = ("required", "requiredByAxon") if for_axon else ("required",)
    required = {key for name in lists for key in schema.get(name, ())}
    for key, rule in properties.items():
        value = node.get(key)
        if value is not None and (for_axon or value != ""):
            yield from validator.descend(value, rule, path=key, schema_path=key)
        elif key in required:
            yield ValidationError("is missing", path=[key])


@_FORMATS.checks("text")
def _is_text(value: object) -> bool:
    return bool(str(value).strip())


@_FORMATS.checks("path", raises=MalformedError)
def _is_path(value: object) -> bool:
    return bool(check_path(str(value)))


@_FORMATS.checks("sha256", raises=MalformedError)
def _is_digest(value: object) -> bool:
    if vouching_digest(check_digest(str(value).lower())) is None:
        raise MalformedError("zeros are a placeholder")
    return True


@_FORMATS.checks("http-url", raises=ValueError)
def _is_url(value: object) -> bool:
    parts = urlsplit(str(value))
    return parts.scheme in ("http", "https") and bool(parts.hostname)


@_FORMATS.checks("date-time", raises=ValueError)
def _is_time(value: object) -> bool:
    return bool(datetime.fromisoformat(str(value)))


def _clashes(root: Node) -> Iterator[Violation]:
    """Paths that no directory can have together."""
    paths = _paths(root)
    files, seen = set(paths), {""}
    for number, path in enumerate(paths):
        key = f"spec.format.files[{number}].path"
        parts = path.split("/")
        parents = {"/".join(parts[:end]) for end in range(1, len(parts))}
        if path in seen:
            if path:
                yield Violation(key, f"is there twice: '{printable(path)}'")
        elif MANIFEST_NAME in (path, parts[0]):
            yield Violation(key, "is the manifest's own")
        elif both := parents & files:
            yield Violation(key, f"is below another file, '{printable(min(both))}'")
        seen.add(path)


def _execution_files(root: Node) -> Iterator[Violation]:
    """Files to load that the manifest does not list."""
    paths = set(_paths(root))
    for number, path in enumerate(_list_at(root, "spec", "format", "execution_files")):
        if isinstance(path, str) and path not in paths:
            key = f"spec.format.execution_files[{number}]"
            yield Violation(key, f"is not one of the files: '{printable(path)}'")


def _unvouched(root: Node) -> Iterator[Violation]:
    """Files whose bytes nothing can verify: neither a sha256 of their own nor their package's.

    A file with a chunk table is an object of its own, which is in no package.
    """
    packed = vouching_digest(_at(root, "distribution", "package", "sha256"))
    for number, item in enumerate(_list_at(root, "spec", "format", "files")):
        if not isinstance(item, dict) or item.get("sha256") is not None:
            continue
        key = f"spec.format.files[{number}].sha256"
        if item.get("chunks") is not None:
            yield Violation(key, "is missing beside its chunks")
        elif not packed:
            yield Violation(key, "is missing, and no package has one")


def _paths(root: Node) -> list[str]:
    """The path of each file, empty where it has none."""
    return [str(_at(item, "path") or "") for item in _list_at(root, "spec", "format", "files")]


def _list_at(node: Node, *keys: str) -> list[Node]:
    found = _at(node, *keys)
    return found if isinstance(found, list) else []


def _at(node: Node, *keys: str) -> Node:
    """The value below `node` at the path `keys`; None if there is no such path."""
    for key in keys:
        node = node.get(key) if isinstance(node, dict) else None
    return node
