"""The client: how a program asks the running mount, or works with the cache without a mount.

The commands of axonfs.cli and the public `axonfs.Client` are two users of it. It may import all
below it, and axonfs.daemon to find mounts; it prints nothing. Blocking; any thread. An engine that
it needs in this process runs in a thread of its own (session.py).
"""
