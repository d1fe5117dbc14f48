"""What a reader gets of a job that made no progress for the deadline.

Pure; below runner.
"""

from __future__ import annotations

from collections.abc import Iterator

from axonfs.errors import AxonError, DeadlineError, UnavailableError
from axonfs.http_client import UP


def _causes(exc: BaseException | None) -> Iterator[BaseException]:
    """`exc`, and what it was raised from: each copy that names a place has one more cause."""
    while exc is not None:
        yield exc
        exc = exc.__cause__


def overdue(exc: AxonError, waited: float) -> AxonError:
    """What a reader gets after the deadline: ETIMEDOUT for silence, EIO for refusals."""
    silent = any(isinstance(one, DeadlineError | TimeoutError) for one in _causes(exc))
    kind = DeadlineError if silent else UnavailableError
    what = f"no progress for {waited:.0f} s; last: {exc.what}"
    error = kind(what, source=exc.source, hint=exc.hint or UP)
    error.__cause__ = exc
    return error
