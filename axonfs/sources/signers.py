"""The signers of all schemes that a registry's URL may have, beside http and https.

Any thread.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path

from axonfs.http_client import Files, Signer
from axonfs.oci import OciSigner
from axonfs.oci.tokens import Host
from axonfs.s3 import S3Signer


class RegistrySigners:
    """One signer per scheme; `by_scheme` is for both HTTP clients.

    Args:
        ca_bundle: PEM file of the certificate authorities.
    """

    def __init__(self, ca_bundle: Path | None = None) -> None:
        self._s3 = S3Signer(ca_bundle)
        self._oci = OciSigner(ca_bundle)
        self.by_scheme: Mapping[str, Signer] = {"s3": self._s3, "oci": self._oci, "file": Files()}

    def learn(self, registries: Iterable[str], tokens: Mapping[str, str] | None = None) -> None:
        """Use the options in these URLs, and their tokens for OCI registries.

        Raises:
            UsageError: two of them contradict each other.
        """
        urls = tuple(registries)
        self._s3.learn(urls)
        self._oci.learn(urls, tokens)

    def oci_host(self, name: str) -> Host:
        """The log-ins of the OCI registry at this host."""
        return self._oci.host(name)
