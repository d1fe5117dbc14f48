"""Mount options: what mount(8) and people write, and what a mount passes to its own processes."""

from __future__ import annotations

import contextlib
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from axonfs.errors import UsageError
from axonfs.settings.keys import KEYS
from axonfs.settings.mount_options import as_option, parse_options, refuse_unknown
from axonfs.settings.settings import convert

OF_THE_SYSTEM = (
    "rw,ro,suid,dev,exec,auto,nouser,async,defaults,relatime,_netdev,nofail,noauto,user,users,"
    "x-systemd.automount,x-systemd.requires=network-online.target,X-mount.mkdir=0755,comment=mine,"
    "user=alice,user_id=0,group_id=0,default_permissions,nodiratime,strictatime,lazytime,mand"
)


def test_options_of_the_system_say_nothing() -> None:
    assert parse_options([OF_THE_SYSTEM]) == parse_options(["exec"])


def test_settings_are_options() -> None:
    found = parse_options(
        ["allow_other,cache-size=200G", "streams=8,online,no-passthrough,mode=0440"]
    )
    assert found.flags == {
        "allow_other": True,
        "cache_size": "200G",
        "streams": "8",
        "offline": False,
        "passthrough": False,
        "mode": "0440",
    }
    assert not found.unknown


def test_every_setting_but_secrets_and_the_mountpoint_is_one() -> None:
    for name in KEYS.keys() - {"tokens", "mountpoint"}:
        with contextlib.suppress(UsageError):
            assert not parse_options([f"{name}=1"]).unknown
    assert parse_options(["mountpoint=/x"]).unknown == ("mountpoint",)


def test_lists_add_up_and_the_last_of_other_values_counts() -> None:
    text = "registry=https://a,registry=https://b https://c,streams=1,streams=2"
    found = parse_options([text]).flags
    assert found["registries"] == ["https://a", "https://b", "https://c"]
    assert found["streams"] == "2"


def test_paths_count_from_the_working_directory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    found = parse_options(["cache=c,trace=t,registry=./r,config=f,require_signature=k.pub"])
    assert found.flags["cache"] == str(tmp_path / "c")
    assert found.flags["trace"] == str(tmp_path / "t")
    assert found.flags["registries"] == [f"file://{tmp_path}/r"]
    assert found.flags["require_signature"] == [f"{tmp_path}/k.pub"]
    assert found.config == tmp_path / "f"


def test_commas_are_escaped_or_quoted() -> None:
    for text in (r"fsname=a\,b,noexec", 'fsname="a,b",noexec'):
        found = parse_options([text])
        assert (found.fsname, found.noexec) == ("a,b", True)
    assert parse_options(["noexec,exec"]).noexec is False
    assert parse_options(["remount,noexec"]).remount


@pytest.mark.parametrize("text", ["token=SECRET", "tokens=SECRET", "password=SECRET"])
def test_a_secret_is_refused_and_not_repeated(text: str) -> None:
    with pytest.raises(UsageError, match=r"tokens\.yaml") as caught:
        parse_options([text])
    assert "SECRET" not in str(caught.value)


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("cachesize=1G", "did you mean cache_size?"),
        ("frobnicate", "options: registry, "),
        ("offlin", "did you mean offline?"),
    ],
)
def test_an_unknown_option_is_named(text: str, complaint: str) -> None:
    options = parse_options([text])
    with pytest.raises(UsageError, match=f"'{text.partition('=')[0]}'") as caught:
        refuse_unknown(options)
    assert complaint in str(caught.value)


def test_a_setting_needs_a_valid_value() -> None:
    with pytest.raises(UsageError, match="streams needs a value"):
        parse_options(["streams"])
    with pytest.raises(UsageError, match="'lots' is not a size"):
        parse_options(["cache_size=lots"])


@given(st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), min_size=1))
def test_what_a_mount_passes_on_comes_back(text: str) -> None:
    assert parse_options([as_option("fsname", text)]).fsname == text
    assert parse_options(["rw", as_option("fsname", text) + ",noexec"]).noexec


@given(st.text(max_size=200))
def test_no_text_crashes_it(text: str) -> None:
    complaint = ""
    try:
        refuse_unknown(parse_options([text]))
    except UsageError as exc:
        complaint = str(exc)
    assert complaint.isprintable()


def test_switches_and_lists_come_back() -> None:
    for name, value in (("offline", True), ("sources", ["hf", "modelscope"]), ("scrub", "32M")):
        found = parse_options([as_option(name, value)]).flags[name]
        assert convert(name, found, "") == convert(name, value, "")
