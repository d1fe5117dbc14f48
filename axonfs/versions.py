"""Version constraints on the command line: an exact version, the latest, or the highest allowed.

Pure; `names` orders versions. Constraints have npm's syntax: `^1.2`, `~1.2`, `1.2.*`, `>=1.2 <2`.
Each has a character that no version may have, so a constraint is never mistaken for a version, and
`1.2` always means the version with that name. Paths in the mount have no constraints.
"""

from __future__ import annotations

import operator
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias

from axonfs.errors import UsageError
from axonfs.names import LATEST, Spec, parse_spec, printable, version_key, version_segment

# (numbers, whether a release, prerelease identifiers): what semver compares. The build is ignored.
Precedence: TypeAlias = "tuple[Any, ...]"

_TERM = re.compile(
    r"(?P<op>[<>]=?|[=^~])?\s*v?(?P<numbers>(?:[0-9]{1,18}|\*)(?:\.(?:[0-9]{1,18}|\*)){0,2})"
    r"(?P<prerelease>-[0-9A-Za-z.-]+)?(?:\+[0-9A-Za-z.-]+)?(?:\s*,\s*|\s+|$)"
)
_COMPARE: Mapping[str, Callable[[Precedence, Precedence], bool]] = {
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
}
_FORM = "write ^1.2, ~1.2, 1.2.* or '>=1.2 <2'"
MAX_TEXT = 200


@dataclass(frozen=True, slots=True)
class Constraint:
    """The versions that satisfy every bound.

    A prerelease matches only if a bound is a prerelease of the same three numbers: `>=1.0.0-rc.1`
    allows 1.0.0-rc.2 but not 2.0.0-alpha. Source: npm's node-semver.
    """

    text: str
    bounds: tuple[tuple[str, Precedence], ...]

    def __str__(self) -> str:
        return self.text

    def allows(self, version: str) -> bool:
        """Whether `version` satisfies the constraint; False if it is not a semantic version."""
        found = precedence(version)
        if found is None:
            return False
        if not found[1] and not any(
            not bound[1] and bound[0] == found[0] for _, bound in self.bounds
        ):
            return False
        return all(_COMPARE[sign](found, bound) for sign, bound in self.bounds)

    def highest(self, versions: Iterable[str]) -> str | None:
        """The highest version that the constraint allows, None if it allows none of them."""
        return max(filter(self.allows, versions), key=version_key, default=None)


def precedence(version: str) -> Precedence | None:
    """The parts of `version` that semver compares; None if it is a word such as `main`."""
    key = version_key(version)
    return key[1:4] if key[0] == 1 else None


def parse_constraint(text: str) -> Constraint:
    """Parse a constraint.

    Raises:
        UsageError: the text is not a constraint; the message shows the forms.
    """
    bounds: list[tuple[str, Precedence]] = []
    at, stripped = 0, text.strip()
    while at < len(stripped) <= MAX_TEXT:
        term = _TERM.match(stripped, at)
        if term is None:
            break
        bounds += _bounds(term["op"] or "=", term["numbers"], term["prerelease"] or "", text)
        at = term.end()
    if not stripped or at < len(stripped):
        raise _refused(text)
    return Constraint(stripped, tuple(bounds))


def _refused(text: str) -> UsageError:
    return UsageError(f"'{printable(text)}' is neither a version nor a constraint", hint=_FORM)


def _bounds(sign: str, given: str, prerelease: str, text: str) -> list[tuple[str, Precedence]]:
    """The bounds of one term. A number that is missing or `*` matches any number."""
    words = given.split(".")
    numbers = [int(word) for word in words[: words.index("*") if "*" in words else 3]]
    if (prerelease and len(numbers) < 3) or (not numbers and sign in ("<", ">")):
        raise _refused(text)
    if not numbers:
        return []
    low = precedence(".".join(map(str, _padded(numbers))) + prerelease)
    assert low is not None  # three numbers are a version
    last = len(numbers) - 1
    if sign == "^":
        changing = next((at for at, number in enumerate(numbers) if number), last)
        return [(">=", low), ("<", _after(numbers, changing))]
    if sign == "~":
        return [(">=", low), ("<", _after(numbers, min(last, 1)))]
    if sign in (">=", "<"):
        return [(sign, low)]
    if last == 2:
        return [(">=", low), ("<=", low)] if sign == "=" else [(sign, low)]
    after = _after(numbers, last)
    return {"=": [(">=", low), ("<", after)], ">": [(">=", after)], "<=": [("<", after)]}[sign]


def _padded(numbers: list[int]) -> tuple[int, ...]:
    return (*numbers, 0, 0)[:3]


def _after(numbers: list[int], at: int) -> Precedence:
    """The first release in which the number at position `at` is higher."""
    return (_padded([*numbers[:at], numbers[at] + 1]), 1, ())


@dataclass(frozen=True, slots=True)
class Wanted:
    """A spec as the user wrote it; `spec.version` is `latest` if there is a constraint."""

    spec: Spec
    constraint: Constraint | None = None

    @property
    def exact(self) -> bool:
        """Whether it names one version, so that no lookup is needed."""
        return self.constraint is None and self.spec.version != LATEST

    def __str__(self) -> str:
        return f"{self.spec.model}@{self.constraint}" if self.constraint else str(self.spec)


def parse_wanted(text: str) -> Wanted:
    """Parse `namespace/name`, with `@VERSION` or `@CONSTRAINT` or neither.

    Raises:
        UsageError: the text is neither; the message shows the form.
    """
    model, _, version = text.partition("@")
    # git allows branches that begin with these, but users mean a constraint.
    constrained = version.startswith(("<", ">", "="))
    if not constrained and (not version or version_segment(model.partition("/")[0], version)):
        return Wanted(parse_spec(text))
    return Wanted(parse_spec(model), parse_constraint(version))
