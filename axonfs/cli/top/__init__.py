"""`axonfs top`: what a mount does now, in a terminal.

`figures` reads the state of a mount, `sections` makes tables of it, `layout` fits these into the
columns and lines of a terminal. All three are pure. `app` is the live view, the only module that
imports textual, and `plain` prints the same as text.
"""
