"""Whether a refused document is missing or forbidden.

Storage without permission to list (S3 without ListBucket) answers 403 for missing objects. A wrong
token also leads to 403, and must not look like an empty registry. So while a registry has refused
every request, `denial` has the refusal. Trio only.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TypeVar

from axonfs.errors import AccessDeniedError, NotFoundError

T = TypeVar("T")

_NO_TOKEN = "to add a token: axonfs registry add URL --with-token"
_BAD_TOKEN = "to replace the token: axonfs registry add URL --with-token"


class Access:
    """How one registry has answered so far.

    `denial` is the last refusal, or None once the registry has answered a request.

    Args:
        has_token: whether requests carry credentials.
        signed: whether a signer adds them, which also says what to do about a refusal.
    """

    def __init__(self, *, has_token: bool, signed: bool = False) -> None:
        self._has_token = has_token or signed
        self._signed = signed
        self._readable = False
        self.denial: AccessDeniedError | None = None

    async def answered(self, request: Awaitable[T]) -> T:
        """Await a request, and note how the registry answered it."""
        try:
            answer = await request
        except AccessDeniedError as exc:
            exc.what = f"access denied: {exc.what}"
            if not self._signed:
                exc.hint = _BAD_TOKEN if self._has_token else _NO_TOKEN
            if not self._readable:
                self.denial = exc
            raise
        except NotFoundError:
            self._note_answer()
            raise
        self._note_answer()
        return answer

    async def optional(
        self, request: Awaitable[T | None], existed: Callable[[], Awaitable[bool]] | None = None
    ) -> T | None:
        """The answer to a request for an optional document; None if it is refused or missing.

        Args:
            existed: whether the document existed before. Then a refusal raises.

        Raises:
            AccessDeniedError: the registry does not accept the token, or no longer.
        """
        try:
            return await self.answered(request)
        except AccessDeniedError as exc:
            if not self.may_be_absent(exc) or (existed is not None and await existed()):
                raise
            return None

    def may_be_absent(self, exc: AccessDeniedError) -> bool:
        """Whether a refusal may mean "not found". A 401 to a request with a token means that the
        token is wrong."""
        return exc.status == 403 or not self._has_token

    def _note_answer(self) -> None:
        self._readable, self.denial = True, None
