"""What `update` pins, and which version a constraint is, as commands ask for them."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from axonfs.settings.settings import Settings
from tests.integration.service.conftest import CHUNK, SIZES, TOTAL, service
from tests.support.commands import ask, everything
from tests.support.registry import CONFIG, SPEC, RegistryServer, published


async def test_update_pins_the_newest_and_keeps_the_old(settings: Settings, tmp_path: Path) -> None:
    async with service(settings) as answering:
        await ask(answering, "pin", specs=[SPEC])
        same = await ask(answering, "update")
        (change,) = same["changes"]
        assert (change["old"], change["new"], change["fetched"]) == ("1.0.0", "1.0.0", 0)
        published(tmp_path, SIZES, spec="nlp/tiny@1.1.0", seed=2, chunk_size=CHUNK)
        changed = await ask(answering, "update")
        assert changed["changes"] == [
            {
                "model": "nlp/tiny",
                "old": "1.0.0",
                "new": "1.1.0",
                "fetched": TOTAL - len(CONFIG),  # config.json is the same file
                "added": 0,
                "changed": 2,
                "removed": 0,
            }
        ]
        pins = (await ask(answering, "pin_check"))["pins"]
        assert [(item["spec"], item["whole"]) for item in pins] == [
            (SPEC, True),
            ("nlp/tiny@1.1.0", True),
        ]


async def test_update_within_a_constraint_and_to_a_version(
    settings: Settings, tmp_path: Path
) -> None:
    async with service(settings) as answering:
        await ask(answering, "pin", specs=[SPEC])
        for version in ("1.1.0", "2.0.0"):
            published(tmp_path, SIZES, spec=f"nlp/tiny@{version}", chunk_size=CHUNK)
        within = await ask(answering, "update", spec="nlp/tiny@^1.0")
        assert [(item["old"], item["new"]) for item in within["changes"]] == [("1.0.0", "1.1.0")]
        newest = await ask(answering, "update", spec="nlp/tiny")
        assert [(item["old"], item["new"]) for item in newest["changes"]] == [("1.1.0", "2.0.0")]
        back = await ask(answering, "update", spec=SPEC)
        assert [(item["old"], item["new"]) for item in back["changes"]] == [("2.0.0", "1.0.0")]


async def test_a_constraint_is_resolved_and_said(settings: Settings, tmp_path: Path) -> None:
    for version in ("1.2.0", "1.10.0", "1.11.0-rc.1", "2.0.0"):
        published(tmp_path, {"w.bin": 10}, spec=f"nlp/tiny@{version}", chunk_size=CHUNK)
    async with service(settings) as answering:
        note, result = await everything(answering, "info", spec="nlp/tiny@^1.2")
        assert note == {"event": "note", "text": "nlp/tiny@^1.2 is nlp/tiny@1.10.0"}
        assert result["version"]["spec"] == "nlp/tiny@1.10.0"
        none = await ask(answering, "info", spec="nlp/tiny@~3")
        assert "no version matches ~3; available: 1.0.0, 1.2.0, 1.10.0" in none["message"]
        assert none["exit_code"] == 1
        wrong = await ask(answering, "pin", specs=["nlp/tiny@^x"])
        assert wrong["exit_code"] == 2
        (pin,) = (await ask(answering, "pin", specs=["nlp/tiny@>=1.2 <1.10"]))["pins"]
        assert pin["spec"] == "nlp/tiny@1.2.0"


async def test_what_is_about_local_versions_resolves_among_them(
    settings: Settings, tmp_path: Path, registry: RegistryServer
) -> None:
    for version in ("1.1.0", "1.2.0"):
        published(tmp_path, {"w.bin": 10}, spec=f"nlp/tiny@{version}", chunk_size=CHUNK)
    async with service(settings) as answering:
        await ask(answering, "pin", specs=[SPEC, "nlp/tiny@1.1.0"])
    asked = len(registry.requests)
    async with service(settings) as answering:
        (checked,) = (await ask(answering, "pin_check", specs=["nlp/tiny@^1"]))["pins"]
        assert checked["spec"] == "nlp/tiny@1.1.0"
        events = await everything(answering, "verify", specs=["nlp/tiny@<1.1"])
        assert events[0]["text"] == f"nlp/tiny@<1.1 is {SPEC}"
        assert (events[-1]["files"], events[-1]["bytes"]) == (3, TOTAL)
        assert (await ask(answering, "verify", specs=["nlp/tiny"]))["files"] == 2
        (unpinned,) = (await ask(answering, "unpin", specs=["nlp/tiny@~1.1"]))["specs"]
        assert unpinned["spec"] == "nlp/tiny@1.1.0"
        nothing = await ask(answering, "unpin", specs=["nlp/tiny@^2"])
        assert "no version matches ^2; available: 1.0.0" in nothing["message"]
    assert len(registry.requests) == asked


async def test_update_of_a_partial_pin_stays_partial(settings: Settings, tmp_path: Path) -> None:
    async with service(settings) as answering:
        await ask(answering, "pin", specs=[SPEC], include=["part/"])
        published(tmp_path, SIZES, spec="nlp/tiny@1.1.0", seed=2, chunk_size=CHUNK)
        await ask(answering, "update", spec="nlp/tiny")
        (_, new) = (await ask(answering, "pin_check"))["pins"]
        assert (new["files"], new["whole"]) == (1, True)


async def test_update_says_when_no_registry_answers(
    settings: Settings, registry: RegistryServer
) -> None:
    async with service(replace(settings, deadline=1)) as answering:
        await ask(answering, "pin", specs=[SPEC])
        registry.__exit__(None, None, None)
        answer = await ask(answering, "update")
        registry.__enter__()
    assert answer["event"] == "error"
    assert "nothing was updated" in answer["message"]
