"""The URL of a registry in a bucket: `s3://bucket/prefix?option=value&…`.

The options have the names that AWS's own tools use in their config file. They say how to reach the
bucket and are no part of the registry's name: URLs of its files have none. Pure.
"""

from __future__ import annotations

from dataclasses import dataclass
from urllib.parse import quote, unquote, urlsplit

from axonfs.settings.store_urls import s3_options

_PLAIN = "/:=&~+!$,;'@()*"  # special characters that need no percent-encoding in a path


@dataclass(frozen=True, slots=True)
class Place:
    """A prefix in a bucket, and how to reach it; an empty option means the default.

    Args:
        prefix: empty, or ends with a slash.
    """

    bucket: str
    prefix: str = ""
    profile: str = ""
    region: str = ""
    endpoint_url: str = ""
    addressing_style: str = ""
    request_payer: str = ""
    sse: str = ""
    sse_kms_key_id: str = ""

    @property
    def url(self) -> str:
        """The URL without options."""
        return f"s3://{self.bucket}/{quote(self.prefix, safe=_PLAIN)}".rstrip("/")


def place_of(url: str) -> Place:
    """
    Raises:
        ValueError: an option is unknown.
    """
    bucket, key = bucket_and_key(url)
    prefix = key.rstrip("/") + "/" if key.strip("/") else ""
    return Place(bucket, prefix, **s3_options(urlsplit(url).query))


def bucket_and_key(url: str) -> tuple[str, str]:
    """The bucket and the key of an s3 URL of one file."""
    parts = urlsplit(url)
    return parts.netloc, unquote(parts.path).removeprefix("/")
