"""What a holder passes to a worker: the FUSE connection and what belongs to it.

Descriptors are inherited by number, and an environment variable lists them.
"""

from __future__ import annotations

import json
import os
from dataclasses import asdict, dataclass, field
from typing import Any

VARIABLE = "AXONFS_HELD"
# The exit codes of a worker: the mount has ended; replace program and worker; the handshake with
# libfuse failed; start the next worker, with other settings.
DONE, REPLACE, NO_HANDSHAKE, RELOAD = 0, 75, 76, 77


@dataclass(frozen=True, slots=True)
class Held:
    """What a worker gets from its holder, whose pid `holder` is.

    `device` is the connection's descriptor, -1 if libfuse has to make one, for which `plain` is the
    reason. `init` is the kernel's INIT message, which the `first` worker answers. `lock`,
    `control`, `journal`, `settings`, `meters` and `ready` are descriptors too; the worker writes a
    byte to `ready` once the mount answers. `meters` is -1 if the holder is of an earlier version.
    `connection` is the connection's number, -1 if it is unknown.
    """

    holder: int
    lock: int
    control: int
    journal: int
    settings: int
    ready: int
    device: int = -1
    connection: int = -1
    init: bytes = b""
    first: bool = True
    plain: str | None = None
    # Whether the last worker ended so that other settings apply: other names may exist then.
    reloaded: bool = False
    # How the workers before this one ended, for `status`: unix seconds and what happened.
    ends: list[dict[str, Any]] = field(default_factory=list)
    meters: int = -1

    @property
    def descriptors(self) -> list[int]:
        found = [self.lock, self.control, self.journal, self.settings, self.meters, self.ready]
        found.append(self.device)
        return [descriptor for descriptor in found if descriptor >= 0]

    def encode(self) -> str:
        """For the variable."""
        return json.dumps(asdict(self) | {"init": self.init.hex()})

    @classmethod
    def take(cls) -> Held | None:
        """What this process got; None if no holder started it. The first call takes it."""
        text = os.environ.pop(VARIABLE, "")
        if not text:
            return None
        fields = json.loads(text)
        held = cls(**fields | {"init": bytes.fromhex(fields["init"])})
        for descriptor in held.descriptors:
            os.set_inheritable(descriptor, False)
        return held
