"""How one registry is asked: its origin, and the Authorization for each of its repositories.

A registry refuses the first request and says what it wants (`challenge`). A bearer token is then
requested from the server that it names, with the user's credentials if there are any, and used
until shortly before it expires. Blocking; any thread.
"""

from __future__ import annotations

import contextlib
import json
import threading
import time
from collections.abc import Mapping
from typing import Any, NamedTuple
from urllib.parse import quote, urlencode

from axonfs.errors import AccessDeniedError, AxonError, MalformedError, UnavailableError
from axonfs.http_client import Answer, Calls, Ends, Limits, Said, Trust, shown, split_url
from axonfs.names import printable
from axonfs.oci.challenge import Challenge, chosen
from axonfs.oci.credentials import DOCKER_HUB, Credentials, credentials_of
from axonfs.oci.faults import denied, said_of
from axonfs.oci.place import is_local

# Seconds. The default of the token specification, and how long before its end a token is renewed.
EXPIRES_IN, MARGIN = 60.0, 10.0
LONGEST = 30 * 86400.0
# Seconds: if a token is refused so soon that replaced a refused one, a third would be refused, too.
SETTLED = 10.0
# Seconds: the server of tokens is asked again only before this time has passed.
ATTEMPTS, PATIENCE = 3, 10.0
KEPT = 1024  # repositories
MAX_TOKEN = 64 << 10
CLIENT = "axonfs"


class _Grant(NamedTuple):
    """An Authorization; times are monotonic."""

    value: str
    made: float
    expires: float
    challenge: Challenge
    known: bool  # made with credentials
    second: bool = False  # it replaced one that was refused


class _Failure(NamedTuple):
    """Why the last Authorization could not be made, and when that was known (monotonic)."""

    scope: str
    at: float
    error: AxonError


class Host:
    """One registry, or one mirror.

    Args:
        name: its host, with a port if it has one.
        given: credentials that replace those of docker's files, by the prefix of the repositories
            that they are for; may change.
    """

    def __init__(
        self,
        name: str,
        trust: Trust,
        *,
        plain_http: bool,
        given: Mapping[str, Credentials] | None = None,
    ) -> None:
        self.name = name
        self._plain = plain_http
        self._server = "registry-1.docker.io" if name == DOCKER_HUB else name
        self._trust = trust
        self._given = {} if given is None else given
        self._grants: dict[str, _Grant] = {}  # by scope
        self._failure: _Failure | None = None
        self._locks: dict[str, threading.Lock] = {}  # by scope

    def __repr__(self) -> str:
        return f"<Host {self.name}>"

    @property
    def root(self) -> str:
        """The URL of the server."""
        return f"{'http' if self._plain else 'https'}://{self._server}"

    def authorization(self, scope: str) -> str | None:
        """The Authorization for `scope`; None if the registry has not asked for one.

        Raises:
            AxonError: the server of tokens refuses, or does not answer.
        """
        grant, asked = self._grants.get(scope), time.monotonic()
        if grant is None or asked < grant.expires:
            return grant.value if grant else None
        with self._turn(scope):
            current = self._grants.get(scope, grant)
            if current is grant:
                current = self._grant(grant.challenge, scope, asked)
            return current.value

    def refused(self, scope: str, used: str | None, answer: Answer, said: bytes) -> bool:
        """Whether to repeat a request that was answered by 401: there is another Authorization.

        Args:
            used: the Authorization of the request.

        Raises:
            AccessDeniedError: there is no better one.
        """
        asked = time.monotonic()
        with self._turn(scope):
            current = self._grants.get(scope)
            if current and current.value != used:
                return True
            challenge = chosen(answer.headers.get("www-authenticate"))
            settled = current and current.second and time.monotonic() < current.made + SETTLED
            if challenge is None or (settled and challenge.scheme == "bearer"):
                raise self._denied(answer, said, known=bool(current and current.known))
            made = self._grant(challenge, scope, asked, second=current is not None)
            if made.value == used:  # the same password as before
                raise self._denied(answer, said, known=made.known)
            return True

    def denied(self, scope: str, answer: Answer, said: bytes) -> AccessDeniedError:
        """The error for a request that was answered by 401 or 403."""
        current = self._grants.get(scope)
        return self._denied(answer, said, known=bool(current and current.known))

    def _denied(self, answer: Answer, said: bytes, *, known: bool) -> AccessDeniedError:
        text = said_of(said)
        what = f"access denied: the registry answered {answer.status}"
        what += f" ({text})" if text else ""
        return denied(what, shown(answer.url), self.name, answer.status, known=known)

    def _turn(self, scope: str) -> threading.Lock:
        """One thread at a time makes the Authorization for a scope."""
        return self._locks.setdefault(scope, threading.Lock())

    def _grant(
        self, challenge: Challenge, scope: str, asked: float, *, second: bool = False
    ) -> _Grant:
        """A new Authorization; it is the caller's turn, for which it waited since `asked`.

        Threads that waited for one that failed fail with it, or else each would wait as long.
        """
        last = self._failure
        if last and last.at > asked and (last.scope == scope or last.error.transient):
            raise last.error.located()
        try:
            return self._made(challenge, scope, second=second)
        except AxonError as exc:
            self._failure = _Failure(scope, time.monotonic(), exc)
            raise

    def _made(self, challenge: Challenge, scope: str, *, second: bool) -> _Grant:
        own = self._credentials(_repository(scope))
        if challenge.scheme == "basic":
            if own is None or own.identity:
                what = "access denied: the registry wants a user and a password"
                raise denied(what, f"oci://{self.name}", self.name, 401, known=False)
            value, seconds = own.basic, float("inf")
        else:
            value, seconds = self._token(challenge, scope, own)
        now = time.monotonic()
        until = now + max(seconds - MARGIN, seconds / 2)
        if len(self._grants) >= KEPT:
            self._grants.clear()
        made = _Grant(value, now, until, challenge, own is not None, second)
        self._grants[scope] = made
        return made

    def _credentials(self, repository: str) -> Credentials | None:
        for prefix in sorted(self._given, key=len, reverse=True):
            if not repository or repository.startswith(prefix):
                return self._given[prefix]
        return credentials_of(self.name, repository)

    def _token(
        self, challenge: Challenge, scope: str, own: Credentials | None
    ) -> tuple[str, float]:
        realm = challenge.get("realm")
        self._check_realm(realm)
        asked = {"service": challenge.get("service"), "scope": scope or challenge.get("scope")}
        query = {name: text for name, text in asked.items() if text}
        return _parsed(self._tried(realm, query, own), realm)

    def _tried(self, realm: str, query: Mapping[str, str], own: Credentials | None) -> Said:
        """The answer to a request for a token, repeated after a fault that may pass."""
        until = time.monotonic() + PATIENCE
        for attempt in range(1, ATTEMPTS):
            try:
                return self._answer(realm, query, own)
            except AxonError as exc:
                if not exc.transient or exc.retry_after or time.monotonic() >= until:
                    raise
            time.sleep(0.2 * attempt)
        return self._answer(realm, query, own)

    def _answer(self, realm: str, query: Mapping[str, str], own: Credentials | None) -> Said:
        limits = Limits().at_most(PATIENCE)
        with Calls(limits, self._trust, ends=Ends(2 * PATIENCE)) as calls:
            said = _asked(calls, realm, query, own)
        if said.answer.status != 200:
            raise self._no_token(said, realm, own)
        return said

    def _check_realm(self, realm: str) -> None:
        """A password goes to the server that the registry names, but never in the clear."""
        try:
            origin = split_url(realm).origin
        except ValueError as exc:
            what = f"the registry names no usable server of tokens: {printable(str(exc))}"
            raise MalformedError(what, source=self.root) from exc
        if not (origin.secure or self._plain or is_local(origin.authority)):
            what = f"the registry wants a log-in at {shown(realm)}, which is not encrypted"
            raise UnavailableError(what, source=self.root)

    def _no_token(self, said: Said, realm: str, own: Credentials | None) -> AxonError:
        status = said.answer.status
        text = said_of(said.body)
        what = f"the server of tokens answered {status}" + (f" ({text})" if text else "")
        if status in (400, 401, 403, 404):
            return denied(f"access denied: {what}", shown(realm), self.name, 401, known=bool(own))
        passing = status >= 500 or status in (408, 429)
        return said.answer.fault(UnavailableError, what, transient=passing)


def _repository(scope: str) -> str:
    """The repository in `repository:NAME:pull`; of several scopes, the first one's."""
    return scope.partition(" ")[0].partition(":")[2].rpartition(":")[0]


def _asked(calls: Calls, realm: str, query: Mapping[str, str], own: Credentials | None) -> Said:
    if own and own.identity:
        form = {**query, "grant_type": "refresh_token", "client_id": CLIENT}
        body = urlencode({**form, "refresh_token": own.identity}).encode()
        kind = {"Content-Type": "application/x-www-form-urlencoded"}
        return calls.send("POST", split_url(realm), kind, body, limit=MAX_TOKEN)
    # Several scopes are several parameters here, and one with spaces above.
    items = {**query, "scope": query.get("scope", "").split()}
    joined = urlencode(items, doseq=True, quote_via=quote, safe=":/,")
    url = f"{realm}{'&' if '?' in realm else '?'}{joined}"
    headers = {"Authorization": own.basic} if own else {}
    return calls.send("GET", split_url(url), headers, limit=MAX_TOKEN)


def _parsed(said: Said, realm: str) -> tuple[str, float]:
    """The Authorization in the answer of a server of tokens, and its seconds."""
    found: Any = None
    with contextlib.suppress(ValueError, RecursionError):
        found = json.loads(said.body)
    answer = found if isinstance(found, dict) else {}
    token, seconds = answer.get("token") or answer.get("access_token"), answer.get("expires_in")
    if not isinstance(token, str) or not (token.isascii() and token.isprintable()) or " " in token:
        what = "the server of tokens sent no token"
        raise MalformedError(what, source=shown(realm), hint="check the registry's URL")
    return f"Bearer {token}", _lifetime(seconds)


def _lifetime(seconds: object) -> float:
    """The seconds that a token is valid; where it says nothing usable, the default."""
    if isinstance(seconds, bool) or not isinstance(seconds, int | float) or not seconds > 0:
        return EXPIRES_IN
    return float(min(seconds, LONGEST))
