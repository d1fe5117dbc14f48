"""The processes of a mount: a holder keeps the FUSE connection, and a worker answers its requests.

A worker that dies is replaced while the holder keeps the mount. May import every package but cli.
The holder has one thread and imports neither trio nor pyfuse3; the worker runs the event loop.
"""
