"""One way to reach a bucket: credentials, region and endpoint, from botocore.

botocore finds credentials as every AWS tool does: in the environment, in profile files, from a web
identity, from the role of a container or an instance; and it renews those that expire. Blocking;
any thread.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from axonfs.distro import install_extra
from axonfs.errors import UnsupportedError
from axonfs.s3.faults import translating
from axonfs.s3.place import Place

# Seconds. Credentials that are refused are looked for again, but not more often than this.
RENEW_INTERVAL = 5.0
CONNECT_TIMEOUT, READ_TIMEOUT = 10.0, 60.0
ATTEMPTS = 5
CONNECTIONS = 64


class Account:
    """The account that reaches the bucket of `place`.

    Args:
        ca_bundle: PEM file of the certificate authorities; by default botocore's.
    """

    def __init__(self, place: Place, ca_bundle: Path | None = None) -> None:
        self._place = place
        self._region = place.region
        self._verify = str(ca_bundle) if ca_bundle else os.environ.get("SSL_CERT_FILE")
        self._lock = threading.Lock()
        self._clients: dict[object, Any] = {}  # by tap; a renewal drops them
        self._keys: tuple[str, ...] = ()
        self._renewed = float("-inf")

    @property
    def anonymous(self) -> bool:
        """Whether no credentials were found."""
        return not self._keys

    def client(self) -> Any:
        """A client, for all threads.

        Raises:
            UnsupportedError: botocore is not installed.
            AxonError: AWS's settings are invalid.
        """
        return self.tapped_client(None)

    def tapped_client(self, tap: Callable[..., Any] | None) -> Any:
        """A client whose GetObject requests go to `tap`, if it is given, instead of the store."""
        with self._lock:
            if tap not in self._clients:
                self._clients[tap], self._keys = self._made(tap)
            return self._clients[tap]

    def renew(self, region: str | None = None) -> bool:
        """Look for credentials again; return whether there are other ones now.

        Args:
            region: the bucket's region, if the store has named it.
        """
        with self._lock:
            if region:
                changed, self._region = region != self._region, region
            elif time.monotonic() < self._renewed + RENEW_INTERVAL:
                return False
            else:
                self._renewed = time.monotonic()
                changed = self._session()[1] != self._keys
            if changed:
                self._clients.clear()
            return changed

    def _session(self) -> tuple[Any, tuple[str, ...]]:
        """What AWS's settings say now, and the credentials in them; without any, no request is
        signed."""
        _require(self._place.url)
        from botocore.session import Session

        with translating(self._place.url):
            session = Session(profile=self._place.profile or None)
            found = session.get_credentials()
            return session, tuple(filter(None, found.get_frozen_credentials())) if found else ()

    def _made(self, tap: Callable[..., Any] | None) -> tuple[Any, tuple[str, ...]]:
        session, keys = self._session()
        with translating(self._place.url):
            client = session.create_client(
                "s3",
                region_name=self._region or _region(session),
                endpoint_url=self._place.endpoint_url or None,
                verify=self._verify,
                config=self._config(session, bool(keys)),
            )
        if tap:
            client.meta.events.register("before-send.s3.GetObject", tap)
        return client, keys

    def _config(self, session: Any, has_keys: bool) -> Any:
        from botocore import UNSIGNED
        from botocore.config import Config

        given = dict((session.get_scoped_config() or {}).get("s3") or {})
        if self._place.addressing_style:
            given["addressing_style"] = self._place.addressing_style
        return Config(
            s3=given or None,
            signature_version=None if has_keys else UNSIGNED,
            connect_timeout=CONNECT_TIMEOUT,
            read_timeout=READ_TIMEOUT,
            max_pool_connections=CONNECTIONS,
            retries={"total_max_attempts": ATTEMPTS, "mode": "standard"},
            request_checksum_calculation="when_required",
            response_checksum_validation="when_required",
        )


def _region(session: Any) -> str:
    # AWS's newer tools read AWS_REGION, botocore only AWS_DEFAULT_REGION.
    found = session.get_config_variable("region") or os.environ.get("AWS_REGION")
    return str(found or "us-east-1")


def _require(url: str) -> None:
    if find_spec("botocore") is None:
        what = "registries in object stores need botocore, which is not installed"
        raise UnsupportedError(what, source=url, hint=install_extra("s3"))
