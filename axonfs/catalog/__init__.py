"""Which models, versions and files there are: what all sources list, asked once and kept.

Imports sources, http_client, store and formats. Trio thread only.
"""
