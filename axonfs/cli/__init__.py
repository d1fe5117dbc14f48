"""The command line: one module per group of commands, each imported when its command runs.

The modules parse, ask, and print. What a command does is in axonfs.service, axonfs.publish and
axonfs.daemon.worker; nothing below this package prints.
"""
