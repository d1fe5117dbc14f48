"""Follows docs/install.md, each way on a fresh machine: installs, mounts, reads, upgrades, removes.

Run by tools/try_install, which has prepared what the options name. All commands of a way are those
of the page. Where one way fails, the others are still followed.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import signal
import subprocess
import sys
import time
import zipfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from tools.installing.machine import Machine
from tools.installing.newer import make_newer
from tools.installing.page import FIRST_MODEL, PAGE, WAYS, Way, blocks
from tools.installing.shell import CommandError, Shell, ask

USER = "ada"
HOST = "models.example.org"
MODEL = "nlp/smollm2-135m-instruct/1.0.0"
TEXT = "The capital of France is"
CERTIFICATES = "/etc/ssl/certs/ca-certificates.crt"
# The newest one that apt takes from the page's own command.
NEWER = "0.2.0"
SHARD = "model-00002-of-00003.safetensors"
# Reads the first MiB, says so, and reads the rest after a line of its standard input. The kernel
# drops the file from its cache before that, so the rest comes from the mount.
_OPEN_READER = """\
import hashlib, os, sys
with open(sys.argv[1], "rb", buffering=0) as file:
    digest = hashlib.sha256(file.read(1 << 20))
    print("open", flush=True)
    sys.stdin.readline()
    os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
    while data := file.read(1 << 20):
        digest.update(data)
print(digest.hexdigest())
"""


@dataclass(frozen=True)
class Prepared:
    """What tools/try_install has made."""

    suite: str
    root: Path
    release: Path
    newer: Path
    work: Path
    python: Path
    model: Path
    sentence: str


# A fresh Debian has no transformers, so readers run the host's.
_READER = (
    "env LD_LIBRARY_PATH=/opt/reader/python/lib PYTHONPATH=/opt/reader/libraries"
    " /opt/reader/python/bin/python3"
)


@dataclass(frozen=True)
class Visit:
    """One way on one machine."""

    way: Way
    prepared: Prepared
    machine: Machine
    shell: Shell

    def block(self, number: int, section: str = "") -> list[str]:
        """The commands of a block of the page, by default in the way's own section."""
        text = PAGE.read_text()
        return blocks(text)[section or self.way.section][number]

    def page(self, number: int, section: str = "") -> None:
        """Run a block of the page."""
        for line in self.block(number, section):
            self.shell.run(line)

    def offer(self, files: Path) -> None:
        """Put the files of a release where the installers find them, and no other."""
        shutil.rmtree(self.machine.root / "release", ignore_errors=True)
        self.machine.copy(files, "/release")
        for path in files.glob(self.way.file) if self.way.file else ():
            self.machine.copy(path, f"{self.shell.home}/{path.name}")
            self.shell.run(f"sudo chown {USER}: ~/{path.name}")

    def check_sentence(self, place: str) -> None:
        """transformers writes the same with the model in the mount as with the local one."""
        script = f"{_READER} /opt/reader/tools/write_sentence.py {place}/{MODEL} '{TEXT}'"
        printed = self.shell.run(script).splitlines()[-1]
        if printed != self.prepared.sentence:
            raise CommandError(f"transformers wrote {printed!r}, not {self.prepared.sentence!r}")

    @contextmanager
    def open_reader(self, place: str) -> Iterator[None]:
        """A program that has a file open before the block, and reads on after it."""
        program = f"exec {_READER} -c '{_OPEN_READER}' {place}/{MODEL}/{SHARD}"
        with self.shell.start(program) as process:
            if ask(process) != "open":
                raise CommandError("the reader could not open a file of the mount")
            yield
            digest = ask(process, "go on")
        local = subprocess.run(
            ["sha256sum", self.prepared.model / SHARD], check=True, stdout=subprocess.PIPE
        )
        if digest != local.stdout.split()[0].decode():
            raise CommandError(f"the reader of {place} read other bytes over the upgrade: {digest}")

    def check_version(self, place: str, version: str) -> None:
        status = json.loads(self.shell.run(f"axonfs status --json {place} 2>/dev/null"))
        if status["version"] != version:
            raise CommandError(f"the mount at {place} runs {status['version']}, not {version}")

    def check_bytes(self) -> None:
        """What is installed has the bytes of the release's wheel: no index had another axonfs."""
        (wheel,) = self.prepared.release.glob(f"axonfs-*_{os.uname().machine}.whl")
        with zipfile.ZipFile(wheel) as archive:
            digests = {
                name: archive.read(name)
                for name in archive.namelist()
                if name.startswith("axonfs/") and not name.endswith("/")
            }
        find = "find ~ /usr/lib/axonfs -xdev -path '*/site-packages/axonfs/_version.py'"
        (found,) = self.shell.run(f"{find} 2>/dev/null || true").split()
        installed = (self.machine.root / found.lstrip("/")).parents[1]
        for name, data in digests.items():
            if (installed / name).read_bytes() != data:
                raise CommandError(f"{name} of what is installed is not the wheel's")

    def check_gone(self) -> None:
        if mounts := self.shell.run("grep ' fuse.axonfs ' /proc/mounts || true"):
            raise CommandError(f"a mount is left:\n{mounts}")
        if found := self.shell.run("command -v axonfs || true").strip():
            raise CommandError(f"{found} is left")


def follow(visit: Visit) -> None:
    """The whole of one way."""
    services, places = visit.way.services, ["~/models"]
    visit.offer(visit.prepared.release)
    visit.page(0)
    if visit.way.name != "source":
        visit.check_bytes()
    visit.page(0, FIRST_MODEL)
    if services:
        visit.page(1)
        places.append("/models")
    for place in places:
        visit.check_sentence(place)
    upgrade(visit, places, -2)
    if services:
        use_user_service(visit)
    visit.page(-1)
    visit.check_gone()
    if services:
        visit.shell.run("ls -d /etc/axonfs /var/cache/axonfs /usr/lib/axonfs", fails=True)


def upgrade(visit: Visit, places: list[str], block: int) -> None:
    """The page's upgrade, while a program reads from each mount."""
    visit.offer(visit.prepared.newer)
    if visit.way.name == "source":
        visit.shell.directory = "~"
        visit.shell.run(f"tar -xf axonfs-{NEWER}.tar.gz && cd axonfs-{NEWER}")
    with ExitStack() as readers:
        for place in places:
            readers.enter_context(visit.open_reader(place))
        visit.page(block)
    for place in places:
        visit.check_version(place, NEWER)


def use_user_service(visit: Visit) -> None:
    """A user's service in place of the user's mount. The package is removed below neither, and the
    machine's mount stays."""
    refuse_removal(visit)
    visit.shell.run("axonfs umount ~/models")
    visit.page(2)
    visit.check_sentence("~/models")
    refuse_removal(visit)


def refuse_removal(visit: Visit) -> None:
    visit.shell.run(visit.block(-1)[-1], fails=True)
    visit.shell.run("ls ~/models/nlp /models/nlp")


@contextmanager
def served(prepared: Prepared, machine: Machine) -> Iterator[None]:
    """The registry, in the machine's network, at the page's address."""
    pem = prepared.work / "tls"
    command = [
        "nsenter",
        "--target",
        str(machine.init),
        "--net",
        "--",
        "axonfs",
        "registry",
        "serve",
    ]
    command += [str(prepared.work / "registry"), "--host", "127.0.0.1", "--port", "443"]
    command += ["--cert", str(pem / "cert.pem"), "--key", str(pem / "key.pem")]
    with (prepared.work / "registry.log").open("w") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log)
    try:
        yield
    finally:
        process.terminate()
        process.wait()


@contextmanager
def machine_of(prepared: Prepared, way: Way) -> Iterator[Visit]:
    """A fresh machine with an ordinary user, who may use sudo."""
    place = prepared.work / f"axonfs-try-{os.getpid()}-{prepared.suite}-{way.name}"
    base, libraries = subprocess.run(
        [
            prepared.python,
            "-c",
            "import sys, sysconfig as s; print(sys.base_prefix, s.get_path('purelib'))",
        ],
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    ).stdout.split()
    binds = {
        Path(base): "/opt/reader/python",
        Path(libraries): "/opt/reader/libraries",
        Path(__file__).parent: "/opt/reader/tools",
    }
    machine = Machine(prepared.suite, prepared.root, place, binds)
    try:
        machine.boot()
        yield Visit(way, prepared, machine, prepare(machine, prepared, way))
    finally:
        machine.stop()
        shutil.rmtree(place)


def prepare(machine: Machine, prepared: Prepared, way: Way) -> Shell:
    """What an administrator has done before: a user, sudo, names, certificates."""
    indexes = {
        name: value
        for name, value in os.environ.items()
        if name in {"PIP_INDEX_URL", "UV_DEFAULT_INDEX"}
    }
    installing = indexes | {
        "PIP_FIND_LINKS": "/release",
        "UV_FIND_LINKS": "/release",
        "PIP_CERT": CERTIFICATES,
        "SSL_CERT_FILE": CERTIFICATES,
        "PIP_DISABLE_PIP_VERSION_CHECK": "1",
    }
    machine.write("/etc/hosts", f"127.0.0.1 localhost {machine.name} {HOST}\n")
    machine.write("/etc/resolv.conf", Path("/etc/resolv.conf").read_text())
    machine.write("/etc/apt/apt.conf.d/90answers", 'APT::Get::Assume-Yes "true";\n')
    machine.write("/etc/sudoers.d/answers", f"{USER} ALL=(ALL) NOPASSWD: ALL\n", 0o440)
    for number, file in enumerate([prepared.work / "tls/cert.pem", *_own_authorities()]):
        machine.write(f"/usr/local/share/ca-certificates/{number}.crt", file.read_text())
    root = Shell(machine, "root", installing)
    root.run(f"useradd --create-home --shell /bin/bash {USER}")
    root.run(f"loginctl enable-linger {USER}")
    root.run("update-ca-certificates")
    root.run("apt-get -q update")
    if way.name == "uv":
        machine.copy(Path(shutil.which("uv") or "uv"), "/usr/local/bin/uv")
    return Shell(machine, USER, installing, way.path)


def _own_authorities() -> list[Path]:
    """This machine's own certificate authorities, which its network may need."""
    return sorted(Path("/usr/local/share/ca-certificates").glob("*.crt"))


def write_locally(python: Path, model: Path, place: Path) -> str:
    """What transformers writes with the model on the disk. torch leaves files in `place`."""
    script = Path(__file__).with_name("write_sentence.py")
    done = subprocess.run(
        [python, script, model, TEXT],
        env={**os.environ, "TMPDIR": str(place)},
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    return done.stdout.splitlines()[-1]


def try_way(prepared: Prepared, way: Way) -> bool:
    """Follow one way; say how it went."""
    print(f"==> {way.name} on {prepared.suite}", file=sys.stderr, flush=True)
    start = time.monotonic()
    try:
        with machine_of(prepared, way) as visit, served(prepared, visit.machine):
            follow(visit)
    except (CommandError, OSError, subprocess.SubprocessError, ValueError) as exc:
        print(f"    FAILED: {exc}", file=sys.stderr)
        return False
    print(f"    {time.monotonic() - start:.0f} s", file=sys.stderr)
    return True


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    for name in ("root", "release", "work", "python", "model"):
        parser.add_argument(f"--{name}", type=Path, required=True)
    parser.add_argument("--suite", required=True)
    parser.add_argument("--arch", required=True)
    names = [way.name for way in WAYS]
    parser.add_argument("ways", nargs="*", choices=[*names, []], metavar="WAY")
    given = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # by way of each `finally`
    newer = given.work / f"newer-{NEWER}"
    if not newer.exists():
        make_newer(given.release, given.arch, NEWER, newer)
    prepared = Prepared(
        given.suite,
        given.root,
        given.release,
        newer,
        given.work,
        given.python,
        given.model,
        write_locally(given.python, given.model, given.work),
    )
    wanted = [way for way in WAYS if not given.ways or way.name in given.ways]
    followed = [try_way(prepared, way) for way in wanted]
    return 0 if all(followed) else 1


if __name__ == "__main__":
    sys.exit(main())
