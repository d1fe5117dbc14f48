"""The metadata of a model, from the front matter of README.md and from config.json.

Pure: takes the bytes of the two files. Both are optional and written by people, so malformed parts
count as missing.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from dataclasses import dataclass

from axonfs.errors import MalformedError
from axonfs.formats.safe_yaml import Node, parse_yaml
from axonfs.names import plain

MAX_DESCRIBING_BYTES = 1 << 20  # of README.md and config.json each
_FRONT_MATTER = re.compile(r"\A---[ \t]*\r?\n(.*?)^---[ \t]*\r?$", re.DOTALL | re.MULTILINE)
_HEADING = re.compile(r"^#{1,3}[ \t]+(.+?)[ \t]*#*$", re.MULTILINE)

# The first format with a matching file wins: a directory with safetensors files and an older
# pytorch_model.bin has the format safetensors.
_FORMATS = (
    ("safetensors", (".safetensors",)),
    ("gguf", (".gguf",)),
    ("onnx", (".onnx",)),
    ("pytorch", (".bin", ".pt", ".pth")),
    ("tensorflow", (".h5", ".pb", ".ckpt")),
    ("tflite", (".tflite",)),
    ("flax", (".msgpack",)),
)
_FRAMEWORK_OF = {"onnx": "onnx", "pytorch": "pytorch", "tensorflow": "tensorflow", "flax": "jax"}


@dataclass(frozen=True, slots=True)
class Description:
    """The metadata of a version; an empty text means unknown."""

    description: str = ""
    license: str = ""
    framework: str = ""
    format: str = ""
    tags: tuple[str, ...] = ()


def describe(paths: Iterable[str], readme: bytes, config: bytes) -> Description:
    """The metadata of a version with these `paths`.

    Args:
        readme, config: the content of README.md and config.json; empty if the file is missing.
    """
    text = readme.decode("utf-8", "replace")
    front, settings = _front_matter(text), _settings(config)
    form = format_of(paths)
    library = _text(front.get("library_name"))
    if not library and {"transformers_version", "model_type"} & settings.keys():
        library = "transformers"
    license_ = _text(front.get("license"))
    return Description(
        description=_text(front.get("description")) or _title(text),
        license=_text(front.get("license_name")) if license_ == "other" else license_,
        framework=library or _FRAMEWORK_OF.get(form, ""),
        format=form,
        tags=_tags(front, settings),
    )


def format_of(paths: Iterable[str]) -> str:
    """The format of the weights by their file names; empty if unknown."""
    names = [path.lower() for path in paths]
    for form, endings in _FORMATS:
        if any(name.endswith(endings) for name in names):
            return form
    return ""


def _front_matter(text: str) -> dict[str, Node]:
    match = _FRONT_MATTER.match(text.lstrip("\ufeff"))
    if not match:
        return {}
    try:
        node = parse_yaml(match.group(1).encode(), limit=MAX_DESCRIBING_BYTES)
    except MalformedError:
        return {}
    return node if isinstance(node, dict) else {}


def _settings(config: bytes) -> dict[str, object]:
    try:
        settings = json.loads(config)
    except (ValueError, RecursionError):
        return {}
    return settings if isinstance(settings, dict) else {}


def _title(text: str) -> str:
    match = _HEADING.search(_FRONT_MATTER.sub("", text, count=1))
    return plain(match.group(1)) if match else ""


def _tags(front: dict[str, Node], settings: dict[str, object]) -> tuple[str, ...]:
    texts = [
        *_texts(front.get("tags")),
        *_texts(front.get("pipeline_tag")),
        *_texts(settings.get("model_type")),
        *_texts(settings.get("architectures")),
    ]
    return tuple(dict.fromkeys(texts))


def _texts(value: object) -> list[str]:
    items = value if isinstance(value, list) else [value]
    return [text for text in map(_text, items) if text]


def _text(value: object) -> str:
    """`value` as one line of text. A license is sometimes a list with one item."""
    if isinstance(value, list) and len(value) == 1:
        value = value[0]
    return plain(value) if isinstance(value, str) else ""
