"""Settings: their names, defaults and origins, config files, tokens, and where a user has them.

Imports the modules at the root. Any thread; reading and writing files blocks.
"""
