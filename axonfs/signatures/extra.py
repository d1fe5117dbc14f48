"""Whether the library that signs and verifies is installed."""

from __future__ import annotations

from importlib.util import find_spec

from axonfs.distro import install_extra
from axonfs.errors import UnsupportedError


def require() -> None:
    """
    Raises:
        UnsupportedError: it is not.
    """
    if find_spec("model_signing") is None or find_spec("OpenSSL") is None:
        what = "signatures need model-signing, which is not installed"
        raise UnsupportedError(what, hint=install_extra("sign"))
