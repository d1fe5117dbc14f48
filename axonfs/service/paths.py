"""path: the directory of a pinned version on the disk, for programs that read without the mount.

The directory and its hard links are axonfs.store's (links.py). It sends no requests, so it works
without a registry. Trio thread; disk work runs in threads.
"""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path

import trio

from axonfs.errors import AxonError, NotFoundError, UnsupportedError
from axonfs.formats.entries import MANIFEST_NAME
from axonfs.formats.manifest import Manifest
from axonfs.names import Spec
from axonfs.service.context import Context, Event
from axonfs.service.pins import check_pin, pinned_version
from axonfs.store import Pin, Store, StoredObject
from axonfs.units import counted
from axonfs.versions import parse_wanted


async def path(context: Context, request: Event) -> Event:
    """Check the pinned version `spec`, and make its directory of hard links.

    Raises:
        NotFoundError: it is not pinned.
        AxonError: it is not complete.
    """
    pins = {pin.spec: pin for pin in await trio.to_thread.run_sync(context.store.pins)}
    spec = await pinned_version(context, pins, parse_wanted(str(request.get("spec"))))
    pin = pins.get(spec)
    if pin is None:
        raise NotFoundError("is not pinned", spec=str(spec), hint=_hint(spec))
    checked = await check_pin(context, spec, pin, [], [])
    if checked["missing"]:
        raise _incomplete(spec, checked["missing"])
    stored = await trio.to_thread.run_sync(context.store.manifest, spec)
    assert stored is not None  # else the check had found it missing
    place = await trio.to_thread.run_sync(_link, context.store, stored.manifest, pin)
    if checked["partial"]:
        files = counted(len(stored.manifest.files), "file")
        await context.note(f"{spec} is pinned in part: {checked['files']} of its {files}")
    return {"spec": str(spec), "path": str(place)}


def _incomplete(spec: Spec, missing: list[dict[str, str]]) -> AxonError:
    first = missing[0]
    more = f" (and {counted(len(missing) - 1, 'more file')})" if len(missing) > 1 else ""
    return AxonError(
        f"is not complete: {first['why']}{more}",
        spec=str(spec),
        path=first["path"] or None,
        hint=f"axonfs pin {spec} fetches what is missing",
    )


def _hint(spec: Spec) -> str:
    return f"run axonfs pin {spec} first, or read it in the mount: axonfs path --mounted {spec}"


def _link(store: Store, manifest: Manifest, pin: Pin) -> Path:
    """Make the directory; blocks."""
    spec = manifest.spec
    files: dict[str, StoredObject | bytes] = {}
    if manifest.shown:
        files[MANIFEST_NAME] = manifest.raw
    try:
        with ExitStack() as held:
            for entry in manifest.files:
                if entry.digest not in pin.files:
                    continue
                files[entry.path] = b""
                if entry.size:
                    files[entry.path] = stored = store.object(entry)
                    stored.hold()
                    held.callback(stored.release)
            place = store.links.make(spec, files)
    except AxonError as exc:
        raise exc.located(spec=str(spec)) from exc
    except OSError as exc:
        what = f"cannot make its directory of hard links: {exc.strerror}"
        raise UnsupportedError(
            what,
            spec=str(spec),
            path=exc.filename2 or exc.filename,
            hint=f"read it in the mount: axonfs path --mounted {spec}",
        ) from exc
    if place is None:
        raise NotFoundError("was unpinned meanwhile", spec=str(spec), hint=_hint(spec))
    return place
