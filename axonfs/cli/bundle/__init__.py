"""`axonfs debug bundle`: one file with what a bug report needs, without secrets.

`parts` says what is in it, `facts` reads this machine, `secrets` finds what must not be in it, and
`redaction`, which is pure, removes that from each text. Nothing here touches a mount: what has to,
runs in child processes, which are abandoned if they hang.
"""
