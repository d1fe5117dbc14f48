"""Which models and versions exist, and what a spec resolves to: answers of all sources, cached.

Imports sources, http_client, store and formats. Trio thread only.
"""
