"""The base class of hubs: repositories of files, with commits, branches and tags.

A hub has no manifests. When a commit is first looked up, its list of files becomes a manifest of
kind Snapshot, which is kept like any other manifest. A commit never changes, so its snapshot never
changes either. Each hub is a subclass in a module that knows the hub's API: docs/sources.md.

    model     namespace/name or namespace/org/name, with the hub's own `namespace`
    version   a commit
    base      <namespace>://<repository>@<commit>/, for every endpoint of the hub

`parse_manifest` checks the hub's answers like the manifest of a registry. Trio only.
"""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import trio

from axonfs.errors import (
    AccessDeniedError,
    DeadlineError,
    MalformedError,
    NotFoundError,
    OfflineError,
    UnavailableError,
    naming,
)
from axonfs.formats import leftout
from axonfs.formats.chunktable import ChunkTable
from axonfs.formats.listing import Listing, Versions
from axonfs.formats.manifest import SNAPSHOT, FileEntry, Manifest, parse_manifest, render_manifest
from axonfs.formats.package import Package
from axonfs.http_client.documents import Documents
from axonfs.http_client.fetched import Fetched
from axonfs.http_client.location import Location
from axonfs.http_client.urls import shown, target_of
from axonfs.names import LATEST, Spec, is_commit, plain, revision_of, revision_segment
from axonfs.sources.kept import KeptDocuments
from axonfs.sources.source import DocumentCache

MAX_ANSWER_BYTES = 32 << 20


@dataclass(frozen=True, slots=True)
class Commit:
    """A commit as the hub describes it; `facts` has properties that may change later, by label."""

    id: str
    created: float
    license: str
    framework: str
    tags: tuple[str, ...]
    facts: Mapping[str, str | int]
    format: str = ""


class HubSource(ABC):
    """The hub at `endpoint`; implements `axonfs.sources.source.Hub`.

    Args:
        token: sent to the endpoint's own origin only.
        cache: answers of earlier runs, for use while the hub is down or must not be asked.
        silenced: the environment variable that forbids requests to this hub, if one is set.
    """

    namespace: str
    official: str  # the official endpoint, whose answers mirrors copy
    default_branch: str
    token_variable: str
    log_in = ""  # the end of a hint: another way to set a token, if the hub's client has one
    account_path: str  # names the account of a token, and refuses an invalid token

    def __init__(
        self,
        endpoint: str,
        documents: Documents,
        token: str | None = None,
        *,
        cache: DocumentCache | None = None,
        silenced: str | None = None,
    ) -> None:
        root = target_of(endpoint)
        self.url = str(root).rstrip("/") + "/"
        self.name = root.origin.authority + root.target.rstrip("/")
        self._endpoint = self.url.rstrip("/")
        self._origin = root.origin
        self._secrets = {**root.credentials, **(self._credentials(token) if token else {})}
        self.silenced = silenced
        self._documents = documents
        self._kept = KeptDocuments(documents, cache, self._secrets)

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.url}>"

    @property
    def has_token(self) -> bool:
        """Whether requests carry a token."""
        return bool(self._secrets)

    def _credentials(self, token: str) -> dict[str, str]:
        return {"Authorization": f"Bearer {token}"}

    @abstractmethod
    async def _commit(
        self, repo: str, revision: str, *, offline: bool = False, allow_stale: bool = False
    ) -> Commit | None:
        """The commit of `revision` now; None if the hub says that it does not exist."""

    @abstractmethod
    async def _refs(self, repo: str, *, offline: bool, allow_stale: bool) -> dict[str, str] | None:
        """The branches and tags with their commits; None if the hub does not list them."""

    @abstractmethod
    async def _files(self, repo: str, commit: str) -> list[FileEntry]:
        """All files of a commit; sizes, digests and paths are not checked here."""

    @abstractmethod
    def _file_url(self, repo: str, commit: str, path: str) -> str:
        """The URL for the bytes of a file."""

    @abstractmethod
    def _account(self, answer: Any) -> str | None:
        """The name of the account in the answer at `account_path`."""

    @abstractmethod
    async def search(self, query: str) -> list[Listing]:
        """The results of the hub's own search, in the hub's order."""

    @property
    def denial(self) -> AccessDeniedError | None:
        """None: a hub refuses single models, not all requests."""
        return None

    async def listings(
        self, *, offline: bool = False, allow_stale: bool = False
    ) -> list[Listing] | None:
        """None: a hub has too many models to list."""
        return None

    async def versions(
        self, model: str, *, offline: bool = False, allow_stale: bool = False
    ) -> Versions | None:
        """The commits of branches and tags."""
        repo = repo_of(model)
        if repo is None:
            return None
        # The same request as in `alias`, so both use the same kept answer for the default branch.
        newest = await self._commit(
            repo, self.default_branch, offline=offline, allow_stale=allow_stale
        )
        try:
            refs = await self._refs(repo, offline=offline, allow_stale=allow_stale) or {}
        except AccessDeniedError:
            if newest is None:
                raise
            refs = {}
        except (UnavailableError, DeadlineError):
            if not allow_stale:
                raise
            refs = {}
        if newest is not None:
            refs = {**refs, self.default_branch: newest.id}
        if not refs:
            self._check_silence()
            return None
        named = ((revision_segment(name), commit) for name, commit in refs.items())
        usable = {segment: commit for segment, commit in named if segment}
        commits = tuple(sorted(set(usable.values())))
        return Versions(commits, usable.get(self.default_branch), usable)

    async def alias(
        self, spec: Spec, *, offline: bool = False, allow_stale: bool = False
    ) -> str | None:
        """The commit that the version of `spec` names; None if it does not exist."""
        repo = repo_of(spec.model)
        if repo is None:
            return None
        if is_commit(spec.version):
            return spec.version
        latest = spec.version == LATEST
        revision = self.default_branch if latest else revision_of(spec.version)
        found = await self._commit(repo, revision, offline=offline, allow_stale=allow_stale)
        if found is None:
            self._check_silence()
        return found.id if found else None

    async def models(self) -> list[str] | None:
        """None: a hub has too many models to list."""
        return None

    async def facts(self, spec: Spec, *, offline: bool = False) -> Mapping[str, str | int]:
        """Properties of a model beside its files, like downloads, by label."""
        repo = repo_of(spec.model)
        found = repo and await self._commit(
            repo, self.default_branch, offline=offline, allow_stale=True
        )
        return found.facts if found else {}

    async def manifest(self, spec: Spec) -> tuple[Manifest, str] | None:
        """A snapshot of the commit in `spec`; None if the hub does not have it."""
        repo = repo_of(spec.model)
        if repo is None or not is_commit(spec.version):
            return None
        commit = await self._commit(repo, spec.version)
        if commit is None:
            self._check_silence()
            return None
        files = await self._files(repo, spec.version)
        manifest = await trio.to_thread.run_sync(_snapshot, spec, commit, files)
        leftout.warn(spec, manifest.left_out)
        return manifest, f"{self.namespace}://{repo}@{spec.version}/"

    async def account(self) -> str | None:
        """The name of the token's account; None if the hub has no accounts.

        Raises:
            AccessDeniedError: no token is set, or the hub refuses it.
            AxonError: the hub does not answer.
        """
        url = f"{self._endpoint}/{self.account_path}"
        try:
            name = self._account(parse_json((await self._page("", url)).body))
        except (NotFoundError, MalformedError):  # a mirror without accounts
            return None
        return name and plain(name)

    async def signatures(self, base: str, spec: Spec, limit: int) -> bytes | None:
        """None: hubs have no signatures."""
        return None

    async def table(self, base: str, entry: FileEntry) -> ChunkTable | None:
        """None: hubs have no chunk tables."""
        return None

    def allows_unverified(self, base: str) -> bool:
        """False: hubs have a digest for every file."""
        return False

    def locate(self, base: str, entry: FileEntry) -> Location:
        """The location of a file's bytes; `base` belongs to this hub.

        Raises:
            OfflineError: a variable forbids requests to the hub.
        """
        self._check_silence()
        repo, _, commit = base.removeprefix(f"{self.namespace}://").rstrip("/").rpartition("@")
        return Location(
            self._file_url(repo, commit, entry.path),
            self._secrets,
            signed=True,
            access=self._access(repo),
        )

    def locate_package(self, base: str, package: Package) -> list[Location]:
        """Empty: hubs have no packages."""
        return []

    def _check_silence(self) -> None:
        if self.silenced:
            what = f"not in the cache, and {self.silenced} forbids requests to the hub"
            raise OfflineError(what, source=self.url)

    def _access(self, repo: str) -> str:
        """The hint for a user whose access is denied."""
        page = f"{self._endpoint}/{repo}"
        if self._secrets:
            return f"use a token of an account that may read the model: see {page}"
        token = f"set {self.token_variable} to a token of yours{self.log_in}"
        when = "a mount reads it when it starts"
        if self.log_in:
            when += ", and a log-in at axonfs restart"
        return f"ask for access at {page}, then {token}; {when}"

    async def _kept_answer(self, repo: str, url: str, *, offline: bool, allow_stale: bool) -> Any:
        """The JSON at `url`, requested now or kept from before; None if it does not exist."""
        offline = offline or self.silenced is not None
        with self._explaining(repo, url):
            return await self._kept.get(
                url, MAX_ANSWER_BYTES, parse_json, offline=offline, allow_stale=allow_stale
            )

    def _own(self, url: str) -> str:
        """A URL from the hub's answer, changed to the endpoint, for a request with the token.

        A mirror may copy answers with URLs of the official hub, and a hub behind a proxy may write
        http for https. Both mean the endpoint.

        Raises:
            MalformedError: the URL is on another host.
        """
        target, mine = target_of(url), self._origin
        if target.origin == mine:
            return url
        if target.origin == target_of(self.official).origin:
            return self._endpoint + target.target
        if target.origin.authority == mine.authority == mine.host and mine.secure:
            return f"https://{mine.authority}{target.target}"
        raise MalformedError(
            f"the next page of the list is on another host than {mine.authority}", source=shown(url)
        )

    async def _page(self, repo: str, url: str) -> Fetched:
        """One document, which is not kept."""
        self._check_silence()
        with self._explaining(repo, url):
            fetched = await self._documents.get(
                url, limit=MAX_ANSWER_BYTES, headers=self._secrets, check=parse_json
            )
            assert fetched is not None  # no ETag was sent
            return fetched

    def _explaining(self, repo: str, url: str) -> naming:
        return naming(source=shown(url), denied=self._access(repo))


def repo_of(model: str) -> str | None:
    """The repository of a model, without the hub's namespace; None if the name is invalid."""
    repo = model.partition("/")[2]
    return repo if repo and repo.count("/") <= 1 else None


def parse_json(body: bytes) -> Any:
    """
    Raises:
        MalformedError: it is not JSON.
    """
    try:
        return json.loads(body)
    except (ValueError, RecursionError) as exc:
        raise MalformedError("the hub's answer is not JSON") from exc


def texts(items: object) -> tuple[str, ...]:
    """The strings in a list; skips other items. Empty if `items` is not a list."""
    return tuple(item for item in items if isinstance(item, str)) if isinstance(items, list) else ()


def described(facts: Mapping[str, str | int]) -> str:
    """A search result in a few words. Hubs have these facts instead of a description."""
    words = [str(facts[key]) for key in ("task",) if key in facts]
    if "downloads" in facts:
        words.append(f"{facts['downloads']} downloads")
    if facts.get("gated", "no") != "no":
        words.append("gated")
    return ", ".join(words)


def _snapshot(spec: Spec, commit: Commit, files: list[FileEntry]) -> Manifest:
    usable, left_out = leftout.usable_files(files)
    made = Manifest(
        spec,
        tuple(usable),
        license=commit.license,
        framework=commit.framework,
        format=commit.format,
        tags=commit.tags,
        created=commit.created,
        kind=SNAPSHOT,
        left_out=leftout.printable_paths(left_out),
    )
    return parse_manifest(render_manifest(made), spec)
