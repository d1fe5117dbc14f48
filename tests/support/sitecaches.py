"""Real nginx, Varnish and Squid with the configurations of packaging/caches, before a source."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from urllib.parse import urlsplit

from tests.support.nginx import executable as nginx_executable
from tests.support.nginx import free_port
from tests.support.programs import until_listening

CACHES = Path(__file__).parents[2] / "packaging/caches"


def values(source: str, port: int, **more: str) -> dict[str, str]:
    """The example's values, with those of a cache before `source`."""
    lines = re.findall(r"^([A-Z_]+)=(.*)$", (CACHES / "example.env").read_text(), re.MULTILINE)
    example = {name: value.strip("'") for name, value in lines}
    url = urlsplit(source)
    here = {
        "SOURCE_SCHEME": url.scheme,
        "SOURCE_HOST": url.hostname or "",
        "SOURCE_PORT": str(url.port),
        "HOST_HEADER": url.netloc,
        "PORT": str(port),
        "SIZE": "200m",
        "SIZE_MB": "200",
    }
    assert example.keys() >= {*here, *more}
    return {**example, **here, **more}


def rendered(template: str, given: dict[str, str]) -> str:
    """What envsubst makes of a template."""
    text = (CACHES / template).read_text()
    return re.sub(r"\$\{([A-Z_]+)\}", lambda found: given[found[1]], text)


@contextlib.contextmanager
def nginx_cache(
    source: str, home: Path, *, within: Sequence[str] = (), port: int = 0, **more: str
) -> Iterator[str]:
    """nginx's configuration; its cache and logs lie in `home`."""
    port = port or free_port()
    home.mkdir(parents=True, exist_ok=True)
    config, root = home / "nginx.conf", os.geteuid() == 0
    # Workers of a master become another user, who cannot read a test's directory.
    head = "daemon off;\n" + ("user root;\n" if root else "")
    config.write_text(head + rendered("nginx.conf.template", values(source, port, **more)))
    command = [*within, nginx_executable(), "-p", str(home), "-c", str(config), "-e", "error.log"]
    with _running(command, port, home / "error.log"):
        yield f"http://127.0.0.1:{port}"


@contextlib.contextmanager
def varnish_cache(source: str, home: Path, **more: str) -> Iterator[str]:
    port = free_port()
    home.mkdir(parents=True, exist_ok=True)
    config = home / "varnish.vcl"
    config.write_text(rendered("varnish.vcl.template", values(source, port, **more)))
    store = f"file,{home}/store,200m"
    command = [_executable("varnishd"), "-F", "-j", "none", "-n", str(home / "work")]
    command += ["-a", f"127.0.0.1:{port}", "-f", str(config), "-s", store, "-p", "nuke_limit=1000"]
    with _running(command, port, home / "log"):
        yield f"http://127.0.0.1:{port}"


@contextlib.contextmanager
def squid_cache(source: str, home: Path, **more: str) -> Iterator[str]:
    """Squid, which becomes another user; `home` gets its logs in the end."""
    port = free_port()
    with tempfile.TemporaryDirectory(prefix="squid-") as made:
        own = Path(made)
        own.chmod(0o777)
        store_id = Path(shutil.copy(CACHES / "squid-store-id.sh", own))
        given = values(source, port, DIR=made, STORE_ID=str(store_id), **more)
        text = rendered("squid.conf.template", given)
        (own / "squid.conf").write_text(text.replace("lifetime 2 seconds", "lifetime 0 seconds"))
        command = [_executable("squid"), "-N", "-f", str(own / "squid.conf")]
        subprocess.run([*command, "-z"], check=True, capture_output=True)
        try:
            with _running(command, port, own / "log"):
                yield f"http://127.0.0.1:{port}"
        finally:
            shutil.copytree(own, home, ignore=shutil.ignore_patterns("objects"))


SiteCache = Callable[..., AbstractContextManager[str]]
ENGINES: dict[str, SiteCache] = {
    "nginx": nginx_cache,
    "varnish": varnish_cache,
    "squid": squid_cache,
}


@contextlib.contextmanager
def _running(command: Sequence[str], port: int, log: Path) -> Iterator[None]:
    with log.open("ab") as out, subprocess.Popen(command, stdout=out, stderr=out) as process:
        try:
            until_listening(port, process, log)
            yield
        finally:
            process.terminate()
            process.wait(20)


def _executable(name: str) -> str:
    # Debian keeps it where an ordinary user's PATH does not look.
    path = shutil.which(name, path=os.environ.get("PATH", "") + ":/usr/sbin:/sbin")
    assert path, f"{name} is missing: apt-get install --no-install-recommends varnish squid"
    return path
