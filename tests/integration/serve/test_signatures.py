"""Signatures of publishers at the same time, over HTTP."""

from __future__ import annotations

import contextlib
from pathlib import Path

import pytest

from axonfs.errors import AxonError
from axonfs.formats.layout import manifest_key, signatures_key
from axonfs.formats.manifest import parse_manifest
from axonfs.names import parse_spec
from axonfs.publish import publish
from axonfs.publish.signatures import checked
from axonfs.serve import Access, Tokens
from axonfs.storage import HttpStorage
from axonfs.storage.storage import Content
from tests.integration.serve.publishing.sending import LIMITS
from tests.integration.serve.test_access import running_with, token
from tests.support.registry import SPEC, make_model
from tests.support.signing import UnverifiedSigner

SIGNATURES = signatures_key(parse_spec(SPEC))


@pytest.mark.parametrize("same", [True, False])
def test_who_signs_too_late_learns_what_is_published(tmp_path: Path, *, same: bool) -> None:
    tokens, registry = tmp_path / "server-tokens.yaml", tmp_path / "registry"
    secret = token(tokens, "ci", publish="nlp")
    registry.mkdir()
    models = [make_model(tmp_path / f"{n}", {"a": 1000}, seed=0 if same else n) for n in (0, 1)]

    class Overtaken(HttpStorage):
        """The version is published after this one has looked, just before it signs."""

        def replace(self, key: str, body: bytes, before: Content | None) -> bool:
            if key == SIGNATURES and before is None:
                storage = HttpStorage(self.name, secret, LIMITS)
                publish(models[1], parse_spec(SPEC), storage, tags=["x"], signer=signer)  # type: ignore[arg-type]
            return super().replace(key, body, before)

    signer = UnverifiedSigner()
    with running_with(registry, Access(Tokens(tokens))) as server:
        storage = Overtaken(server.url, secret, LIMITS)
        refused = pytest.raises(AxonError, match="already published with other files")
        with contextlib.nullcontext() if same else refused:
            done = publish(models[0], parse_spec(SPEC), storage, signer=signer)  # type: ignore[arg-type]
            assert done.already
    manifest = parse_manifest((registry / manifest_key(parse_spec(SPEC))).read_bytes())
    assert len(checked((registry / SIGNATURES).read_bytes(), manifest)) == 1
