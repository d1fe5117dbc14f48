"""Where a registry is written, by its URL."""

from __future__ import annotations

from pathlib import Path

from axonfs.errors import UsageError
from axonfs.http_client import Limits, Trust, path_of, shown
from axonfs.settings.settings import Settings
from axonfs.storage import Directory, HttpStorage, S3Storage, Storage


def storage_of(url: str, settings: Settings) -> Storage:
    """The storage of the registry at `url`.

    Raises:
        UsageError: it is an OCI registry, which has other files.
    """
    refuse_oci(url)
    if url.startswith("file:"):
        return Directory(Path(path_of(url)))
    if url.startswith("s3:"):
        return S3Storage(url, settings.ca_bundle)
    limits = Limits.within(settings.deadline, settings.retries)
    return HttpStorage(url, settings.token(url), limits, Trust(settings.ca_bundle))


def refuse_oci(url: str) -> None:
    """
    Raises:
        UsageError: it is the URL of an OCI registry.
    """
    if url.startswith("oci:"):
        what = "this command does not work on an OCI registry"
        hint = "axonfs publish and axonfs registry copy do"
        raise UsageError(what, source=shown(url), hint=hint)
