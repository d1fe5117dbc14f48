"""Whether a registry that refuses a document denies access to it, or does not have it.

Storage that lists nothing to strangers (S3 without ListBucket) answers 403 for what is not there.
A wrong token brings 403 as well, and must not look like an empty registry: as long as every answer
was a refusal, `denial` reports it. Trio only.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TypeVar

from axonfs.errors import AccessDeniedError, NotFoundError

T = TypeVar("T")

_NO_TOKEN = "if it needs a token: axonfs registry add URL --with-token"
_BAD_TOKEN = "its token may be wrong: axonfs registry add URL --with-token sets another"


class Access:
    """How one registry answered so far.

    Args:
        has_token: whether credentials are sent along.

    `denial` is the last refusal while there was no other answer.
    """

    def __init__(self, *, has_token: bool) -> None:
        self._has_token = has_token
        self._readable = False
        self.denial: AccessDeniedError | None = None

    async def heard(self, asked: Awaitable[T]) -> T:
        """Await a request, and note how the registry answered."""
        try:
            found = await asked
        except AccessDeniedError as exc:
            exc.what = f"access denied: {exc.what}"
            exc.hint = _BAD_TOKEN if self._has_token else _NO_TOKEN
            if not self._readable:
                self.denial = exc
            raise
        except NotFoundError:
            self._told()
            raise
        self._told()
        return found

    async def optional(
        self, asked: Awaitable[T | None], known: Callable[[], Awaitable[bool]] | None = None
    ) -> T | None:
        """The outcome of a request for a document that need not exist; None if it is refused.

        Args:
            known: whether it did exist, so that it is refused now and not absent.

        Raises:
            AccessDeniedError: the token is not accepted, or no longer.
        """
        try:
            return await self.heard(asked)
        except AccessDeniedError as exc:
            if not self.may_be_absent(exc) or (known is not None and await known()):
                raise
            return None

    def may_be_absent(self, exc: AccessDeniedError) -> bool:
        """Whether a refusal may mean that nothing is there. A 401 to a token is about the token."""
        return exc.status == 403 or not self._has_token

    def _told(self) -> None:
        self._readable, self.denial = True, None
