"""ModelScope, by the API of its own client: models/modelscope/<org>/<name>.

    api/v1/models/<repo>                                          license, tags, downloads
    api/v1/models/<repo>/repo/files?Revision=&Recursive=true      files of a branch, tag or commit
    api/v1/models/<repo>/repo?Revision=&FilePath=                 bytes
    openapi/v1/models?search=

ModelScope names no commit for a branch. It lists each file with the commit that changed it last.
The latest of these commits contains all files as listed, so it is the version. Trio only.
"""

from __future__ import annotations

import json
import os
from typing import Any
from urllib.parse import quote

from axonfs.errors import AccessDeniedError, MalformedError, UsageError
from axonfs.formats.listing import Listing
from axonfs.formats.manifest import FileEntry
from axonfs.names import is_commit, parse_spec, plain, printable
from axonfs.sources.hub import Commit, HubSource, described, parse_json, texts

ENDPOINT = "https://modelscope.cn"
FOUND = 50
# A list of files is cut off at this number of entries, without a sign in the answer.
CUT_OFF = 3000


def endpoint() -> str:
    """ModelScope's URL, from the variables of its own client."""
    if named := os.environ.get("MODELSCOPE_ENDPOINT"):
        return named
    domain = os.environ.get("MODELSCOPE_DOMAIN", "").strip()
    return f"https://{domain}" if domain else ENDPOINT


def token() -> str | None:
    """The token from the variable of ModelScope's own client."""
    return os.environ.get("MODELSCOPE_API_TOKEN", "").strip() or None


class ModelScope(HubSource):
    """ModelScope."""

    namespace = "modelscope"
    official = ENDPOINT
    default_branch = "master"
    token_variable = "MODELSCOPE_API_TOKEN"
    account_path = "openapi/v1/users/me"

    def _credentials(self, token: str) -> dict[str, str]:
        # Older parts of ModelScope accept only the cookie.
        return {**super()._credentials(token), "Cookie": f"m_session_id={token}"}

    async def _commit(
        self, repo: str, revision: str, *, offline: bool = False, allow_stale: bool = False
    ) -> Commit | None:
        listed = await self._listing(repo, revision, offline=offline, allow_stale=allow_stale)
        if not listed:
            return None
        newest = max(listed, key=lambda item: item["CommittedDate"])
        url = f"{self._endpoint}/api/v1/models/{repo}"
        about = _data(await self._kept_answer(repo, url, offline=offline, allow_stale=allow_stale))
        return Commit(
            revision if is_commit(revision) else newest["Revision"],
            created=float(newest["CommittedDate"]),
            license=str(about.get("License") or ""),
            framework=next(iter(texts(about.get("Frameworks"))), ""),
            tags=texts(about.get("Tags")),
            facts=_facts(about),
        )

    async def _refs(self, repo: str, *, offline: bool, allow_stale: bool) -> dict[str, str] | None:
        return None  # ModelScope lists their names without their commits

    async def _files(self, repo: str, commit: str) -> list[FileEntry]:
        listed = await self._listing(repo, commit, allow_stale=True)
        return [FileEntry(str(item["Path"]), item["Size"], str(item["Sha256"])) for item in listed]

    async def _listing(
        self, repo: str, revision: str, *, offline: bool = False, allow_stale: bool = False
    ) -> list[dict[str, Any]]:
        """The files at `revision`; empty if the revision does not exist."""
        url = f"{self._endpoint}/api/v1/models/{repo}/repo/files"
        url += f"?Revision={quote(revision, safe='')}&Recursive=True"
        answer = await self._kept_answer(repo, url, offline=offline, allow_stale=allow_stale)
        with self._explaining(repo, url):
            items = _data(answer).get("Files") or []
            if not isinstance(items, list):
                raise MalformedError("the hub's list of files is not a list")
            if len(items) >= CUT_OFF:
                what = f"the hub cuts lists of files off at {CUT_OFF} files and folders"
                raise MalformedError(what)
            return [_checked(item) for item in items if _is_file(item)]

    def _file_url(self, repo: str, commit: str, path: str) -> str:
        query = f"Revision={commit}&FilePath={quote(path, safe='')}"
        return f"{self._endpoint}/api/v1/models/{repo}/repo?{query}"

    def _access(self, repo: str) -> str:
        return super()._access(f"models/{repo}")

    def _account(self, answer: Any) -> str | None:
        if isinstance(answer, dict) and answer.get("success") is False:
            raise AccessDeniedError("the hub does not know this token")
        data = answer.get("data") if isinstance(answer, dict) else None
        name = data.get("username") if isinstance(data, dict) else None
        return name if isinstance(name, str) else None

    async def search(self, query: str) -> list[Listing]:
        url = f"{self._endpoint}/openapi/v1/models?search={quote(query, safe='')}&page_size={FOUND}"
        page = await self._page("", url)
        with self._explaining("", url):
            data = parse_json(page.body)
            data = data.get("data") if isinstance(data, dict) else None
            found = data.get("models") if isinstance(data, dict) else None
            if not isinstance(found, list):
                raise MalformedError("the hub's answer to a search is not a list")
            return [hit for item in found if isinstance(item, dict) and (hit := _hit(item))]


def _data(answer: Any) -> dict[str, Any]:
    """The content of an answer's envelope; empty if it has none."""
    data = answer.get("Data") if isinstance(answer, dict) else None
    return data if isinstance(data, dict) else {}


def _is_file(item: Any) -> bool:
    if not isinstance(item, dict):
        raise MalformedError("an item in the hub's list of files is not a mapping")
    return item.get("Type") != "tree"


def _checked(item: dict[str, Any]) -> dict[str, Any]:
    whole = isinstance(item.get("Size"), int) and isinstance(item.get("CommittedDate"), int)
    if not whole or not is_commit(item.get("Revision")):
        raise MalformedError(f"a file without a size or a commit: {printable(json.dumps(item))}")
    return item


def _facts(about: dict[str, Any]) -> dict[str, str | int]:
    facts: dict[str, str | int] = {}
    for label, key in (("downloads", "Downloads"), ("likes", "Stars")):
        if isinstance(about.get(key), int):
            facts[label] = about[key]
    return facts


def _hit(item: dict[str, Any]) -> Listing | None:
    """One search result; None if its name cannot be a path in the mount."""
    try:
        spec = parse_spec(f"modelscope/{item.get('id')}@{ModelScope.default_branch}")
    except UsageError:
        return None
    facts = {key: item[key] for key in ("downloads",) if isinstance(item.get(key), int)}
    return Listing(
        spec,
        described(facts),
        license=plain(str(item.get("license") or "")),
        tags=tuple(plain(tag) for tag in texts(item.get("tags"))),
    )
