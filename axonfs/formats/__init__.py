"""The formats of files and documents: manifests, packages, chunk tables, lists, lock files.

Parses and writes them, trusts nothing in them, and does no I/O. Imports the modules at the root.
Any thread.
"""
