"""Proxies and certificate authorities.

Reads HTTP_PROXY, HTTPS_PROXY, ALL_PROXY, NO_PROXY, SSL_CERT_FILE and SSL_CERT_DIR once. Both
clients get the result, so they always agree. An invalid value fails only requests that use it.
"""

from __future__ import annotations

import os
import re
import ssl
from collections.abc import Mapping
from functools import cached_property
from ipaddress import (
    IPv4Address,
    IPv4Network,
    IPv6Address,
    IPv6Network,
    ip_address,
    ip_network,
)
from pathlib import Path

import certifi

from axonfs.descriptors import is_shortage
from axonfs.errors import UnavailableError
from axonfs.http_client.faults import fault
from axonfs.http_client.urls import Origin, Url, shown, split_url
from axonfs.names import printable


class Routes:
    """The proxy of each origin.

    Args:
        environ: environment variables. A name in lower case goes before the same name in upper
            case, even if its value is empty.
    """

    def __init__(self, environ: Mapping[str, str]) -> None:
        self._environ = dict(environ)
        self._direct = [Direct(text) for text in re.split(r"[\s,]+", self._value("no")[1]) if text]

    @classmethod
    def of_environment(cls) -> Routes:
        return cls(os.environ)

    def proxy(self, origin: Origin) -> Url | None:
        """The proxy to `origin`; None for a direct connection.

        Raises:
            UnavailableError: the variable's value is not a usable proxy.
        """
        if any(direct.matches(origin) for direct in self._direct):
            return None
        variable, text = self._value(origin.scheme)
        if not variable:
            variable, text = self._value("all")
        return _proxy(variable, text) if text else None

    def _value(self, scheme: str) -> tuple[str, str]:
        """The name and value of the variable for `scheme`; two empty texts if none is set."""
        names = [f"{scheme}_proxy", f"{scheme.upper()}_PROXY"]
        if scheme == "http" and "REQUEST_METHOD" in self._environ:
            names.pop()  # in a CGI script the client's header `Proxy` sets HTTP_PROXY (httpoxy)
        for name in names:
            if name in self._environ:
                return name, self._environ[name].strip()
        return "", ""


def _proxy(variable: str, text: str) -> Url:
    text = text if "://" in text else f"http://{text}"
    try:
        scheme = text.partition("://")[0].lower()
        if scheme != "http":
            raise ValueError(f"scheme {printable(scheme, 20)} is not supported, only http")
        url = split_url(text)
    except ValueError as exc:
        raise fault(
            UnavailableError,
            f"the proxy in {variable} cannot be used: {exc}",
            shown(text),
            hint=f"set {variable} to http://host:port, or list the host in NO_PROXY",
        ) from exc
    return url


class Direct:
    """One entry of NO_PROXY: `*`, a host with its subdomains, an address, or a network.

    A host or an address may be followed by a port: `host:8000`, `[::1]:8000`.
    """

    def __init__(self, text: str) -> None:
        self._every = text == "*"
        self._network = _network(text)
        host, _, port = text.rpartition(":")
        if not (port.isdecimal() and port.isascii()) or (":" in host and not host.endswith("]")):
            host, port = text, ""
        self._port = int(port) if port else None
        self._host = host.strip("[]").removeprefix("*").strip(".").lower()
        self._address = _address(self._host)

    def matches(self, origin: Origin) -> bool:
        """Whether connections to `origin` bypass the proxy."""
        if self._every:
            return True
        address, host = _address(origin.host), origin.host.rstrip(".").lower()
        if self._network:
            return address is not None and address in self._network
        if self._port not in (None, origin.port) or not self._host:
            return False
        if address or self._address:
            return address == self._address
        return host == self._host or host.endswith("." + self._host)


def _address(host: str) -> IPv4Address | IPv6Address | None:
    try:
        address = ip_address(host)
    except ValueError:
        return None
    return getattr(address, "ipv4_mapped", None) or address


def _network(text: str) -> IPv4Network | IPv6Network | None:
    """The network that `text` names in CIDR form, like `10.0.0.0/8` or `[fd00::]/8`, or None."""
    if "/" not in text:
        return None
    try:
        return ip_network(text.replace("[", "").replace("]", ""), strict=False)
    except ValueError:
        return None


class Trust:
    """The certificate authorities: `ca_bundle`, else SSL_CERT_FILE, else the system's.

    Certificates are always verified.
    """

    def __init__(self, ca_bundle: Path | None = None) -> None:
        self._variable = "ca_bundle" if ca_bundle else "SSL_CERT_FILE"
        self._named = str(ca_bundle) if ca_bundle else os.environ.get("SSL_CERT_FILE")

    @cached_property
    def context(self) -> ssl.SSLContext:
        """The TLS context, made at first use: to load a system's authorities takes 0.1 s.

        Raises:
            UnavailableError: the file cannot be read. (OpenSSL would ignore that.)
            OSError: descriptors or memory ran out.
        """
        context = self._load(self._named)
        if not self._named and not _system_has_authorities(context):
            context.load_verify_locations(cafile=certifi.where())
        context.set_alpn_protocols(["http/1.1"])
        return context

    def _load(self, named: str | None) -> ssl.SSLContext:
        try:
            return ssl.create_default_context(cafile=named or None)
        except OSError as exc:
            if is_shortage(exc):
                raise  # the file may be good
            what = f"the CA bundle in {self._variable} cannot be used: {exc.strerror or exc}"
            hint = f"{self._variable} must name a PEM file"
            raise fault(UnavailableError, what, named or "the system", hint=hint) from exc


def _system_has_authorities(context: ssl.SSLContext) -> bool:
    """Whether the system has a CA store; minimal container images have none."""
    if context.cert_store_stats()["x509_ca"]:
        return True
    # OpenSSL loads the certificates of a directory on demand, by the hash in their file names.
    return any(Path(ssl.get_default_verify_paths().openssl_capath).glob("*.0"))
