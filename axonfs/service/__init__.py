"""The operations behind the commands, in a running mount or in the command's own process.

The same code serves two transports: the control socket of a mount, and a direct call.
"""

from axonfs.service.service import Service

__all__ = ["Service"]
