"""The formats of documents: manifests, packages, chunk tables, lists, lock files.

Parses, checks and renders them, without any I/O. Imports the modules at the root. Any thread.
"""
