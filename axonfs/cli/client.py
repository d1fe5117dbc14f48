"""Sends the requests of commands by `axonfs.client.transport`; notes and warnings go to stderr."""

from __future__ import annotations

from axonfs.call import Event
from axonfs.cli.output import note
from axonfs.client.target import Target
from axonfs.client.transport import Sink, Transport, ask_here, ignore
from axonfs.settings.settings import Settings


def ask(target: Target, request: Event, sink: Sink = ignore) -> Event:
    """The result of `request`; the events before it go to `sink`.

    Raises:
        AxonError: the request failed; it carries the exit code.
    """
    return transport(target).ask(request, sink)


def ask_worker(target: Target, request: Event, sink: Sink = ignore) -> Event | None:
    """The result of `request` from a running mount of this user; None without such a mount.

    Raises:
        AxonError: the request failed; it carries the exit code.
    """
    return transport(target).ask_worker(request, sink)


def transport(target: Target) -> Transport:
    """The transport for this command's requests."""
    return Transport(target, note, _here)


def _here(settings: Settings, request: Event, sink: Sink) -> Event:
    from axonfs.cli.logs import log_like_messages

    log_like_messages()
    return ask_here(settings, request, sink)
