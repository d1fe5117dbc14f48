"""The options of the commands that sign versions, and the signer that they mean."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from axonfs.cli.options import LocalPath
from axonfs.cli.output import prompted
from axonfs.errors import UsageError

if TYPE_CHECKING:
    from axonfs.signatures.signing import Signer

F = TypeVar("F", bound=Callable[..., Any])
PASSWORD = "AXONFS_SIGN_PASSWORD"
MAX_PASSWORD_BYTES = 1024

_file = LocalPath("the file", exists=True, dir_okay=False)
_OPTIONS = (
    click.option(
        "--sign-key", metavar="FILE", type=_file, help="Sign with this private key (EC, PEM)."
    ),
    click.option(
        "--sign-cert", metavar="FILE", type=_file, help="The certificate of the key; PEM."
    ),
    click.option(
        "--sign-chain",
        metavar="FILE",
        multiple=True,
        type=_file,
        help="The certificates between it and the authority that others trust; may be given more"
        " than once.",
    ),
    click.option(
        "--sign-password-file",
        metavar="FILE",
        type=LocalPath("the file", exists=True, dir_okay=False, allow_dash=True),
        help="The password of the key: the first line of FILE, or of standard input for `-`. By"
        f" default it comes from {PASSWORD}, or a terminal asks for it.",
    ),
    click.option(
        "--sign-keyless",
        is_flag=True,
        help="Sign with an identity for which Sigstore vouches, without a key; this asks its"
        " servers.",
    ),
)


def signing_options(function: F) -> F:
    """The options from which `signer_of` makes a signer."""
    for option in reversed(_OPTIONS):
        function = option(function)
    return function


def signer_of(
    sign_key: Path | None,
    sign_cert: Path | None,
    sign_chain: tuple[Path, ...],
    sign_password_file: Path | None,
    sign_keyless: bool,
) -> Signer | None:
    """The signer that the options mean; None if they mean none.

    Raises:
        UsageError: they contradict each other, or a file is not what it should be.
        UnsupportedError: the library is not installed.
    """
    if sign_keyless and sign_key:
        raise UsageError("--sign-keyless and --sign-key exclude each other")
    if not sign_key and (sign_cert or sign_chain or sign_password_file):
        raise UsageError("a certificate and a password belong to a key", hint="add --sign-key FILE")
    if sign_chain and not sign_cert:
        raise UsageError("a chain belongs to a certificate", hint="add --sign-cert FILE")
    if not (sign_keyless or sign_key):
        return None
    from axonfs.signatures import require

    require()
    from axonfs.signatures.signing import key_signer, keyless_signer

    if sign_key is None:
        return keyless_signer()
    return key_signer(sign_key, lambda: _password(sign_password_file), sign_cert, sign_chain)


def _password(file: Path | None) -> bytes:
    """The password of an encrypted key.

    Raises:
        UsageError: there is none, and nobody to ask.
    """
    if file is not None:
        return _first_line(file)
    if (text := os.environ.get(PASSWORD)) is not None:
        return os.fsencode(text)
    if not sys.stdin.isatty():
        hint = f"set {PASSWORD}, or give --sign-password-file FILE"
        raise UsageError("the key needs a password, and there is no terminal", hint=hint)
    asked = prompted(lambda: click.prompt("password of the key", hide_input=True, err=True))
    return str(asked).encode()


def _first_line(file: Path) -> bytes:
    try:
        if str(file) == "-":
            return sys.stdin.buffer.readline(MAX_PASSWORD_BYTES).rstrip(b"\r\n")
        with file.open("rb") as opened:
            return opened.readline(MAX_PASSWORD_BYTES).rstrip(b"\r\n")
    except OSError as exc:
        raise UsageError(f"cannot read the password: {exc.strerror}", source=str(file)) from exc
