"""The names of layers that name no file: models of Docker Model Runner and of Ollama. Pure.

Their layers say by the media type what they are. The names are those that Docker Model Runner gives
to its files.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

_DOCKER = "application/vnd.docker.ai."
_OLLAMA = "application/vnd.ollama.image."
_NAMES = {
    f"{_DOCKER}gguf.v3": "model.gguf",
    f"{_DOCKER}safetensors": "model.safetensors",
    f"{_DOCKER}dduf": "model.dduf",
    f"{_DOCKER}mmproj": "model.mmproj",
    f"{_DOCKER}chat.template.jinja": "template.jinja",
    f"{_DOCKER}license": "LICENSE",
    f"{_OLLAMA}model": "model.gguf",
    f"{_OLLAMA}projector": "model.mmproj",
    f"{_OLLAMA}adapter": "adapter.gguf",
    f"{_OLLAMA}template": "template",
    f"{_OLLAMA}system": "system",
    f"{_OLLAMA}params": "params.json",
    f"{_OLLAMA}messages": "messages.json",
    f"{_OLLAMA}license": "LICENSE",
}


def names_of(media_types: Sequence[str]) -> list[str]:
    """The name of each layer, in their order; empty for an unknown media type.

    Layers of one type are numbered, as the parts of a model are: `model-00001-of-00003.gguf`.
    """
    named = [_NAMES.get(kind, "") for kind in media_types]
    totals, seen = Counter(named), Counter[str]()
    found: list[str] = []
    for name in named:
        seen[name] += 1
        found.append(_part(name, seen[name], totals[name]))
    return found


def _part(name: str, number: int, total: int) -> str:
    if not name or total == 1:
        return name
    stem, dot, ending = name.partition(".")
    return f"{stem}-{number:05}-of-{total:05}{dot}{ending}"
