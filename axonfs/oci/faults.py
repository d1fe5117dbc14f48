"""What a registry's refusal means, as an AxonError that says what to do. Pure."""

from __future__ import annotations

import json

from axonfs.errors import AccessDeniedError, AxonError, UnavailableError, VanishedError
from axonfs.http_client import Answer, shown
from axonfs.http_client.faults import fault
from axonfs.names import plain

MAX_TEXT = 200
_NO_NAME = ("NAME_INVALID", "NAME_UNKNOWN", "TAG_INVALID")


def said_of(body: bytes) -> str:
    """The code and the message of a registry's error, for people; empty if it has none.

    A proxy before it may answer in plain text.
    """
    if body[:1] not in (b"{", b"<"):
        return plain(body[:MAX_TEXT].decode("utf-8", "replace"))
    try:
        found = json.loads(body)
        first = found["errors"][0]
        return plain(": ".join(filter(None, (str(first.get("code") or ""), _message(first)))))
    except (ValueError, LookupError, TypeError, AttributeError, RecursionError):
        return ""


def _message(item: dict[str, object]) -> str:
    text = item.get("message")
    return text if isinstance(text, str) else ""


def denied(what: str, source: str, host: str, status: int, *, known: bool) -> AccessDeniedError:
    """The error for a registry that refuses a request.

    Args:
        known: whether the request was made with credentials.
    """
    hint = f"log in: docker login {host}"
    if known:
        hint = f"use an account that may do this: docker login {host}"
    error = AccessDeniedError(what, source=source, hint=hint)
    error.status = status
    return error


def refusal(answer: Answer, body: bytes, what: str) -> AxonError:
    """The error for an answer to a write that is not the expected one."""
    said = said_of(body)
    text = f"the registry answered {answer.status} to {what}" + (f" ({said})" if said else "")
    transient = answer.status >= 500 or answer.status in (408, 429)
    error = answer.fault(UnavailableError, text, transient=transient)
    error.hint = _advice(answer.status, said.partition(":")[0], transient=transient)
    return error


def _advice(status: int, code: str, *, transient: bool) -> str:
    if code == "NAME_UNKNOWN":
        return "create the repository first; this registry does not do it on its own"
    if code in ("BLOB_UNKNOWN", "MANIFEST_BLOB_UNKNOWN"):
        return "publish again; the registry has removed a part of it"
    if status == 413:
        return "a proxy takes only smaller requests; in nginx: client_max_body_size 0"
    if status == 429:
        return "try again later; with a log-in the limit may be higher"
    if transient:
        return "try again later"
    return "check the URL; ?plain_http=no or yes says whether to use TLS"


def names_nothing(answer: Answer, body: bytes) -> bool:
    """Whether the answer says that the registry cannot have such a name. Some say so of the
    directory above a repository."""
    return answer.status == 400 and said_of(body).partition(":")[0] in _NO_NAME


def without_layer(answer: Answer) -> VanishedError:
    """The error for a registry that lacks a blob which a manifest names."""
    what, hint = "the registry does not have the layer", "publish the model again"
    return fault(VanishedError, what, shown(answer.url), hint=hint)
