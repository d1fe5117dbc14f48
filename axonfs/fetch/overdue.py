"""What a reader gets of a job that made no progress for the deadline.

Pure; below runner.
"""

from __future__ import annotations

from axonfs.errors import AxonError, DeadlineError, UnavailableError
from axonfs.http_client import UP
from axonfs.http_client.blame import silent


def overdue(exc: AxonError, waited: float) -> AxonError:
    """What a reader gets after the deadline: ETIMEDOUT for silence, EIO for refusals."""
    kind = DeadlineError if silent(exc) else UnavailableError
    what = f"no progress for {waited:.0f} s; last: {exc.what}"
    error = kind(what, source=exc.source, hint=exc.hint or UP)
    error.__cause__ = exc
    return error
