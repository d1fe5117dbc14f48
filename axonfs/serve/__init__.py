"""`axonfs registry serve`: the built-in HTTP server of a registry directory.

Registry side: beside the mount, below the commands. It serves the files that any static web server
would serve, the registry's web page, `api/v1/search` and `/healthz`. Plain HTTP only; for TLS put a
proxy in front. One thread per connection. docs/development.md has the reasons for a server of our
own.
"""

from axonfs.serve.server import RegistryHandler, RegistryServer, access_log, serve

__all__ = ["RegistryHandler", "RegistryServer", "access_log", "serve"]
