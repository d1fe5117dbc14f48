"""Prefetch: recognises that a program loads a model, and fetches the files that it will read.

Imports catalog, fetch, store and upkeep. Trio thread only.
"""
