"""Addresses to listen on, as settings have them: `[ADDRESS:]PORT` or `unix:PATH`.

Beside parsers.py. Pure, except for paths.
"""

from __future__ import annotations

import re

from axonfs.settings.parsers import parse_path

UNIX = "unix:"
DEFAULT_HOST = "127.0.0.1"
_PORT = re.compile(r"(?:\[(?P<v6>[0-9A-Fa-f:.%\w]+)\]:|(?P<host>[\w.-]+):)?(?P<port>[0-9]{1,5})")


def parse_listening(value: object) -> str | None:
    """An address in its full form, like `127.0.0.1:9464`, `[::1]:9464` or `unix:/run/x.sock`; None
    for off."""
    text = "" if isinstance(value, bool) else str(value).strip()
    if value is None or value is False or text.lower() == "off":
        return None
    if text.startswith(UNIX):
        return UNIX + str(parse_path(text.removeprefix(UNIX)))
    found = _PORT.fullmatch(text)
    if not found or not 1 <= int(found["port"]) <= 65535:
        raise ValueError("is not [ADDRESS:]PORT, with an IPv6 address in brackets, or unix:PATH")
    host = f"[{found['v6']}]" if found["v6"] else found["host"] or DEFAULT_HOST
    return f"{host}:{int(found['port'])}"


def split_listening(address: str) -> tuple[str, int]:
    """Host and port of an address in its full form; the path and 0 of a Unix socket."""
    if address.startswith(UNIX):
        return address.removeprefix(UNIX), 0
    host, _, port = address.rpartition(":")
    return host.strip("[]"), int(port)
