"""Fetches ahead of reads: recognises that a program loads a model, and fetches what it will read.

Imports catalog, fetch, store and upkeep. Trio thread only.
"""
