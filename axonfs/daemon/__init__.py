"""The processes of a mount: a holder keeps the FUSE connection, and a worker answers its requests.

`axonfs restart` replaces the worker while the holder goes on. Imports everything but cli; of it
only cli starts processes. The holder has one thread and imports neither trio nor pyfuse3; the
worker runs the event loop.
"""
