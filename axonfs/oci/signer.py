"""Turns oci URLs into requests to their registries, and reads what those answer.

`oci://host/v2/…` is asked at the host, or at one of its mirrors first. Blocking; any thread.
"""

from __future__ import annotations

import logging
import re
import threading
import time
from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from urllib.parse import urlsplit

from axonfs.errors import AxonError, NotFoundError, UsageError
from axonfs.http_client import Answer, Calls, Ends, Limits, Signed, Trust, split_url
from axonfs.names import printable
from axonfs.oci.credentials import Credentials, given_for
from axonfs.oci.faults import names_nothing, refusal, without_layer
from axonfs.oci.place import Place, is_local, place_of, repository_of
from axonfs.oci.tokens import Host

log = logging.getLogger(__name__)

# Seconds: a mirror is asked whether it answers, for this long at most, and not again before.
MIRROR_PATIENCE, MIRROR_CHECKED = 3.0, 5.0
# What a mirror said that it does not have is not asked of it again for this long.
MIRROR_LACKS = 60.0
KEPT = 4096
# What refers to a manifest: a mirror may have the manifest alone, or what referred to it earlier.
_REFERRERS = re.compile(r"/(?:referrers/sha256:|manifests/sha256-)[0-9a-f]{64}$")
ACCEPT = ", ".join(
    (
        "application/vnd.oci.image.manifest.v1+json",
        "application/vnd.oci.image.index.v1+json",
        "application/vnd.docker.distribution.manifest.v2+json",
        "application/vnd.docker.distribution.manifest.list.v2+json",
    )
)


class OciSigner:
    """The signer of all oci URLs of one process.

    Args:
        ca_bundle: PEM file of the certificate authorities.
    """

    def __init__(self, ca_bundle: Path | None = None) -> None:
        self._trust = Trust(ca_bundle)
        self._places: dict[str, Place] = {}  # by host
        self._hosts: dict[str, Host] = {}
        self._given: dict[str, dict[str, Credentials]] = {}  # by host and prefix
        self._mirrors: dict[str, _Mirror] = {}
        self._lock = threading.Lock()

    def learn(self, registries: Iterable[str], tokens: Mapping[str, str] | None = None) -> None:
        """Use the options in these URLs, and the tokens, which are `user:password`.

        Raises:
            UsageError: two of them reach one host in different ways.
        """
        for url in registries:
            if not url.startswith("oci:"):
                continue
            place = place_of(url)
            way = replace(place, prefix="", alias="")
            if self._places.setdefault(place.host, way) != way:
                what = f"{printable(place.host)} is used with other options already"
                hint = "registries at one host need the same mirror and plain_http"
                raise UsageError(what, hint=hint)
            given = self._given.setdefault(place.host, {})
            given.update(given_for(place.host, tokens or {}))

    def host(self, name: str) -> Host:
        """The registry at this host."""
        with self._lock:
            if name not in self._hosts:
                place = self._places.get(name)
                plain = place.plain_http if place else is_local(name)
                given = self._given.setdefault(name, {})
                self._hosts[name] = Host(name, self._trust, plain_http=plain, given=given)
            return self._hosts[name]

    def sign(self, url: str) -> Signed:
        parts = urlsplit(url)
        repository = repository_of(url)
        target = f"{parts.path}?{parts.query}" if parts.query else parts.path
        for mirror in self._mirrors_of(parts.netloc):
            if repository and not _REFERRERS.search(parts.path) and mirror.has(url):
                try:
                    return mirror.signed(target, repository)
                except AxonError as exc:  # it gives no token
                    log.info("mirror %s is not asked: %s", mirror.root, exc)
                    mirror.lacks(url)
        return _signed(self.host(parts.netloc), target, _scope(url))

    def refused(self, url: str, signed: Signed, answer: Answer, said: bytes) -> bool:
        parts = urlsplit(url)
        mirror = self._mirror_of(parts.netloc, signed)
        host = mirror.host if mirror else self.host(parts.netloc)
        scope = _scope(url, mirror.prefix if mirror else "")
        try:
            if answer.status == 401 and host.refused(scope, _used(signed), answer, said):
                return True
            if answer.status == 403:
                raise host.denied(scope, answer, said)
            if answer.status == 404 and "/blobs/sha256:" in url:
                raise without_layer(answer)
            if names_nothing(answer, said):
                raise answer.fault(NotFoundError, "the registry cannot have such a name")
            if answer.status in (400, 429):
                raise refusal(answer, said, "a request")
        except AxonError:
            if mirror is None:
                raise
        if mirror is None or answer.status < 400:
            return False
        mirror.lacks(url)
        return True

    def _mirrors_of(self, host: str) -> list[_Mirror]:
        place = self._places.get(host)
        return [self._mirror(name) for name in place.mirrors] if place else []

    def _mirror(self, name: str) -> _Mirror:
        if name not in self._mirrors:
            host, _, prefix = name.partition("/")
            made = _Mirror(self.host(host), prefix, self._trust)
            self._mirrors.setdefault(name, made)
        return self._mirrors[name]

    def _mirror_of(self, host: str, signed: Signed) -> _Mirror | None:
        """The mirror that got a request."""
        for mirror in self._mirrors_of(host):
            if str(signed.url).startswith(f"{mirror.root}/"):
                return mirror
        return None


class _Mirror:
    """A registry that has repositories of another one, below `prefix`."""

    def __init__(self, host: Host, prefix: str, trust: Trust) -> None:
        self.host = host
        self.prefix = f"{prefix}/" if prefix else ""
        self._trust = trust
        self._up = False
        self._checked = float("-inf")
        self._lacks: dict[str, float] = {}

    @property
    def root(self) -> str:
        return f"{self.host.root}/v2/{self.prefix}".rstrip("/")

    def has(self, url: str) -> bool:
        """Whether to ask it: it answers, and has not refused this URL lately."""
        now = time.monotonic()
        if now < self._lacks.get(url, float("-inf")) + MIRROR_LACKS:
            return False
        if now >= self._checked + MIRROR_CHECKED:
            self._up, self._checked = self._answers(), time.monotonic()
        return self._up

    def lacks(self, url: str) -> None:
        """Do not ask it for `url` for a while."""
        if len(self._lacks) >= KEPT:
            self._lacks.clear()
        self._lacks[url] = time.monotonic()

    def signed(self, target: str, repository: str) -> Signed:
        target = target.replace("/v2/", f"/v2/{self.prefix}", 1)
        return _signed(self.host, target, _pull(f"{self.prefix}{repository}"))

    def _answers(self) -> bool:
        """Whether it answers as a registry, and no web page stands before it."""
        try:
            limits = Limits().at_most(MIRROR_PATIENCE)
            with Calls(limits, self._trust, ends=Ends(2 * MIRROR_PATIENCE)) as calls:
                said = calls.send("GET", split_url(f"{self.host.root}/v2/"))
        except AxonError:
            return False
        return said.answer.status < 500 and said.body.lstrip()[:1] != b"<"


def _signed(host: Host, target: str, scope: str) -> Signed:
    headers = {"Accept": ACCEPT} if "/manifests/" in target else {}
    if value := host.authorization(scope):
        headers["Authorization"] = value
    return Signed(split_url(f"{host.root}{target}"), headers)


def _used(signed: Signed) -> str | None:
    return signed.headers.get("Authorization")


def _scope(url: str, prefix: str = "") -> str:
    """What a token for `url` must allow."""
    if repository := repository_of(url):
        return _pull(f"{prefix}{repository}")
    return "registry:catalog:*" if urlsplit(url).path == "/v2/_catalog" else ""


def _pull(repository: str) -> str:
    return f"repository:{repository}:pull"
