"""`axonfs registry serve`: the embedded server of a registry directory.

Registry side: beside the mount, below the commands. It serves what any static web server would,
and `api/v1/search`. Plain HTTP; TLS is for a proxy in front of it.
"""

from axonfs.serve.server import RegistryHandler, RegistryServer, serve

__all__ = ["RegistryHandler", "RegistryServer", "serve"]
