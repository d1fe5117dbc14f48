"""Background work on the cache: eviction down to its size limit, and the scrub.

Imports catalog, fetch and store. The loops run on the trio thread; disk reads run in threads.
"""
