"""What a store's refusal means: its code, as an AxonError that says what to do.

The same for the answers that http_client gets and for botocore's exceptions. Pure.
"""

from __future__ import annotations

import contextlib
import re
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from typing import Any, Self

from axonfs.errors import (
    AccessDeniedError,
    AxonError,
    DeadlineError,
    NotFoundError,
    UnavailableError,
)
from axonfs.names import printable

CREDENTIALS = (
    "give credentials as for the AWS tools: AWS_PROFILE, AWS_ACCESS_KEY_ID with"
    " AWS_SECRET_ACCESS_KEY, or a role"
)
EXPIRED = frozenset(
    {
        "ExpiredToken",
        "ExpiredTokenException",
        "InvalidToken",
        "RequestExpired",
        "TokenRefreshRequired",
    }
)
WRONG = frozenset({"InvalidAccessKeyId", "SignatureDoesNotMatch", "InvalidSecurity"})
SKEWED = frozenset({"RequestTimeTooSkewed", "RequestInTheFuture"})
ELSEWHERE = frozenset(
    {
        "AuthorizationHeaderMalformed",
        "IllegalLocationConstraintException",
        "PermanentRedirect",
        "TemporaryRedirect",
    }
)
ARCHIVED = "InvalidObjectState"  # such as S3 Glacier's
TRANSIENT = frozenset({"InternalError", "RequestTimeout", "ServiceUnavailable", "SlowDown"})
_TAG = r"<{0}>\s*([^<]{{1,500}}?)\s*</{0}>"
_CODE, _MESSAGE, _REGION = (
    re.compile(_TAG.format(name).encode()) for name in ("Code", "Message", "Region")
)


class RefusedError(AxonError):
    """A condition of a write does not hold. If the request was `repeated`, the first one may have
    been carried out, and its answer lost."""

    repeated = False


@dataclass(frozen=True, slots=True)
class Refusal:
    """An answer that is not what was asked for.

    Args:
        code: the store's word for the fault; empty if the answer has none.
        region: the bucket's region, if the answer names it.
        date: the store's clock, as in HTTP's Date header.
    """

    status: int
    code: str
    message: str
    region: str
    date: str

    @classmethod
    def of_body(cls, status: int, headers: Mapping[str, str], said: bytes) -> Self:
        """The refusal in an answer; the names of `headers` are in lower case."""
        region = headers.get("x-amz-bucket-region") or _first(_REGION, said)
        date = headers.get("date", "")
        return cls(status, _first(_CODE, said), _first(_MESSAGE, said), region, date)

    @classmethod
    def of_response(cls, response: Mapping[str, Any]) -> Self:
        """The refusal in a botocore ClientError."""
        error, meta = response.get("Error", {}), response.get("ResponseMetadata", {})
        headers = meta.get("HTTPHeaders", {})
        status, code = int(meta.get("HTTPStatusCode", 0)), str(error.get("Code", ""))
        code = "" if code.isdecimal() else code  # answers to HEAD have no body
        region = headers.get("x-amz-bucket-region", "")
        return cls(status, code, str(error.get("Message", "")), region, headers.get("date", ""))

    @property
    def absent(self) -> bool:
        """Whether the file does not exist."""
        return self.status in (404, 410) and self.code != "NoSuchBucket"

    @property
    def denied(self) -> bool:
        """Whether other credentials may help."""
        return self.code in EXPIRED | WRONG or (self.status == 403 and self.code not in SKEWED)

    @property
    def refused(self) -> bool:
        """Whether a condition of the request did not hold."""
        return self.status in (409, 412)

    def error(self, source: str, *, anonymous: bool) -> AxonError | None:
        """The error to raise; None if the HTTP status alone says what it means.

        Args:
            source: the s3 URL.
            anonymous: whether the request had no signature.
        """
        if self.code in SKEWED | EXPIRED | WRONG:
            return self._credentials(source)
        bucket = printable(source.removeprefix("s3://").partition("/")[0])
        if self.code == "NoSuchBucket":
            hint = "check its name, the endpoint and the region"
            return _made(UnavailableError, f"there is no bucket '{bucket}'", source, hint)
        if self.code in ELSEWHERE:
            what = f"the bucket is in another region or at another endpoint ({self.code})"
            return _made(UnavailableError, what, source, "set AWS_REGION, or ?region= in the URL")
        if self.code == ARCHIVED:
            hint = "restore it there first"
            return _made(
                UnavailableError, "the store has moved the file into an archive", source, hint
            )
        if self.status in (401, 403):
            hint = CREDENTIALS if anonymous else "the account's policy does not allow it"
            what = f"the store answered {self.status} ({self._refused or 'without a code'})"
            return _denied(what, source, hint, self.status)
        if self.absent or not self.code:
            return None
        text = printable(f"{self.code}: {self.message}")
        error = _made(UnavailableError, f"the store answered {self.status} ({text})", source)
        error.status, error.overloaded = self.status, self.code == "SlowDown"
        error.transient = self.status >= 500 or self.code in TRANSIENT
        return error

    @property
    def _refused(self) -> str:
        """The store's code, and what it says of the permission that lacks: of its own KMS, too."""
        return f"{self.code}: {printable(self.message)}" if "arn:" in self.message else self.code

    def _credentials(self, source: str) -> AxonError:
        """The error for credentials that never may read anything: the status is 401, since a 403
        may also mean that a file does not exist."""
        if self.code in SKEWED:
            what = f"this machine's clock {_skew(self.date)} the store's ({self.code})"
            return _denied(what, source, "set the clock, best by NTP")
        if self.code in EXPIRED:
            hint = "renew them; a mount reads profile files again, but not its environment"
            return _denied(f"the AWS credentials have expired ({self.code})", source, hint)
        what = f"the store refuses the AWS credentials ({self.code})"
        return _denied(what, source, CREDENTIALS)


@contextlib.contextmanager
def translating(source: str, *, anonymous: bool = False, bucket: bool = False) -> Iterator[None]:
    """Turn botocore's exceptions into AxonErrors.

    Args:
        source: the s3 URL.
        bucket: the request is for the bucket itself: a 404 means that it does not exist, and a 403
            is ignored.
    """
    from botocore.exceptions import BotoCoreError, ClientError

    try:
        yield
    except ClientError as exc:
        refusal = Refusal.of_response(exc.response)
        if bucket and refusal.status == 404:
            refusal = Refusal(404, "NoSuchBucket", "", "", "")
        if refusal.refused:
            what = f"the file has changed ({refusal.code})"
            conflict = RefusedError(what, source=source, hint="try again")
            conflict.repeated = bool(exc.response["ResponseMetadata"].get("RetryAttempts"))
            raise conflict from exc
        error = refusal.error(source, anonymous=anonymous)
        if bucket and refusal.status == 403 and not refusal.code:
            return
        if error is None:
            kind = NotFoundError if refusal.absent else UnavailableError
            hint = "check that the endpoint is that of an object store"
            error = _made(kind, f"the store answered {refusal.status} without a code", source, hint)
            error.status = refusal.status
        raise error from exc
    except (BotoCoreError, ValueError) as exc:
        raise unsent(exc, source) from exc


def unsent(exc: Exception, source: str) -> AxonError:
    """The error for a request that botocore could not make, or that got no answer."""
    name, text = type(exc).__name__, printable(" ".join(str(exc).split()))
    if name == "SSLError":
        hint = "for a private certificate authority: axonfs config set ca_bundle PEM"
        return _made(UnavailableError, f"no connection over TLS: {text}", source, hint)
    if "Timeout" in name:
        return _made(DeadlineError, text, source, "check that the store answers")
    if "Connection" in name:
        return _made(UnavailableError, text, source, "check the endpoint and the network")
    if "Credential" in name or "Token" in name or name == "ProfileNotFound":
        return _denied(f"no usable AWS credentials: {text}", source, CREDENTIALS)
    return _made(UnavailableError, text or name, source, "check the AWS settings and the URL")


def _first(pattern: re.Pattern[bytes], said: bytes) -> str:
    match = pattern.search(said)
    return match.group(1).decode("utf-8", "replace") if match else ""


def _made(kind: type[AxonError], what: str, source: str, hint: str | None = None) -> AxonError:
    return kind(what, source=source, hint=hint)


def _denied(what: str, source: str, hint: str, status: int = 401) -> AxonError:
    error = _made(AccessDeniedError, what, source, hint)
    error.status = status
    return error


def _skew(date: str) -> str:
    try:
        seconds = time.time() - parsedate_to_datetime(date).timestamp()
    except ValueError:
        return "differs from"
    return f"is {abs(seconds):.0f} s {'ahead of' if seconds > 0 else 'behind'}"
