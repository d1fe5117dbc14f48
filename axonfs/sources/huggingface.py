"""The Hugging Face Hub, and other servers with its API, like mirrors: models/hf/<org>/<name>.

    api/models/<repo>/revision/<revision>          commit, license, tags, downloads, gated
    api/models/<repo>/refs                         branches and tags
    api/models/<repo>/tree/<commit>?recursive=true files, in pages that a Link header joins
    <repo>/resolve/<commit>/<path>                 bytes, mostly by a redirect to a signed URL
    api/models?search=

Files in LFS or Xet storage have a sha256; all other files have a git blob id. Trio only.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any
from urllib.parse import quote

from axonfs.errors import AccessDeniedError, MalformedError, UsageError
from axonfs.formats.listing import Listing
from axonfs.formats.manifest import MAX_FILES, FileEntry, git_digest
from axonfs.mounttable import leads_into, mountpoints
from axonfs.names import HUB_VIEW, check_git, is_commit, parse_spec, plain, printable
from axonfs.settings.homes import below_home, expanded
from axonfs.sources.hub import Commit, HubSource, described, parse_json, texts
from axonfs.units import unix_time

ENDPOINT = "https://huggingface.co"
FOUND = 50
_FORMATS = ("safetensors", "gguf", "onnx")


def endpoint() -> str:
    """The Hub's URL, from the variable of its own client."""
    return os.environ.get("HF_ENDPOINT") or ENDPOINT


def home() -> Path | None:
    """The directory of the Hub's own client; None for a user without a home directory."""
    if named := os.environ.get("HF_HOME"):
        return expanded(named)
    return below_home(".cache", "huggingface", variable="XDG_CACHE_HOME")


def token() -> str | None:
    """The token of the Hub's own client: from a variable, else from its token file."""
    named = os.environ.get("HF_TOKEN") or os.environ.get("HUGGING_FACE_HUB_TOKEN") or ""
    return named.strip() or _token_of_file()


def _token_of_file() -> str | None:
    own, named = home(), os.environ.get("HF_TOKEN_PATH")
    path = expanded(named) if named else own / "token" if own else None
    if path is None:
        return None
    try:
        return path.read_text(encoding="ascii").strip() or None
    except (OSError, UnicodeDecodeError):  # missing, or not readable for this user
        return None


def for_readers() -> bool:
    """Whether HF_HUB_CACHE and HF_HUB_OFFLINE are those of `axonfs env`.

    They tell the Hub's clients to read a mount, which may not be there yet, and are not meant for
    the mount itself.
    """
    named = os.environ.get("HF_HUB_CACHE") or os.environ.get("HUGGINGFACE_HUB_CACHE") or ""
    path = os.path.abspath(expanded(named))
    if Path(path).name != HUB_VIEW:
        return False
    return leads_into(path, mountpoints()) or not os.path.exists(path)


def silenced() -> str | None:
    """The variable that forbids the Hub's own client to send requests, if one does."""
    if for_readers():
        return None
    for name in ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE"):
        if value := os.environ.get(name):
            return name if value.upper() in ("1", "ON", "YES", "TRUE") else None
    return None


class HuggingFace(HubSource):
    """The Hub."""

    namespace = "hf"
    official = ENDPOINT
    default_branch = "main"
    token_variable = "HF_TOKEN"
    log_in = ", or log in with hf auth login"
    account_path = "api/whoami-v2"

    async def _commit(
        self, repo: str, revision: str, *, offline: bool = False, allow_stale: bool = False
    ) -> Commit | None:
        url = f"{self._api(repo)}/revision/{quote(revision, safe='')}"
        try:
            info = await self._kept_answer(repo, url, offline=offline, allow_stale=allow_stale)
        except AccessDeniedError as exc:
            # Without a token the Hub gives this answer for private and for missing models.
            if exc.code == "RepoNotFound":
                exc.spec = f"{self.namespace}/{repo}"
                exc.what = "no such model, or it is private"
                exc.hint = f"look for it with axonfs search --source hf, or {exc.hint}"
            raise
        return None if info is None else _commit_of(info, url)

    async def _refs(self, repo: str, *, offline: bool, allow_stale: bool) -> dict[str, str] | None:
        url = f"{self._api(repo)}/refs"
        found = await self._kept_answer(repo, url, offline=offline, allow_stale=allow_stale)
        if not isinstance(found, dict):
            return None
        # A branch goes before a tag of the same name, as in a URL of the Hub.
        listed = [item for kind in ("tags", "branches") for item in found.get(kind) or ()]
        return {
            str(item["name"]): item["targetCommit"]
            for item in listed
            if isinstance(item, dict) and "name" in item and is_commit(item.get("targetCommit"))
        }

    async def _files(self, repo: str, commit: str) -> list[FileEntry]:
        url: str | None = f"{self._api(repo)}/tree/{commit}?recursive=true"
        files: list[FileEntry] = []
        asked: set[str] = set()
        while url is not None:
            if url in asked or len(files) > MAX_FILES:
                raise MalformedError("the hub's list of files does not end", source=url)
            asked.add(url)
            page = await self._page(repo, url)
            with self._explaining(repo, url):
                files += _entries(parse_json(page.body))
                url = self._own(page.following) if page.following else None
        return files

    def _file_url(self, repo: str, commit: str, path: str) -> str:
        return f"{self._endpoint}/{repo}/resolve/{commit}/{quote(path, safe='/')}"

    def _account(self, answer: Any) -> str | None:
        name = answer.get("name") if isinstance(answer, dict) else None
        return name if isinstance(name, str) else None

    async def search(self, query: str) -> list[Listing]:
        url = f"{self._endpoint}/api/models?search={quote(query, safe='')}&limit={FOUND}"
        page = await self._page("", url)
        with self._explaining("", url):
            found = parse_json(page.body)
            if not isinstance(found, list):
                raise MalformedError("the hub's answer to a search is not a list")
            return [listing for item in found if (listing := _listing(item))]

    def _api(self, repo: str) -> str:
        return f"{self._endpoint}/api/models/{repo}"


def _commit_of(info: Any, url: str) -> Commit:
    if not isinstance(info, dict) or not is_commit(info.get("sha")):
        raise MalformedError("the hub's answer names no commit", source=url)
    tags = texts(info.get("tags"))
    return Commit(
        info["sha"],
        created=unix_time(info.get("lastModified")),
        license=_license(info, tags),
        framework=str(info.get("library_name") or ""),
        format=next((name for name in _FORMATS if name in tags), ""),
        tags=tags,
        facts=_facts(info),
    )


def _facts(info: dict[str, Any]) -> dict[str, str | int]:
    """Facts for `axonfs info`. `gated` is the Hub's own word (`auto`, `manual`), or `no`."""
    facts: dict[str, str | int] = {}
    for key in ("downloads", "likes"):
        if isinstance(info.get(key), int):
            facts[key] = info[key]
    gated = info.get("gated")
    if gated is not None:
        facts["gated"] = plain(gated) if isinstance(gated, str) else ("yes" if gated else "no")
    if isinstance(info.get("private"), bool):
        facts["private"] = "yes" if info["private"] else "no"
    if isinstance(info.get("pipeline_tag"), str):
        facts["task"] = plain(info["pipeline_tag"])
    return facts


def _license(info: dict[str, Any], tags: tuple[str, ...]) -> str:
    card = info.get("cardData")
    if isinstance(card, dict) and isinstance(card.get("license"), str):
        return str(card["license"])
    return next((tag.partition(":")[2] for tag in tags if tag.startswith("license:")), "")


def _entries(items: Any) -> list[FileEntry]:
    if not isinstance(items, list):
        raise MalformedError("the hub's list of files is not a list")
    return [_entry(item) for item in items if _is_file(item)]


def _is_file(item: Any) -> bool:
    if not isinstance(item, dict):
        raise MalformedError("an item in the hub's list of files is not a mapping")
    return item.get("type") == "file"


def _entry(item: dict[str, Any]) -> FileEntry:
    path, size, lfs = item.get("path"), item.get("size"), item.get("lfs")
    if isinstance(lfs, dict):
        size = lfs.get("size", size)
    if not isinstance(path, str) or not isinstance(size, int):
        raise MalformedError(f"a file without a path or a size: {printable(json.dumps(item))}")
    if isinstance(lfs, dict):
        return FileEntry(path, size, str(lfs.get("oid")).removeprefix("sha256:"))
    git = check_git(item.get("oid"))
    return FileEntry(path, size, git_digest(git), git=git)


def _listing(item: Any) -> Listing | None:
    """One search result; None if its name cannot be a path in the mount."""
    if not isinstance(item, dict):
        return None
    namespace, branch = HuggingFace.namespace, HuggingFace.default_branch
    try:
        spec = parse_spec(f"{namespace}/{item.get('id')}@{branch}")
    except UsageError:
        return None
    tags = texts(item.get("tags"))
    return Listing(
        spec,
        described(_facts(item)),
        plain(str(item.get("library_name") or "")),
        plain(_license(item, tags)),
        tuple(plain(tag) for tag in tags),
        published=unix_time(item.get("lastModified")),
    )
