"""URLs of registries in object stores and of OCI registries, with what they say of the way there.

Below parsers.py, whose rule for messages applies: a ValueError completes a sentence that begins
with the URL. Pure.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from urllib.parse import parse_qsl, unquote, urlsplit

from axonfs.names import printable, valid_segment

# What an s3 URL may say of how to reach its bucket, by the names in the config file of AWS's tools.
# Those with words take one of them.
S3_OPTIONS: Mapping[str, tuple[str, ...]] = {
    "profile": (),
    "region": (),
    "endpoint_url": (),
    "addressing_style": ("path", "virtual", "auto"),
    "request_payer": ("requester",),
    "sse": ("AES256", "aws:kms", "aws:kms:dsse"),
    "sse_kms_key_id": (),
}
# What an oci URL may say of its registry: the name of its directory below oci/, other registries to
# read from first, and whether to use http (by default for this machine only).
OCI_OPTIONS: Mapping[str, tuple[str, ...]] = {
    "alias": (),
    "mirror": (),
    "plain_http": ("yes", "no"),
}
_BUCKET = re.compile(r"[a-zA-Z0-9][a-zA-Z0-9._-]{1,254}")
_OCI_HOST = re.compile(r"(?:[a-zA-Z0-9.-]+|\[[0-9a-fA-F:.]+\])(?::[0-9]{1,5})?")
_REPOSITORY = re.compile(r"[a-z0-9]+(?:(?:\.|__?|-+)[a-z0-9]+)*")


def s3_url(text: str) -> str:
    """The URL of a registry in a bucket, without a trailing slash."""
    parts = urlsplit(text)
    if not plain_url(text) or parts.fragment:
        raise ValueError("has spaces, a fragment, or characters that must be percent-encoded")
    if not _BUCKET.fullmatch(parts.netloc):
        raise ValueError("has no valid bucket; write s3://bucket/prefix")
    if {".", ".."}.intersection(unquote(parts.path).split("/")):
        raise ValueError("has . or .. in its path, which HTTP clients resolve")
    s3_options(parts.query)
    return f"s3://{parts.netloc}{parts.path}".rstrip("/") + (f"?{parts.query}" * bool(parts.query))


def s3_options(query: str) -> dict[str, str]:
    """The options in the query of an s3 URL."""
    found = dict(_options(query, S3_OPTIONS))
    if "endpoint_url" in found and not _is_endpoint(found["endpoint_url"]):
        raise ValueError("has an endpoint_url that is no http or https URL of a server")
    return found


def _is_endpoint(text: str) -> bool:
    """Whether it is the URL of a server, without credentials."""
    try:
        parts = urlsplit(text)
        plain = parts.port is None or parts.port > 0
    except ValueError:
        return False
    return plain and bool(
        parts.scheme in ("http", "https")
        and parts.hostname
        and "@" not in parts.netloc
        and not (parts.query or parts.fragment)
    )


def _options(query: str, known: Mapping[str, tuple[str, ...]]) -> list[tuple[str, str]]:
    try:
        found = parse_qsl(query, strict_parsing=True) if query else []
    except ValueError as exc:
        raise ValueError("has a malformed query; write ?name=value&name=value") from exc
    for name, text in found:
        if name not in known:
            raise ValueError(f"has an unknown option; options: {', '.join(known)}")
        if (words := known[name]) and text not in words:
            raise ValueError(f"has an invalid {name}; allowed: {', '.join(words)}")
    return found


def oci_url(text: str) -> str:
    """The URL of an OCI registry, without a trailing slash."""
    parts = urlsplit(text)
    if not plain_url(text) or parts.fragment:
        raise ValueError("has spaces, a fragment, or characters that must be percent-encoded")
    host = oci_host(parts.netloc)
    prefix = oci_repository(parts.path.strip("/"))
    oci_options(parts.query)
    url = f"oci://{host}/{prefix}".rstrip("/")
    return url + (f"?{parts.query}" * bool(parts.query))


def oci_host(text: str) -> str:
    """A registry's host, with its port if it has one."""
    if "@" in text:
        raise ValueError("has credentials in it; use `docker login`")
    if not (_OCI_HOST.fullmatch(text) and _is_reachable(text)):
        raise ValueError("has no valid host; write oci://host/prefix")
    return text.lower()


def _is_reachable(host: str) -> bool:
    """Whether the labels, the address and the port of a host are ones that can be connected to."""
    try:
        parts = urlsplit(f"//{host}")
        (parts.hostname or "").encode("idna")
        return parts.port is None or parts.port > 0
    except ValueError:
        return False


def oci_repository(text: str) -> str:
    """A repository's name, or a prefix of one; may be empty."""
    if text and not all(map(_REPOSITORY.fullmatch, text.split("/"))):
        hint = "lower-case letters, digits, and . _ - between them"
        raise ValueError(f"has '{printable(text)}', which is no name of a repository: {hint}")
    return text


def oci_options(query: str) -> list[tuple[str, str]]:
    """The options in the query of an oci URL; only `mirror` may be repeated."""
    found = _options(query, OCI_OPTIONS)
    for name, text in found:
        if name == "alias" and not valid_segment(text):
            raise ValueError(f"has an invalid alias '{printable(text)}'")
        if name == "mirror":
            host, _, prefix = text.partition("/")
            oci_host(host), oci_repository(prefix)
    single = [name for name, _ in found if name != "mirror"]
    if len(set(single)) < len(single):
        raise ValueError("has an option twice")
    return found


def oci_alias(url: str) -> str:
    """The name of a registry's directory below `oci/`: its host, unless the URL gives another."""
    parts = urlsplit(url)
    given = dict(oci_options(parts.query)).get("alias")
    bare = parts.netloc.lower().replace("[", "").replace("]", "")
    return given or bare.replace(":", "-").lstrip("-") or "local"


def plain_url(text: str) -> bool:
    """Whether a URL has only characters that it may have as they are."""
    return text.isascii() and text.isprintable() and " " not in text
