"""The setting `require_signature`: by whom versions have to be signed.

Each item is a rule `[SCOPE=]SIGNER`. SIGNER is

    /etc/axonfs/team.pub                          a PEM file with a public key, or with certificates
                                                  of an authority: any certificate that it issued
    alice@example.org,/etc/axonfs/ca.pem          a certificate of that authority with this identity
    alice@example.org,https://accounts.google.com a Sigstore identity, and who vouches for it
    none                                          versions need no signature

SCOPE is a model or what its name begins with, `nlp/` or `nlp/llama`, or the URL of a registry;
without it the rule is for all versions. A path has neither `=` nor a comma in it. Pure, except for
paths; reads no file.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace

from axonfs.names import Spec, valid_segment
from axonfs.settings.parsers import InvalidItemError, parse_path, parse_registry_url

NONE = "none"
_REGISTRIES = ("http://", "https://", "s3://", "file://")


@dataclass(frozen=True, slots=True)
class TrustedSigner:
    """Who may sign: the `authority` is the path of a PEM file, or the URL of an OpenID issuer."""

    authority: str
    identity: str = ""

    @property
    def keyless(self) -> bool:
        """Whether Sigstore vouches for the identity."""
        return self.authority.startswith("https://")

    def __str__(self) -> str:
        return f"{self.identity},{self.authority}" if self.identity else self.authority


# Signers of whom one has to have signed; none: no signature is needed.
Signers = tuple[TrustedSigner, ...]


@dataclass(frozen=True, slots=True)
class SignatureRules:
    """The rules by their scope: models, URLs of registries, and those for all versions."""

    models: dict[str, Signers] = field(default_factory=dict)
    registries: dict[str, Signers] = field(default_factory=dict)
    everywhere: Signers = ()

    @classmethod
    def of(cls, items: Iterable[str]) -> SignatureRules:
        """The rules that `parse_signature_rules` returned."""
        found: dict[str, list[TrustedSigner]] = {}
        for item in items:
            scope, signer = _split(item)
            found.setdefault(scope, []).extend([signer] if signer else [])
        rules = {scope: tuple(signers) for scope, signers in found.items()}
        everywhere = rules.pop("", ())
        urls = {scope: signers for scope, signers in rules.items() if ":" in scope}
        models = {scope: signers for scope, signers in rules.items() if ":" not in scope}
        return cls(models, urls, everywhere)

    def spelled(self, spelling: Callable[[str], str]) -> SignatureRules:
        """The same rules with the URLs of registries as `spelling` writes them: without the default
        port, for example. Otherwise a rule would be for no registry."""
        registries: dict[str, Signers] = {}
        for url, signers in self.registries.items():
            key = _plain(spelling(url))
            registries[key] = (*registries.get(key, ()), *signers)
        return replace(self, registries=registries)

    def __bool__(self) -> bool:
        return bool(self.models or self.registries or self.everywhere)

    @property
    def signers(self) -> set[TrustedSigner]:
        """Everybody whom a rule names."""
        groups = (*self.models.values(), *self.registries.values(), self.everywhere)
        return {signer for group in groups for signer in group}

    def required(self, spec: Spec, base: str, registries: Sequence[str]) -> list[Signers]:
        """The groups of signers; one of each group has to have signed `spec`.

        The rule with the longest model applies, else that of the registry, else the one for all.
        What a hub or an OCI registry has needs a rule for its models, or the one for all.

        Args:
            base: the URL below which the version was found. A registry may redirect to any other
                URL. So if it is not one of `registries`, the rules of all of them apply together.
        """
        segments = spec.segments
        for depth in range(len(segments) - 1, 0, -1):
            if (group := self.models.get("/".join(segments[:depth]))) is not None:
                return [group] if group else []
        urls = [_plain(registry) for registry in registries]
        if not base.startswith(_REGISTRIES):
            urls = [""]  # of a hub
        elif base.rstrip("/") in urls:
            urls = [base.rstrip("/")]
        else:
            urls += [*self.registries, ""]
        groups = [self.registries.get(url, self.everywhere) for url in urls]
        return [group for group in dict.fromkeys(groups) if group]


def parse_signature_rules(value: object) -> tuple[str, ...]:
    """The rules, in a list or separated by blanks, with absolute paths."""
    words = value.split() if isinstance(value, str) else value
    if not isinstance(words, list | tuple) or not all(isinstance(word, str) for word in words):
        raise ValueError("is not a list of [SCOPE=]SIGNER")
    if list(words) == [NONE]:
        return ()
    return tuple(dict.fromkeys(map(_rule, words)))


def _rule(word: str) -> str:
    scope, equals, signer = word.rpartition("=") if "=" in word else ("", "", word)
    try:
        return f"{_scope(scope)}{equals}{_signer(signer)}"
    except ValueError as exc:
        raise InvalidItemError(word, str(exc)) from exc


def _scope(text: str) -> str:
    if not text:
        return ""
    if text.startswith("oci://"):
        raise ValueError("is for an OCI registry, which has no such signatures; write oci/ALIAS/")
    if "://" in text or text.startswith(("/", "./", "../", "~")):
        return _plain(parse_registry_url(text))
    model = text.rstrip("/")
    if not all(map(valid_segment, model.split("/"))):
        raise ValueError("has a scope that is neither a model nor a registry's URL")
    return model


def _plain(url: str) -> str:
    """A registry's URL without what only says how to reach it."""
    return url.partition("?")[0].rstrip("/")


def _signer(text: str) -> str:
    if text == NONE:
        return text
    identity, _, authority = text.rpartition(",")
    if not authority.startswith("https://"):
        authority = str(parse_path(authority))
    elif not identity:
        raise ValueError("names no identity; write IDENTITY,https://ISSUER")
    return str(TrustedSigner(authority, identity))


def _split(item: str) -> tuple[str, TrustedSigner | None]:
    scope, _, text = item.rpartition("=") if "=" in item else ("", "", item)
    if text == NONE:
        return scope, None
    identity, _, authority = text.rpartition(",")
    return scope, TrustedSigner(authority, identity)
