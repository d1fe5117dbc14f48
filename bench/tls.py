"""Cold read over TLS through the mount, against curl over TLS and then a read.

Like cold.py, with a certificate authority of its own, which SSL_CERT_FILE gives to the mount.
"""

from __future__ import annotations

from bench.cold import run
from bench.experiment import experiment

TIME, CPU = 1.1, 2.0


def main() -> None:
    with experiment("tls", __doc__, readers=(1,)) as trial:
        run(trial, "cold read over TLS", TIME, CPU, tls=True)


if __name__ == "__main__":
    main()
