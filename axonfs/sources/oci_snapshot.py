"""The files of a model in an OCI registry as a manifest of kind Snapshot.

Below oci.py. Blocking: it lists the files of layers that are archives.
"""

from __future__ import annotations

from collections.abc import Callable

from axonfs.errors import MalformedError
from axonfs.formats import leftout
from axonfs.formats.entries import packed_entry
from axonfs.formats.manifest import SNAPSHOT, FileEntry, Manifest, parse_manifest, render_manifest
from axonfs.formats.package import Package
from axonfs.http_client.bodies import Bodies
from axonfs.http_client.location import Location
from axonfs.names import Spec, printable
from axonfs.oci.config import About
from axonfs.oci.manifest import Model
from axonfs.sources.oci_layers import files_of


def snapshot(
    spec: Spec,
    model: Model,
    told: About,
    locate: Callable[[str], Location],
    bodies: Bodies | None,
    cancelled: Callable[[], bool] = bool,
) -> Manifest:
    """The manifest of a version.

    Args:
        locate: returns where the blob with a digest is.
        bodies: reads layers that are archives.
        cancelled: polled while an archive is read. Once it returns true, the result is incomplete.

    Raises:
        MalformedError: two files of archives need one path, or an archive is none of plain files.
        AxonError: the registry does not send an archive.
    """
    entries, layers, packed = list[FileEntry](), list[Package](), set[str]()
    for layer in model.layers:
        blob = layer.blob
        if layer.packing == "raw":
            entries.append(
                FileEntry(
                    layer.path, blob.size, blob.digest, layer.chunks, executable=layer.executable
                )
            )
        elif bodies:
            layers.append(Package((), blob.size, blob.digest, "", layer.packing))
            listed = files_of(layer, locate(blob.digest), bodies, cancelled)
            entries += [packed_entry(path, size, blob.digest) for path, size in listed]
            packed |= {path for path, _ in listed}
    usable, left_out = leftout.usable_files(entries)
    if clash := next((path for path in left_out if path in packed), None):
        # A layer is unpacked as a whole, so that no file of it could be left out.
        what = f"two files of its layers need the path '{printable(clash)}'"
        raise MalformedError(what)
    made = Manifest(
        spec,
        tuple(usable),
        description=told.description,
        license=told.license,
        framework=told.framework,
        format=told.format,
        created=told.created,
        kind=SNAPSHOT,
        left_out=leftout.printable_paths(left_out),
        layers=tuple(layers),
    )
    return parse_manifest(render_manifest(made), spec)
