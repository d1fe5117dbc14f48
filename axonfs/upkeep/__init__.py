"""What the cache needs from time to time: eviction down to its size limit, and the scrub.

Imports catalog, fetch and store. The loops run on the trio thread, and what reads the disk in
threads.
"""
