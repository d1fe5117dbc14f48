"""Makes a release's wheel for one processor from one that setuptools has built without a compiler.

Run by tools/release, in its environment: `wheels.py PURE ARCH PYFUSE3 WORK OUT`. Compiles with zig,
whose C library is as old as GLIBC, whatever this machine has; the headers of libfuse and Python are
Debian's, which apt checks. The wheel gets

* `_native` and pyfuse3 once for each soname of libfuse3, in axonfs/fuse/bundled/SONAME, where
  axonfs/connection/libfuse.py finds them;
* `_records`;
* pyfuse3's licence, and where its source is.

All of it keeps to the limited API of CPython 3.11, so one wheel serves all later versions.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tarfile
import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
GLIBC = "2.28"
MACHINES = {"amd64": "x86_64", "arm64": "aarch64"}
_MIRROR = os.environ.get("AXONFS_DEBIAN_MIRROR", "http://deb.debian.org/debian")
_KEYRING = "/usr/share/keyrings/debian-archive-keyring.gpg"

# FUSEError as an ordinary class: the limited API lacks the structure of exceptions that a `cdef`
# class needs.
_PYFUSE3_CHANGES = (
    ("cdef class FUSEError(Exception):", "class FUSEError(Exception):"),
    ("    cdef readonly int errno_\n", ""),
    ("    def __cinit__(self, errno):", "    def __init__(self, errno):"),
    ("\n_pyfuse3.FUSEError = FUSEError\n", "\n"),
    (
        "        return strerror(self.errno_)\n",
        "        return strerror(self.errno_)\n\n_pyfuse3.FUSEError = FUSEError\n",
    ),
)
_PYFUSE3_FILES = ("_pyfuse3.py", "asyncio.py", "__init__.pyi", "py.typed")
_PYFUSE3_SOURCE = """\
This directory has pyfuse3 {version}, licensed under the LGPL, version 2.1 or later, see LICENSE.

Its source: https://pypi.org/project/pyfuse3/{version}/#files, {archive}.
It was compiled from that source for libfuse3's soname {soname} and the limited API of CPython 3.11,
with {changes}.
To use another build of pyfuse3, replace the files in this directory.
"""


@dataclass(frozen=True)
class Libfuse:
    """A libfuse3 to compile for: a soname, and the Debian release that has it."""

    soname: str
    suite: str
    packages: tuple[str, ...]


LIBFUSES = (
    Libfuse("libfuse3.so.3", "bookworm", ("libfuse3-dev", "libfuse3-3", "libpython3.11-dev")),
    Libfuse("libfuse3.so.4", "trixie", ("libfuse3-dev", "libfuse3-4")),
)


@dataclass(frozen=True)
class Compiler:
    """Compiles shared libraries for one processor, with what Debian packages have."""

    arch: str
    roots: dict[str, Path]

    @property
    def machine(self) -> str:
        return MACHINES[self.arch]

    def __call__(
        self, soname: str, sources: list[Path], output: Path, flags: list[str], fuse: bool
    ) -> None:
        python, root = self.roots["libfuse3.so.3"] / "usr/include", self.roots[soname]
        command = [sys.executable, "-m", "ziglang", "cc"]
        command += [
            "-target",
            f"{self.machine}-linux-gnu.{GLIBC}",
            "-shared",
            "-fPIC",
            "-O2",
            "-s",
            "-Wl,--build-id=none",
        ]
        command += ["-Werror=implicit-function-declaration", *flags]
        if fuse:
            command += [f"-I{root}/usr/include/fuse3", f"-I{root}/usr/include"]
        command += [f"-I{python}/python3.11", f"-I{python}", *map(str, sources), "-o", str(output)]
        if fuse:
            (library,) = (path for path in root.rglob(soname) if path.is_file())
            command.append(str(library))
        output.parent.mkdir(parents=True, exist_ok=True)
        subprocess.run(command, check=True)


def main(pure: str, arch: str, pyfuse3: str, work: str, out: str) -> None:
    place = Path(work) / arch
    shutil.rmtree(place, ignore_errors=True)
    compiler = Compiler(arch, {each.soname: _packages(each, arch, Path(work)) for each in LIBFUSES})
    source = _unpack(Path(pyfuse3), place)
    version = source.name.removeprefix("pyfuse3-")
    code = _cythonized(source)
    _run("wheel", "unpack", "--dest", str(place), pure)
    (tree,) = place.glob("axonfs-*")
    assert not list(tree.rglob("*.so")), "setuptools had a compiler"
    for each in LIBFUSES:
        directory = tree / "axonfs/fuse/bundled" / each.soname
        _own_extensions(compiler, each.soname, tree, directory)
        _pyfuse3(compiler, each.soname, source, code, directory / "pyfuse3")
        info = directory / f"pyfuse3-{version}.dist-info"
        _describe(Path(pyfuse3).name, each.soname, source, info)
    _licences(tree, source)
    _pack(tree, compiler.machine, place, Path(out))


def _packages(libfuse: Libfuse, arch: str, work: Path) -> Path:
    """The files of Debian packages, which apt downloads and checks without touching this system."""
    place = work / "debian" / f"{libfuse.suite}-{arch}"
    root = place / "root"
    if root.is_dir():
        return root
    shutil.rmtree(place, ignore_errors=True)
    for name in ("lists/partial", "archives/partial", "etc/preferences.d", "debs"):
        (place / "apt" / name).mkdir(parents=True)
    source = f"deb [signed-by={_KEYRING}] {_MIRROR} {libfuse.suite} main\n"
    (place / "apt/etc/sources.list").write_text(source)
    (place / "apt/status").touch()
    settings = {"State": "", "State::status": "status", "Cache": "", "Etc": "etc"}
    apt = ["apt-get", "-qq", "-o", "APT::Sandbox::User=", "-o", f"APT::Architecture={arch}"]
    apt += ["-o", f"APT::Architectures={arch}"]
    for name, value in settings.items():
        apt += ["-o", f"Dir::{name}={place / 'apt' / value}"]
    subprocess.run([*apt, "update"], check=True)
    subprocess.run([*apt, "download", *libfuse.packages], check=True, cwd=place / "apt/debs")
    for deb in sorted((place / "apt/debs").glob("*.deb")):
        subprocess.run(["dpkg-deb", "-x", deb, place / "unpacked"], check=True)
    (place / "unpacked").rename(root)
    return root


def _unpack(archive: Path, place: Path) -> Path:
    with tarfile.open(archive) as tar:
        tar.extractall(place, filter="data")
    (source,) = place.glob("pyfuse3-*")
    return source


def _cythonized(source: Path) -> Path:
    pyx = source / "src/pyfuse3/__init__.pyx"
    text = pyx.read_text()
    for old, new in _PYFUSE3_CHANGES:
        assert text.count(old) == 1, f"pyfuse3 is not as expected: {old!r}"
        text = text.replace(old, new)
    pyx.write_text(text)
    command = ["-m", "cython", "-3", "-I", "Include", "--module-name", "pyfuse3.__init__"]
    command += ["src/pyfuse3/__init__.pyx", "-o", "src/pyfuse3/__init__.c"]
    subprocess.run([sys.executable, *command], check=True, cwd=source)
    return source / "src/pyfuse3/__init__.c"


def _own_extensions(compiler: Compiler, soname: str, tree: Path, directory: Path) -> None:
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]
    for extension in settings["ext-modules"]:
        package, _, name = extension["name"].rpartition(".")
        fuse = "fuse3" in extension.get("libraries", ())
        target = directory if fuse else tree / package.replace(".", "/")
        output = target / f"{name}.abi3.so"
        if not output.exists():
            sources = [ROOT / path for path in extension["sources"]]
            compiler(soname, sources, output, _flags(extension), fuse)


def _flags(extension: dict[str, Any]) -> list[str]:
    macros = [f"-D{name}={value}" for name, value in extension.get("define-macros", ())]
    return [*macros, *extension.get("extra-compile-args", ()), "-ldl"]


def _pyfuse3(compiler: Compiler, soname: str, source: Path, code: Path, package: Path) -> None:
    flags = ["-DPy_LIMITED_API=0x030b0000", "-DPyBytes_AS_STRING=PyBytes_AsString"]
    flags += ["-D_FILE_OFFSET_BITS=64", "-DFUSE_USE_VERSION=32", f"-I{code.parent}"]
    compiler(soname, [code], package / "__init__.abi3.so", flags, True)
    for name in _PYFUSE3_FILES:
        shutil.copy(source / "src/pyfuse3" / name, package)


def _describe(archive: str, soname: str, source: Path, info: Path) -> None:
    info.mkdir()
    shutil.copy(source / "PKG-INFO", info / "METADATA")
    shutil.copy(source / "LICENSE", info)
    (info / "INSTALLER").write_text("axonfs\n")
    changes = "FUSEError as a class of Python instead of a `cdef` class"
    version = source.name.removeprefix("pyfuse3-")
    text = _PYFUSE3_SOURCE.format(version=version, archive=archive, soname=soname, changes=changes)
    (info / "SOURCE.txt").write_text(text)


def _licences(tree: Path, source: Path) -> None:
    (info,) = tree.glob("axonfs-*.dist-info")
    (info / "licenses/pyfuse3").mkdir(parents=True)
    shutil.copy(source / "LICENSE", info / "licenses/pyfuse3/LICENSE")
    metadata, own = info / "METADATA", "License-Expression: Apache-2.0\n"
    text = metadata.read_text()
    assert text.count(own) == 1
    both = "License-Expression: Apache-2.0 AND LGPL-2.1-or-later\n"
    text = text.replace(own, f"{both}License-File: pyfuse3/LICENSE\n")
    metadata.write_text(text)


def _pack(tree: Path, machine: str, place: Path, out: Path) -> None:
    """Write the wheel; auditwheel checks which functions of glibc it needs."""
    for path in tree.rglob("*"):
        path.chmod(0o755 if path.is_dir() or path.suffix == ".so" else 0o644)
    (info,) = tree.glob("axonfs-*.dist-info/WHEEL")
    lines = info.read_text().split("\n")
    lines = [line for line in lines if line and not line.startswith("Tag: ")]
    info.write_text("\n".join([*lines, f"Tag: cp311-abi3-linux_{machine}", ""]))
    _run("wheel", "pack", "--dest-dir", str(place), str(tree))
    (wheel,) = place.glob("axonfs-*.whl")
    excluded = [f"--exclude={each.soname}" for each in LIBFUSES]
    _run("auditwheel", "repair", "--only-plat", "--wheel-dir", str(out), *excluded, str(wheel))
    wanted = f"manylinux_{GLIBC.replace('.', '_')}_{machine}"
    assert list(out.glob(f"axonfs-*-{wanted}.whl")), f"the wheel is not one for {wanted}"


def _run(module: str, *arguments: str) -> None:
    """Run a module of this environment; its output goes to stderr."""
    subprocess.run([sys.executable, "-m", module, *arguments], check=True, stdout=sys.stderr)


if __name__ == "__main__":
    main(*sys.argv[1:])
