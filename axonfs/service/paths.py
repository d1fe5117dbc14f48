"""path: the directory of a pinned version on the disk, for programs that read without the mount.

The directory and its hard links are axonfs.store's (links.py). The owner of the cache makes it; any
other process of the same user finds it, so the processes of one load do not wait for each other. It
sends no requests, so it works without a registry. Trio thread; disk work runs in threads.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path

import trio

from axonfs.catalog.tree import Version
from axonfs.errors import AxonError, BusyError, NotFoundError, UnsupportedError
from axonfs.formats.entries import MANIFEST_NAME
from axonfs.formats.manifest import Manifest
from axonfs.names import Spec
from axonfs.rundir import PINNED, owner_of
from axonfs.service.context import Context, Event
from axonfs.service.pins import check_pin, pinned_version
from axonfs.store import Pin, Store, StoredObject
from axonfs.units import counted
from axonfs.versions import parse_wanted


async def path(context: Context, request: Event) -> Event:
    """Check the pinned version `spec`, and make its directory of hard links.

    Raises:
        NotFoundError: it is not pinned.
        BusyError: the directory is not there yet, and another process owns the cache.
        UntrustedError: it is not signed by whom it has to be.
        AxonError: it is not complete.
    """
    store = context.store
    pins = {pin.spec: pin for pin in await trio.to_thread.run_sync(store.pins)}
    spec = await pinned_version(context, pins, parse_wanted(str(request.get("spec"))))
    pin = pins.get(spec)
    if pin is None:
        raise NotFoundError("is not pinned", spec=str(spec), hint=_hint(spec))
    if not store.writable:  # it has to be there, and the check may take long
        await trio.to_thread.run_sync(_link, context, pin)
    checked = await check_pin(context, spec, pin, [], [])
    if stored := await trio.to_thread.run_sync(store.manifest, spec):
        source = context.tree.source_of(spec, stored.base)
        await context.tree.admission.admit(Version(stored.manifest, stored.base, source))
    if checked["missing"]:
        raise _incomplete(spec, checked["missing"])
    place, files = await trio.to_thread.run_sync(_link, context, pin)
    if checked["partial"]:
        whole = counted(files, "file")
        await context.note(f"{spec} is pinned in part: {checked['files']} of its {whole}")
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


def _link(context: Context, pin: Pin) -> tuple[Path, int]:
    """The directory, and how many files the whole version has; blocks."""
    spec, store = pin.spec, context.store
    stored = store.manifest(spec)
    if stored is None:
        raise _incomplete(spec, [{"path": "", "why": "its manifest is not local"}])
    try:
        with _held(store, stored.manifest, pin) as files:
            links = store.links
            place = links.make(spec, files) if store.writable else links.find(spec, files)
    except AxonError as exc:
        raise exc.located(spec=str(spec)) from exc
    except OSError as exc:
        raise _failed(context, spec, exc) from exc
    if place is None:
        raise _not_there(context, spec)
    return place, len(stored.manifest.files)


def _failed(context: Context, spec: Spec, exc: OSError) -> UnsupportedError:
    what = f"cannot make its directory of hard links: {exc.strerror}"
    hint = f"read it in the mount: axonfs path --mounted {spec}"
    path = str(exc.filename2 or exc.filename or "")
    if not path.startswith("/"):  # shutil.rmtree names what is in a directory without it
        path = str(context.settings.cache / PINNED / str(spec))
    return UnsupportedError(what, spec=str(spec), path=path, hint=hint)


def _not_there(context: Context, spec: Spec) -> AxonError:
    if context.store.writable:
        return NotFoundError("was unpinned meanwhile", spec=str(spec), hint=_hint(spec))
    owner = owner_of(context.settings.cache) or "unknown"
    what = f"its directory is not up to date, and the cache is in use by process {owner}"
    return BusyError(what, spec=str(spec), hint="wait until that process is done")


@contextmanager
def _held(
    store: Store, manifest: Manifest, pin: Pin
) -> Iterator[Mapping[str, StoredObject | bytes]]:
    """What the directory has: the text of each path, or its object, which is not dropped."""
    files: dict[str, StoredObject | bytes] = {}
    if manifest.shown:
        files[MANIFEST_NAME] = manifest.raw
    with ExitStack() as held:
        for entry in manifest.files:
            if entry.digest in pin.files:
                files[entry.path] = b""
                if entry.size:
                    files[entry.path] = stored = store.object(entry)
                    stored.hold()
                    held.callback(stored.release)
        yield files
