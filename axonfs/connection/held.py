"""A FUSE connection that one process holds and another serves.

The holder passes descriptors to the worker by number, and names them in a variable.
"""

from __future__ import annotations

import json
import os
from dataclasses import asdict, dataclass, field
from typing import Any

VARIABLE = "AXONFS_HELD"
# How a worker ends: done, to be replaced by a new one, or unable to shake hands with libfuse.
# RELOAD is for the same program with other settings.
DONE, REPLACE, NO_HANDSHAKE, RELOAD = 0, 75, 76, 77


@dataclass(frozen=True, slots=True)
class Held:
    """What a worker is given.

    `device` is the connection, -1 where libfuse is to make one because of `plain`. `init` is the
    kernel's INIT message; the `first` worker answers it. `lock`, `control`, `journal`, `settings`
    and `ready` are descriptors too; a byte on `ready` says that the mount answers. `connection` is
    the connection's number, -1 if it is not known.
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
    # Whether the worker before this one ended for other settings: other names may be there.
    reloaded: bool = False
    # How the workers before this one ended, for `status`: unix seconds and what happened.
    ends: list[dict[str, Any]] = field(default_factory=list)

    @property
    def descriptors(self) -> list[int]:
        found = [self.lock, self.control, self.journal, self.settings, self.ready, self.device]
        return [descriptor for descriptor in found if descriptor >= 0]

    def encode(self) -> str:
        """For the variable."""
        return json.dumps(asdict(self) | {"init": self.init.hex()})

    @classmethod
    def take(cls) -> Held | None:
        """What this process was given, None if it was not started by a holder; asked for once."""
        text = os.environ.pop(VARIABLE, "")
        if not text:
            return None
        fields = json.loads(text)
        held = cls(**fields | {"init": bytes.fromhex(fields["init"])})
        for descriptor in held.descriptors:
            os.set_inheritable(descriptor, False)
        return held
