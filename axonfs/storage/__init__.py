"""Where a registry's files are written: a storage, with files named by keys.

A key is a path below the registry's root (formats/layout.py). Two kinds of files are in a storage:
objects and chunk tables, which are named by a digest and never change; and documents (manifests,
lists), which are replaced only if they are still what the writer has read. A storage shows each
file whole or not at all. What is published, and in which order, is in `axonfs.publish`. Blocking;
any thread.
"""

from axonfs.storage.directory import Directory
from axonfs.storage.http import HttpStorage
from axonfs.storage.s3 import S3Storage
from axonfs.storage.storage import Content, Listed, Storage, Upload

__all__ = ["Content", "Directory", "HttpStorage", "Listed", "S3Storage", "Storage", "Upload"]
