"""The read-only half of a POSIX file system, call by call, with the errno that each must give."""

from __future__ import annotations

import ctypes
import errno
import fcntl
import mmap
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from stat import S_IFIFO, S_IFREG

import pytest

from tests.mount.conftest import FILES, Mount, source_bytes
from tests.support.profile import report

pytestmark = pytest.mark.mount

NAME = "model.safetensors"
SIZE = FILES[NAME]
libc = ctypes.CDLL(None, use_errno=True)
libc.opendir.restype = ctypes.c_void_p
libc.readdir.restype = ctypes.c_void_p
libc.telldir.restype = ctypes.c_long


class Site:
    """Names in the mount and outside, and the file open to read."""

    def __init__(self, mount: Mount, outside: Path) -> None:
        self.root = mount.path
        self.folder = mount.path / "nlp/tiny/1.0.0"
        self.file = self.folder / NAME
        self.sub = self.folder / "sub"
        self.link = mount.path / "nlp/tiny/latest"
        self.new = self.folder / "new"
        self.outside = outside
        self.fd = os.open(self.file, os.O_RDONLY)
        self.folder_fd = os.open(self.folder, os.O_RDONLY | os.O_DIRECTORY)


@pytest.fixture(scope="module", params=["cold", "passed through"])
def cached(request: pytest.FixtureRequest) -> bool:
    return bool(request.param != "cold")


@pytest.fixture
def site(mount: Mount, tmp_path: Path, cached: bool) -> Iterator[Site]:
    """The mount with its file not fetched yet, or complete and read by the kernel itself."""
    if cached:
        (mount.path / "nlp/tiny/1.0.0" / NAME).read_bytes()
    (tmp_path / "outside").write_bytes(b"outside")
    site = Site(mount, tmp_path / "outside")
    yield site
    os.close(site.fd)
    os.close(site.folder_fd)


def opened(path: os.PathLike[str] | str | bytes, flags: int, mode: int = 0o644) -> None:
    os.close(os.open(path, flags, mode))


def called(result: int) -> None:
    """Raise what a call of libc failed with."""
    if result == -1:
        raise OSError(ctypes.get_errno(), "libc")


def mapped(fd: int, flags: int, protection: int) -> None:
    mmap.mmap(fd, SIZE, flags=flags, prot=protection).close()


WRITING = """
import mmap, os, sys
fd = os.open(sys.argv[1], os.O_RDONLY)
with mmap.mmap(fd, 0, flags=mmap.MAP_PRIVATE, prot=mmap.PROT_WRITE) as mapping:
    before, mapping[:4] = mapping[:4], b"mine"
    sys.exit(mapping[:4] != b"mine" or os.pread(fd, 4, 0) != before)
"""


def wrote_private(site: Site) -> int:
    """In a child: a page fault keeps the interpreter lock that the registry needs."""
    command = [sys.executable, "-I", "-S", "-c", WRITING, str(site.file)]
    return subprocess.run(command, check=False).returncode


def sought(site: Site, offset: int, whence: int) -> int:
    return os.lseek(site.fd, offset, whence)


def locked(site: Site, kind: int) -> None:
    fcntl.lockf(site.fd, kind | fcntl.LOCK_NB)
    fcntl.lockf(site.fd, fcntl.LOCK_UN)


def flocked(site: Site, kind: int) -> None:
    fcntl.flock(site.fd, kind | fcntl.LOCK_NB)
    fcntl.flock(site.fd, fcntl.LOCK_UN)


def copied(source: int, target: Path, flags: int = os.O_WRONLY) -> None:
    fd = os.open(target, flags)
    try:
        os.copy_file_range(source, fd, 10)
    finally:
        os.close(fd)


def copied_into(site: Site) -> None:
    with site.outside.open("rb") as file:
        os.copy_file_range(file.fileno(), site.fd, 5)


def as_nobody(site: Site) -> None:
    """Another user is refused, as there is no --allow-other."""
    program = "import os, sys; os.setuid(65534); os.listdir(sys.argv[1])"
    command = [sys.executable, "-I", "-S", "-c", program, str(site.root)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise OSError(errno.EACCES if "PermissionError" in done.stderr else 0, done.stderr)


Call = Callable[[Site], object]

# What is refused, by system call, and with what.
REFUSED: list[tuple[str, int, Call]] = [
    ("open O_WRONLY", errno.EROFS, lambda s: opened(s.file, os.O_WRONLY)),
    ("open O_RDWR", errno.EROFS, lambda s: opened(s.file, os.O_RDWR)),
    ("open O_APPEND", errno.EROFS, lambda s: opened(s.file, os.O_WRONLY | os.O_APPEND)),
    ("open O_TRUNC", errno.EROFS, lambda s: opened(s.file, os.O_RDONLY | os.O_TRUNC)),
    ("open O_CREAT", errno.EROFS, lambda s: opened(s.new, os.O_RDONLY | os.O_CREAT)),
    ("open O_CREAT|O_EXCL", errno.EEXIST, lambda s: opened(s.file, os.O_CREAT | os.O_EXCL)),
    ("open O_TMPFILE", errno.EROFS, lambda s: opened(s.folder, os.O_TMPFILE | os.O_RDWR)),
    ("open O_DIRECTORY of a file", errno.ENOTDIR, lambda s: opened(s.file, os.O_DIRECTORY)),
    ("open O_NOFOLLOW of a symlink", errno.ELOOP, lambda s: opened(s.link, os.O_NOFOLLOW)),
    ("open a directory to write", errno.EISDIR, lambda s: opened(s.folder, os.O_WRONLY)),
    ("open nothing", errno.ENOENT, lambda s: opened(s.new, os.O_RDONLY)),
    ("open below a file", errno.ENOTDIR, lambda s: opened(s.file / "x", os.O_RDONLY)),
    ("open the empty name", errno.ENOENT, lambda s: opened("", os.O_RDONLY)),
    ("creat", errno.EROFS, lambda s: opened(s.new, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)),
    ("mkdir", errno.EROFS, lambda s: os.mkdir(s.new)),
    ("mkdir of what is there", errno.EEXIST, lambda s: os.mkdir(s.sub)),
    ("rmdir", errno.EROFS, lambda s: os.rmdir(s.sub)),
    ("unlink", errno.EROFS, lambda s: os.unlink(s.file)),
    ("unlink nothing", errno.EROFS, lambda s: os.unlink(s.new)),
    ("rename", errno.EROFS, lambda s: os.rename(s.file, s.new)),
    ("rename to outside", errno.EXDEV, lambda s: os.rename(s.file, s.outside)),
    ("rename from outside", errno.EXDEV, lambda s: os.rename(s.outside, s.new)),
    ("link", errno.EROFS, lambda s: os.link(s.file, s.new)),
    ("link to outside", errno.EXDEV, lambda s: os.link(s.file, f"{s.outside}2")),
    ("symlink", errno.EROFS, lambda s: os.symlink("x", s.new)),
    ("symlink over what is there", errno.EEXIST, lambda s: os.symlink("x", s.file)),
    ("mknod of a file", errno.EROFS, lambda s: os.mknod(s.new, S_IFREG | 0o644)),
    ("mknod of a pipe", errno.EROFS, lambda s: os.mknod(s.new, S_IFIFO | 0o644)),
    ("chmod", errno.EROFS, lambda s: os.chmod(s.file, 0o600)),
    ("fchmod", errno.EROFS, lambda s: os.fchmod(s.fd, 0o600)),
    ("chown", errno.EROFS, lambda s: os.chown(s.file, 0, 0)),
    ("fchown", errno.EROFS, lambda s: os.fchown(s.fd, 0, 0)),
    ("utimensat", errno.EROFS, lambda s: os.utime(s.file)),
    ("futimens", errno.EROFS, lambda s: os.utime(s.fd, (0, 0))),
    ("truncate", errno.EROFS, lambda s: os.truncate(s.file, 0)),
    ("ftruncate", errno.EINVAL, lambda s: os.ftruncate(s.fd, 0)),
    ("setxattr", errno.EROFS, lambda s: os.setxattr(s.file, "user.x", b"y")),
    ("removexattr", errno.EROFS, lambda s: os.removexattr(s.file, "user.axonfs.spec")),
    ("getxattr of none", errno.ENODATA, lambda s: os.getxattr(s.file, "user.none")),
    ("write", errno.EBADF, lambda s: os.write(s.fd, b"x")),
    ("pwrite", errno.EBADF, lambda s: os.pwrite(s.fd, b"x", 0)),
    ("fallocate", errno.EBADF, lambda s: os.posix_fallocate(s.fd, 0, 10)),
    ("access W_OK", errno.EROFS, lambda s: called(libc.access(bytes(s.file), os.W_OK))),
    ("access X_OK", errno.EACCES, lambda s: called(libc.access(bytes(s.file), os.X_OK))),
    ("access nothing", errno.ENOENT, lambda s: called(libc.access(bytes(s.new), os.F_OK))),
    ("execve", errno.EACCES, lambda s: subprocess.run([s.file], check=False)),
    ("chdir to a file", errno.ENOTDIR, lambda s: os.chdir(s.file)),
    ("readlink of a file", errno.EINVAL, lambda s: os.readlink(s.file)),
    ("read of a directory", errno.EISDIR, lambda s: os.read(s.folder_fd, 10)),
    ("readdir of a file", errno.ENOTDIR, lambda s: os.listdir(s.file)),
    ("pread before the start", errno.EINVAL, lambda s: os.pread(s.fd, 1, -1)),
    ("lseek before the start", errno.EINVAL, lambda s: sought(s, -1, os.SEEK_SET)),
    ("lseek from nowhere", errno.EINVAL, lambda s: sought(s, 0, 99)),
    ("lseek SEEK_DATA at the end", errno.ENXIO, lambda s: sought(s, SIZE, os.SEEK_DATA)),
    ("lseek SEEK_HOLE at the end", errno.ENXIO, lambda s: sought(s, SIZE, os.SEEK_HOLE)),
    (
        "mmap MAP_SHARED to write",
        errno.EACCES,
        lambda s: mapped(s.fd, mmap.MAP_SHARED, mmap.PROT_READ | mmap.PROT_WRITE),
    ),
    ("fcntl write lock", errno.EBADF, lambda s: locked(s, fcntl.LOCK_EX)),
    ("copy_file_range into", errno.EBADF, copied_into),
    ("sendfile into", errno.EBADF, lambda s: os.sendfile(s.fd, s.fd, 0, 1)),
    ("name of 256 bytes", errno.ENAMETOOLONG, lambda s: os.stat(s.folder / ("x" * 256))),
    ("name of 255 bytes", errno.ENOENT, lambda s: os.stat(s.folder / ("x" * 255))),
    ("path of 4096 bytes", errno.ENAMETOOLONG, lambda s: os.stat(f"{s.root}/{'./' * 2048}")),
    ("path of a thousand levels", errno.ENOENT, lambda s: os.stat(f"{s.root}/nlp{'/x' * 1000}")),
    ("name that is no UTF-8", errno.ENOENT, lambda s: os.stat(bytes(s.folder) + b"/\xff\xfe")),
    ("namespace that is no UTF-8", errno.ENOENT, lambda s: os.stat(bytes(s.root) + b"/\xff")),
    ("name with a line feed", errno.ENOENT, lambda s: os.stat(s.root / "nlp/ti\nny")),
    ("name with a control character", errno.ENOENT, lambda s: os.stat(s.root / "nlp/\x1b[2J")),
    ("name of another case", errno.ENOENT, lambda s: os.stat(s.folder / NAME.upper())),
    ("another user", errno.EACCES, as_nobody),
]


def test_what_is_refused(site: Site, cached: bool) -> None:
    """Each call that would change something, or is invalid, gives the errno it should."""
    wrong = {}
    for name, expected, call in REFUSED:
        found: int | None = None
        try:
            call(site)
        except OSError as exc:
            found = exc.errno
        if found != expected:
            wrong[name] = (errno.errorcode.get(found or 0, found), errno.errorcode[expected])
    assert wrong == {}
    report("posix", calls=len(REFUSED) + len(ALLOWED), cached=int(cached))


def sent_whole(site: Site) -> bool:
    with tempfile.TemporaryFile() as target:
        sent = 0
        while sent < SIZE:
            sent += os.sendfile(target.fileno(), site.fd, sent, SIZE - sent)
        target.seek(0)
        return target.read() == site.file.read_bytes()


def spliced(site: Site) -> bool:
    read_end, write_end = os.pipe()
    try:
        count = os.splice(site.fd, write_end, 4096, offset_src=100)
        return os.read(read_end, 8192) == os.pread(site.fd, count, 100)
    finally:
        os.close(read_end)
        os.close(write_end)


def copied_out(site: Site) -> bool:
    """Copied, or left to the program to copy, as between any two file systems."""
    try:
        copied(site.fd, site.outside)
    except OSError as exc:
        return exc.errno == errno.EXDEV
    return site.outside.read_bytes()[:7] == os.pread(site.fd, 7, 0)


class Dirent(ctypes.Structure):
    """struct dirent of glibc on 64 bits."""

    _fields_ = (
        ("ino", ctypes.c_uint64),
        ("off", ctypes.c_int64),
        ("length", ctypes.c_ushort),
        ("type", ctypes.c_ubyte),
        ("name", ctypes.c_char * 256),
    )


def sought_in_listing(site: Site) -> bool:
    """telldir and seekdir come back to the same entries, from any of them."""
    stream = ctypes.c_void_p(libc.opendir(bytes(site.folder)))
    names, places = [], []
    while True:
        places.append(libc.telldir(stream))
        entry = libc.readdir(stream)
        if not entry:
            break
        names.append(Dirent.from_address(entry).name)
    again = []
    for place in reversed(places[:-1]):
        libc.seekdir(stream, ctypes.c_long(place))
        again.append(Dirent.from_address(libc.readdir(stream)).name)
    libc.closedir(stream)
    return again[::-1] == names and len(names) == len(set(names)) >= 5


# What works, and what it gives.
ALLOWED: list[tuple[str, object, Call]] = [
    ("open O_CREAT of what is there", None, lambda s: opened(s.file, os.O_RDONLY | os.O_CREAT)),
    ("open O_PATH", None, lambda s: opened(s.file, os.O_PATH)),
    ("open O_DIRECT", None, lambda s: opened(s.file, os.O_RDONLY | os.O_DIRECT)),
    ("open O_NOATIME", None, lambda s: opened(s.file, os.O_RDONLY | os.O_NOATIME)),
    ("open O_NONBLOCK", None, lambda s: opened(s.file, os.O_RDONLY | os.O_NONBLOCK)),
    ("open by a directory", None, lambda s: os.close(os.open(NAME, 0, dir_fd=s.folder_fd))),
    ("access R_OK", 0, lambda s: libc.access(bytes(s.file), os.R_OK)),
    ("access X_OK of a directory", 0, lambda s: libc.access(bytes(s.folder), os.X_OK)),
    ("stat through . and ..", SIZE, lambda s: os.stat(f"{s.sub}/.././/{NAME}").st_size),
    ("stat through the symlink", True, lambda s: (s.link / NAME).stat().st_size == SIZE),
    ("fstat", SIZE, lambda s: os.fstat(s.fd).st_size),
    ("one link", 1, lambda s: os.fstat(s.fd).st_nlink),
    ("statvfs is read-only", True, lambda s: bool(os.statvfs(s.file).f_flag & os.ST_RDONLY)),
    ("statvfs of names", 255, lambda s: os.statvfs(s.root).f_namemax),
    ("no setuid", True, lambda s: bool(os.statvfs(s.root).f_flag & os.ST_NOSUID)),
    ("no devices", True, lambda s: bool(os.statvfs(s.root).f_flag & os.ST_NODEV)),
    ("pread behind the end", b"", lambda s: os.pread(s.fd, 10, SIZE)),
    ("pread over the end", 3, lambda s: len(os.pread(s.fd, 10, SIZE - 3))),
    ("pread of nothing", b"", lambda s: os.pread(s.fd, 0, 0)),
    ("lseek behind the end", 2 * SIZE, lambda s: sought(s, 2 * SIZE, os.SEEK_SET)),
    ("lseek to the end", SIZE, lambda s: sought(s, 0, os.SEEK_END)),
    ("lseek SEEK_DATA", 5, lambda s: sought(s, 5, os.SEEK_DATA)),
    ("lseek SEEK_HOLE", SIZE, lambda s: sought(s, 5, os.SEEK_HOLE)),
    ("mmap MAP_SHARED", None, lambda s: mapped(s.fd, mmap.MAP_SHARED, mmap.PROT_READ)),
    ("mmap MAP_PRIVATE to write", 0, wrote_private),
    ("fcntl read lock", None, lambda s: locked(s, fcntl.LOCK_SH)),
    ("flock shared", None, lambda s: flocked(s, fcntl.LOCK_SH)),
    ("flock exclusive", None, lambda s: flocked(s, fcntl.LOCK_EX)),
    ("fsync", None, lambda s: os.fsync(s.fd)),
    ("fdatasync", None, lambda s: os.fdatasync(s.fd)),
    ("fsync of a directory", None, lambda s: os.fsync(s.folder_fd)),
    ("fadvise", None, lambda s: os.posix_fadvise(s.fd, 0, 0, os.POSIX_FADV_WILLNEED)),
    ("sendfile", True, sent_whole),
    ("splice", True, spliced),
    ("copy_file_range", True, copied_out),
    ("seekdir", True, sought_in_listing),
    ("listxattr", True, lambda s: "user.axonfs.sha256" in os.listxattr(s.file)),
]


def test_what_works(site: Site, tmp_path: Path) -> None:
    """Each call that only looks gives what it gives on any file system."""
    found = {name: call(site) for name, _, call in ALLOWED}
    assert found == {name: expected for name, expected, _ in ALLOWED}
    assert site.file.read_bytes() == source_bytes(tmp_path, 0, NAME)
