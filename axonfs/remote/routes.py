"""Where a connection goes first, and whom it trusts: proxies and certificate authorities.

Reads the environment (HTTP_PROXY, HTTPS_PROXY, ALL_PROXY, NO_PROXY, SSL_CERT_FILE, SSL_CERT_DIR)
once; both clients are given the result, so they never disagree.
"""

from __future__ import annotations

import os
import ssl
import urllib.request
from collections.abc import Mapping
from functools import cached_property
from pathlib import Path

import certifi

from axonfs.errors import UsageError
from axonfs.remote.urls import Origin, Url, parse_url, shown


class Routes:
    """Which proxy each origin is reached through.

    Args:
        proxies: by scheme (`http`, `https`, `all`), `no` for what is reached directly; as
            urllib.request has them.

    Raises:
        UsageError: a proxy that cannot be used.
    """

    def __init__(self, proxies: Mapping[str, str]) -> None:
        self._proxies = {
            scheme: _proxy(scheme, text)
            for scheme, text in proxies.items()
            if scheme in ("http", "https", "all") and text
        }
        self._direct = {"no": proxies.get("no", "")}

    @classmethod
    def of_environment(cls) -> Routes:
        return cls(urllib.request.getproxies_environment())

    def proxy(self, origin: Origin) -> Url | None:
        """The proxy to `origin`, None where it is asked directly."""
        found = self._proxies.get(origin.scheme) or self._proxies.get("all")
        return None if found is None or self._is_direct(origin) else found

    def _is_direct(self, origin: Origin) -> bool:
        place = f"{origin.host}:{origin.port}"
        return bool(urllib.request.proxy_bypass(place, self._direct))


def _proxy(scheme: str, text: str) -> Url:
    try:
        url = parse_url(text if "://" in text else f"http://{text}")
        if url.origin.secure:
            raise ValueError("https scheme, only http proxies are spoken to")
    except ValueError as exc:
        raise UsageError(
            f"{scheme}_proxy cannot be used: {exc}",
            source=shown(text if "://" in text else f"http://{text}"),
            hint="set it to http://host:port, or list the registry's host in NO_PROXY",
        ) from exc
    return url


class Trust:
    """Certificates are always verified: against `ca_bundle`, else SSL_CERT_FILE, else the system's.

    Raises:
        UsageError: the file cannot be read; OpenSSL would trust nobody and not say why.
    """

    def __init__(self, ca_bundle: Path | None = None) -> None:
        self._named = str(ca_bundle) if ca_bundle else os.environ.get("SSL_CERT_FILE")
        if self._named:
            _ = self.context  # a file that is no good is said now, not at the first connection

    @cached_property
    def context(self) -> ssl.SSLContext:
        """Made when it is first needed: a system's authorities take 0.1 s to load."""
        context = self._load(self._named)
        if not self._named and not _system_has_authorities(context):
            context.load_verify_locations(cafile=certifi.where())
        context.set_alpn_protocols(["http/1.1"])
        return context

    def _load(self, named: str | None) -> ssl.SSLContext:
        try:
            return ssl.create_default_context(cafile=named or None)
        except OSError as exc:
            what = f"the CA bundle cannot be used: {exc.strerror or exc}"
            hint = "SSL_CERT_FILE must name a PEM file"
            raise UsageError(what, source=named, hint=hint) from exc


def _system_has_authorities(context: ssl.SSLContext) -> bool:
    """Minimal images have no CA store at all."""
    if context.cert_store_stats()["x509_ca"]:
        return True
    # OpenSSL looks certificates of a directory up one by one, by the hash in their names.
    return any(Path(ssl.get_default_verify_paths().openssl_capath).glob("*.0"))
