"""Where a registry is written, by its URL."""

from __future__ import annotations

from pathlib import Path

from axonfs.errors import UsageError
from axonfs.http_client import path_of, shown
from axonfs.settings.settings import Settings
from axonfs.storage import Directory, S3Storage, Storage


def storage_of(url: str, settings: Settings) -> Storage:
    """The storage of the registry at `url`.

    Raises:
        UsageError: it is reached by HTTP, which only reads.
    """
    if url.startswith("file:"):
        return Directory(Path(path_of(url)))
    if url.startswith("s3:"):
        return S3Storage(url, settings.ca_bundle)
    what = "a registry cannot be changed over HTTP"
    hint = "give the directory or the s3:// URL that its web server serves"
    raise UsageError(what, source=shown(url), hint=hint)
