"""The command line: one module per command or group of commands, imported when the command runs.

These modules parse arguments, send requests and print results. The work itself is in
axonfs.service, axonfs.publish and axonfs.daemon; no other package prints.
"""
