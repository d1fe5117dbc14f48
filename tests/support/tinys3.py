"""A small S3 that serves a registry directory, and refuses requests as a test asks it to.

Real stores cannot be asked to let a signature expire. This one verifies no signature: it looks at
the access key alone.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from http import HTTPStatus
from pathlib import Path
from typing import NamedTuple

from axonfs.serve import RegistryHandler
from tests.support.registry import RegistryServer

BUCKET = "models"
_KEY = re.compile(r"Credential=([^/]+)/")


class Refusal(NamedTuple):
    """What the store answers in place of a file."""

    status: int
    code: str
    more: Mapping[str, str] = {}


class TinyS3(RegistryServer):
    """`refusal` gets the access key of each request, and its path; None answers the request."""

    def __init__(self, directory: Path) -> None:
        super().__init__(directory)
        self.refusal: Callable[[str, str], Refusal | None] = lambda key, path: None
        self.heads: list[dict[str, str]] = []

    def handler(self) -> type[RegistryHandler]:
        log, base = self, super().handler()

        class Handler(base):  # type: ignore[valid-type,misc]
            path: str

            def do_GET(self) -> None:  # noqa: N802
                match = _KEY.search(self.headers.get("Authorization", ""))
                self.path = self.path.removeprefix(f"/{BUCKET}")
                log.heads.append({name.lower(): text for name, text in self.headers.items()})
                refused = log.refusal(match.group(1) if match else "", self.path)
                if refused is None:
                    super().do_GET()
                    return
                body = f"<Error><Code>{refused.code}</Code></Error>".encode()
                status = HTTPStatus(refused.status)
                self.answer(status, body, "application/xml", more=refused.more)

            do_HEAD = do_GET  # noqa: N815

        return Handler
