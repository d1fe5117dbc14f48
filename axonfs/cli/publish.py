"""`axonfs publish`: writes a model directory into a registry."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from axonfs.cli.options import LocalPath, PublishTarget, json_option, resolved
from axonfs.cli.output import echo, echo_json, note
from axonfs.cli.progress import ProgressDisplay
from axonfs.cli.signing import signer_of, signing_options
from axonfs.errors import StoppedError, UsageError
from axonfs.names import parse_spec, printable
from axonfs.units import counted, size

if TYPE_CHECKING:
    from axonfs.publish import PublishProgress
    from axonfs.signatures.signing import Signer
    from axonfs.storage import Storage

_model_directory = LocalPath("the model's directory", exists=True, file_okay=False)


@click.command
@click.argument("directory", metavar="DIR", type=_model_directory)
@click.argument("spec", required=False)
@click.option(
    "--to",
    "registry",
    metavar="REGISTRY",
    required=True,
    type=PublishTarget(),
    help="The registry's directory, which is created if it is missing, s3://BUCKET/PREFIX, the URL"
    " of axonfs registry serve, or oci://HOST/REPOSITORY:TAG, which takes no SPEC.",
)
@click.option("--description", help="What the model is, in one line.")
@click.option(
    "--license", "license_", metavar="ID", help="SPDX identifier, for example Apache-2.0."
)
@click.option("--framework", metavar="NAME", help="For example pytorch or transformers.")
@click.option("--tag", "tags", metavar="TAG", multiple=True, help="May be given more than once.")
@click.option(
    "--move-tag", is_flag=True, help="Let the tag of an OCI registry name these files from now on."
)
@signing_options
@json_option
def publish(
    directory: Path,
    spec: str | None,
    registry: Storage | str,
    description: str | None,
    license_: str | None,
    framework: str | None,
    tags: tuple[str, ...],
    move_tag: bool,
    as_json: bool,
    **signing: Any,
) -> None:
    """Publish a model directory.

    Writes the files of DIR as version SPEC into a registry: a directory, which any web server can
    serve, a prefix in a bucket of an object store, or a server that takes uploads. Metadata that is
    not given comes from the model's README.md and config.json. A published version never changes:
    publishing the same files again does nothing, and different files are refused. If DIR is that of
    SPEC in a mount, or a copy of it, its manifest is published as well, so that the digest of the
    version stays. With --sign-key or --sign-keyless the version is signed, also one that is
    published already.

    The token for a server comes from axonfs registry add URL --with-token, or from AXONFS_TOKEN.

    In an OCI registry the files become the layers of a model of the CNCF ModelPack specification,
    which other tools can pull. A tag that names other files stays, unless --move-tag is given.
    """
    given = {"description": description, "license": license_, "framework": framework}
    signer = signer_of(**signing)
    if isinstance(registry, str):
        if signer:
            raise UsageError("a model in an OCI registry cannot be signed")
        _publish_oci(directory, spec, registry, given, tags, move_tag, as_json)
    else:
        _publish(directory, spec, registry, given, tags, move_tag, signer, as_json)


def _publish(
    directory: Path,
    spec: str | None,
    registry: Storage,
    given: dict[str, str | None],
    tags: tuple[str, ...],
    move_tag: bool,
    signer: Signer | None,
    as_json: bool,
) -> None:
    from axonfs import publish as publishing

    if spec is None:
        raise UsageError("SPEC is missing", hint="write axonfs publish DIR SPEC --to REGISTRY")
    if move_tag:
        raise UsageError("--move-tag is for OCI registries; a published version never changes")
    parsed = parse_spec(spec)
    if "@" not in spec:
        raise UsageError(f"{printable(spec)} names no version", hint="add @VERSION")
    try:
        with ProgressDisplay(sys.stderr) as display:
            done = publishing.publish(
                directory,
                parsed,
                registry,
                description=given["description"],
                license=given["license"],
                framework=given["framework"],
                tags=tags,
                signer=signer,
                progress=lambda state: display(_event(str(parsed), state)),
            )
    except KeyboardInterrupt as exc:
        hint = "run the same command again to resume"
        raise StoppedError("interrupted before it was published", spec=spec, hint=hint) from exc
    for path in done.left_out:
        note(f"left out: {path}")
    if as_json:
        echo_json(
            {
                "spec": str(done.spec),
                "files": done.files,
                "bytes": done.bytes,
                "new_bytes": done.new_bytes,
                "already": done.already,
            }
        )
    elif done.already:
        echo(f"{done.spec} is already published with these files")
    else:
        echo(
            f"{done.spec} is published: {counted(done.files, 'file')}, {size(done.bytes)},"
            f" {size(done.new_bytes)} of it new in {registry.name}"
        )


def _publish_oci(
    directory: Path,
    spec: str | None,
    url: str,
    given: dict[str, str | None],
    tags: tuple[str, ...],
    move_tag: bool,
    as_json: bool,
) -> None:
    from axonfs import publish as publishing
    from axonfs.oci import reference_of

    reference = reference_of(url)
    if spec is not None:
        what = f"{reference} names the repository and the tag; SPEC is for other registries"
        raise UsageError(what, hint=f"write axonfs publish DIR --to {reference}")
    if tags:
        raise UsageError("--tag is for other registries; ModelPack has no place for such tags")
    name, found = str(reference), resolved({})
    try:
        with ProgressDisplay(sys.stderr) as display:
            done = publishing.publish_oci(
                directory,
                reference,
                **given,
                move=move_tag,
                tokens=found["tokens"][0],
                ca_bundle=found["ca_bundle"][0],
                progress=lambda state: display(_event(name, state)),
            )
    except KeyboardInterrupt as exc:
        hint = "run the same command again to resume"
        raise StoppedError("interrupted before it was published", source=name, hint=hint) from exc
    for path in done.left_out:
        note(f"left out: {path}")
    if as_json:
        facts = {"reference": name, "digest": f"sha256:{done.digest}", "files": done.files}
        echo_json(
            {**facts, "bytes": done.bytes, "new_bytes": done.new_bytes, "already": done.already}
        )
    elif done.already:
        echo(f"{name} has these files already")
    else:
        echo(
            f"{name} is published: {counted(done.files, 'file')}, {size(done.bytes)},"
            f" {size(done.new_bytes)} of it new, sha256:{done.digest}"
        )


def _event(spec: str, state: PublishProgress) -> dict[str, Any]:
    return {"event": "progress", "spec": spec, "done": state.bytes_done, "total": state.bytes}
