"""What a registry wants to know: its WWW-Authenticate field. Pure."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field

MAX_FIELD = 8192
_SCHEME = re.compile(r"[\s,]*([A-Za-z][A-Za-z0-9-]*)(?=[\s,]|$)")
_PARAMETER = re.compile(r'[\s,]*([A-Za-z][A-Za-z0-9_-]*)\s*=\s*("(?:[^"\\]|\\.)*"|[^\s,"]+)')


@dataclass(frozen=True, slots=True)
class Challenge:
    """One way to authenticate: `scheme` and the names of `parameters` are in lower case."""

    scheme: str
    parameters: Mapping[str, str] = field(default_factory=dict)

    def get(self, name: str) -> str:
        return self.parameters.get(name, "")


def parse_challenges(text: str | None) -> list[Challenge]:
    """The challenges of a WWW-Authenticate field, in its order; stops at what is malformed."""
    rest, found = (text or "")[:MAX_FIELD], list[Challenge]()
    while scheme := _SCHEME.match(rest):
        rest, parameters = rest[scheme.end() :], dict[str, str]()
        while parameter := _PARAMETER.match(rest):
            name, value = parameter.groups()
            parameters.setdefault(name.lower(), _unquoted(value))
            rest = rest[parameter.end() :]
        found.append(Challenge(scheme.group(1).lower(), parameters))
    return found


def chosen(text: str | None) -> Challenge | None:
    """The challenge to answer: a bearer token with a realm, else Basic; None for any other."""
    offered = parse_challenges(text)
    for challenge in offered:
        if challenge.scheme == "bearer" and challenge.get("realm"):
            return challenge
    return next((challenge for challenge in offered if challenge.scheme == "basic"), None)


def _unquoted(text: str) -> str:
    return re.sub(r"\\(.)", r"\1", text[1:-1]) if text.startswith('"') else text
