"""Settings: names, defaults, provenance, config files, tokens, and where each user's files are.

Imports the modules at the root. Any thread; reading and writing files blocks.
"""
