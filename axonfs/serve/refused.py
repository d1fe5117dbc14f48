"""A request that the server does not carry out: the status and the text of its answer."""

from __future__ import annotations

from http import HTTPStatus


class RefusedError(Exception):
    """Raised before any byte of the answer.

    Args:
        what: one clause for the user of the client.
        retry_after: the seconds after which the client may try again.
    """

    def __init__(self, status: HTTPStatus, what: str, *, retry_after: int | None = None) -> None:
        super().__init__(what)
        self.status = status
        self.what = what
        self.retry_after = retry_after
