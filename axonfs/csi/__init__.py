"""The Kubernetes node plugin: `axonfs csi` gives pods read-only bind mounts of the node's one
mount.

It speaks the Container Storage Interface over gRPC; the only package that imports grpc and
protobuf, which the extra `axonfs[csi]` brings. It serves no file itself and fetches nothing but a
proof of access: it asks the mount through the control socket, and is the guard of its descriptors
(daemon/kept.py). Threads of the gRPC server run it; each call works on one target at a time.

Imports `client`, `daemon`, `observe` and what is below; `cli` imports it.
"""
