"""Completion in shells: what may follow a command line that is not finished.

`axonfs completion SHELL` prints one of the scripts here. The shell runs `axonfs __complete` at each
press of Tab, and that has to answer within 100 ms: so these modules import no click, no dataclasses
and nothing of the package. They read files of this machine, and never a mount or the network.
"""
