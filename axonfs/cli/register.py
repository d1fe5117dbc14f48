"""`axonfs register`: registers a model in the mount with a running MLOS Core."""

from __future__ import annotations

import os
from typing import Any

import click

from axonfs.cli.client import ask
from axonfs.cli.options import json_option, make_target, source_options
from axonfs.cli.output import echo, echo_json, show_note
from axonfs.errors import AxonError
from axonfs.formats.manifest import MANIFEST_NAME


@click.command
@click.argument("spec")
@source_options
@json_option
def register(spec: str, registries: tuple[str, ...], cache: str | None, as_json: bool) -> None:
    """Register a model with MLOS Core.

    Sends the path of the model's directory in the mount; MLOS Core loads the model from there. The
    address of MLOS Core is $MLOS_CORE_ENDPOINT, or http://localhost:8080 if that is not set.
    """
    import trio

    from axonfs.http_client import mlos_core

    target = make_target(registries, cache)
    found = ask(target, {"op": "info", "spec": spec}, show_note)["version"]
    model = _model(found)
    endpoint = os.environ.get(mlos_core.ENDPOINT_VARIABLE) or mlos_core.DEFAULT_ENDPOINT
    trio.run(lambda: mlos_core.register(endpoint, model, ca_bundle=target.settings.ca_bundle))
    if as_json:
        echo_json(model)
    else:
        echo(f"{model['model_id']} is registered with MLOS Core: {model['path']}")


def _model(found: dict[str, Any]) -> dict[str, str]:
    """The request to MLOS Core for the version that `info` found."""
    path = found["path"]
    if not path:
        raise AxonError(
            "nothing is mounted, so the model has no path to register",
            spec=found["spec"],
            hint="run axonfs mount first",
        )
    return {
        "model_id": found["spec"],
        "name": found["name"],
        "framework": found["framework"],
        "execution_format": found["execution_format"] or found["format"],
        "path": path,
        "description": found["description"],
        "manifest_path": f"{path}/{MANIFEST_NAME}",
    }
