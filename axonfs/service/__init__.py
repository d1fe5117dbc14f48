"""What commands ask of the running mount, or of an engine in their own process.

The same code behind two transports: the control socket of a mount, and a direct call.
"""

from axonfs.service.service import Service

__all__ = ["Service"]
