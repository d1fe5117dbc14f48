"""A file that nothing has, over TLS: read through the mount, against curl over TLS and then a read.

As cold.py, with a certificate authority of its own, which the mount is told of by SSL_CERT_FILE.
"""

from __future__ import annotations

from bench.cold import run
from bench.experiment import experiment

TIME, CPU = 1.1, 3.0


def main() -> None:
    with experiment("tls", __doc__) as asked:
        run(asked, "cold read over TLS", TIME, CPU, tls=True)


if __name__ == "__main__":
    main()
