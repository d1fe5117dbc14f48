"""`axonfs mount --guard`: a mount whose descriptors are kept beside its holder. Blocking."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from axonfs.cli.background import mount_command
from axonfs.cli.logs import log_to_stderr
from axonfs.client.health import real_path
from axonfs.daemon.keeper import keep
from axonfs.settings.settings import Settings


def keep_guarded(flags: Mapping[str, Any], settings: Settings, guard: str) -> int:
    """Run the holder of the mount, and keep copies of its descriptors, as the guard does.

    The mount may already be there, and does not answer before its next holder has started.
    """
    log_to_stderr(settings.log_format, settings.log_level, settings.cache)
    command = mount_command(flags, settings.cache, real_path(settings.mountpoint))
    return keep(settings.cache, command, Path(guard).absolute())
