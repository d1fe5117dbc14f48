"""`axonfs status`: shows what the mount is doing, and its recent failures."""

from __future__ import annotations

import json
import time
from typing import Any

import click

from axonfs.cli.caches_state import show_caches
from axonfs.cli.check import check
from axonfs.cli.default_mount import where_mounted
from axonfs.cli.explain import summary
from axonfs.cli.extensions import by_whom, why_not_of
from axonfs.cli.mount_state import state_source
from axonfs.cli.options import cache_option, json_option, make_target
from axonfs.cli.output import clock, echo, echo_json, facts, note, table
from axonfs.errors import ADD_REGISTRY, UsageError
from axonfs.names import printable
from axonfs.units import counted, share, size

WATCH_PAUSE = 1.0
_SHOWN_FAILURES = 5


@click.command
@click.argument("mountpoint", required=False)
@click.option("--watch", is_flag=True, help="Show it again every second until interrupted.")
@click.option("--check", "checks", is_flag=True, help="Print only what is wrong; see below.")
@cache_option
@json_option
def status(
    mountpoint: str | None, watch: bool, checks: bool, cache: str | None, as_json: bool
) -> None:
    """Show what the mount is doing.

    Shows its registries, the cache, programs that wait, fetches and prefetches, the scrub, open
    files, quarantined objects and recent failures.
    MOUNTPOINT defaults to the mount that uses the configured cache, or the only mount. If nothing
    is mounted, it shows the state of the cache and exits with 1.

    With --check it prints what is wrong, one line for each trouble, or ok, and exits with the code
    of the gravest: 1, nothing is mounted; 3, the mount does not answer; 4, the disk of the cache is
    full or fails; 5, a registry or hub does not answer; 6, objects are quarantined; 0, none of
    these. A mount with 4, 5 or 6 still serves what it can. 2 is for a wrong command line.
    """
    if checks:
        if watch:
            raise UsageError("--check and --watch exclude each other", hint="give one of them")
        target = make_target((), cache)
        click.get_current_context().exit(check(mountpoint, target, as_json=as_json))
    source = state_source(mountpoint, make_target((), cache))
    while True:
        state = source.read()
        with source.doubted():
            _print(state, as_json=as_json, watch=watch)
        if not state.get("mountpoint"):
            note(f"nothing is mounted with the cache {state.get('cache')}; {where_mounted()}")
            click.get_current_context().exit(1)
        if not watch:
            return
        time.sleep(WATCH_PAUSE)


def _print(state: dict[str, Any], *, as_json: bool, watch: bool) -> None:
    if as_json and watch:
        click.echo(json.dumps(state))
    elif as_json:
        echo_json(state)
    else:
        if watch:
            click.clear()
        _show(state)


def _show(state: dict[str, Any]) -> None:
    used, limit = state.get("cache_used", 0), state.get("cache_limit")
    where = state.get("mountpoint")
    facts(
        [
            ("mount", f"{where} (pid {state.get('pid')})" if where else "not mounted"),
            ("since", clock(state["since"]) if state.get("since") else ""),
            ("offline", "yes" if state.get("offline") else ""),
            ("settings", _settings(state.get("settings_fault"))),
            ("cache", f"{state.get('cache')}, {size(used)}{_of_limit(used, limit)}"),
            ("limit", state.get("cache_shortage") or ""),
            ("quotas", _quotas(state.get("cache_quotas") or [])),
            ("log", str(state.get("log") or "")),
            ("trace", _trace(state.get("trace"))),
            ("metrics", _metrics(state.get("metrics"))),
            ("pinned", _pins(state.get("pins"))),
            ("disk", _disk(state.get("disk"))),
            ("fetched", _fetched(state.get("fetch"))),
            ("kernel", _connection(state.get("connection"))),
            ("extensions", by_whom(why_not_of(state.get("extensions")))),
            ("scrub", _scrub(state.get("scrub"))),
            ("worker", _worker((state.get("worker") or {}).get("ends") or [])),
        ]
    )
    for item in state.get("registries") or []:
        words = _source_state(item) if where else ""
        echo(f"registry: {item['url']} {words}".rstrip())
        show_caches(item)
    if where and not state.get("registries"):
        echo(f"registry: none is configured; {ADD_REGISTRY}")
    for item in state.get("hubs") or []:
        if item.get("state") != "not asked":
            echo(f"hub {item['name']}: {item['url']} {_source_state(item)}")
            show_caches(item)
    _show_waits(state)
    _show_loads((state.get("prefetch") or {}).get("loads") or [])
    _show_open(state.get("open") or [])
    _show_quarantined(state.get("quarantined") or [])
    _show_failures(state.get("failures") or [])


def _show_waits(state: dict[str, Any]) -> None:
    if lines := summary(state):
        click.echo("\nprograms that wait")
        for line in lines:
            echo(line)


def _of_limit(used: int, limit: int | None) -> str:
    if limit is None:
        return ""
    return f" of {size(limit)}" + (f" ({share(used, limit)})" if limit else "")


def _quotas(quotas: list[dict[str, Any]]) -> str:
    return ", ".join(
        f"{item['scope']} {size(item['used'] or 0)}{_of_limit(item['used'] or 0, item['limit'])}"
        for item in quotas
    )


def _settings(fault: str | None) -> str:
    return f"the previous ones are in use: {printable(fault, 1000)}" if fault else ""


def _metrics(metrics: dict[str, Any] | None) -> str:
    if not metrics or not metrics.get("address"):
        return ""
    return printable(str(metrics.get("url") or metrics.get("fault") or "starting"), 1000)


def _trace(trace: dict[str, Any] | None) -> str:
    if not trace or not (trace["file"] or trace["ended"]):
        return ""
    return f"{trace['file']}, {size(trace['bytes'])}" if trace["file"] else str(trace["ended"])


def _pins(pins: dict[str, Any] | None) -> str:
    if not pins or not pins["count"]:
        return ""
    lacking = "; incomplete: " + ", ".join(pins["incomplete"]) if pins["incomplete"] else ""
    return f"{counted(pins['count'], 'version')}{lacking}"


def _fetched(fetch: dict[str, Any] | None) -> str:
    if not fetch:
        return ""
    copied = fetch.get("copied", 0)
    copied = f" {size(copied)} copied on this machine," if copied else ""
    hedged = f" ({fetch['hedged']} for the rest of slow ones)" if fetch.get("hedged") else ""
    limit = f" of {size(fetch['bandwidth'])}/s at the most" if fetch.get("bandwidth") else ""
    return (
        f"{size(fetch.get('bytes', 0))} in {fetch.get('requests', 0)} requests{hedged},{copied}"
        f" {fetch.get('in_flight', 0)} in flight, {fetch.get('queued', 0)} queued,"
        f" {size(fetch.get('rate', 0))}/s{limit}"
    )


def _connection(state: dict[str, Any] | None) -> str:
    if not state:
        return ""
    passed = f"{state.get('passed_through', 0)} files passed through"
    if why := state.get("why_no_passthrough"):
        passed = f"no passthrough: {why}"
    made = "" if state.get("own") else f"; connection by libfuse: {state.get('why_not_own')}"
    return passed + made


def _disk(disk: dict[str, Any] | None) -> str:
    if not disk or not disk["fault"]:
        return ""
    passed = f"{size(disk['passed'])} served without it"
    return f"failing since {clock(disk['since'])}: {disk['fault']}; {passed}"


def _scrub(scrub: dict[str, Any] | None) -> str:
    if not scrub:
        return ""
    if scrub["state"] == "off":
        return "off"
    parts = []
    if scrub["began"]:
        found = counted(scrub["bad"], "bad chunk")
        parts.append(f"{scrub['state']}, {size(scrub['bytes'])} checked, {found}")
    if scrub["ended"]:
        found = counted(scrub["last_bad"], "bad chunk")
        parts.append(f"last round {clock(scrub['ended'])}, {size(scrub['last_bytes'])}, {found}")
    if scrub["owed"]:
        parts.append(f"{counted(scrub['owed'], 'chunk')} to be fetched again")
    return "; ".join(parts)


def _worker(ends: list[dict[str, Any]]) -> str:
    if not ends:
        return ""
    last = ends[-1]
    return f"replaced {len(ends)} times, last {clock(last['time'])}: {last['how']}"


def _source_state(item: dict[str, Any]) -> str:
    """The last answer of a registry or a hub, as a sentence."""
    if item.get("error"):
        since = f" since {clock(item['since'])}" if item.get("since") else ""
        return f"does not answer{since}: {item['error']}"
    if not item.get("answered"):
        return "not asked yet"
    state = f"ok (last answer {clock(item['answered'])})"
    if "name" not in item and not item.get("indexed", True):
        state += ", but it has no index: names resolve, but ls does not list them"
    return f"{state}; unverified files are allowed" if item.get("allow_unverified") else state


def _show_loads(loads: list[dict[str, Any]]) -> None:
    if not loads:
        return
    click.echo("\nprefetch")
    table(
        ("VERSION", "LOCAL", "SIZE", "STATE", "STARTED BY"),
        (
            (
                str(item["spec"]),
                share(item["local"], item["size"]),
                size(item["size"]),
                str(item["state"]),
                str(item["trigger"]),
            )
            for item in loads
        ),
        widest=120,
    )


def _show_open(files: list[dict[str, Any]]) -> None:
    if not files:
        return
    click.echo("\nopen files")
    table(
        ("PATH", "LOCAL", "SIZE", "READERS"),
        (
            (
                str(item["path"]),
                share(item["local"], item["size"]),
                size(item["size"]),
                str(item["handles"]),
            )
            for item in files
        ),
        widest=120,
    )


def _show_quarantined(items: list[dict[str, Any]]) -> None:
    if not items:
        return
    click.echo("\nquarantined objects, which are not served")
    for item in items:
        name = printable(item.get("file") or item["sha256"][:12], 200)
        click.echo(f"{name}: {printable(item['cause'], 1000)}; {item['hint']}")


def _show_failures(failures: list[dict[str, Any]]) -> None:
    if not failures:
        return
    click.echo("\nrecent failures")
    for item in failures[-_SHOWN_FAILURES:]:
        click.echo(f"{clock(item.get('time', 0))}  {printable(str(item.get('message')), 1000)}")
