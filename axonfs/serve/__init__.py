"""`axonfs registry serve`: the built-in HTTP server of a registry directory.

Registry side: beside the mount, below the commands. It serves the files that any static web server
would serve, the registry's web page, `api/v1/search` and `/healthz`; and with tokens it takes
uploads (`publishing`), with which it changes the registry by `axonfs.publish`. One thread per
connection. docs/development.md has the reasons for a server of our own.
"""

from axonfs.serve.access import Access
from axonfs.serve.connections import MAX_CONNECTIONS
from axonfs.serve.handler import RegistryHandler, access_log
from axonfs.serve.running import serving
from axonfs.serve.server import RegistryServer
from axonfs.serve.tls import Certificate
from axonfs.serve.tokens import RIGHTS, Grant, Tokens, create_token, read_tokens, revoke_token
from axonfs.serve.writes import WritingHandler

__all__ = [
    "MAX_CONNECTIONS",
    "RIGHTS",
    "Access",
    "Certificate",
    "Grant",
    "RegistryHandler",
    "RegistryServer",
    "Tokens",
    "WritingHandler",
    "access_log",
    "create_token",
    "read_tokens",
    "revoke_token",
    "serving",
]
