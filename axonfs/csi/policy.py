"""Which Kubernetes namespaces may have which models. Pure, but for the file.

The file is a list of rules. A pod may have a model if a rule fits its namespace and the model; if
any fitting rule asks for a token, it needs one, and if any refuses pins, it may have none. Without
a file every pod may have every model that the node's mount can read. Case does not matter: hubs
may find a model by another spelling of its name.
"""

from __future__ import annotations

import fnmatch
from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import Any

from axonfs.errors import UsageError
from axonfs.names import printable
from axonfs.settings.reading import read_mapping

ALL = "*"
_KEYS = {"namespaces", "models", "token", "pin"}
REQUIRED = "required"
REFUSED = "refused"


class Decision(Enum):
    """What a policy says; TOKEN allows it to those whose secret proves that they may read it."""

    ALLOWED, TOKEN, REFUSED = range(3)


@dataclass(frozen=True, slots=True)
class Rule:
    """Patterns of namespaces and of models, in which `*` stands for any characters.

    `token` says that the pod's secret has to prove that its owner may read the model (proof.py),
    `pin` that its volume may pin a version on the node.
    """

    namespaces: tuple[str, ...]
    models: tuple[str, ...]
    token: bool = False
    pin: bool = True

    def is_about(self, namespace: str) -> bool:
        """Whether it is about pods of `namespace`."""
        return _matches(namespace, self.namespaces)

    def fits(self, model: str) -> bool:
        """Whether it is about `model`."""
        return _matches(model, self.models)

    def covers(self, prefix: str) -> bool:
        """Whether it is about every model whose name begins with `prefix`."""
        return _matches(prefix, [pattern for pattern in self.models if pattern.endswith(ALL)])

    def touches(self, prefix: str) -> bool:
        """Whether it is about any model whose name could begin with `prefix`."""
        return any(
            _matches(prefix, [pattern[:cut] for cut in range(len(pattern) + 1)])
            for pattern in self.models
        )


def _matches(text: str, patterns: Sequence[str]) -> bool:
    return any(fnmatch.fnmatchcase(text.lower(), pattern.lower()) for pattern in patterns)


@dataclass(frozen=True, slots=True)
class Policy:
    """The rules; None allows everything."""

    rules: tuple[Rule, ...] | None = None

    def decide(self, namespace: str | None, model: str | None, *, below: bool = False) -> Decision:
        """Whether pods of `namespace` may have `model`.

        Args:
            namespace: None if it is not known.
            model: None stands for all models.
            below: whether the volume also shows the models whose names continue this one's, such
                as a/b/c for a/b. It then needs a token as soon as one of them does.
        """
        if self.rules is None:
            return Decision.ALLOWED
        about = [rule for rule in self.rules if namespace and rule.is_about(namespace)]
        prefix = None if model and not below else f"{model}/" if model else ""
        fitting = [rule for rule in about if model is None or rule.fits(model)]
        covering = [rule for rule in about if prefix is None or rule.covers(prefix)]
        if not fitting or not covering:
            return Decision.REFUSED
        touching = [rule for rule in about if prefix is not None and rule.touches(prefix)]
        asking = [*fitting, *touching]
        return Decision.TOKEN if any(rule.token for rule in asking) else Decision.ALLOWED

    def may_pin(self, namespace: str | None, model: str) -> bool:
        """Whether a volume of pods of `namespace` may pin versions of `model`."""
        about = [rule for rule in self.rules or () if namespace and rule.is_about(namespace)]
        return all(rule.pin for rule in about if rule.fits(model))


def read_policy(path: Path | None) -> Policy:
    """
    Raises:
        UsageError: the file is missing or invalid.
    """
    if path is None:
        return Policy()
    if not path.exists():
        raise UsageError("the policy file does not exist", source=str(path))
    document = read_mapping(path)
    rules = document.get("rules")
    if set(document) != {"rules"} or not isinstance(rules, list):
        raise UsageError("is not a mapping with one key, rules, and a list", source=str(path))
    try:
        return Policy(tuple(map(_rule, rules)))
    except ValueError as exc:
        raise UsageError(str(exc), source=str(path)) from exc


def _rule(item: Any) -> Rule:
    if not isinstance(item, dict) or not {"namespaces", "models"} <= set(item) <= _KEYS:
        what = "a rule has namespaces and models, and may have token and pin"
        raise ValueError(f"{what}: {_shown(item)}")
    token = _one_of("token", item.get("token", "optional"), REQUIRED, "optional")
    pin = _one_of("pin", item.get("pin", "allowed"), "allowed", REFUSED)
    patterns = _patterns(item["namespaces"]), _patterns(item["models"])
    return Rule(*patterns, token=token == REQUIRED, pin=pin != REFUSED)


def _one_of(key: str, value: Any, *words: str) -> str:
    if value not in words:
        raise ValueError(f"{key}: {_shown(value)} is neither {' nor '.join(words)}")
    return str(value)


def _patterns(value: Any) -> tuple[str, ...]:
    patterns: Sequence[Any] = value if isinstance(value, list) else [value]
    for pattern in patterns:
        if not isinstance(pattern, str) or not pattern:
            raise ValueError(f"{_shown(pattern)} is not a pattern")
    return tuple(patterns)


def _shown(value: object) -> str:
    return printable(str(value), 200)
