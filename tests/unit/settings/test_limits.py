"""The settings that limit the cache: what they accept, and which models a quota counts."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from axonfs.errors import UsageError
from axonfs.settings.applied import plain
from axonfs.settings.limits import Amount, CacheLimits, in_scope, parse_quotas
from axonfs.settings.settings import load
from axonfs.units import age, exact_size, parse_age, parse_size


@pytest.fixture
def file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    found = tmp_path / "config.yaml"
    monkeypatch.setenv("AXONFS_CONFIG", str(found))
    return found


@pytest.mark.parametrize(
    ("text", "amount", "shown"),
    [
        ("50G", Amount(50 << 30), "50G"),
        ("12.5 %", Amount(percent=12.5), "12.5%"),
        ("off", Amount(), "off"),
        ("0", Amount(), "off"),
    ],
)
def test_what_stays_free(file: Path, text: str, amount: Amount, shown: str) -> None:
    file.write_text(f"keep_free: {text}\n")
    found = load().keep_free
    assert found == load({"keep_free": text}).keep_free == amount
    assert plain("keep_free", found) == shown


def test_a_tenth_stays_free_where_nothing_else_is_said() -> None:
    assert CacheLimits().free == Amount(percent=10)
    assert CacheLimits(1 << 30).free is None
    assert CacheLimits(1 << 30, Amount(5)).free == Amount(5)
    assert CacheLimits(None, Amount()).free == Amount()


@pytest.mark.parametrize(("text", "seconds"), [("30d", 2592000.0), ("off", 0.0), ("90m", 5400.0)])
def test_a_ttl(file: Path, text: str, seconds: float) -> None:
    file.write_text(f"cache_ttl: {text}\n")
    assert load().cache_ttl == load({"cache_ttl": text}).cache_ttl == seconds
    assert plain("cache_ttl", load().cache_ttl) == text


def test_quotas_in_a_file_a_variable_and_flags(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    expected = {"nlp": Amount(100 << 30), "hf/*": Amount(percent=50.0)}
    file.write_text('cache_quotas: {nlp/: 100G, "hf/*": 50%}\n')
    assert load().cache_quotas == expected
    assert plain("cache_quotas", expected) == {"nlp": "100G", "hf/*": "50%"}
    assert load({"cache_quotas": ("nlp=100G", "hf/*=50%")}).cache_quotas == expected
    monkeypatch.setenv("AXONFS_CACHE_QUOTAS", "nlp=100G hf/*=50%")
    file.unlink()
    assert load().cache_quotas == expected


@pytest.mark.parametrize(
    ("name", "value", "why"),
    [
        ("keep_free", "110%", "'110%' is neither a size like 50G nor a percentage like 10%"),
        ("keep_free", "-5G", "'-5G' is neither"),
        ("keep_free", "0%", "'0%' is neither"),
        ("cache_ttl", "30", "'30' is not a duration; write it like 30d, 12h or 45m"),
        ("cache_ttl", "59s", "'59s' is less than a minute; off is for ever"),
        ("cache_ttl", True, "'true' is not a duration"),
        ("cache_quotas", "nlp", "'nlp' is not NAMESPACE=SIZE"),
        ("cache_quotas", "=5G", "'' is not a namespace"),
        ("cache_quotas", "n l/p=5G", "'n' is not NAMESPACE=SIZE"),
        ("cache_quotas", {"n p": "5G"}, "'n p' is not a namespace, like nlp or hf/"),
        ("cache_quotas", "nlp=lots", "'lots' is neither a size like 50G nor"),
        ("cache_quotas", 5, "'5' is not a mapping of namespaces to sizes"),
        ("cache_quotas", {"nlp": ["5G"]}, "is neither a size"),
    ],
)
def test_what_is_refused(file: Path, name: str, value: object, why: str) -> None:
    with pytest.raises(UsageError, match=f"{name}: .*{why}"):
        load({name: value})


@pytest.mark.parametrize(
    ("scope", "model", "counts"),
    [
        ("nlp", "nlp/llama", True),
        ("nlp", "nlp/meta/llama", True),
        ("nlp", "nlp2/llama", False),
        ("hf/*", "hf/gpt2", True),
        ("hf/meta-llama", "hf/meta-llama/Llama-2", True),
        ("hf/*/Llama*", "hf/meta-llama/Llama-2", True),
        ("hf/*/Llama*", "hf/gpt2", False),
        ("*", "vision/resnet", True),
    ],
)
def test_the_models_of_a_scope(scope: str, model: str, counts: bool) -> None:
    assert in_scope(scope, model) is counts


@given(st.integers(1, 1 << 53))
def test_a_size_is_written_as_it_is_read(count: int) -> None:
    assert parse_size(exact_size(count)) == count


@given(st.integers(1, 10**6), st.sampled_from("smhdw"))
def test_an_age_is_written_as_it_is_read(number: int, unit: str) -> None:
    if number < 10**6:
        assert parse_age(age(parse_age(f"{number}{unit}"))) == parse_age(f"{number}{unit}")


@given(st.dictionaries(st.sampled_from(["nlp", "hf/*"]), st.sampled_from(["5G", "7%"])))
def test_quotas_are_written_as_they_are_read(quotas: dict[str, str]) -> None:
    found = parse_quotas(quotas)
    assert plain("cache_quotas", found) == quotas
    assert parse_quotas([f"{scope}={amount}" for scope, amount in quotas.items()]) == found
