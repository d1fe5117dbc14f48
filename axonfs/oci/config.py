"""What the config of a packed model says of it, for people. Pure; malformed parts are ignored."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from axonfs.names import plain
from axonfs.oci.manifest import CREATED
from axonfs.units import unix_time

_DESCRIPTION = "org.opencontainers.image.description"
_LICENSES = "org.opencontainers.image.licenses"


@dataclass(frozen=True, slots=True)
class About:
    """The metadata of a model; an empty text means unknown, and so does a time of 0."""

    description: str = ""
    license: str = ""
    framework: str = ""
    format: str = ""
    created: float = 0.0


def about(raw: bytes, annotations: Mapping[str, str]) -> About:
    """What a config (ModelPack's, or the Kitfile of KitOps) and the manifest's annotations say."""
    root = _mapping(_json(raw))
    told, config = _mapping(root.get("descriptor")), _mapping(root.get("config"))
    package, model = _mapping(root.get("package")), _mapping(root.get("model"))
    return About(
        _first(
            told.get("description"),
            told.get("title"),
            package.get("description"),
            model.get("description"),
            annotations.get(_DESCRIPTION),
        ),
        _first(
            told.get("licenses"),
            package.get("license"),
            model.get("license"),
            annotations.get(_LICENSES),
        ),
        _first(model.get("framework")),
        _first(config.get("format"), model.get("format")),
        unix_time(told.get("createdAt")) or unix_time(annotations.get(CREATED)),
    )


def _json(raw: bytes) -> object:
    try:
        return json.loads(raw)
    except (ValueError, RecursionError):
        return None


def _mapping(node: object) -> dict[str, Any]:
    return node if isinstance(node, dict) else {}


def _first(*nodes: object) -> str:
    """The first of these that is a text; of a list, its first."""
    for node in nodes:
        text = node[0] if isinstance(node, list) and node else node
        if isinstance(text, str) and text:
            return plain(text)
    return ""
