"""The table of hubs, by namespace, and their configuration.

To add a hub, write a subclass of HubSource in its own module and add one line here.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import NamedTuple

from axonfs.errors import UsageError
from axonfs.http_client.documents import Documents
from axonfs.names import HUBS
from axonfs.settings.parsers import parse_web_url
from axonfs.settings.settings import Settings
from axonfs.sources import huggingface, modelscope
from axonfs.sources.hub import HubSource
from axonfs.sources.huggingface import HuggingFace
from axonfs.sources.modelscope import ModelScope
from axonfs.sources.source import DocumentCache


class _Known(NamedTuple):
    kind: type[HubSource]
    variable: str
    endpoint: Callable[[], str]
    token: Callable[[], str | None]
    silenced: Callable[[], str | None] = lambda: None


_KNOWN = {
    "hf": _Known(
        HuggingFace,
        "HF_ENDPOINT",
        huggingface.endpoint,
        huggingface.token,
        huggingface.silenced,
    ),
    "modelscope": _Known(ModelScope, "MODELSCOPE_ENDPOINT", modelscope.endpoint, modelscope.token),
}
assert tuple(_KNOWN) == HUBS


def hub_tokens(settings: Settings, given: Mapping[str, str] | None = None) -> dict[str, str]:
    """The tokens of the hubs, by the hub's name; hubs without a token are left out.

    A token in this program's settings goes before one in `given` (by the hub's name), and that
    before the token of the hub's own client.
    """
    found = {}
    for name in settings.sources:
        known = _KNOWN[name]
        own = settings.token(known.endpoint().rstrip("/"))
        found[name] = own or (given or {}).get(name) or known.token()
    return {name: token for name, token in found.items() if token}


def configured(
    settings: Settings,
    documents: Documents,
    cache: DocumentCache | None,
    tokens: Mapping[str, str],
) -> dict[str, HubSource]:
    """The hubs in the setting `sources`. Sends nothing.

    Args:
        tokens: by the name of the hub.

    Raises:
        UsageError: an endpoint is not a URL.
    """
    hubs: dict[str, HubSource] = {}
    for name in settings.sources:
        known, endpoint = _KNOWN[name], endpoint_of(name)
        token, silenced = tokens.get(name), known.silenced()
        hubs[name] = known.kind(endpoint, documents, token, cache=cache, silenced=silenced)
    return hubs


def endpoint_of(name: str) -> str:
    """The URL of a hub.

    Raises:
        UsageError: its variable has no URL.
    """
    known = _KNOWN[name]
    try:
        return parse_web_url(known.endpoint())
    except ValueError as exc:
        raise UsageError(f"{known.variable} {exc}") from exc
